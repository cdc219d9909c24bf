"""Whether the nodes' caches will have room for decoded shards (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.features.read.node_cache import DECODED_SIZE, fits_decoded
from orchestrator.sweep.forecast.calibration import FillSeconds


@dataclass(frozen=True, kw_only=True)
class DecodedCache:
    """The nodes' caches, if they are to keep shards decoded; see `NodeCacheSection`."""

    nodes: int
    limit_bytes: int  # of each
    crops: int  # of the plan

    def fits(self, fills: Sequence[FillSeconds]) -> bool:
        """Whether they will: a reader decides by all that is stored of the pixels and of its teacher.

        Args:
            fills: of all feature plans.
        """
        return fits_decoded(self._stored_bytes(fills), self.limit_bytes)

    def line(self, fills: Sequence[FillSeconds]) -> str:
        """What `--plan` says of it."""
        needed = f"room for {DECODED_SIZE * self._stored_bytes(fills) / 1e9:.3g} GB of decoded shards is needed"
        kept = "decoded" if self.fits(fills) else "as they are stored"
        return f"node_cache.gigabytes: {self.limit_bytes / 1e9:g}; {needed}: they are kept {kept}"

    def _stored_bytes(self, fills: Sequence[FillSeconds]) -> float:
        """Of the pixels and of the teacher with the most."""
        sizes = {fill.title: sum(fill.tap_bytes.values()) for fill in fills}
        return self.crops * (sizes.pop("pixels", 0.0) + max(sizes.values(), default=0.0))
