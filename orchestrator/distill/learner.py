"""A student in training, with what only training needs: maps from its channels to its teacher's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from models.ladder import LadderOutput, RateLadder
from models.taps import reduced


class Learner(nn.Module):
    """A ladder, and a 1x1 convolution for each tap whose channels differ in number from the teacher's.

    A map begins as the identity on the channels that both have. It is trained with the student and saved in
    checkpoints, but it is not exported.

    Args:
        ladder: the student.
        widths: tap of the student -> its channels there and the teacher's.
    """

    def __init__(self, ladder: RateLadder, widths: Mapping[str, tuple[int, int]] | None = None) -> None:
        super().__init__()
        self.ladder = ladder
        differing = {tap: pair for tap, pair in (widths or {}).items() if pair[0] != pair[1]}
        self._names = {tap: f"map-{index}" for index, tap in enumerate(sorted(differing))}
        self.maps = nn.ModuleDict()
        for tap, name in self._names.items():
            channels = nn.Conv2d(*differing[tap], kernel_size=1, bias=False)
            nn.init.dirac_(channels.weight)
            self.maps[name] = channels

    def forward(
        self,
        x: Tensor,
        rate_point: int,
        stage: int = 2,
        taps: Sequence[str] = (),
        parts: Collection[str] | None = None,
        latent: Tensor | None = None,
    ) -> LadderOutput:
        """As `RateLadder.forward`, but taps, `y` included, have the teacher's channels. Raises what it raises.

        Args:
            parts: the transforms that `RateLadder.apart` runs in place of the codec; None: the codec.
            latent: of the teacher, for it.
        """
        # A map comes before the reduction, which is not linear.
        whole = {tap: f"{tap.rpartition(':')[0]}:raw" if ":" in tap else tap for tap in self._names}
        if parts is None:
            output = self.ladder(x, rate_point, stage, taps=tuple({whole.get(tap, tap) for tap in taps}))
        else:
            output = self.ladder.apart(x, latent, rate_point, parts)
        for tap in {"y", *taps} & self._names.keys() if parts is None or "g_a" in parts else ():
            output[tap] = reduced(self.maps[self._names[tap]](output[whole[tap]]), tap.rpartition(":")[2])
        return output
