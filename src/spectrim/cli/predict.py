"""``spectrim demo`` and ``spectrim predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrim.cli.common import (
    FAILURE,
    CriterionOption,
    FormatOption,
    FramesOption,
    ModelOption,
    ProgressOption,
    ReducerOption,
    StrideOption,
    check_form,
    named_model,
    nothing_named,
    numbers,
    plainly,
    put,
)
from spectrim.errors import InvalidSetting, one_of

if TYPE_CHECKING:
    from spectrim.audio.finding import Selection
    from spectrim.checkpoints import DescribedSource
    from spectrim.inference.backend import Backend
    from spectrim.inference.events import EventTracks
    from spectrim.inference.tagger import Paint


UNTOLD = "; it does not say what it was made with: delete it to tag anew"
"""Of an output whose format holds no settings, where this run may have others."""


@plainly
def demo(
    clips: Annotated[list[Path] | None, typer.Argument(help="Audio files; none: the package's own clips.")] = None,
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    frames: FramesOption = None,
    keep_rates: Annotated[str, typer.Option(help="Separated by commas; each in (0, 1].")] = "1.0,0.7,0.5",
    criterion: CriterionOption = None,
    reducer: ReducerOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures.")] = Path("spectrim-demo"),
    pictures: Annotated[int, typer.Option(help="How many clips to draw.")] = 3,
    form: FormatOption = "table",
    progress: ProgressOption = None,
) -> None:
    """Tag clips at several keep rates, compare accuracy and speed, and draw what is kept."""
    check_form(form)
    source = named_model(model, stride, frames, criterion, reducer)
    rates = numbers("keep-rates", keep_rates, float)

    from spectrim.cli.terminal import (
        as_json,
        complain,
        error_console,
        out_console,
        rows_csv,
        rows_table,
        stage_progress,
    )
    from spectrim.explain.window_pictures import clip_painter
    from spectrim.machine import environment
    from spectrim.measure.demo import run

    console = error_console(progress)
    with stage_progress(console, progress) as tell:
        result = run(
            clips or (),
            model=source,
            keep_rates=rates,
            draw=clip_painter(output) if pictures else None,
            pictures=pictures,
            on_progress=tell,
        )
    for error in result.errors:
        complain(console, error)
    machine = environment()
    facts = {"clips": len(result.clips), "batch_size": result.batch_size, "repeats": result.repeats}
    if form == "csv":
        put(rows_csv(result.rows, {**facts, **machine}), end="")
    elif form == "json":
        put(as_json({**facts, "environment": machine, "rows": result.rows, "pictures": result.pictures}), end="")
    else:
        out = out_console()
        out.print(rows_table(result.rows))
        times = f"median of {result.repeats} passes of {result.batch_size}, {machine['torch_threads']} threads"
        out.print(f"{len(result.clips)} clips; MACs per clip; ms per clip: {times}, {machine['processor']}")
        for picture in result.pictures:
            out.print(str(picture), markup=False)
    if result.errors:
        raise typer.Exit(FAILURE)


@plainly
def predict(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, patterns, URLs, Parquet of names, or - for a list.")
    ] = None,
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    frames: FramesOption = None,
    keep_rate: Annotated[float | None, typer.Option(help="Share of patches to keep, in (0, 1].")] = None,
    criterion: CriterionOption = None,
    reducer: ReducerOption = None,
    drop_padding: Annotated[
        bool,
        typer.Option(
            "--drop-padding",
            help="Leave out what only fills a short file up; scores change, much for files far shorter than a window.",
        ),
    ] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            help="torch, onnxruntime, openvino, or auto, the fastest here; default: torch, for .onnx onnxruntime."
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: on the machines of a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of --engine ray: auto or HOST:PORT of the cluster; default: this machine alone.")
    ] = None,
    model_cores: Annotated[
        int | None, typer.Option(help="Of --engine ray: cores of each model where there is no GPU; default: up to 4.")
    ] = None,
    part_files: Annotated[
        int | None, typer.Option(help="Of --engine ray: files whose rows share a Parquet file; default: 64 to 1024.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32, bf16 or int8; default: as the weights are.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to give for a file or window.")] = 5,
    form: Annotated[str | None, typer.Option("--format", help="table, csv, jsonl or parquet.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV, JSON-lines or Parquet file; with --engine ray a folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run into --output.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows in a forward pass.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    window: Annotated[float | None, typer.Option(help="Seconds of a window; default: what the model hears.")] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="Seconds from window to window; default: --window, or what the model hears anew."),
    ] = None,
    aggregate: Annotated[str, typer.Option(help="Of a file's windows: mean, max or none.")] = "mean",
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes.")] = None,
    explain: Annotated[Path | None, typer.Option(help="Folder for pictures of what is kept.")] = None,
    events: Annotated[Path | None, typer.Option(help="Folder for tracks of when labels are heard.")] = None,
    events_as: Annotated[str | None, typer.Option(help="Of --events: audacity, the default, or raven.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Of --events: only this one; repeat for more.")] = None,
    threshold: Annotated[list[str] | None, typer.Option(help="Of --events: score, or LABEL=SCORE; repeat.")] = None,
    min_duration: Annotated[float, typer.Option(help="Of --events: seconds of the shortest event.")] = 0.0,
    watch: Annotated[Path | None, typer.Option(help="Folder: tag what arrives in it, until Ctrl-C.")] = None,
    settle: Annotated[
        float | None, typer.Option(help="Of --watch: seconds for which a complete file stays as it is; default: 2.")
    ] = None,
    progress: ProgressOption = None,
) -> None:
    """Tag audio files of any format, rate and length, with a checkpoint or an exported .onnx file.

    Files that cannot be used get an error instead of labels, and the exit code becomes 1.
    """
    if drop_padding and backend not in (None, "torch"):
        raise InvalidSetting("drop_padding", True, "only with --backend torch: no exported file can do it")
    opening = {"keep_rate": keep_rate, "precision": precision, "device": device, "backend": backend}
    opening["drop_padding"] = drop_padding
    tagging = {"batch_size": batch_size, "window": window, "hop": hop, "aggregate": aggregate, "workers": workers}
    here: dict[str, Any] = {
        "explain": explain,
        "watch": watch,
        "settle": settle,
        "events": events,
        "events_as": events_as,
    }
    here |= {"label": label, "threshold": threshold, "min_duration": min_duration or None}
    elsewhere: dict[str, Any] = {"address": address, "model_cores": model_cores, "part_files": part_files}
    source = named_model(model, stride, frames, criterion, reducer)
    if engine == "ray":
        _refuse({**here, "format": None if form == "parquet" else form}, "only with --engine local")
        from spectrim.cli.cluster import predict_on_cluster

        predict_on_cluster(paths or [], source, opening, tagging, output, resume, top, progress, **elsewhere)
    elif engine == "local":
        _refuse(elsewhere, "only with --engine ray")
        _predict_here(paths or [], source, opening, tagging, form, output, resume, top, progress, **here)
    else:
        raise InvalidSetting("engine", engine, one_of(("local", "ray")))


def _predict_here(
    paths: Sequence[str],
    source: str | DescribedSource,
    opening: Mapping[str, Any],
    tagging: Mapping[str, Any],
    form: str | None,
    output: Path | None,
    resume: bool,
    top: int,
    progress: bool | None,
    *,
    explain: Path | None,
    watch: Path | None,
    settle: float | None,
    **tracking: Any,
) -> None:
    """Tag files in this process; arguments as the options of `predict`, those for tracks in ``tracking``."""
    form = predict_form(form, output, resume)
    if watch is None and not paths:
        raise nothing_named("files, folders, patterns or - (a list on standard input); or a folder by --watch")
    if watch is not None and paths:
        raise InvalidSetting("watch", str(watch), "no files beside it: it tags what arrives in the folder")
    if watch is None and settle is not None:
        raise InvalidSetting("settle", settle, "only with --watch")
    if tracking["events"] is None and tracking["events_as"] is not None:
        raise InvalidSetting("events_as", tracking["events_as"], "only with --events")
    from spectrim.audio.finding import Selection, select_files
    from spectrim.cli.prediction_output import WithTracks, open_sink
    from spectrim.cli.tagging import (
        made_beside,
        pass_on,
        settings_of,
        tag_all,
        warn_of_embedded,
        warn_of_nothing_pruned,
    )
    from spectrim.cli.terminal import FileProgress, complain, error_console, stage_progress
    from spectrim.files import refuse_input
    from spectrim.inference.opening import open_model
    from spectrim.inference.output_file import OutputFile
    from spectrim.inference.predict import first_windows, predict_files
    from spectrim.inference.prediction_rows import FORMATS
    from spectrim.inference.watch import SETTLE_SECONDS, check_watched

    settle = SETTLE_SECONDS if settle is None else settle
    if watch is not None:
        check_watched(watch, settle)
    console = error_console(progress)
    if output is not None:
        FORMATS[form].check()
    # With --watch, tracks and pictures lie as the files do below the folder.
    selection = select_files(paths) if watch is None else Selection([str(watch / "any")])
    if output is not None:
        refuse_input(output, selection.files)
    with stage_progress(console, progress) as tell:
        network = open_model(
            source,
            opening["keep_rate"],
            opening["precision"],
            opening["device"],
            opening["backend"],
            clips=first_windows(selection.files, tagging["window"], tagging["hop"]),
            tell=lambda line: complain(console, line),
            on_step=tell,
        )
    if opening["drop_padding"]:
        network = network.at(network.pruning.changed({"drop_padding": True}))
    warn_of_embedded(console, source)
    warn_of_nothing_pruned(console, source, network)
    tracks = _tracks(network, selection, **tracking)
    settings = settings_of(opening, tagging) | ({} if watch is None else {"watch": str(watch)})
    beside = made_beside(explain, **tracking)
    sink, left, failed = open_sink(form, output, resume, top, network, settings, selection, beside, watch is not None)
    if left is None:
        sink.close()
        told = isinstance(sink, OutputFile) and sink.says_settings
        complain(console, f"{output} is complete already{'' if told else UNTOLD}")
        if idle := " and ".join(f"--{name}" for name in ("events", "explain") if name in beside):
            complain(console, f"{idle} made nothing, as no file is heard again; another --output makes them")
        raise typer.Exit(FAILURE if failed else 0)
    paint = None if explain is None else _painter(network, explain, selection)
    store = sink if isinstance(sink, OutputFile) else None
    if tracks is not None:
        sink = WithTracks(sink, tracks, None if watch is None else lambda line: complain(console, line))
    tag: Any = partial(predict_files, model=network, paint=paint, store=store, **tagging)
    if watch is not None:
        from spectrim.cli.watching import watch_folder

        watch_folder(watch, settle, tag, pass_on, sink, store, console, progress)
    kept = f"; {output}.partial holds them, --resume continues"
    tag_all(
        lambda bar: tag(left, on_window=bar.hear),
        sink,
        FileProgress(console, len(left.files) + len(left.errors), progress),
        output,
        lambda: kept if store is not None and store.begun else "",
        total=len(selection.files) + len(selection.errors),
        failed=failed,
    )


def _refuse(options: Mapping[str, object], where: str) -> None:
    """Refuse those options that are given."""
    for name, value in options.items():
        if value is not None:
            raise InvalidSetting(name, str(value), where)


def _tracks(
    network: Backend,
    selection: Selection,
    *,
    events: Path | None,
    events_as: str | None,
    label: list[str] | None,
    threshold: list[str] | None,
    min_duration: float | None,
) -> EventTracks | None:
    """What writes a track of every file, where a folder is named; arguments as the options of `predict`."""
    if events is None:
        if label or threshold or min_duration:
            raise InvalidSetting("events", None, "a folder, with --label, --threshold or --min-duration")
        return None
    from spectrim.inference.events import EventTracks, thresholds_of

    chosen = thresholds_of(network.labels, threshold or [], label or [])
    rate = network.config.sampling_rate
    return EventTracks(events, events_as or "audacity", selection.files, chosen, min_duration or 0.0, rate)


def _painter(network: Backend, folder: Path, selection: Selection) -> Paint:
    """What draws every window; see `spectrim.explain.window_pictures.window_painter`."""
    from spectrim.explain.window_pictures import window_painter

    return window_painter(network, folder, selection.files)


def predict_form(form: str | None, output: Path | None, resume: bool) -> str:
    """The format that is meant: where none is named, the output's ending says it, and a table goes to a terminal."""
    ending = "table" if output is None else output.suffix.lower().lstrip(".")
    named = {"json": "jsonl", "ndjson": "jsonl"}.get(ending, ending)
    known = named in ("table", "csv", "jsonl", "parquet")
    if form is None:
        if not known:
            raise InvalidSetting("output", str(output), "a name that ends in .csv, .jsonl or .parquet, or --format")
        if ending == "json":
            wanted = "a name that ends in .jsonl: an object a line is written, which is no JSON as a whole; or --format"
            raise InvalidSetting("output", str(output), wanted)
        form = named
    elif output is not None and known and named not in (form, "table"):
        raise InvalidSetting("format", form, f"{named}, as {output} is called, or another name")
    allowed = ("csv", "jsonl", "table") if output is None else ("csv", "jsonl", "parquet")
    if form not in allowed:
        where = "; parquet only with --output" if output is None else " for an output file"
        raise InvalidSetting("format", form, one_of(allowed) + where)
    if resume and output is None:
        raise InvalidSetting("resume", resume, "together with --output")
    return form
