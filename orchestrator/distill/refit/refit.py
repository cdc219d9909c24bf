"""A narrow network whose layers are refitted to a wide one's activations: distillation in closed form.

From the input on, layer by layer: of the teacher's channels those are kept that matter to the next layer (channels.py);
the student's convolution gets the weights that give, from the student's own activations, the teacher's outputs of the
channels that are kept (least_squares.py); GDN's parameters are the kept channels', with what the others added to their
norms folded in. The last layer of g_a is fitted to y, that of g_s to the decoded photograph, from the teacher's
quantised latent. No gradient is followed.

A network whose transforms are built otherwise than its teacher's is refitted where the layers have a counterpart: the
first one, if the same layers follow it, and the last one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from compressai.layers import GDN
from torch import Tensor, nn

from models.ladder import RateLadder
from models.weights import slice_from
from orchestrator.distill.refit.channels import Sensitivity, by_activation, least_redundant, sensitivities
from orchestrator.distill.refit.least_squares import Convolution, NormalEquations, fits, set_weights, weight_matrix
from orchestrator.spec.sections import Refit

RIDGE = 1e-6  # see NormalEquations.solve
ROWS_PER_WEIGHT = 10  # output positions that a layer is fitted to, per weight that they read
BATCH = 8  # crops at once


@dataclass(frozen=True, kw_only=True)
class LayerFit:
    """One layer: how far its output is from the teacher's on the fitted crops, as a share of that output's variance."""

    path: str
    relative_error: float


@dataclass(frozen=True, kw_only=True)
class RefitReport:
    """What was refitted, and which parts of the transforms were not."""

    layers: tuple[LayerFit, ...]
    sliced: tuple[str, ...]  # layers with parameters that are the teacher's leading channels, or random

    @property
    def in_words(self) -> str:
        """The error of each transform's last layer, of several networks the largest, and what was not refitted."""
        last = {tuple(layer.path.split(".")[:2]): 100 * layer.relative_error for layer in self.layers}
        worst = {name: max(error for (_, of), error in last.items() if of == name) for _, name in last}
        errors = ", ".join(f"{transform} is off by {error:.1f} % of its variance" for transform, error in worst.items())
        return errors + (f"; not refitted: {', '.join(self.sliced)}" if self.sliced else "")


def refit(
    student: RateLadder,
    teacher: RateLadder,
    crops: Sequence[tuple[Tensor, int]],
    how: Refit,
    transforms: Collection[str] = ("g_a", "g_s"),
) -> RefitReport:
    """Give a student its first weights.

    What is not in the transforms (hyperprior, entropy model) becomes the leading channels of the teacher's: all of
    them, if M and Z are equal. So does a transform that is not refitted.

    Args:
        student: with the teacher's kind and number of rate points; all its parameters are replaced where the teacher
            has a counterpart.
        teacher: a ladder that is at least as wide.
        crops: [3, H, W] in 0..1, each with its rate point, at which a variable-rate network codes it; a fixed-lambda
            network codes all of them.
        how: the criterion.
        transforms: that are refitted.
    """
    slice_from(student, teacher)
    student.eval()
    teacher.eval()
    layers: list[LayerFit] = []
    sliced: list[str] = []
    for index, (narrow, wide) in enumerate(zip(student.networks, teacher.networks, strict=True)):
        # a network of one lambda codes every crop at it
        batches = _batches([(x, at if student.kind == "variable-rate" else index) for x, at in crops])
        sensitive = {}
        if how.criterion != "activation":
            layers_of = [*_flat(wide.g_a).values(), *_flat(wide.g_s).values()]
            sensitive = sensitivities(teacher, batches, layers_of)
        with torch.no_grad():
            pixels = [x for x, _ in batches]
            coded = [teacher(x, rate_point, taps=("y_hat",)) for x, rate_point in batches]
            latents = [output["y_hat"][:, : student.M] for output in coded]
            wide_latents = [output["y_hat"] for output in coded]
            for name, inputs, wide_inputs in (("g_a", pixels, pixels), ("g_s", latents, wide_latents)):
                if name not in transforms:
                    continue
                fitter, prefix = _Fitter(getattr(narrow, name), getattr(wide, name), how, sensitive), f"{index}.{name}"
                fitter.fit(inputs, wide_inputs)
                layers += [LayerFit(path=f"{prefix}.{path}", relative_error=e) for path, e in fitter.fits.items()]
                sliced += [f"{prefix}.{path}" for path in fitter.sliced]
    return RefitReport(layers=tuple(layers), sliced=tuple(sliced))


class _Fitter:
    """Refits one transform.

    Args:
        narrow: of the student, with sliced weights.
        wide: of the teacher.
        how: the criterion.
        sensitive: layer of the teacher -> what its loss says of it; empty for the criterion `activation`.
    """

    def __init__(
        self, narrow: nn.Sequential, wide: nn.Sequential, how: Refit, sensitive: Mapping[nn.Module, Sensitivity]
    ) -> None:
        self._narrow, self._wide = _flat(narrow), _flat(wide)
        self._transform = wide
        self._how, self._sensitive = how, sensitive
        self._generator = torch.Generator().manual_seed(0)
        pairs = list(zip(self._narrow.values(), self._wide.values(), strict=False))
        differing = (place for place, (own, other) in enumerate(pairs) if not _counterparts(own, other))
        self._alike = next(differing, len(pairs))  # so many layers from the first on have a counterpart
        whole = self._alike == len(self._narrow) == len(self._wide)
        # a layer that is not refitted reads the leading channels
        self._chooses = whole and all(fits(layer) or isinstance(layer, GDN) for layer in self._narrow.values())
        if not whole:  # the last layer is fitted to the transform's output by itself
            self._alike = min(self._alike, len(self._narrow) - 1)
        self.fits: dict[str, float] = {}  # path -> relative error

    def fit(self, inputs: Sequence[Tensor], wide_inputs: Sequence[Tensor]) -> None:
        """Refits what can be.

        Args:
            inputs: batches of what the student's transform reads.
            wide_inputs: of what the teacher's does.
        """
        own, other, kept = list(inputs), list(wide_inputs), list(range(inputs[0].shape[1]))
        layers = list(self._wide.values())
        for place, (path, layer) in enumerate(self._narrow.items()):
            if place >= self._alike:
                if place == len(self._narrow) - 1 and fits(layer):
                    wanted = [self._transform(x)[:, : layer.out_channels] for x in wide_inputs]
                    self.fits[path] = self._fit_layer(layer, own, wanted)
                own = [layer(x) for x in own]
                continue
            counterpart, before = layers[place], kept
            other_before, other = other, [counterpart(x) for x in other]
            if fits(layer) and fits(counterpart):
                kept = self._kept(place, layer.out_channels, other)
                set_weights(layer, _block(counterpart, before, kept))
                self.fits[path] = self._fit_layer(layer, own, [x[:, kept] for x in other])
            elif isinstance(layer, GDN) and isinstance(counterpart, GDN):
                _fold(layer, counterpart, kept, other_before)
            own = [layer(x) for x in own]

    @property
    def sliced(self) -> list[str]:
        """Layers with parameters that were not refitted."""
        folded = {path for place, path in enumerate(self._narrow) if place < self._alike}
        return [
            path
            for path, layer in self._narrow.items()
            if path not in self.fits
            and any(True for _ in layer.parameters())
            and not (path in folded and isinstance(layer, GDN))
        ]

    def _fit_layer(self, layer: Convolution, inputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
        """Gives the layer its weights; the relative error of its output."""
        equations = NormalEquations(layer, ROWS_PER_WEIGHT / len(inputs), self._generator)
        for x, y in zip(inputs, wanted, strict=True):
            equations.add(x, y)
        set_weights(layer, equations.solve(RIDGE).float())
        error = sum(float((layer(x) - y).square().sum()) for x, y in zip(inputs, wanted, strict=True))
        spread = torch.cat([y.transpose(0, 1).flatten(1) for y in wanted], dim=1)
        spread = (spread - spread.mean(dim=1, keepdim=True)).square().sum()
        return error / max(float(spread), 1e-12)

    def _kept(self, place: int, count: int, outputs: Sequence[Tensor]) -> list[int]:
        """The teacher's channels, rising, that a convolution's `count` outputs stand for.

        Args:
            place: of the convolution among the layers.
            count: how many.
            outputs: of the teacher's.
        """
        layers = list(self._wide.values())
        channels = outputs[0].shape[1]
        reader = next((layer for layer in layers[place + 1 :] if fits(layer)), None)
        if count == channels or reader is None or not self._chooses:
            return list(range(count))
        read, last = outputs, layers[place]
        for layer in layers[place + 1 : layers.index(reader)]:
            read, last = [layer(x) for x in read], layer
        if self._how.criterion == "redundancy":
            equations = NormalEquations(reader, ROWS_PER_WEIGHT / len(read), self._generator)
            for x in read:
                equations.add(x, None)
            worth = self._sensitive[reader].error
            gram = equations.ridged(RIDGE)
            return least_redundant(gram, weight_matrix(reader), worth, channels, count)
        activation = self._how.criterion == "activation"
        score = by_activation(read, reader) if activation else self._sensitive[last].removal
        return sorted(score.topk(count).indices.tolist())


def _flat(transform: nn.Sequential) -> dict[str, nn.Module]:
    """A transform's layers by path, those of nested plain sequences one by one."""
    layers: dict[str, nn.Module] = {}
    for path, layer in transform.named_children():
        if type(layer) is nn.Sequential:
            layers |= {f"{path}.{inner}": module for inner, module in _flat(layer).items()}
        else:
            layers[path] = layer
    return layers


def _counterparts(own: nn.Module, other: nn.Module) -> bool:
    """Whether two layers differ in their channels alone."""
    if type(own) is not type(other):
        return False
    if not isinstance(own, Convolution) or not isinstance(other, Convolution):
        return True
    settings = ("kernel_size", "stride", "padding", "output_padding", "dilation", "groups")
    return all(getattr(own, name) == getattr(other, name) for name in settings)


def _block(layer: Convolution, inputs: Sequence[int], outputs: Sequence[int]) -> Tensor:
    """The weight matrix of some of a layer's channels."""
    matrix = weight_matrix(layer)
    weights = matrix[:-1].unflatten(0, (layer.in_channels, -1))[list(inputs)][:, :, list(outputs)]
    return torch.cat((weights.flatten(0, 1), matrix[-1:, list(outputs)]))


def _fold(narrow: GDN, wide: GDN, kept: Sequence[int], inputs: Sequence[Tensor]) -> None:
    """GDN's norms of the kept channels, beta + gamma x^2, with the mean of what the others add to them.

    Args:
        kept: the teacher's channels.
        inputs: of the teacher's GDN, batches [B, C, h, w].
    """
    beta, gamma = wide.beta_reparam(wide.beta), wide.gamma_reparam(wide.gamma)
    squares = torch.stack([x.square().mean(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
    squares[list(kept)] = 0
    narrow.beta.copy_(narrow.beta_reparam.init((beta + gamma @ squares)[list(kept)]))
    narrow.gamma.copy_(narrow.gamma_reparam.init(gamma[list(kept)][:, list(kept)]))


def _batches(crops: Sequence[tuple[Tensor, int]]) -> list[tuple[Tensor, int]]:
    """Batches of crops of one rate point."""
    by_rate: dict[int, list[Tensor]] = {}
    for x, rate_point in crops:
        by_rate.setdefault(rate_point, []).append(x)
    return [
        (torch.stack(of_rate[start : start + BATCH]), rate_point)
        for rate_point, of_rate in sorted(by_rate.items())
        for start in range(0, len(of_rate), BATCH)
    ]
