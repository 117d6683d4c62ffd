"""``spectrim data``: make, check and list data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrim.commands.common import ProgressOption, plainly
from spectrim.errors import InvalidSetting, one_of


@plainly
def synthesize(
    name: Annotated[str, typer.Argument(help="spoken-commands.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    clips: Annotated[int, typer.Option(help="Training clips; a tenth each are added to validate and test.")] = 10_000,
    validation_clips: Annotated[int | None, typer.Option(help="Instead of a tenth.")] = None,
    test_clips: Annotated[int | None, typer.Option(help="Instead of a tenth.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
    progress: ProgressOption = None,
) -> None:
    """Make a miniature of a public data set, in its layout on disk."""
    if name != "spoken-commands":
        raise InvalidSetting("name", name, one_of(["spoken-commands"]))
    from spectrim.data.synthetic import synthesize_spoken_commands
    from spectrim.terminal import error_console, stage_progress

    with stage_progress(error_console(progress), progress) as tell:
        made = synthesize_spoken_commands(
            out, clips=clips, validation_clips=validation_clips, test_clips=test_clips, seed=seed, workers=workers,
            progress=lambda done, total: tell("clips", done, total),
        )  # fmt: skip
    print(made)
