"""What the commands of `lic` have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from lic_codec.errors import CodecError

Command = Callable[..., None]
FORCE = click.option("--force", is_flag=True, help="Write over files that are there.")


def ends_in_one_line(command: Command) -> Command:
    """What goes wrong while coding ends the command with one line."""

    @wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except CodecError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from None

    return wrapped


def refuse_to_overwrite(place: Path, force: bool) -> None:
    """Raises CodecError: the place is taken."""
    if place.exists() and not force:
        raise CodecError(f"{place} is there already: --force writes over it")
