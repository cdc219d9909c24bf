"""What the networks of the catalogue cost, counted and measured: parameters, multiply-accumulates, coding times.

    python -m benchmarks.whole.models [--rounds 3] [--threads 2] [--only NAME ...]

Coding is real: bitstreams through `models.bitstream`, of a 768x512 mosaic of the quickstart's validation photographs,
on the CPU. Weights are random: of coding only the range coder's share depends on them, so all networks are given
latents of one spread, which take a few tenths of a bit a symbol, as those of trained networks do. In a round every
network encodes and decodes once, every second round in reverse order; one encoding and decoding comes before. Seconds
are of the wall clock, and beside them of the processors, which tell more where other work runs beside
(`load_average_1min`; best with one thread). The latent that the decoder reads is compared with the encoder's, as one
network of a fixed lambda and, at odd sizes, as a variable-rate network at three rate points.

Goals: the FEDS teacher below SwinT-ChARM's cost; the FEDS student with 63 % fewer parameters than its teacher, encoding
and decoding 73 % faster (the reductions that FEDS states for its own networks).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.common.command import count, exit_code
from benchmarks.common.facts import RESULTS, VALIDATION, facts, photographs, write
from benchmarks.common.pairs import in_turn, spread
from lic_codec.container import parse
from models import macs
from models.bitstream import CodingLadder, Rgb, decode_image, encode_image, prepare_for_coding, to_padded_tensor
from models.catalogue import REFERENCE, reference_ladder
from models.families import Kind
from models.grouped_hyperprior import GroupedHyperprior
from orchestrator.photographs.photos import load_rgb
from orchestrator.spec.messages import Parser

WIDTH, HEIGHT = 768, 512
ODD_SIZES = ((1, 1), (65, 127), (500, 1), (1000, 16))
LAMBDAS = (0.0018, 0.0067, 0.025)
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
SPREAD = 0.3  # quantisation steps: the standard deviation of every network's y

# Published: million parameters and GMAC at 768x512. PRIM's tables call multiply-adds FLOPs (arXiv 2509.10366, Kodak).
PRIM = {
    "prim-teacher": {"parameters_m": 5.08, "gmac": 34.24},
    "prim-student-n112": {"parameters_m": 4.07, "gmac": 26.7},
    "prim-student-n96": {"parameters_m": 3.17, "gmac": 20.1},
    "prim-student-n64": {"parameters_m": 1.69, "gmac": 9.67},
    "prim-student-n32": {"parameters_m": 0.64, "gmac": 2.98},
    "prim-student-n16": {"parameters_m": 0.27, "gmac": 1.02},
}
# Zhu et al., ICLR 2022, by the counts of github.com/ali-zafari/TBTC.
SWINT_CHARM = {"parameters_m": 32.4, "encoder_gmac": 110, "decoder_gmac": 110}
FEDS = {"parameters_pct": -63, "encode_and_decode_time_pct": -73}  # arXiv 2503.06399, its student against its teacher


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--only", nargs="+", choices=list(REFERENCE), default=list(REFERENCE), metavar="NAME")
    parser.add_argument("--results", default=RESULTS, help="a folder for models.json")
    options = parser.parse_args(argv)
    machine = facts()
    torch.set_num_threads(options.threads)
    picture = mosaic()
    costs = {name: cost(name) for name in options.only}
    arms, differences = {}, {}
    for name in options.only:
        coding = coding_ladder(name, (0.025,), "fixed-lambda", picture)
        variable = coding_ladder(name, LAMBDAS, "variable-rate", picture)
        differences[name] = max(
            _difference(coding, picture, 0),
            *(_difference(variable, size, point) for size in _odd() for point in range(len(LAMBDAS))),
        )
        arms[name] = _arm(coding, picture)
        print(f"{name}: encoder's and decoder's latents differ by {differences[name]:.1e}", flush=True)
    measured = in_turn(arms, options.rounds, lambda line: print(line, flush=True))
    figures = {name: costs[name] | _times(measured, name) | {"difference": differences[name]} for name in options.only}
    result: dict[str, Any] = {"picture": [WIDTH, HEIGHT], "threads": options.threads, "rounds": options.rounds}
    result |= {"networks": figures, "published": {"prim": PRIM, "swint-charm": SWINT_CHARM, "feds": FEDS}}
    if {"feds-teacher", "feds-student"} <= figures.keys():
        result["feds_student_against_teacher"] = _against(figures, measured, "feds-student", "feds-teacher")
        print(result["feds_student_against_teacher"])
    write(options.results, "models", machine, result)
    return 0 if max(differences.values()) == 0 else 1


def mosaic() -> Rgb:
    """Six photographs of 256x256 in two rows: uint8 [512, 768, 3]."""
    six = [load_rgb(photograph)[:256, :256] for photograph in photographs([VALIDATION], 256)[:6]]
    return np.ascontiguousarray(np.concatenate([np.concatenate(six[row : row + 3], axis=1) for row in (0, 3)]))


def cost(name: str) -> dict[str, Any]:
    """Widths, parameters, kMACs a pixel and GMACs of the picture, of one network."""
    ladder = reference_ladder(name)
    counted = macs.count(ladder)
    widths = {"family": ladder.family, "N": ladder.N, "M": ladder.M, "Z": ladder.Z}
    return widths | {
        "parameters": sum(parameter.numel() for parameter in ladder.parameters()),
        "encoder_kmac_per_pixel": counted.encoder / 1e3,
        "decoder_kmac_per_pixel": counted.decoder / 1e3,
        "gmac": counted.total * WIDTH * HEIGHT / 1e9,
    }


def coding_ladder(name: str, lambdas: Sequence[float], kind: Kind, picture: Rgb) -> CodingLadder:
    """One of the catalogue, its y scaled to `SPREAD` and its entropy model told so.

    What it decodes lies around a medium grey, since beyond 0..1 clamping hides differences.
    """
    torch.manual_seed(0)
    ladder = reference_ladder(name, lambdas, kind).eval()
    with torch.no_grad():
        for network in ladder.networks:
            for _ in range(2):  # in blocks that normalise, twice
                factor = SPREAD / network.g_a(to_padded_tensor(picture[:256, :256])).std()
                for parameter in network.g_a[-1].parameters():
                    parameter.mul_(factor)
            for bias, count in _scale_biases(network, ladder.M):
                bias[:count] += SPREAD
            *_, last = (module for module in network.g_s.modules() if isinstance(module, CONVOLUTIONS))
            assert last.bias is not None
            last.bias.fill_(0.5)
    return prepare_for_coding(ladder)


def _scale_biases(network: Any, M: int) -> list[tuple[nn.Parameter, int]]:
    """The biases that the entropy model's scales have, and how many of each are theirs; the rest are means'."""
    groups = network.channel_groups if isinstance(network, GroupedHyperprior) else None
    if groups is not None and len(groups.networks):
        layers: list[Any] = list(groups.networks)
        return [(layer[-1].bias, size) for layer, size in zip(layers, groups.sizes, strict=True)]
    *_, last = (layer for layer in network.h_s if isinstance(layer, nn.Conv2d))
    assert isinstance(last.bias, nn.Parameter)
    return [(last.bias, M)]


def _arm(coding: CodingLadder, picture: Rgb) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        start, cpu_start = time.perf_counter(), time.process_time()
        stream = encode_image(coding, picture, 0)
        between, cpu_between = time.perf_counter(), time.process_time()
        decode_image(coding, stream)
        end, cpu_end = time.perf_counter(), time.process_time()
        return {
            "s": end - start,
            "encode_s": between - start,
            "decode_s": end - between,
            "cpu_s": cpu_end - cpu_start,
            "encode_cpu_s": cpu_between - cpu_start,
            "decode_cpu_s": cpu_end - cpu_between,
            "bytes": len(stream),
        }

    return run


def _difference(coding: CodingLadder, rgb: Rgb, rate_point: int) -> float:
    """The largest difference between the latents that the encoder wrote and the decoder read; 0 is right."""
    encoded, _ = coding.encode(rgb, rate_point)
    _, y_hat = coding.codec.decode_latent(parse(encoded.stream))
    return float(np.abs(y_hat - encoded.y_hat).max())


def _odd() -> list[Rgb]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in ODD_SIZES]


def _times(measured: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> dict[str, Any]:
    return {field: spread([row[name][field] for row in measured]) for field in measured[0][name]}


def _against(
    figures: Mapping[str, Mapping[str, Any]],
    measured: Sequence[Mapping[str, Mapping[str, float]]],
    student: str,
    teacher: str,
) -> dict[str, Any]:
    """Percent less or more, round by round for times."""

    def percent(one: float, other: float) -> float:
        return 100 * (one / other - 1)

    fields = {"encode_and_decode_time_pct": "s", "encode_time_pct": "encode_s", "decode_time_pct": "decode_s"}
    fields |= {name.replace("time", "cpu_time"): f"{field[:-1]}cpu_s" for name, field in fields.items()}
    return {
        "parameters_pct": percent(figures[student]["parameters"], figures[teacher]["parameters"]),
        "gmac_pct": percent(figures[student]["gmac"], figures[teacher]["gmac"]),
        **{
            name: spread([percent(row[student][field], row[teacher][field]) for row in measured])
            for name, field in fields.items()
        },
    }


if __name__ == "__main__":
    sys.exit(exit_code(main))
