"""CompressAI's pretrained networks as a rate ladder: one network per lambda, converted once into our weights format.

The files are pickles on a server that is not ours: they are checked against the digest in their name and read with
`weights_only`, so that no code in them runs.
"""

from __future__ import annotations

import hashlib
import sys
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from models.families import Distortion
from models.one_line import OneLineParser
from models.weights import WeightsError

if TYPE_CHECKING:
    import torch

NETWORKS = {  # name in the zoo -> family, and the highest quality whose network is narrow
    "bmshj2018-hyperprior": ("hyperprior", 5),
    "mbt2018-mean": ("mean-scale", 4),
}
NARROW, WIDE = (128, 192), (192, 320)  # N, M
LAMBDAS: Mapping[Distortion, tuple[float, ...]] = {  # of qualities 1 to 8
    "mse": (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18),
    "ms-ssim": (2.4, 4.58, 8.73, 16.64, 31.73, 60.5, 115.37, 220.0),
}


def zoo_ladder(name: str, lambdas: Sequence[float], folder: str | Path, distortion: Distortion = "mse") -> Path:
    """Downloads the zoo's networks of these lambdas and writes them as one weights file, unless it exists.

    A file in torch's hub cache is not downloaded again, so it can be copied to machines without internet.

    Args:
        name: of `NETWORKS`.
        lambdas: some of `LAMBDAS`, rising, whose networks have one width (see `NETWORKS`).
        folder: where the weights file goes.
        distortion: what the networks were trained for.

    Returns:
        Path of the weights file.

    Raises:
        WeightsError: no such network or lambda, or the download fails; one line that says what to do.
    """
    from models.ladder import RateLadder
    from models.weights import assign, save_ladder

    qualities = _qualities(name, lambdas, distortion)
    suffix = "" if distortion == "mse" else f"-{distortion}"
    target = Path(folder) / f"{name}{suffix}-{'-'.join(map(str, qualities))}.safetensors"
    if target.exists():
        return target
    family, last_narrow = NETWORKS[name]
    N, M = NARROW if qualities[-1] <= last_narrow else WIDE
    ladder = RateLadder(family=family, N=N, M=M, lambdas=tuple(lambdas), kind="fixed-lambda", distortion=distortion)
    wanted = {key for key, _ in ladder.named_parameters()}
    tensors: dict[str, torch.Tensor] = {}
    for index, quality in enumerate(qualities):
        tensors |= {f"networks.{index}.{key}": value for key, value in _state(name, distortion, quality).items()}
    assign(ladder, {key: value for key, value in tensors.items() if key in wanted}, source=f"zoo:{name}")
    save_ladder(target, ladder, source=f"CompressAI zoo, {name}, {distortion}, qualities {qualities}")
    return target


def _qualities(name: str, lambdas: Sequence[float], distortion: Distortion) -> list[int]:
    if name not in NETWORKS:
        raise WeightsError(f"zoo:{name}: allowed are {', '.join(NETWORKS)}")
    known = LAMBDAS[distortion]
    unknown = [value for value in lambdas if value not in known]
    if unknown:
        raise WeightsError(f"zoo:{name}: lambda {unknown[0]} is not one of the zoo's, {', '.join(map(str, known))}")
    qualities = [known.index(value) + 1 for value in lambdas]
    last_narrow = NETWORKS[name][1]
    if qualities[0] <= last_narrow < qualities[-1]:
        border = known[last_narrow - 1]
        raise WeightsError(f"zoo:{name}: lambdas up to {border} and above it have networks of different widths")
    return qualities


def _state(name: str, distortion: Distortion, quality: int) -> dict[str, torch.Tensor]:
    """CompressAI's state dict of one network, with old parameter names converted."""
    import torch
    from compressai.zoo import load_state_dict
    from compressai.zoo.image import model_urls

    url = model_urls[name][distortion][quality]
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file))
        except (urllib.error.URLError, OSError) as error:
            raise WeightsError(
                f"zoo:{name}: {url} cannot be downloaded ({error}); put the file at {file}, or name a .safetensors file"
            ) from error
    expected = file.name.removesuffix(".pth.tar").rpartition("-")[2]
    actual = hashlib.sha256(file.read_bytes()).hexdigest()
    if not actual.startswith(expected):
        raise WeightsError(f"{file}: its SHA-256 starts with {actual[:8]}, the zoo's with {expected}; delete it")
    return dict(load_state_dict(torch.load(file, map_location="cpu", weights_only=True)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the path of the weights file. Returns the exit code."""
    parser = OneLineParser(prog="python -m models.zoo", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help=", ".join(NETWORKS))  # zoo_ladder checks it, in a specification's words
    parser.add_argument("folder", help="of the weights file")
    parser.add_argument("distortion", choices=LAMBDAS)
    parser.add_argument("lambdas", nargs="+", type=float, metavar="LAMBDA")
    given = parser.parse_args(arguments)
    try:
        print(zoo_ladder(given.name, given.lambdas, given.folder, given.distortion))
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
