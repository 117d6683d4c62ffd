"""``spectrim benchmark``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrim.cli.common import (
    FAILURE,
    CriterionOption,
    FormatOption,
    FramesOption,
    ModelOption,
    PrecisionOption,
    ProgressOption,
    ReducerOption,
    StrideOption,
    check_form,
    named_model,
    numbers,
    plainly,
    put,
)
from spectrim.errors import InvalidSetting

if TYPE_CHECKING:
    from rich.table import Table

    from spectrim.checkpoints import DescribedSource
    from spectrim.inference.backend import Backend
    from spectrim.measure.compare import Comparison

DRAWS = 2
"""Tables of random scores beside which clips are tagged."""


@plainly
def benchmark(
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    frames: FramesOption = None,
    criterion: CriterionOption = None,
    reducer: ReducerOption = None,
    clips: Annotated[
        list[str] | None, typer.Option(help="Folder, file or pattern of clips of yours; may be given several times.")
    ] = None,
    keep_rates: Annotated[
        str | None, typer.Option(help="Separated by commas; each in (0, 1]; default: 1.0,0.7,0.5.")
    ] = None,
    precision: PrecisionOption = None,
    batch_sizes: Annotated[str, typer.Option(help="Separated by commas.")] = "1,8",
    repeats: Annotated[int, typer.Option(help="Timed passes of each case.")] = 20,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many clips, evenly spread.")] = None,
    passes: Annotated[
        int | None, typer.Option(min=1, help="Timed passes over the clips at each keep rate; default: 3.")
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(help=f"Random tables that stand for random pruning, for --clips; 0 for none; default: {DRAWS}."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Score from which a multi-label model's label counts, for --clips; default: 0.5."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; default: as torch chooses.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes, for --clips.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    form: FormatOption = "table",
    progress: ProgressOption = None,
) -> None:
    """Tell what each keep rate costs and saves, to choose one.

    MACs, time and memory of the model alone, from log-mel to logits, on random
    numbers. With --clips every file is also tagged as spectrim predict does, at
    each keep rate in turn, and compared with what the dense model (keep rate 1)
    says of it in the precision of its weights, with 95 % intervals over the clips:

    agreement: share of the clips with the same best label.

    label overlap, for multi-label models: labels that reach the threshold in
    both, over those that reach it in either; mean over the clips with one.

    top5 overlap, likewise: share of the five best labels that are the same.

    mean change, largest change: of all scores, which lie between 0 and 1.
    clip change: the largest of a clip, mean over the clips.

    random agreement: agreement where patches are dropped at random. A sentence
    says whether the model's own ranking agrees more often than that.

    ms per clip, clips per second, speed up: here from file to labels, that is
    decoding, front end and model. read share: what decoding alone takes of it;
    near 100 % reading limits, and a lower keep rate does not help.

    Clips that cannot be read are named and left out; the exit code is then 1.
    An exported .onnx file is timed at its own keep rate and compared with
    nothing. docs/benchmark.md says how to read the tables.
    """
    check_form(form)
    rates = None if keep_rates is None else numbers("keep-rates", keep_rates, float)
    source = named_model(model, stride, frames, criterion, reducer)
    sizes = numbers("batch-sizes", batch_sizes, int)
    comparing: dict[str, Any] = {"passes": passes, "draws": draws, "threshold": threshold, "workers": workers}
    for option, given in {"limit": limit, **comparing}.items():
        if given is not None and not clips:
            raise InvalidSetting(option, given, "together with --clips")
    from spectrim.cli.terminal import complain, error_console, stage_progress
    from spectrim.inference.opening import open_model
    from spectrim.machine import torch_threads
    from spectrim.measure.benchmark import check_amount, run
    from spectrim.measure.compare import choose_clips, compare

    check_amount(sizes, repeats)
    console = error_console(progress)
    selection = choose_clips(clips, limit) if clips else None
    with torch_threads(threads), stage_progress(console, progress) as tell:
        network = open_model(source, precision=precision, device=device)
        heard = None
        if selection is not None:
            heard = compare(
                selection,
                network,
                rates,
                dense=None if precision is None else _in_own_precision(source, network),
                device=device,
                **{"draws": DRAWS, **{option: given for option, given in comparing.items() if given is not None}},
                on_error=lambda error: complain(console, error),
                on_progress=tell,
            )
        found = run(
            network,
            rates,
            sizes,
            repeats=repeats,
            device=device,
            on_round=lambda done, total: tell("time", done, total),
        )
    show({"model": model, "precision": network.precision, **found}, heard, form)
    if heard is not None and heard.errors:
        complain(console, f"{len(heard.errors)} of {len(heard.errors) + heard.facts['clips']} clips could not be read")
        raise typer.Exit(FAILURE)


def _in_own_precision(model: str | DescribedSource, measured: Backend) -> Backend | None:
    """The model as its weights are, where it is measured in another precision."""
    from spectrim.inference.opening import open_model

    own = open_model(model, device=str(measured.device))
    return None if own.precision == measured.precision else own


def show(found: Mapping[str, Any], heard: Comparison | None, form: str) -> None:
    """Print what `spectrim.measure.benchmark.run` and `spectrim.measure.compare.compare` found."""
    from spectrim.cli.terminal import as_json, facts_table, out_console, rows_csv

    facts = {name: value for name, value in found.items() if name != "rows"}
    rows, of_clips = found["rows"], {} if heard is None else {"clips": {**heard.facts, "rows": heard.rows}}
    if form == "json":
        put(as_json({**found, **of_clips}), end="")
        return
    if form == "csv":
        if heard is not None:
            facts["clips"] = heard.facts
            further = {str(row["keep_rate"]): row for row in heard.rows}
            rows = [row | further[str(row["keep_rate"])] for row in rows]
        put(rows_csv(rows, facts), end="")
        return
    out = out_console()
    out.print(model_table(rows))
    if heard is not None:
        out.print()
        out.print(clips_table(heard.rows))
        out.print(_reading(heard.facts))
        for line in _beside_random(heard.rows):
            out.print(line, markup=False, soft_wrap=True)
    environment = facts.pop("environment")
    out.print(facts_table({**facts, **environment}))


def _rate(value: float | Sequence[float]) -> str:
    """A keep rate, or those of the pruning blocks."""
    return " ".join(f"{one:g}" for one in (value if isinstance(value, Sequence) else [value]))


WITH_INTERVALS: dict[str, Callable[[float], str]] = {
    "agreement": "{:.1%}".format,
    "label_overlap": "{:.1%}".format,
    "top5_overlap": "{:.1%}".format,
    "clip_change": "{:.3f}".format,
}


def model_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What `spectrim.measure.benchmark.run` found, narrow enough for a terminal; ms per clip is in CSV and JSON."""
    from spectrim.cli.terminal import rows_table

    left_out = ("q1_ms", "q3_ms", "ms_per_clip")
    shown = [{name: value for name, value in row.items() if name not in left_out} for row in rows]
    for told, row in zip(shown, rows, strict=True):
        told["median_ms"] = f"{row['median_ms']:.2f} [{row['q1_ms']:.2f}, {row['q3_ms']:.2f}]"
    return rows_table(shown, keep_rate=_rate, median_ms=str)


def clips_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What `spectrim.measure.compare.compare` found; quartiles and further intervals are in CSV and JSON."""
    from spectrim.cli.terminal import rows_table

    beside = any("random_agreement" in row for row in rows)
    shown = [
        {
            **{name: _with_interval(row, name, write) for name, write in WITH_INTERVALS.items() if name in row},
            **({"random_agreement": _share(row.get("random_agreement"))} if beside else {}),
            **{name: row[name] for name in ("keep_rate", "mean_change", "largest_change", "read_share") if name in row},
            "ms_per_clip": row["files_ms"],
            "clips_per_second": row["files_per_second"],
            "speed_up": row["files_speed_up"],
        }
        for row in rows
    ]
    return rows_table(
        shown,
        keep_rate=_rate,
        **dict.fromkeys(WITH_INTERVALS, str),
        mean_change="{:.4f}".format,
        largest_change="{:.3f}".format,
        read_share="{:.0%}".format,
        random_agreement=str,
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _with_interval(row: Mapping[str, Any], name: str, write: Callable[[float], str]) -> str:
    if row[name] is None:
        return "–"
    ends = row[f"{name}_low"], row[f"{name}_high"]
    return write(row[name]) + ("" if None in ends else f" [{write(ends[0]).removesuffix('%')}, {write(ends[1])}]")


def _beside_random(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the model's own ranking agrees with the dense model more often than random pruning, or why none says."""
    from spectrim.stats.ground import against_random

    judged = [row for row in rows if "against_random" in row]
    told = against_random(("agreement by its own pruning", row["keep_rate"], row["against_random"]) for row in judged)
    return told + [f"at r={row['keep_rate']:g}: {row['why_random']}" for row in judged if row["why_random"]]


def _reading(facts: Mapping[str, Any]) -> str:
    """What the table of clips stands on."""
    windows = f"{facts['clips']} clips, {facts['windows']} windows, {facts['audio_seconds']:,.1f} s of audio"
    dense = f"; compared with the dense model in {facts['dense_precision']}" if "dense_precision" in facts else ""
    return (
        f"{windows}{dense}; intervals: 95 %, over clips. ms a clip from file to labels, median of "
        f"{facts['passes']} passes in turn, batches of {facts['batch_size']}, {facts['workers']} decoding processes: "
        f"reading alone takes {facts['read_ms']:.2f} ms, with the front end {facts['input_ms']:.2f} ms; starting takes "
        f"{facts['start_seconds']:.2f} s more, once. Whether a ranking is better than dropping patches at random, "
        "spectrim compare tells on clips with labels."
    )
