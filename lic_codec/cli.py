"""`lic`: photographs to streams and back, on the command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import click
import numpy as np

from lic_codec import bundle, pictures, targets
from lic_codec.bench import bench
from lic_codec.codec import LARGEST_PHOTOGRAPH
from lic_codec.commands import FORCE, ends_in_one_line, refuse_to_overwrite
from lic_codec.container import HEADER, ChunkKind, parse
from lic_codec.errors import CodecError
from lic_codec.metrics import ms_ssim, psnr_db
from lic_codec.opening import WHOLE_PROJECT, opened
from lic_codec.photographs import ENDINGS

SUFFIX = ".lic"


class Lic(click.Group):
    """The commands; those that need torch come with lic-distillery, by the entry points `lic.commands`."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted({*super().list_commands(context), "export"})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """A command by its name."""
        command = super().get_command(context, name)
        if command is None:
            for entry in entry_points(group="lic.commands", name=name):
                loaded: click.Command = entry.load()
                return loaded
        return command or (_absent(name) if name == "export" else None)


def _absent(name: str) -> click.Command:
    @click.command(
        name, help=f"Write a bundle. Needs {WHOLE_PROJECT}.", context_settings={"ignore_unknown_options": True}
    )
    @click.argument("rest", nargs=-1)
    def command(rest: Sequence[str]) -> None:
        del rest
        raise click.ClickException(f"{name} needs {WHOLE_PROJECT}")

    return command


@click.group(cls=Lic, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Code photographs with learned codecs."""


MODEL = click.option(
    "--model",
    required=True,
    envvar="LIC_MODEL",
    metavar="MODEL",
    show_envvar=True,
    help="A bundle, also as a zip file; with lic-distillery installed a .safetensors file or models:/NAME@ALIAS, too.",
)
THREADS = click.option("--threads", type=click.IntRange(1), help="That transforms use; by default one a core.")
OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), help="A file, or a folder for several.")
LARGEST = click.option(
    "--largest",
    type=click.IntRange(1),
    default=LARGEST_PHOTOGRAPH,
    show_default=True,
    help="Pixels; larger photographs are refused.",
)
SOURCES = click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))


@main.command()
@SOURCES
@MODEL
@OUTPUT
@click.option("--rate", type=float, help="A rate point, 0 the lowest; 1.5 lies between two. Default: the middle one.")
@click.option("--gain", type=float, help="Any gain above 0 and up to 2.")
@click.option("--bpp", type=float, help="At most so many bits per pixel.")
@click.option("--psnr", type=float, help="At least so many dB.")
@FORCE
@THREADS
@ends_in_one_line
def encode(
    sources: Sequence[Path],
    model: str,
    output: Path | None,
    rate: float | None,
    gain: float | None,
    bpp: float | None,
    psnr: float | None,
    force: bool,
    threads: int | None,
) -> None:
    """Code pictures, or all pictures of folders, into .lic streams beside them, or at OUTPUT."""
    target = targets.Target(rate=rate, gain=gain, bpp=bpp, psnr=psnr)
    codec = opened(model, threads)

    def coded(source: Path, place: Path) -> str:
        picture = pictures.read(source)
        try:
            stream = targets.encode(codec, picture.rgb, target, picture.kept)
        except CodecError as error:
            raise CodecError(f"{source}: {error}") from None
        pictures.write(place, stream)
        height, width, _ = picture.rgb.shape
        notes = "".join(f"; {note}" for note in picture.notes)
        return f"{len(stream)} bytes, {8 * len(stream) / (width * height):.3f} bpp{notes}"

    _each(_planned(sources, output, ENDINGS, SUFFIX, force), coded)


@main.command()
@SOURCES
@MODEL
@OUTPUT
@click.option(
    "--format", "ending", type=click.Choice([end[1:] for end in pictures.WRITTEN]), default="png", show_default=True
)
@LARGEST
@FORCE
@THREADS
@ends_in_one_line
def decode(
    sources: Sequence[Path],
    model: str,
    output: Path | None,
    ending: str,
    largest: int,
    force: bool,
    threads: int | None,
) -> None:
    """Decode .lic streams, or all of folders, into pictures beside them, or at OUTPUT."""
    codec = opened(model, threads)

    def decoded(source: Path, place: Path) -> str:
        kind = pictures.WRITTEN.get(place.suffix.lower())
        if kind is None:
            raise CodecError(f"{place}: {place.suffix or 'no ending'} is not one of {', '.join(pictures.WRITTEN)}")
        stream = source.read_bytes()
        try:
            rgb = codec.decode(stream, largest)
            content = pictures.encoded(rgb, parse(stream).chunks, kind)
        except CodecError as error:
            raise CodecError(f"{source}: {error}") from None
        pictures.write(place, content)
        return f"{rgb.shape[1]}x{rgb.shape[0]} pixels"

    _each(_planned(sources, output, {SUFFIX}, f".{ending}", force), decoded)


@main.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@ends_in_one_line
def info(file: Path) -> None:
    """Say what a stream or a bundle is, also a zip file of one."""
    folder = bundle.folder_of(file) or (file if file.is_dir() else None)
    if folder is not None:
        card = bundle.Card.read(folder)
        click.echo(f"model          {card.name}")
        click.echo(f"network        {card.family}, N={card.N}, M={card.M}, Z={card.Z}, encoder N={card.encoder_N}")
        click.echo(f"rate points    {len(card.lambdas)}, {card.kind}, for {card.distortion}")
        click.echo(f"entropy model  {card.entropy_id[:8]}")
        click.echo(f"size           {sum(len((folder / name).read_bytes()) for name in card.files)} bytes")
        for name, value in card.figures.items():
            if isinstance(value, int | float | str):
                click.echo(f"{name:<14} {value}")
        return
    stream = parse(file.read_bytes())
    total = file.stat().st_size
    click.echo(f"photograph     {stream.width}x{stream.height} pixels")
    click.echo(f"rate           {8 * total / (stream.width * stream.height):.3f} bpp, code {stream.rate_code}")
    click.echo(f"entropy model  {stream.entropy_id.hex()}")
    kept = {ChunkKind(kind).name.lower().replace("_", " "): len(data) for kind, data in stream.chunks.items()}
    beside = "".join(f", {name} {size}" for name, size in kept.items())
    click.echo(f"bytes          {total}: header {HEADER.size}, pixels {len(stream.payload)}{beside}")


@main.command()
@click.argument("original", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("other", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", envvar="LIC_MODEL", metavar="MODEL", help="To decode OTHER with, if it is a stream.")
@click.option("--picture", type=click.Path(path_type=Path), help="Write both side by side, and their difference.")
@FORCE
@THREADS
@ends_in_one_line
def compare(
    original: Path, other: Path, model: str | None, picture: Path | None, force: bool, threads: int | None
) -> None:
    """Say how much OTHER, a picture or a stream, differs from ORIGINAL."""
    first = pictures.read(original).rgb
    content = other.read_bytes()
    if content[:2] == b"LD":
        if model is None:
            raise CodecError(f"{other} is a stream: --model is needed")
        second = opened(model, threads).decode(content)
    else:
        second = pictures.read(other).rgb
    psnr, similarity = psnr_db(first, second), ms_ssim(first, second)
    click.echo(f"bpp      {8 * len(content) / (first.shape[0] * first.shape[1]):.4f}")
    click.echo(f"PSNR     {psnr:.3f} dB" if math.isfinite(psnr) else "PSNR     equal pictures")
    click.echo("MS-SSIM  none: a side is below 161 pixels" if similarity is None else f"MS-SSIM  {similarity:.5f}")
    if picture is not None:
        refuse_to_overwrite(picture, force)
        difference = np.abs(first.astype(int) - second.astype(int)) * 8
        side = np.concatenate((first, second, np.clip(difference, 0, 255).astype(np.uint8)), axis=1)
        pictures.write(picture, pictures.encoded(side, {}, pictures.WRITTEN.get(picture.suffix.lower(), "PNG")))
        click.echo(f"{picture}: the original, the other, eight times their difference")


def _planned(
    sources: Sequence[Path], output: Path | None, endings: frozenset[str] | set[str], ending: str, force: bool
) -> dict[Path, Path]:
    """The place of each result, and the file that becomes it. All places are free, or may be written over."""
    files: list[tuple[Path, Path]] = []  # the file, and its place relative to the output
    for source in sources:
        if source.is_dir():
            found = sorted(path for path in source.rglob("*") if path.suffix.lower() in endings and path.is_file())
            if not found:
                raise CodecError(f"{source}: none of its files ends in {', '.join(sorted(endings))}")
            files += [(path, path.relative_to(source)) for path in found]
        elif source.is_file():
            files.append((source, Path(source.name)))
        else:
            raise CodecError(f"{source}: no such file or folder")
    several = len(files) > 1 or any(source.is_dir() for source in sources)
    plan: dict[Path, Path] = {}
    for path, relative in files:
        if output is None:
            place = path.with_suffix(ending)
        elif several or output.is_dir():
            place = output / relative.with_suffix(ending)
        else:
            place = output
        if place in plan:
            raise CodecError(f"{place}: both {plan[place]} and {path} would become it")
        refuse_to_overwrite(place, force)
        plan[place] = path
    return plan


def _each(plan: Mapping[Path, Path], action: Callable[[Path, Path], str]) -> None:
    """Does all of a plan, a line each. With several files, one that fails does not stop the others."""
    failed = 0
    for number, (place, source) in enumerate(plan.items(), 1):
        count = f"[{number}/{len(plan)}] " if len(plan) > 1 else ""
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            click.echo(f"{count}{place}: {action(source, place)}")
        except CodecError as error:
            if len(plan) == 1:
                raise
            failed += 1
            click.echo(f"{count}Error: {error}", err=True)
    if failed:
        raise click.ClickException(f"{failed} of {len(plan)} files failed")


main.add_command(bench)
