"""``spectrim data``: make, check and list data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrim.cli.common import (
    FAILURE,
    FoldOption,
    FormatOption,
    FramesOption,
    ProgressOption,
    SetOption,
    StrideOption,
    byte_size,
    check_form,
    data_options,
    named_model,
    plainly,
    put,
)
from spectrim.errors import InvalidSetting, one_of, shown_name

if TYPE_CHECKING:
    from spectrim.data.check import Report

MaxListedOption = Annotated[int, typer.Option(min=0, help="Names of files and labels that are printed of each kind.")]


MINIATURES = {
    "audioset": ("spectrim.miniatures.sound_sets", "synthesize_audioset"),
    "esc50": ("spectrim.miniatures.sound_sets", "synthesize_esc50"),
    "spoken-commands": ("spectrim.miniatures.spoken_commands", "synthesize_spoken_commands"),
    "voxceleb1": ("spectrim.miniatures.speakers", "synthesize_voxceleb1"),
}
"""What ``spectrim data synthesize`` can make: name → module, function."""


@plainly
def synthesize(
    name: Annotated[str, typer.Argument(help="audioset, esc50, spoken-commands or voxceleb1.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    clips: Annotated[
        int | None,
        typer.Option(
            help="audioset: training clips, 4000 where not given; spoken-commands: likewise, 10000; esc50: clips in "
            "all, in multiples of 250, 2000; voxceleb1: utterances in all, 4450."
        ),
    ] = None,
    validation_clips: Annotated[
        int | None, typer.Option(help="spoken-commands only; a tenth of the training clips where not given.")
    ] = None,
    test_clips: Annotated[
        int | None,
        typer.Option(help="spoken-commands: a tenth of the training clips where not given; audioset: a quarter."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
    progress: ProgressOption = None,
) -> None:
    """Make a miniature of a public data set, in its layout on disk."""
    if name not in MINIATURES:
        raise InvalidSetting("name", name, one_of(MINIATURES))
    import inspect
    from importlib import import_module

    from spectrim.cli.terminal import error_console, stage_progress
    from spectrim.files import sole_writer

    module, function = MINIATURES[name]
    make = getattr(import_module(module), function)
    numbers = {"clips": clips, "validation_clips": validation_clips, "test_clips": test_clips}
    given = {field: value for field, value in numbers.items() if value is not None}
    for field, value in given.items():
        if field not in inspect.signature(make).parameters:
            raise InvalidSetting(field, value, f"no value, since {name} has no such number: leave the option out")
    with sole_writer(out, "out"), stage_progress(error_console(progress), progress) as tell:
        made = make(out, seed=seed, workers=workers, progress=lambda done, total: tell("clips", done, total), **given)
    put(made)


@plainly
def check(
    name: Annotated[str, typer.Argument(help="A data set by its name in recipes, e.g. esc50, folder or csv.")],
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is.")],
    fold: FoldOption = None,
    change: SetOption = None,
    form: FormatOption = "table",
    max_listed: MaxListedOption = 10,
    max_length: Annotated[
        int | None, typer.Option(help="Frames of 10 ms a clip that mean and std look at; default: the data set's.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that decode; default: one a core.")] = None,
    write_recipe: Annotated[
        Path | None, typer.Option(help="A new YAML file: a recipe that trains on this data set, with its reasons.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint that --write-recipe is for: its size decides the learning rate, and what is measured is "
            "measured at its sampling rate."
        ),
    ] = None,
    stride: StrideOption = None,
    frames: FramesOption = None,
    progress: ProgressOption = None,
) -> None:
    """Read every file of a data set: what is there, what is missing, lengths, and mean and std for a recipe.

    Exits with 1 when more is missing or unreadable than bad_share says.
    """
    check_form(form)
    options = data_options(change, fold)
    for option, given in (("init", init), ("stride", stride), ("frames", frames)):
        if given is not None and write_recipe is None:
            raise InvalidSetting(option, given, "together with --write-recipe")
    start = None
    if write_recipe is not None:
        from spectrim.checkpoints import DescribedSource
        from spectrim.training.starter import choose_split, look_at, refuse_existing, write_starter

        refuse_existing(write_recipe)
        if init is not None:
            named = named_model(init, stride, frames)
            start = look_at(named if isinstance(named, DescribedSource) else DescribedSource(named))
        elif stride or frames is not None:
            option, given = ("stride", stride) if frames is None else ("frames", frames)
            raise InvalidSetting(option, given, "together with --init")
        split = choose_split(name, root, options)
        options = split.options
    from spectrim.cli.terminal import as_json, complain, error_console, out_console, rows_csv, stage_progress
    from spectrim.data.check import check as run

    console = error_console(progress)
    with stage_progress(console, progress) as tell:
        report = run(
            name,
            root,
            max_length=max_length,
            sampling_rate=None if start is None else start.sampling_rate,
            workers=workers,
            progress=lambda done, total: tell("files", done, total),
            **options,
        )
    found = {
        "data_set": name,
        "mean": report.mean,
        "std": report.std,
        "max_length": report.max_length,
        "cut": report.cut,
    }
    if form == "json":
        parts = {part: report.parts[part].as_dict() for part in report.parts}
        put(as_json({**found, "failures": report.failures, "parts": parts}), end="")
    elif form == "csv":
        put(rows_csv([{**files, **labels} for files, labels in _part_rows(report)], found), end="")
    else:
        _print_report(out_console(), report, found, max_listed, root if root.is_dir() else root.parent)
    for failure in report.failures:
        complain(console, failure)
    if write_recipe is not None:
        write_starter(write_recipe, root, report, split, start)
        if form == "table":
            named_start = f"--init {init or 'CHECKPOINT'}"
            put(f"{write_recipe}: train with spectrim train {write_recipe} --data {root} {named_start} --output RUN")
    if report.failures:
        raise typer.Exit(FAILURE)


def _part_rows(report: Report) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Of each part, what there is to say in one line about its files, and about its labels."""
    rows = []
    for name, part in report.parts.items():
        shortest, mean, longest = part.seconds
        counts = sorted(part.per_label.values())
        files = {
            "part": name,
            "clips": part.clips,
            "missing": len(part.missing),
            "unreadable": len(part.broken),
            "hours": part.clips * mean / 3600,
            "shortest_s": shortest,
            "mean_s": mean,
            "longest_s": longest,
            "sampling_rates": " ".join(f"{rate}:{count}" for rate, count in part.sampling_rates.items()),
        }
        labels = {
            "labels": len(counts),
            "without_clips": len(part.empty_labels),
            "fewest_clips": counts[0],
            "median_clips": median(counts),
            "most_clips": counts[-1],
        }
        rows.append((files, labels))
    return rows


def _print_report(out: Any, report: Report, found: dict[str, Any], max_listed: int, folder: Path) -> None:
    from spectrim.cli.terminal import facts_table, rows_table
    from spectrim.data.check import look_alikes

    rows = _part_rows(report)
    decimals = dict.fromkeys(("hours", "shortest_s", "mean_s", "longest_s"), "{:.2f}".format)
    out.print(rows_table([files for files, _ in rows], **{name: decimals.get(name, str) for name in rows[0][0]}))
    per_label = [{"part": files["part"], **labels} for files, labels in rows]
    whole: dict[str, Callable[[Any], str]] = dict.fromkeys(per_label[0], str)
    out.print(rows_table(per_label, **{**whole, "median_clips": "{:g}".format}))
    for name, part in report.parts.items():
        for what, names in (
            ("missing", [_why_missing(file, folder) for file in part.missing]),
            ("unreadable", [f"{file}: {reason}" for file, reason in part.broken.items()]),
            ("labels without clips", [shown_name(label) for label in part.empty_labels]),
        ):
            _print_names(out, f"{name}: {len(names)} {what}", names, max_listed)
    alike = look_alikes(list(report.parts["train"].per_label))
    _print_names(out, f"{len(alike)} labels look like another", alike, max_listed)
    fields = ", ".join(f"{field}: {found[field]:.6g}" for field in ("mean", "std", "max_length"))
    out.print(facts_table({**found, "in a recipe": f"model: {{fields: {{{fields}}}}}"}))


def _why_missing(file: str, folder: Path) -> str:
    """A file that counts as missing, with the reason where something else is there."""
    from spectrim.audio.remote import is_url

    if is_url(file):
        return f"{file}: a URL, and only files are read here; download it, and name the file"
    return f"{file}: a folder" if os.path.isdir(folder / file) else file  # noqa: PTH112 (a name may be too long)


def _print_names(out: Any, title: str, names: Sequence[str], max_listed: int) -> None:
    from spectrim.cli.terminal import one_line

    if not names:
        return
    out.print(title, markup=False)
    for name in names[:max_listed]:
        out.print(f"  {one_line(name)}", markup=False, soft_wrap=True)
    if len(names) > max_listed:
        out.print(f"  and {len(names) - max_listed} more", markup=False)


@plainly
def pack(
    name: Annotated[str, typer.Argument(help="A data set by its name in recipes, e.g. audioset, folder or csv.")],
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of archives to make.")],
    form: Annotated[
        str, typer.Option("--format", help="flac: mono, at one rate; original: the files as they are.")
    ] = "flac",
    rate: Annotated[int | None, typer.Option(help="Sampling rate of the FLAC in hertz; default: 16000.")] = None,
    shard_size: Annotated[str, typer.Option(help="Largest archive, e.g. 500MB.")] = "1GB",
    change: SetOption = None,
    max_listed: MaxListedOption = 10,
    workers: Annotated[int | None, typer.Option(help="Threads that read; default: one a core.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on behind the last whole archive of --output, or begin.")
    ] = False,
    progress: ProgressOption = None,
) -> None:
    """Pack a data set into tar archives that every command reads in its place, and WebDataset too.

    Labels, parts and folds stay as they are: spectrim train RECIPE --data OUTPUT in place of --data DIR.
    """
    from spectrim.cli.terminal import complain, error_console, facts_table, out_console, stage_progress
    from spectrim.data.packing import pack as run

    if rate is not None and form == "original":
        raise InvalidSetting("rate", rate, "none with --format original, which keeps the rate of each file")
    given = {} if rate is None else {"sampling_rate": rate}
    console = error_console(progress)
    if resume and _packed_so(output, name, None if form == "original" else given.get("sampling_rate", 16000), change):
        complain(console, f"{output} is complete already; it does not say what {root} held then")
        return
    try:
        with stage_progress(console, progress) as tell:
            report = run(
                name,
                root,
                output,
                form=form,
                shard_bytes=byte_size("shard_size", shard_size),
                workers=workers,
                resume=resume,
                progress=lambda done, total: tell("clips", done, total),
                **given,
                **data_options(change),
            )
    except (KeyboardInterrupt, OSError):
        if output.with_name(output.name + ".partial").exists():
            complain(console, "the same command with --resume goes on behind the last whole archive")
        raise
    out = out_console()
    for what, names in (
        ("missing", report.missing),
        ("unreadable", [f"{file}: {reason}" for file, reason in report.unreadable.items()]),
    ):
        _print_names(out, f"{len(names)} {what}", names, max_listed)
    counts = {
        "clips": report.clips,
        "hours": report.hours,
        "archives": report.archives,
        "gigabytes": report.bytes / 1e9,
        **({f"{kind} clips": count for kind, count in report.fidelity.items()} if form == "flac" else {}),
    }
    out.print(facts_table(counts))
    put(f"{output}: use it in place of {root}")


def _packed_so(output: Path, name: str, rate: int | None, change: list[str] | None) -> bool:
    """Whether a packing is complete; `InvalidSetting` where it was made with other settings.

    One that has been damaged since is a `DataError`.
    """
    from spectrim.data import find_data_set
    from spectrim.data.packed import is_packed, read_pack
    from spectrim.files import refuse_another_run

    if not is_packed(output):
        return False
    options = {**find_data_set(name).defaults, **data_options(change)}
    options.pop("bad_share", None)
    settings = {"data_set": name, "options": options, "sampling_rate": rate}
    before = read_pack(output)
    packed = {"data_set": before.name, "options": before.options, "sampling_rate": before.sampling_rate}
    refuse_another_run(settings, packed, output)
    before.check_shards()
    return True


@plainly
def manifest(
    segments: Annotated[Path, typer.Argument(metavar="SEGMENTS_CSV", help="e.g. balanced_train_segments.csv.")],
    clips: Annotated[Path, typer.Argument(metavar="CLIPS_DIR", help="Searched to any depth.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.json", help="The manifest to write.")],
    labels: Annotated[Path, typer.Option(help="class_labels_indices.csv.")],
    max_listed: MaxListedOption = 10,
) -> None:
    """Write AST's manifest of AudioSet clips from Google's list of segments and a folder of clips.

    Clips are found as ID.wav, YID.wav, ID_30.wav or ID_30_40.wav, with any ending that can be decoded.
    """
    from spectrim.audio.files import UNREADABLE
    from spectrim.cli.terminal import out_console
    from spectrim.data.manifests import make_manifest

    made = make_manifest(segments, clips, out, labels=labels)
    console = out_console()
    _print_names(console, f"{len(made.missing)} segments have no clip", list(map(str, made.missing)), max_listed)
    title = f"{len(made.undecodable)} are left out: convert them from {', '.join(UNREADABLE)} to wav or flac"
    _print_names(console, title, list(map(str, made.undecodable)), max_listed)
    put(f"{out}: {made.written} of {made.segments} segments")
