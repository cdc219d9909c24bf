"""Commands of `lic` that need torch or MLflow (the entry points `lic.commands`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from lic_codec import bundle
from lic_codec.commands import ends_in_one_line
from lic_codec.errors import CodecError
from models.weights import WeightsError
from orchestrator.registry.opening import VERSION, fetched


@click.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Write over a bundle that is there.")
@ends_in_one_line
def export(model: str, folder: Path, force: bool) -> None:
    """Write MODEL, a .safetensors file or models:/NAME@ALIAS, as a bundle into FOLDER; it runs without torch."""
    if folder.is_file():
        raise CodecError(f"{folder}: a file is there")
    there = folder.is_dir() and any(folder.iterdir())
    if there and not (force and (folder / bundle.CARD).is_file()):
        hint = "a bundle is there already: --force writes over it" if (folder / bundle.CARD).is_file() else "not empty"
        raise CodecError(f"{folder}: {hint}")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".") as temporary:
        made = _made(model, Path(temporary))
        card = bundle.load(made).card  # what is damaged does not replace what is there
        if folder.is_dir():
            folder.rename(Path(temporary, "before"))
        made.rename(folder)
    size = sum((folder / name).stat().st_size for name in card.files)
    click.echo(f"{folder}: {card.name}, {size} bytes")


def _made(model: str, inside: Path) -> Path:
    if model.startswith(VERSION):
        return fetched(model, inside)
    from models.export import export as write
    from models.weights import load_ladder

    try:
        return write(load_ladder(model), inside / "bundle", name=Path(model).stem)
    except WeightsError as error:
        raise CodecError(str(error)) from None
