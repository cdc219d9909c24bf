"""What a crop takes in the store, tap by tap, and what quantising targets changes in the losses.

    python -m benchmarks.cache.taps --student WEIGHTS [--photographs FOLDER ...] [--crops 320]

Bytes of 256x256 crops in shards as they are stored, headers included, beside the same (reduced) tap in fp16, raw and in
a zstd frame a crop. Goals: y + x_hat within 120 KiB a crop; y + attention maps and channel statistics of g_a.1, g_a.3
and g_a.5 within 45 KiB.

Error of a loss term: |term(stored) - term(exact)| / term(exact), for a trained student against the teacher's outputs as
they are read back from the store and as they were (fp32); median and maximum over batches of 8 crops and rate points.
Attention terms are the mean squared difference of maps (or statistics) of length 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, TRAIN, WEIGHTS, facts, photographs, write
from models.ladder import RateLadder
from models.weights import load_ladder
from orchestrator.distill.losses import attention_distance, image_distortion, latent_distortion
from orchestrator.features.format.blob import MemoryBlob
from orchestrator.features.format.tap_file import StoredTap, encode
from orchestrator.photographs.crops import CropPlan, cut, plan_crops
from orchestrator.photographs.photos import Photograph, load_rgb
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import Crops

BATCH = 8
LAYERS = ("g_a.1", "g_a.3", "g_a.5")
SPATIAL, CHANNEL = (tuple(f"{layer}:{kind}" for layer in LAYERS) for kind in ("spatial", "channel"))
TAPS = ("y", "z", "x_hat", *SPATIAL, *CHANNEL)
SUMS = {"y + x_hat": (("y", "x_hat"), 120), "y + attention": (("y", *SPATIAL, *CHANNEL), 45)}  # taps, goal in KiB


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    machine = facts()
    chosen = photographs(options.photographs, options.size)
    student, teachers = load_ladder(options.student), {Path(path).stem: load_ladder(path) for path in options.teachers}
    plan = plan_crops(chosen, Crops(count=options.crops, size=options.size), len(student.lambdas), seed=0)
    figures: dict[str, Any] = {}
    for name, teacher in teachers.items():
        figures[name] = measure(teacher, student, plan, {photograph.digest: photograph for photograph in chosen})
        _summarise(name, figures[name])
    settings = {
        "photographs": len(chosen),
        "crops": options.crops,
        "crop_size": options.size,
        "rate_points": plan.rate_points,
        "batch_size": BATCH,
        "student": Path(options.student).stem,
        "goals_kib": {name: goal for name, (_, goal) in SUMS.items()},
    }
    write(options.results, "taps", machine, {"settings": settings, "teachers": figures})
    return 0


def measure(
    teacher: RateLadder, student: RateLadder, plan: CropPlan, by_digest: Mapping[str, Photograph]
) -> dict[str, Any]:
    """Sizes by tap and errors by term, over all shards of a plan."""
    sizes: dict[str, list[dict[str, float]]] = {tap: [] for tap in ("x", *TAPS)}
    errors: dict[str, list[dict[str, float]]] = {}
    for ids in plan.shards:
        crops = [plan.crops[index] for index in ids]
        rate_point = crops[0].rate_point
        pixels = np.stack([cut(load_rgb(by_digest[crop.photograph]), crop).transpose(2, 0, 1) for crop in crops])
        x = torch.from_numpy(pixels).float().div(255)
        exact, own = _outputs(teacher, x, rate_point), _outputs(student, x, rate_point)
        stored = {tap: _stored(tap, values) for tap, values in exact.items()}
        for tap, (size, _) in {**stored, "x": _stored("x", x)}.items():
            values = exact.get(tap, x)
            sizes[tap].append(
                {
                    "rate_point": rate_point,
                    "crops": len(ids),
                    "stored": size / len(ids),
                    "fp16": values[0].numel() * 2,
                    "fp16_zstd": _fp16_zstd(values) / len(ids),
                }
            )
        for start in range(0, len(ids) - BATCH + 1, BATCH):
            rows = slice(start, start + BATCH)
            for term, (wanted, got) in _terms(own, exact, stored, rows, student, teacher, rate_point).items():
                error = abs(got - wanted) / wanted
                errors.setdefault(term, []).append(
                    {"rate_point": rate_point, "exact": wanted, "stored": got, "relative_error": error}
                )
    by_tap = {tap: _mean(rows) for tap, rows in sizes.items()}
    return {
        "bytes_a_crop": by_tap,
        "kib_a_crop": {
            name: {field: sum(by_tap[tap][field] for tap in taps) / 1024 for field in ("stored", "fp16", "fp16_zstd")}
            for name, (taps, _) in SUMS.items()
        },
        "relative_error": {
            term: {
                "median": statistics.median(row["relative_error"] for row in rows),
                "max": max(row["relative_error"] for row in rows),
            }
            for term, rows in errors.items()
        },
        "raw": {"sizes": sizes, "errors": errors},
    }


def _outputs(ladder: RateLadder, x: Tensor, rate_point: int) -> dict[str, Tensor]:
    with torch.inference_mode():
        parts = [ladder(part, rate_point, taps=TAPS) for part in x.split(BATCH)]
    return {tap: torch.cat([part[tap] for part in parts]) for tap in TAPS}


def _stored(tap: str, values: Tensor) -> tuple[int, Tensor]:
    """Bytes of the shard's object, and what is read back from it, images in 0..1."""
    image = tap in ("x", "x_hat")
    given = values.clamp(0, 1).mul(255).round().byte() if image else values
    data = encode(tap, given.numpy())
    rows = torch.from_numpy(StoredTap(tap, MemoryBlob(data)).rows())
    return len(data), rows.float().div(255) if image else rows


def _fp16_zstd(values: Tensor) -> int:
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
    return sum(len(compressor.compress(row.half().numpy().tobytes())) for row in values)


def _terms(
    own: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    stored: Mapping[str, tuple[int, Tensor]],
    rows: slice,
    student: RateLadder,
    teacher: RateLadder,
    rate_point: int,
) -> dict[str, tuple[float, float]]:
    """Of one batch: term -> its value with exact and with stored targets."""
    lmbda, gain, teacher_gain = student.lambdas[rate_point], student.gains[rate_point], teacher.gains[rate_point]

    def term(tap: str, target: Tensor) -> float:
        if tap == "y":
            return float(latent_distortion(own["y"][rows], target[rows], gain, teacher_gain))
        if tap == "x_hat":
            return float(image_distortion(own["x_hat"][rows], target[rows].clamp(0, 1), lmbda))
        return float(attention_distance(own[tap][rows], target[rows]))

    named = {"latent": "y", "reconstruction": "x_hat"}
    named |= {f"attention {tap}": tap for tap in SPATIAL}
    # Channel statistics have as many entries as the layer has channels: of networks that differ there they are no term.
    named |= {f"attention {tap}": tap for tap in CHANNEL if own[tap].shape == exact[tap].shape}
    return {name: (term(tap, exact[tap]), term(tap, stored[tap][1])) for name, tap in named.items()}


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    crops = sum(row["crops"] for row in rows)
    fields = ("stored", "fp16", "fp16_zstd")
    return {field: sum(row[field] * row["crops"] for row in rows) / crops for field in fields}


def _summarise(name: str, figures: Mapping[str, Any]) -> None:
    for tap, sizes in figures["bytes_a_crop"].items():
        print(
            f"{name}: {tap:15} " + ", ".join(f"{field} {size:9.0f}" for field, size in sizes.items()) + " bytes a crop"
        )
    for title, (_, goal) in SUMS.items():
        print(f"{name}: {title:15} {figures['kib_a_crop'][title]['stored']:.1f} KiB a crop, goal {goal}")
    for term, error in figures["relative_error"].items():
        print(f"{name}: {term:25} relative error {error['median']:.2e}, at most {error['max']:.2e}", flush=True)


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photographs", nargs="+", default=[TRAIN], metavar="FOLDER")
    add("--crops", type=count, default=320, help="64 a rate point fill their shards")
    add("--size", type=count, default=256)
    add(
        "--teachers",
        nargs="+",
        default=[str(WEIGHTS / f"teacher-{name}.safetensors") for name in ("hyperprior", "mean-scale")],
    )
    add("--student", required=True, help="weights: jobs/specs/student-hyperprior.yaml makes some")
    add("--results", default=RESULTS, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
