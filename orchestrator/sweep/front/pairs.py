"""Scores pairs of a shelf's encoders and decoders, and makes the first weights of those that are trained on.

An encoder codes the validation crops once, whatever the number of decoders; then each decoder decodes what all encoders
gave. Rates are estimated, as at a rung.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from orchestrator.distill.joined import joined_name, make_joined
from orchestrator.distill.refit.stored import is_whole
from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.metric import CurvePoint, Measured
from orchestrator.features.fill.fill import answer_of
from orchestrator.photographs.crops import Crop
from orchestrator.photographs.photos import Photograph
from orchestrator.results.shelf import Pair
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import pictures
from orchestrator.trials.record import TrialRecord
from orchestrator.trials.weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor

Crops = Sequence[tuple[Photograph, Crop]]


@dataclass(frozen=True, kw_only=True)
class Latent:
    """What an encoder makes of a crop at a rate point."""

    rate_point: int
    bpp: float  # estimated
    y_hat: Tensor  # [1, M, h, w], as g_s reads it


@ray.remote(num_cpus=1)
def _encode(weights: bytes, crops: Crops) -> list[list[Latent]]:
    """For each crop the latents of all rate points."""
    import torch

    from models.bitstream import to_padded_tensor
    from models.weights import ladder_from
    from orchestrator.evaluation.rate_distortion import bits_of

    torch.set_num_threads(1)
    ladder = ladder_from(weights)
    found = []
    for _, rgb in pictures(crops):
        of_crop = []
        for rate_point in range(len(ladder.lambdas)):
            with torch.no_grad():
                output = ladder(to_padded_tensor(rgb), rate_point, taps=("y_hat",))
            bpp = bits_of(output) / (rgb.shape[0] * rgb.shape[1])
            of_crop.append(Latent(rate_point=rate_point, bpp=bpp, y_hat=output["y_hat"]))
        found.append(of_crop)
    return found


@ray.remote(num_cpus=1)
def _decode(weights: bytes, crops: Crops, *encoded: list[list[Latent]]) -> list[list[CurvePoint]]:
    """For each encoder its curve with this decoder."""
    import torch

    from models.bitstream import to_rgb
    from models.weights import ladder_from
    from orchestrator.evaluation.rate_distortion import curve, distortions

    torch.set_num_threads(1)
    ladder, seen = ladder_from(weights), pictures(crops)
    curves = []
    for latents in encoded:
        measured = []
        for (name, rgb), of_crop in zip(seen, latents, strict=True):
            for latent in of_crop:
                with torch.no_grad():
                    x_hat: Any = ladder.apart(None, latent.y_hat, latent.rate_point, ("g_s",))["x_hat"]
                decoded = to_rgb(x_hat[0, :, : rgb.shape[0], : rgb.shape[1]])
                figures = distortions(rgb, decoded)
                measured.append(Measured(photograph=name, rate_point=latent.rate_point, bpp=latent.bpp, **figures))
        curves.append(curve(measured))
    return curves


def score(
    pairs: Sequence[Pair],
    halves: Mapping[str, TrialRecord],
    run: Store,
    anchor: Anchor,
    crops: Crops,
    say: Callable[[str], None],
) -> list[Pair]:
    """The pairs with their scores. Ray must run.

    Args:
        pairs: of two trained halves each.
        halves: trial id -> its record.
        run: the run folder, with the halves' weights.
        anchor: of the sweep.
        crops: of the validation photographs.
        say: takes a line of progress.

    Raises:
        LostWeights: the weights of a half are gone or damaged.
    """
    encoders = list(dict.fromkeys(pair.encoder for pair in pairs if pair.encoder is not None))
    decoders = list(dict.fromkeys(pair.decoder for pair in pairs if pair.decoder is not None))
    encoded = {name: _encode.remote(read_weights(run, halves[name]), crops) for name in encoders}
    tasks = {}
    for name in decoders:
        partners = [pair.encoder for pair in pairs if pair.decoder == name and pair.encoder is not None]
        latents = [encoded[partner] for partner in partners]
        tasks[_decode.remote(read_weights(run, halves[name]), crops, *latents)] = (name, partners)
    found: dict[tuple[str, str], list[CurvePoint]] = {}
    while tasks:
        (done, *_), _ = ray.wait(list(tasks), num_returns=1)
        decoder, partners = tasks.pop(done)
        found |= {(partner, decoder): points for partner, points in zip(partners, answer_of(done), strict=True)}
        say(f"pairs: {len(found)} of {len(pairs)} scored")
    scored = []
    for pair in pairs:
        points = found[str(pair.encoder), str(pair.decoder)]
        score = anchor.score(points)
        figures = {"bd_rate_pct": score.bd_rate_pct, "log_lagrangian_ratio": score.log_lagrangian_ratio}
        scored.append(pair.model_copy(update={**figures, "points": tuple(points)}))
    return scored


@ray.remote(num_cpus=1)
def _join(store: Store, name: str, encoder: bytes, decoder: bytes) -> None:
    make_joined(store, name, encoder, decoder)


def make_first_weights(
    chosen: Sequence[tuple[TrialRecord, TrialRecord]], run: Store, store: Store
) -> dict[tuple[str, str], str]:
    """The names in the store of pairs' first weights, which are made where they are missing. Ray must run.

    Args:
        chosen: encoder and decoder of each pair.
        run: the run folder, with the halves' weights.
        store: of the features.

    Raises:
        LostWeights: the weights of a half are gone or damaged.
        StoreError: a store cannot be used.
    """
    names = {}
    tasks = []
    for encoder, decoder in chosen:
        name = joined_name(str(encoder.weights_digest), str(decoder.weights_digest))
        names[encoder.trial_id, decoder.trial_id] = name
        if not is_whole(store, name):
            tasks.append(_join.remote(store, name, *(read_weights(run, half) for half in (encoder, decoder))))
    for task in tasks:
        answer_of(task)
    return names
