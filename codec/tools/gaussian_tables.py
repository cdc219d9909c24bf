"""Writes lic_codec/gaussians.npz: whole-number frequencies of rounded normal distributions, by decimal arithmetic.

    python codec/tools/gaussian_tables.py

The scales are CompressAI's, 64 from 0.11 to 256 at equal ratios, in steps of 2^-20. Decimal arithmetic gives the same
digits on every machine, so the file can be made again anywhere.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np

LEVELS, LOWEST, HIGHEST, STEPS = 64, Decimal("0.11"), Decimal(256), 1 << 20
REACH = 5  # standard deviations; what lies outside is escaped
TOTAL = 1 << 20  # of a table's frequencies, about
LEAST_ESCAPE = 16  # latents have heavier tails than normal distributions
PI = Decimal("3.14159265358979323846264338327950288")


def main() -> None:
    with localcontext() as context:
        context.prec = 30
        ratio = ((HIGHEST / LOWEST).ln() / (LEVELS - 1)).exp()
        steps = [int((LOWEST * ratio**level * STEPS).to_integral_value()) for level in range(LEVELS)]
        halves = [half_of(Decimal(step) / STEPS) for step in steps]
    np.savez_compressed(
        Path(__file__).parents[2] / "lic_codec" / "gaussians.npz",
        scales=np.array(steps, np.float64) / STEPS,
        lengths=np.array([len(half) for half in halves], np.uint32),
        halves=np.concatenate([np.array(half, np.uint32) for half in halves]),
    )


def half_of(scale: Decimal) -> list[int]:
    """Frequencies of 0, 1, 2, ... and of the escape, which is of both sides."""
    last = max(1, math.ceil(REACH * scale))
    below = [above(Decimal(2 * place + 1) / 2 / scale) for place in range(last + 1)]
    shares = [1 - 2 * below[0], *(below[place - 1] - below[place] for place in range(1, last + 1)), 2 * below[last]]
    counts = [max(1, int((share * TOTAL).to_integral_value())) for share in shares]
    return [*counts[:-1], max(LEAST_ESCAPE, counts[-1])]


def above(value: Decimal) -> Decimal:
    """The share of a normal distribution above a value of at least 0."""
    if value > 12:
        return Decimal(0)
    term = total = value
    place = 0
    while abs(term) > Decimal("1e-28"):  # the density's Taylor series times exp(value^2 / 2): all terms are positive
        place += 1
        term = term * value * value / (2 * place + 1)
        total += term
    return max(Decimal(0), Decimal(1) / 2 - total * (-value * value / 2).exp() / (2 * PI).sqrt())


if __name__ == "__main__":
    main()
