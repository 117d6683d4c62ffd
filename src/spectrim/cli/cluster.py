"""``spectrim predict --engine ray``."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spectrim.cli.common import FAILURE, nothing_named
from spectrim.errors import InvalidSetting

if TYPE_CHECKING:
    from spectrim.checkpoints import DescribedSource
    from spectrim.cli.terminal import FileProgress
    from spectrim.inference.results import FilePrediction


def predict_on_cluster(
    paths: Sequence[str],
    source: str | DescribedSource,
    opening: Mapping[str, Any],
    tagging: Mapping[str, Any],
    output: Path | None,
    resume: bool,
    top: int,
    progress: bool | None,
    *,
    address: str | None,
    model_cores: int | None,
    part_files: int | None,
) -> None:
    """Tag files on the machines of a Ray cluster.

    Args:
        paths: what was named.
        source: the model.
        opening: what else `spectrim.inference.ray_engine.ModelSettings` takes.
        tagging: what else `spectrim.inference.ray_engine.predict_on_ray` takes.
        output: folder of the parts.
        resume: continue what is there.
        top: labels a row or window.
        progress: draw it.
        address: of the cluster; None for this machine alone.
        model_cores: of a model.
        part_files: files of a part.
    """
    if output is None or output.suffix.lower() in (".csv", ".json", ".jsonl", ".ndjson"):
        raise InvalidSetting("output", output and str(output), "a folder for Parquet files, with --engine ray")
    if not paths:
        raise nothing_named("files, folders, patterns, URLs or - (a list on standard input)")
    for name in ("backend", "precision"):
        if opening[name] == "auto":
            raise InvalidSetting(name, "auto", "one by its name with --engine ray: machines may differ")

    from spectrim.audio.finding import select_files
    from spectrim.cli.tagging import settings_of, tag_all, warn_of_embedded
    from spectrim.cli.terminal import FileProgress, complain, error_console
    from spectrim.inference.part_files import PartFolder
    from spectrim.inference.ray_engine import ModelSettings, cluster, import_ray, predict_on_ray
    from spectrim.inference.results import FilePrediction as Prediction

    import_ray()
    console = error_console(progress)
    selection = select_files(paths)
    settings = ModelSettings(source, **opening)
    model = replace(settings, device="cpu").open()
    warn_of_embedded(console, source)
    made_with = {**settings_of(opening, tagging), "model": model.fingerprint()}
    folder = PartFolder(output, made_with, top=top, resume=resume, part_files=part_files)
    with closing(folder), cluster(address) as machines:
        left, failed = folder.remaining(selection), sum(error is not None for error in folder.done.values())
        if not left.files and not left.errors:
            complain(console, f"{output} is complete already")
            raise typer.Exit(FAILURE if failed else 0)
        predictions = predict_on_ray(
            folder.plan(selection), settings, model, machines, model_cores=model_cores, **tagging
        )

        def tag(bar: FileProgress) -> Generator[FilePrediction]:
            with closing(predictions):
                for error in left.errors:
                    yield Prediction(error.source, model.labels, error=error.reason)
                for prediction in predictions:
                    bar.audio_seconds += prediction.seconds
                    yield prediction

        tag_all(
            tag,
            folder,
            FileProgress(console, len(left.files) + len(left.errors), progress),
            output,
            lambda: f"; whole parts of them are in {output}, --resume continues",
            total=len(selection.files) + len(selection.errors),
            failed=failed,
        )
