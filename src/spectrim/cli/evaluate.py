"""``spectrim evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrim.cli.common import (
    DatasetOption,
    FoldOption,
    FoldsOption,
    FormatOption,
    FramesOption,
    ModelOption,
    ProgressOption,
    ReducerOption,
    SetOption,
    StrideOption,
    check_form,
    data_options,
    held_out,
    named_model,
    numbers,
    plainly,
    put,
)
from spectrim.errors import InvalidSetting
from spectrim.pruning.criteria import AUTO, CRITERIA

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from spectrim.measure.evaluate import Evaluation


@plainly
def evaluate(
    dataset: DatasetOption,
    data: Annotated[Path, typer.Option(help="Root of the data set.")],
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    frames: FramesOption = None,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    fold: FoldOption = None,
    folds: FoldsOption = None,
    seeds: Annotated[str | None, typer.Option(help="Separated by commas; --model then has {seed} in it.")] = None,
    keep_rates: Annotated[str, typer.Option(help="Separated by commas; each in (0, 1].")] = "1.0,0.7,0.5",
    criterion: Annotated[
        str | None,
        typer.Option(
            help=f"What ranks the patches; separated by commas: {', '.join((AUTO, *CRITERIA))}. Default: the model's."
        ),
    ] = None,
    reducer: ReducerOption = None,
    draws: Annotated[int, typer.Option(help="Random tables that stand for random pruning beside it; 0 for none.")] = 2,
    change: SetOption = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Give a row for each label instead.")] = False,
    form: FormatOption = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results as JSON and CSV, and the curve.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips in a forward pass.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes; 0 decodes in this one.")] = None,
    progress: ProgressOption = None,
) -> None:
    """Score a data set at several keep rates: accuracy or mAP with 95 % intervals, AUC, d-prime, MACs and times.

    The change is that from the dense model on the same clips. Several folds or seeds are averaged, and --model has
    {fold} or {seed} in it.
    Beside each ranking stands random pruning, and a sentence says whether it is better.
    """
    check_form(form)
    options = data_options(change, fold)
    which = (
        held_out(options.get("fold"), folds) if folds is not None else [options["fold"]] if "fold" in options else []
    )
    options.pop("fold", None)
    source = named_model(model, stride, frames, reducer=reducer)
    rates = numbers("keep-rates", keep_rates, float)
    drawn_by = [] if seeds is None else numbers("seeds", seeds, int)
    if output is not None and output.exists() and not output.is_dir():
        raise InvalidSetting("output", str(output), "a folder, or a name that is still free")

    from spectrim.cli.terminal import error_console, stage_progress
    from spectrim.files import sole_writer
    from spectrim.measure.evaluate import evaluate as run

    with sole_writer(output), stage_progress(error_console(progress), progress) as tell:
        found = run(
            source,
            dataset,
            data,
            part=part,
            folds=which,
            seeds=drawn_by,
            keep_rates=rates,
            criteria=None if criterion is None else criterion.split(","),
            draws=draws,
            options=options,
            batch_size=batch_size,
            device=device,
            workers=workers,
            on_progress=lambda done, total: tell("clips", done, total),
        )
        if output is not None:
            write(found, output)
    _print(found, form, per_class=per_class)
    if output is not None and form == "table":
        put(output)


def _print(found: Evaluation, form: str, *, per_class: bool) -> None:
    """Results in a form on standard output: a row a keep rate and criterion, or one a label as well."""
    from spectrim.cli.terminal import as_json, out_console, rows_csv

    rows = found.per_class if per_class else found.rows
    if form == "json":
        put(as_json(found.as_dict()), end="")
    elif form == "csv":
        facts = {name: found.facts[name] for name in ("model", "data_set", "part", "runs", "clips", "environment")}
        put(rows_csv(rows, facts), end="")
    else:
        console = out_console()
        console.print(class_table(rows) if per_class else result_table(rows, found.facts["metric"]))
        _print_facts(console, found)


def write(found: Evaluation, folder: Path) -> None:
    """Write results as JSON and CSV, the curve as ``curve.png`` and ``curve.svg``, and pictures of single labels.

    Those show the model's first ranking at the first keep rate below 1, beside the dense model.
    """
    from spectrim.cli.terminal import rows_csv
    from spectrim.files import write_json, write_text
    from spectrim.pictures.curves import accuracy_curve
    from spectrim.pictures.figures import save_figure
    from spectrim.pictures.per_class import save_label_figures

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", found.as_dict())
    write_text(folder / "results.csv", rows_csv(found.rows, {}))
    write_text(folder / "per_class.csv", rows_csv(found.per_class, {}))
    if found.confusions:
        write_text(folder / "confusions.csv", rows_csv(found.confusions, {}))
    facts, metric = found.facts, found.facts["metric"]
    rates = [row["keep_rate"] for row in found.rows]
    points = [
        {
            "series": _method(row),
            "keep_rate": row["keep_rate"],
            "macs": row["paper_macs"],
            "value": row[metric],
            "low": row[f"{metric}_low"],
            "high": row[f"{metric}_high"],
        }
        for row in found.rows
    ]
    title = f"{facts['model']} on {facts['data_set']}, {facts['part']}"
    figure = accuracy_curve(points, metric=metric, title=title)
    for ending in ("png", "svg"):
        save_figure(figure, folder / f"curve.{ending}")
    criterion, rate = found.rows[0]["criterion"], next((rate for rate in rates if rate < 1.0), 1.0)
    at, dense = (
        [row for row in found.per_class if (row["criterion"], row["keep_rate"]) == (criterion, one)]
        for one in (rate, 1.0)
    )
    confusions = [row for row in found.confusions if (row["criterion"], row["keep_rate"]) == (criterion, rate)]
    save_label_figures(
        folder, at, dense if rate < 1.0 else [], confusions, names=(f"keep rate {rate:g}", "keep rate 1"), title=title
    )


def _percent(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{100 * value:{sign}.2f}"


def _method(row: Mapping[str, Any]) -> str:
    """What ranks, or the reducer, where that reads no scores."""
    return str(row["reducer"] if row["criterion"] == AUTO else row["criterion"])


def _ranking(row: Mapping[str, Any]) -> str:
    """The same, and how often it was drawn."""
    return f"{_method(row)}, {row['draws']} draws" if row["draws"] > 1 else _method(row)


def _with_interval(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    ends = row[f"{name}_low"], row[f"{name}_high"]
    between = "" if None in ends else f" [{_percent(ends[0], sign)}, {_percent(ends[1], sign)}]"
    return _percent(row[name], sign) + between


def result_table(rows: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """A row a keep rate and criterion; shares in %, changes in points."""
    from rich.table import Table

    from spectrim.cli.terminal import COLUMNS, PLAIN_TABLE

    others = [name for name in ("mAP", "AUC", "d_prime") if name != metric]
    heads = ["keep rate", "criterion", f"{metric}, % [95 %]", "change, points [95 %]"]
    beside = any(row["against_random"] is not None for row in rows)
    heads += [*(["to random, points [95 %]"] if beside else []), *others]
    table = Table(*heads, "paper MACs", "saved", "executed MACs", "ms a clip", "speed-up", **PLAIN_TABLE)
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows:
        dense = row["keep_rate"] == 1.0
        timed = ["" if row[name] is None else COLUMNS[name](row[name]) for name in ("ms_per_clip", "speed_up")]
        table.add_row(
            COLUMNS["keep_rate"](row["keep_rate"]),
            _ranking(row),
            _with_interval(row, metric),
            "" if dense else _with_interval(row, "change", "+"),
            *([_with_interval(row, "over_random", "+") if row["against_random"] else ""] if beside else []),
            *("" if row[name] is None else f"{row[name]:.{3 if name == 'd_prime' else 4}f}" for name in others),
            COLUMNS["paper_macs"](row["paper_macs"]),
            f"{row['macs_saved']:.1%}",
            *(COLUMNS["executed_macs"](row["executed_macs"]), *timed),
        )
    return table


def class_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row a keep rate, criterion and label; empty where a value is not defined."""
    from rich.table import Table
    from rich.text import Text

    from spectrim.cli.terminal import PLAIN_TABLE

    values = [name for name in ("recall", "precision", "average_precision", "AUC") if name in rows[0]]
    heads = ["keep rate", "criterion", "label", "positives", *(name.replace("_", " ") for name in values)]
    table = Table(*heads, **PLAIN_TABLE)
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows:
        figures = ["" if row[name] is None else f"{row[name]:.4f}" for name in values]
        head: list[str | Text] = [f"{row['keep_rate']:g}", _method(row), Text(row["label"]), str(row["positives"])]
        table.add_row(*head, *figures)
    return table


def _print_facts(console: Console, found: Evaluation) -> None:
    """Say below the table what its figures stand for."""
    from spectrim.data.splits import drawn_in_words
    from spectrim.stats.ground import against_random

    facts, machine = found.facts, found.facts["environment"]
    lines = [f"{facts['clips']} clips, {facts['labels']} labels; intervals: {facts['interval']}"]
    if drawn := drawn_in_words(facts["part"], facts["drawn_from"]):
        lines.append(drawn)
    for kind in ("unreadable", "missing"):
        if facts[kind]:
            lines.append(f"{len(facts[kind])} {kind} files do not count: {_listed(facts[kind])}")
    for metric, labels in facts["undefined"].items():
        if labels:
            lines.append(f"{metric} is not defined for {len(labels)} labels, and left out there: {_listed(labels)}")
    if all(row["ms_per_clip"] is None for row in found.rows):
        lines.append(
            f"ms a clip: none, as the first batch is not timed, nor one of fewer clips than {facts['batch_size']}; "
            "a smaller --batch-size gives more batches"
        )
    else:
        lines.append(
            f"ms a clip: the model alone, batches of {facts['batch_size']} in turn, beside {facts['workers']} decoding "
            f"process(es), {machine['torch_threads']} threads, {machine['processor']}, {machine['device']}"
        )
    lines += [
        f"keep rate {row['keep_rate']:g}, {_method(row)}: less than one point lost? {row['under_one_point']}"
        + (f": {row['why']}" if row["why"] else "")
        for row in found.rows
        if row["under_one_point"] is not None
    ]
    if sum(row["under_one_point"] is not None for row in found.rows) > 1:
        lines.append(
            "The best of several keep rates on these clips flatters: choose one on other clips, e.g. validation."
        )
    judged = [row for row in found.rows if row["against_random"] is not None]
    lines += against_random((_method(row), row["keep_rate"], row["against_random"]) for row in judged)
    if not judged and {row["criterion"] for row in found.rows if row["keep_rate"] < 1.0} - {"random"}:
        lines.append("Is a ranking better than dropping patches at random? spectrim compare tells, on the same clips.")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
