"""Decodes every encoder's bitstreams with every decoder of one entropy model, so that a shelf states what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ray

from orchestrator.evaluation.bd_rate import BDRate, bd_rate
from orchestrator.evaluation.metric import CurvePoint, Measured, Metric
from orchestrator.features.fill.fill import answer_of
from orchestrator.photographs.crops import Crop
from orchestrator.photographs.photos import Photograph
from orchestrator.results.files import needed, read_file, write_file
from orchestrator.results.front import CODED_ANCHOR, CodedCurve, CodedStudent
from orchestrator.results.interchange import INTERCHANGE, Exchange, Interchange
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import pictures
from orchestrator.trials.weights import read_weights

Crops = Sequence[tuple[Photograph, Crop]]


@ray.remote(num_cpus=1)
def _exchange(encoder: bytes, decoders: Mapping[str, bytes], crops: Crops) -> dict[str, list[CurvePoint]]:
    """Decoder's trial -> the curve of the encoder's streams, decoded by it."""
    import torch

    from models.bitstream import decode_image, encode_image, prepare_for_coding
    from models.weights import ladder_from
    from orchestrator.evaluation.rate_distortion import curve, distortions

    torch.set_num_threads(1)
    coding = prepare_for_coding(ladder_from(encoder))
    others = {name: prepare_for_coding(ladder_from(weights)) for name, weights in decoders.items()}
    measured: dict[str, list[Measured]] = {name: [] for name in decoders}
    for name, rgb in pictures(crops):
        for rate_point in range(len(coding.ladder.lambdas)):
            stream = encode_image(coding, rgb, rate_point)
            bpp = 8 * len(stream) / (rgb.shape[0] * rgb.shape[1])
            for trial_id, other in others.items():
                figures = distortions(rgb, decode_image(other, stream))
                measured[trial_id].append(Measured(photograph=name, rate_point=rate_point, bpp=bpp, **figures))
    return {trial_id: curve(rows) for trial_id, rows in measured.items()}


def exchange(
    front: Sequence[CodedStudent], run: Store, crops: Crops, metric: Metric, say: Callable[[str], None]
) -> None:
    """Write interchange.json, unless it is there for these weights. Ray must run.

    Args:
        front: its students, coded.
        run: the run folder.
        crops: of the validation photographs.
        metric: of the sweep.
        say: takes a line of progress.

    Raises:
        FormatError: it is of another format.
        LostWeights: weights are gone or damaged.
    """
    weights = {student.trial_id: student.weights_digest for student in front}
    before = read_file(run, INTERCHANGE, Interchange)
    if before is not None and before.weights == weights:
        return
    anchor = metric.curve(needed(run, CODED_ANCHOR, CodedCurve).points)
    content = {student.trial_id: read_weights(run, student) for student in front}
    tasks = {}
    for student in front:
        readers = {other.trial_id for other in front if other.entropy_id == student.entropy_id}
        decoders = {name: content[name] for name in sorted(readers)}
        tasks[student.trial_id] = _exchange.remote(content[student.trial_id], decoders, crops)
    exchanges = []
    for student in front:
        for decoder, points in answer_of(tasks[student.trial_id]).items():
            result = bd_rate(anchor, metric.curve(points))
            exchanges.append(
                Exchange(
                    encoder=student.trial_id,
                    decoder=decoder,
                    entropy_id=student.entropy_id,
                    points=tuple(points),
                    bd_rate_pct=result.pct if isinstance(result, BDRate) else None,
                )
            )
    write_file(run, INTERCHANGE, Interchange(weights=weights, exchanges=tuple(exchanges)))
    say(f"interchange: {len(exchanges)} pairs of {len(front)} encoders and decoders read each other's streams")
