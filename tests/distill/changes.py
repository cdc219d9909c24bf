"""Changes of the mathematics, one at a time, each of which a golden curve must see (test_golden_sees.py).

A change replaces one name by what it makes of the original, or trains another run than the one it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from compressai.models import vbr
from torch import Tensor

from models import ladder
from orchestrator.distill import averages, engine, losses
from orchestrator.distill import loop as loops
from orchestrator.distill.distillation import Distillation
from orchestrator.distill.engine import Engine
from orchestrator.distill.noise import CropNoise
from orchestrator.features.read import reader
from orchestrator.spec.loss import Loss, LossWeights, Phase
from tests.distill import golden
from tests.distill.golden import Run

Make = Callable[[Any], Any]  # the original -> what stands in its place


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is changed, and in which run it is to be seen.

    Attributes:
        run: of `golden.RUNS`.
        steps: how many of it show the change; None: all, and what comes after them.
        owner, name, make: what is replaced, if anything is.
        other: the run that is trained in the place of `run`.
    """

    run: str
    steps: int | None = 4
    owner: Any = None
    name: str = ""
    make: Make | None = None
    other: Callable[[Run], Run] = lambda run: run

    @contextmanager
    def applied(self) -> Iterator[None]:
        if self.make is None:
            yield
            return
        losses.function_of.cache_clear()
        with patch.object(self.owner, self.name, self.make(getattr(self.owner, self.name))):
            yield
        losses.function_of.cache_clear()


def scaled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **given: 1.01 * function(*args, **given)


def without(gain: str) -> Make:
    """A function of latents without one of its two gains."""
    return lambda function: lambda *args, **given: function(*args, **{**given, gain: 1.0})


def heavier(term: str) -> Make:
    """`LossWeights.of_teacher` with 1 % more of a term."""
    return lambda weights: property(
        lambda self: {name: weight * (1.01 if name == term else 1) for name, weight in weights.fget(self).items()}
    )


def phase_with(**update: Any) -> Make:
    return lambda phase_at: lambda *args: phase_at(*args).model_copy(update=update)


def trained_with(**training: Any) -> Callable[[Run], Run]:
    return lambda run: replace(run, training={**run.training, **training})


def with_betas(*betas: float) -> Make:
    return lambda init: lambda self, *args, **given: init(self, *args, **{**given, "betas": betas})


def with_offsets(factor: float) -> Make:
    """The forward of CompressAI's variable-rate networks with other offsets of dequantisation."""

    def make(forward: Any) -> Any:
        def changed(network: Any, *args: Any, **given: Any) -> Any:
            offsets = network.QuantABCD.forward
            with patch.object(network.QuantABCD, "forward", lambda values: factor * offsets(values)):
                return forward(network, *args, **given)

        return changed

    return make


def _attention(norm: Callable[[Tensor], Tensor]) -> Make:
    return lambda _: lambda own, target: (norm(own) - norm(target)).square().flatten(1).sum(dim=1).mean()


def _divergence(dim: int, *, swapped: bool = False) -> Make:
    def changed(own: Tensor, target: Tensor, *, gain: float, teacher_gain: float) -> Tensor:
        q, p = torch.log_softmax(gain * own, dim=dim), torch.log_softmax(teacher_gain * target, dim=dim)
        p, q = (q, p) if swapped else (p, q)
        return (p.exp() * (p - q)).sum(dim=dim).mean()

    return lambda _: changed


def _summed_over_channels(distortion: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda own, *rest, **given: own.shape[1] * distortion(own, *rest, **given)


_WEIGHTS = {
    "latent": "prim-l1",
    "reconstruction": "prim-l1",
    "hyper_latent": "prim-l2",
    "latent_kl": "rest",
    "spatial_attention": "feds",
    "channel_attention": "feds",
    "channel_entropy": "feds-single-phase",
}
_FUNCTIONS = {
    "bits_per_pixel": "none",
    "image_distortion": "none",
    "latent_distortion": "prim-hybrid",
    "latent_divergence": "rest",
    "weighted_latent_distortion": "feds-single-phase",
    "attention_distance": "feds-no-entropy",
}

TERMS: Mapping[str, Change] = {
    **{
        f"1 % more weight on {term}": Change(run=run, owner=LossWeights, name="of_teacher", make=heavier(term))
        for term, run in _WEIGHTS.items()
    },
    **{
        f"{function} 1 % larger": Change(run=run, owner=losses, name=function, make=scaled)
        for function, run in _FUNCTIONS.items()
    },
    "latent without the student's gain": Change(
        run="prim-l1", owner=losses, name="latent_distortion", make=without("gain")
    ),
    "latent without the teacher's gain": Change(
        run="prim-l1", owner=losses, name="latent_distortion", make=without("teacher_gain")
    ),
    "latent_kl without the student's gain": Change(
        run="rest", steps=12, owner=losses, name="latent_divergence", make=without("gain")
    ),
    "channel_entropy without the student's gain": Change(
        run="feds-single-phase", owner=losses, name="weighted_latent_distortion", make=without("gain")
    ),
    "channel_entropy without the teacher's gain": Change(
        run="feds-single-phase", owner=losses, name="weighted_latent_distortion", make=without("teacher_gain")
    ),
    "latent summed over channels": Change(
        run="prim-l1", owner=losses, name="latent_distortion", make=_summed_over_channels
    ),
    "latent_kl over rows": Change(run="rest", owner=losses, name="latent_divergence", make=_divergence(2)),
    "latent_kl the other way": Change(
        run="rest", owner=losses, name="latent_divergence", make=_divergence(1, swapped=True)
    ),
    "attention without unit vectors": Change(
        run="feds", owner=losses, name="attention_distance", make=_attention(lambda a: a)
    ),
    "attention with one norm a batch": Change(
        run="feds", owner=losses, name="attention_distance", make=_attention(lambda a: a / a.norm())
    ),
    "attention of the fourth power of features": Change(
        run="feds", owner=ladder, name="reduced", make=lambda reduced: lambda *args: reduced(*args) ** 2
    ),
    "channels weighted alike": Change(
        run="feds-single-phase",
        owner=Distillation,
        name="channel_weights",
        make=lambda weights: lambda *args: torch.full_like(weights(*args), 1 / len(weights(*args))),
    ),
    "channels weighted as at the next rate point": Change(
        run="feds-single-phase",
        owner=Distillation,
        name="channel_weights",
        make=lambda weights: lambda self, rate_point: weights(self, (rate_point + 1) % golden.RATE_POINTS),
    ),
    "the teacher's gain of the next rate point": Change(
        run="prim-l1",
        owner=Distillation,
        name="gain",
        make=lambda gain: lambda self, term, rate_point: gain(self, term, (rate_point + 1) % golden.RATE_POINTS),
    ),
    "the hybrid's z of the highest rate point": Change(
        run="prim-hybrid", owner=Loss, name="rate_point", make=lambda _: lambda self, term, count: count - 1
    ),
    "the teacher's latents 1 % larger": Change(
        run="prim-l1",
        owner=reader,
        name="floats",
        make=lambda floats: lambda form, rows: floats(form, rows) * (1.01 if form.codec == "q8" else 1),
    ),
}

TRAINING: Mapping[str, Change] = {
    "phases a step later": Change(
        run="feds",
        steps=80,
        owner=loops,
        name="phase_at",
        make=lambda at: lambda phases, share: at(phases, share - 0.005),
    ),
    "a phase without its learning rate": Change(
        run="rest", steps=28, owner=loops, name="phase_at", make=phase_with(learning_rate=1.0)
    ),
    "nothing frozen": Change(run="rest", steps=28, owner=loops, name="phase_at", make=phase_with(freeze=())),
    "the quantised latent that modules apart decode 1 % larger": Change(
        run="inherit",
        owner=ladder.RateLadder,
        name="apart",
        make=lambda apart: lambda self, x, latent, *others: apart(self, x, 1.01 * latent, *others),
    ),
    "an auxiliary loss beside modules apart": Change(
        run="inherit",
        steps=120,
        owner=Phase,
        name="frozen",
        make=lambda _: property(lambda self: frozenset(self.freeze)),
    ),
    "stage 1 a step longer": Change(run="rest", steps=12, other=lambda run: replace(run, stage_one=run.stage_one + 1)),
    "a learning rate 1 % higher": Change(
        run="none", owner=golden, name="cosine", make=lambda cosine: lambda rate, images: cosine(1.01 * rate, images)
    ),
    "a learning rate that falls a step later": Change(
        run="none", owner=golden, name="cosine", make=lambda cosine: lambda rate, images: cosine(rate, images + 4)
    ),
    "clipping 1 % later": Change(run="none", other=trained_with(clip_norm=1.01)),
    "micro-batches clipped 1 % later": Change(run="rest", other=trained_with(clip_norm=0.303)),
    "no auxiliary loss": Change(
        run="none", steps=20, owner=Engine, name="_step_quantiles", make=lambda _: lambda self, applied: None
    ),
    "an auxiliary learning rate 1 % higher": Change(
        run="none", steps=60, other=trained_with(aux_learning_rate=1.01e-3)
    ),
    "another decay of Adam's second moment": Change(
        run="none", owner=torch.optim.Adam, name="__init__", make=with_betas(0.9, 0.998)
    ),
    "another decay of Adam's first moment": Change(
        run="none", owner=torch.optim.Adam, name="__init__", make=with_betas(0.89, 0.999)
    ),
    "averages that decay 1 % more slowly": Change(run="rest", steps=None, other=trained_with(ema=0.505)),
    "raw weights validated": Change(
        run="rest", steps=None, owner=averages.Averages, name="in_place", make=lambda _: lambda self: nullcontext()
    ),
    "noise of another seed": Change(
        run="none", owner=engine, name="CropNoise", make=lambda noise: lambda network, seed: noise(network, seed + 1)
    ),
    "averages of another network": Change(
        run="fixed-lambda",
        steps=None,
        owner=averages.Averages,
        name="follow",
        make=lambda follow: lambda self, network, applied: follow(self, (network + 1) % golden.RATE_POINTS, applied),
    ),
    "noise of another step": Change(
        run="none",
        owner=CropNoise,
        name="begin",
        make=lambda begin: lambda self, crops, step, noise: begin(self, crops, 0),
    ),
    "noise of another crop": Change(
        run="none",
        owner=CropNoise,
        name="begin",
        make=lambda begin: lambda self, crops, step, noise: begin(self, crops[::-1], step),
    ),
    "rounding without a gradient": Change(
        run="none", owner=vbr, name="quantize_ste", make=lambda _: lambda values: values.round().detach()
    ),
    "no rounding": Change(run="none", owner=vbr, name="quantize_ste", make=lambda _: lambda values: values),
    "rounding down": Change(
        run="none",
        steps=20,
        owner=vbr,
        name="quantize_ste",
        make=lambda _: lambda values: (values.floor() - values).detach() + values,
    ),
    "no offsets of dequantisation": Change(
        run="none", steps=60, owner=vbr.ScaleHyperpriorVbr, name="forward", make=with_offsets(0.0)
    ),
    "offsets of dequantisation 1 % smaller": Change(
        run="none", steps=60, owner=vbr.ScaleHyperpriorVbr, name="forward", make=with_offsets(0.99)
    ),
    "gains 1 % larger": Change(
        run="none",
        owner=ladder,
        name="ladder_gains",
        make=lambda gains: lambda *args: tuple(1.01 * gain for gain in gains(*args)),
    ),
    "batches in another order": Change(
        run="none",
        owner=reader,
        name="batch_at",
        make=lambda batch_at: lambda plan, step, size, seed: batch_at(plan, step, size, seed + 1),
    ),
}

CHANGES: Mapping[str, Change] = {**TERMS, **TRAINING, "nothing": Change(run="prim-l1")}
