"""A FEDS teacher's first weights, grown from a hyperprior of its N and M.

    python -m benchmarks.whole.grown benchmarks/teachers/hyperprior-n64.safetensors --train FOLDER --out FOLDER

Writes `sorted.safetensors`, the hyperprior with its latent's channels in the order of their bits, and
`grown.safetensors`: a FEDS teacher with that one's synthesis. Both decode a latent to the same photograph, since each
block that the hyperprior lacks begins as the identity (the idea of https://arxiv.org/abs/1511.05641). Of the analysis
only the first stage is the hyperprior's, and the entropy model is random: jobs/specs/grow-feds.yaml trains these,
the analysis to give the latent of `sorted.safetensors`, then the entropy model by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from compressai.layers import GDN, ResidualBlock
from torch import Tensor, nn

from benchmarks.common.command import exit_code
from benchmarks.common.facts import photographs
from models.ladder import RateLadder
from models.weights import load_ladder, save_ladder
from orchestrator.photographs.crops import validation_crops
from orchestrator.photographs.tensors import cut_tensor
from orchestrator.spec.messages import Parser
from orchestrator.spec.sections import Validation

CROPS, SIDE = 16, 256  # what bits are counted on


def main(argv: Sequence[str] | None = None) -> int:
    parser = _options()
    options = parser.parse_args(argv)
    hyperprior = load_ladder(options.hyperprior)
    if (hyperprior.family, hyperprior.kind) != ("hyperprior", "variable-rate"):
        parser.error(f"{options.hyperprior}: a {hyperprior.kind} {hyperprior.family}, not a variable-rate hyperprior")
    in_order(hyperprior, crops(options.train))
    save_ladder(options.out / "sorted.safetensors", hyperprior)
    save_ladder(options.out / "grown.safetensors", grown(hyperprior))
    return 0


def crops(folder: str) -> Tensor:
    """[CROPS, 3, SIDE, SIDE] in 0..1, the middles of photographs."""
    chosen = validation_crops(photographs([folder], SIDE), Validation(crops=CROPS, size=SIDE))
    return torch.stack([cut_tensor(photograph, crop) for photograph, crop in chosen])


def in_order(hyperprior: RateLadder, x: Tensor) -> None:
    """Puts the latent's channels in the order of their bits at the highest rate point; the codec is as before."""
    with torch.no_grad():
        coded = hyperprior.eval()(x, len(hyperprior.lambdas) - 1, taps=("entropy",))
        order = coded["entropy"].mean(dim=(0, 2, 3)).argsort(descending=True)
        network = hyperprior.networks[0]
        for out in (network.g_a[-1], network.h_s[-2]):
            out.weight.copy_(out.weight[order])
            out.bias.copy_(out.bias[order])
        network.g_s[0].weight.copy_(network.g_s[0].weight[order])  # a transposed convolution: inputs first
        network.h_a[0].weight.copy_(network.h_a[0].weight[:, order])


def grown(hyperprior: RateLadder) -> RateLadder:
    """A FEDS teacher that decodes a latent as the hyperprior does."""
    same = ("N", "M", "Z", "lambdas", "kind", "distortion")
    teacher = RateLadder(family="feds-teacher", **{name: getattr(hyperprior, name) for name in same})
    small, large = hyperprior.networks[0], teacher.networks[0]
    for module in large.g_s.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    pairs = [*zip(_shared(small.g_s), _shared(large.g_s), strict=True), *zip(small.g_a[:2], large.g_a[0], strict=True)]
    for own, copy in pairs:
        copy.load_state_dict(own.state_dict())
    return teacher


def _shared(synthesis: nn.Module) -> list[nn.Module]:
    """The layers that both synthesis transforms have, in their order."""
    return [module for module in synthesis.modules() if isinstance(module, nn.ConvTranspose2d | GDN)]


def _options() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hyperprior", help="weights of a variable-rate hyperprior")
    parser.add_argument("--train", required=True, metavar="FOLDER", help="photographs; the bits are counted on a few")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
