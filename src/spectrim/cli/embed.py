"""``spectrim embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrim.cli.common import (
    FAILURE,
    INTERRUPTED,
    CriterionOption,
    FramesOption,
    ModelOption,
    PrecisionOption,
    ProgressOption,
    ReducerOption,
    StrideOption,
    named_model,
    plainly,
)
from spectrim.errors import InvalidSetting, shown_name


@plainly
def embed(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, patterns, or - for a list on standard input.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="NumPy archive, NAME.npz.")],
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    frames: FramesOption = None,
    keep_rate: Annotated[float | None, typer.Option(help="Share of patches to keep, in (0, 1].")] = None,
    criterion: CriterionOption = None,
    reducer: ReducerOption = None,
    precision: PrecisionOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows in a forward pass.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    window: Annotated[float | None, typer.Option(help="Seconds of a window; default: what the model hears.")] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="Seconds from window to window; default: --window, or what the model hears anew."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes.")] = None,
    progress: ProgressOption = None,
) -> None:
    """Pooled vectors of audio files, one a window: features for a classifier, a search or a map of your own.

    Files that cannot be used have an error in the archive instead of vectors, and the exit code becomes 1.
    """
    if output.suffix.lower() != ".npz":
        raise InvalidSetting("output", str(output), "a name that ends in .npz")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise InvalidSetting("output", str(output), "a regular file in a folder that exists")

    from spectrim.audio.finding import select_files
    from spectrim.cli.tagging import warn_of_nothing_pruned
    from spectrim.cli.terminal import FileProgress, complain, error_console
    from spectrim.files import sole_writer
    from spectrim.inference.embed import embed_files, write_embeddings
    from spectrim.inference.opening import open_model

    console = error_console(progress)
    selection = select_files(paths)
    count = len(selection.files) + len(selection.errors)
    with sole_writer(output), FileProgress(console, count, progress) as bar:
        source = named_model(model, stride, frames, criterion, reducer)
        network = open_model(source, keep_rate, precision, device)
        warn_of_nothing_pruned(console, source, network)
        embeddings = []
        vectors = embed_files(
            selection,
            network,
            batch_size=batch_size,
            window=window,
            hop=hop,
            workers=workers,
            on_window=bar.hear,
        )
        try:
            for embedding in vectors:
                embeddings.append(embedding)
                bar.finish_file()
                if (said := embedding.error or embedding.note) is not None:
                    complain(console, f"{shown_name(embedding.path)}: {said}")
        except KeyboardInterrupt as error:
            complain(console, f"interrupted after {bar.files} of {count} files; nothing is written")
            raise typer.Exit(INTERRUPTED) from error
        write_embeddings(output, embeddings)
    failed = sum(embedding.error is not None for embedding in embeddings)
    complain(console, f"{sum(len(e.vectors) for e in embeddings)} vectors of {count - failed} files are in {output}")
    if failed:
        complain(console, f"{failed} of {count} files could not be heard")
        raise typer.Exit(FAILURE)
