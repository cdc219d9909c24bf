"""The card of a version: what a student is, how good, how it was made and how it is used (Markdown, pure)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from orchestrator.evaluation.metric import CurvePoint
from orchestrator.registry.facts import SweepFacts
from orchestrator.results.bundles import CodingCosts, Spread
from orchestrator.results.front import CodedStudent
from orchestrator.trials.record import TrialRecord

PLOT = "rate-distortion.svg"
LONGEST = 5000  # characters that a database of MLflow's has for a description


def summary(student: CodedStudent, facts: SweepFacts) -> str:
    """One line: the version's description in a list."""
    against = "" if facts.anchor is None else f" against teacher {facts.anchor.teacher}"
    rate = "no BD-rate" if student.bd_rate_pct is None else f"BD-rate {student.bd_rate_pct:+.2f} %{against}"
    return (
        f"{student.trial_id}: {rate}, {student.macs_per_pixel / 1e3:.2f} kMACs a pixel, {student.params:,} parameters"
    )


def model_card(student: CodedStudent, record: TrialRecord | None, facts: SweepFacts, uri: str) -> str:
    """The card.

    Args:
        student: on the front.
        record: of its trial; None: it is gone.
        facts: of the sweep; what it does not know is left out.
        uri: that MLflow loads the version by.
    """
    parts = [
        f"# {student.trial_id}\n",
        f"{summary(student, facts)}. A learned image codec: photographs to bytes and back, without torch.\n",
        _use(uri),
        "## How good it is\n",
        *_quality(student, record, facts),
        f"![rate-distortion curves]({PLOT})\n",
        "## What it costs\n",
        table(("", "MACs a pixel"), _costs(student)),
        f"{student.params:,} parameters in the whole ladder.\n",
        *_measured(facts.costs_of(student)),
        "## How it was made\n",
        table(("", ""), _making(student, record, facts).items()),
        "## Licence\n",
        "The code that is shipped with this version: Apache-2.0. The weights come from the photographs and the teacher "
        "above; what those allow, their owners say.\n",
    ]
    return "\n".join(parts)


def described(card: str) -> str:
    """A version's description: the card without its picture, which is a file beside it, and not longer than allowed."""
    text = "\n".join(line for line in card.splitlines() if not line.startswith("!["))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 40]}\n\n... (all of it: README.md)"


def _use(uri: str) -> str:
    lines = [
        "## How to use it\n",
        "    export MLFLOW_TRACKING_URI=...                          # of the MLflow that has this version",
        f"    lic encode --model '{uri}' photograph.jpg               # photograph.lic",
        f"    lic decode --model '{uri}' photograph.lic               # photograph.png",
        f"    python -c \"import mlflow; codec = mlflow.pyfunc.load_model('{uri}')\"",
        '    # codec.predict({"data": [file_or_stream]}, params={"rate": 1.5})["data"][0]; bytes to bytes',
        "    # load_model(FOLDER), of the folder that has this README.md or of a copy, needs no database of MLflow\n",
    ]
    return "\n".join(lines)


def _quality(student: CodedStudent, record: TrialRecord | None, facts: SweepFacts) -> Iterator[str]:
    anchor, metric = facts.anchor, facts.metric
    if student.bd_rate_pct is None:
        yield f"No BD-rate: {student.bd_rate_reason}.\n"
    else:
        estimated = f"{student.estimated_bd_rate_pct:+.2f} % from estimated rates"
        yield f"BD-rate (lower is better): **{student.bd_rate_pct:+.2f} %** from real bitstreams, {estimated}.\n"
    if anchor is not None:
        yield f"It is against the curve of teacher {anchor.teacher} on the same validation crops, over {metric.label}:"
        yield f"weights SHA-256 `{anchor.weights}`, curve `{anchor.digest}`.\n"
    if student.interval_db is not None and student.overlap is not None:
        low, high = student.interval_db
        yield f"Compared from {low:.2f} to {high:.2f} dB, {100 * student.overlap:.0f} % of the student's range.\n"
    if student.points:
        yield "Coded: means over the crops, bytes of real bitstreams with their headers.\n"
        yield table(("rate", "bpp, coded", "PSNR, dB", "MS-SSIM"), map(_point, student.points))
    if record is not None and record.rungs and record.rungs[-1].points:
        yield "Estimated: by the entropy model, on the same crops.\n"
        yield table(("rate", "bpp, estimated", "PSNR, dB", "MS-SSIM"), map(_point, record.rungs[-1].points))


def _point(point: CurvePoint) -> tuple[str, ...]:
    similarity = "not measured" if point.ms_ssim is None else f"{point.ms_ssim:.4f}"
    return f"{point.rate_point:g}", f"{point.bpp:.4f}", f"{point.psnr_db:.2f}", similarity


def _costs(student: CodedStudent) -> Iterator[tuple[str, str]]:
    yield "encoding", f"{student.encoder_macs_per_pixel:,.0f}"
    yield "decoding", f"{student.decoder_macs_per_pixel:,.0f}"
    yield "both, each part once", f"{student.macs_per_pixel:,.0f}"


def _measured(costs: CodingCosts | None) -> Iterator[str]:
    if costs is None:
        return
    threads = "one thread" if costs.threads == 1 else f"{costs.threads} threads"
    picture = f"a photograph of {costs.width}x{costs.height} pixels, {costs.samples} times in all, at every rate point"
    where = f"by {threads} of {costs.processor}, other work beside it"
    yield f"Measured with this bundle under ONNX Runtime, {where}: {picture}.\n"
    times = {"encoding": costs.encode_ms_per_megapixel, "decoding": costs.decode_ms_per_megapixel}
    head = ("", "ms a megapixel, median", "lower to upper quartile")
    yield table(head, ((name, f"{spread.median:.0f}", _quartiles(spread)) for name, spread in times.items()))
    if costs.peak_memory_mb is not None:
        yield f"Peak memory of coding it: {costs.peak_memory_mb:.0f} MB, Python and libraries included.\n"


def _quartiles(spread: Spread) -> str:
    return f"{spread.lower_quartile:.0f} to {spread.upper_quartile:.0f}"


def _making(student: CodedStudent, record: TrialRecord | None, facts: SweepFacts) -> Mapping[str, str]:
    network = student.student
    loss = json.dumps(student.loss.model_dump(mode="json", exclude_defaults=True))
    made = {
        "network": f"{network.family}, N={network.N}, M={network.M}, encoder N={network.encoder_N or network.N}",
        "teacher": student.teacher or "none: a control",
        "method": f"`{loss}`",
        "start": student.loss.init_of(network),
        "images seen": f"{student.images_seen:,}",
        "weights": f"SHA-256 `{student.weights_digest}`",
        "entropy model": f"`{student.entropy_id}`",
    }
    if record is not None:
        made["seed"] = str(record.seed)
    for data in facts.datasets:
        made[f"photographs, {data.name}"] = f"{len(data.digests)}, SHA-256 of their digests `{data.digest}`"
    if facts.spec is not None:
        crops, validation = facts.spec.crops, facts.spec.validation
        made["crops"] = f"{crops.size} pixels a side; validation: {validation.crops} of {validation.size}"
    made["sweep"] = f"{facts.name}, SHA-256 of its inputs (specification, data, teachers) `{facts.sweep}`"
    if facts.versions is not None:
        made["git revision"] = facts.versions.git_revision or "none: it ran outside a repository"
    return made


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """In Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
