"""The files of a comparison: JSON, CSV, a figure, and a report as one page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from spectrim.comparison.methods import DENSE
from spectrim.comparison.rows import Row
from spectrim.comparison.run import Comparison
from spectrim.data.splits import drawn_in_words
from spectrim.files import write_json, write_text
from spectrim.pictures.methods import methods_figure
from spectrim.pictures.report import Report
from spectrim.tables import table_csv

READING = (
    "A method is trained on nothing here: the weights are the same in every row, unless it is called fine-tuned. "
    "Differences are paired: both sides saw the same clips. Random pruning is the mean of several draws, "
    "and every clip sees the same ones; its intervals, and those of differences from it, hold the luck of the draw."
)
CAUTION = (
    "The best of several methods or keep rates on these clips flatters: choose on other clips. Of many differences "
    "that are nought, about one in twenty lies outside its 95 % interval."
)


def write(found: Comparison, folder: Path, command: str) -> Path:
    """Write the tables of a comparison, and last its report.

    ``results.json``, ``results.csv``, ``agreement.csv``, ``clips.csv`` where clips have one label each; ``report.md``,
    ``report.html`` and ``figures/``.

    Args:
        found: what to write.
        folder: where.
        command: that made it.

    Returns:
        Path of the Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", {"command": command, **found.as_dict()})
    write_text(folder / "results.csv", table_csv(found.rows))
    write_text(folder / "agreement.csv", table_csv(found.agreement))
    if found.clips:
        write_text(folder / "clips.csv", table_csv(found.clips))
    facts, metric = found.facts, found.facts["metric"]
    report = Report(f"Ways to spend fewer tokens: {facts['model']}", folder)
    report.text(
        f"{facts['clips']} clips of {facts['data_set']}, {facts['part']}, {facts['labels']} labels; chance is "
        f"{100 * facts['chance']:.1f} %. Pruning blocks: {', '.join(map(str, facts['prune_at']))}. {READING} "
        f"Intervals: {facts['interval']}. {drawn_in_words(facts['part'], facts['drawn_from'])}".rstrip()
    )
    report.command(command)
    report.heading("In words")
    report.items([*found.sentences, *(f"Left out: {case}: {why}." for case, why in facts["left_out"].items())])
    report.text(CAUTION)
    report.heading(f"{metric}, MACs and time")
    report.figure("methods", _figure(found), f"{metric} over executed MACs and over measured time")
    report.table(*_table(found.rows, metric, facts["batch_sizes"]))
    machine = facts["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    report.text(
        f"ms a clip: the model alone, from log-mel to logits, median and quartiles of {facts['repeats']} passes of all "
        f"cases in turn, in an order drawn anew for each; {machine['processor']}, {machine['device']}, "
        f"{machine['torch_threads']} threads of {machine['cores']} cores. Python {machine['python']}, {versions}."
    )
    if found.agreement:
        _add_agreement(report, found)
    report.write()
    return folder / "report.md"


def _figure(found: Comparison) -> Figure:
    size = found.facts["batch_sizes"][-1]
    metric = found.facts["metric"]
    points = [
        {
            "series": row["method"],
            "keep_rate": row["keep_rate"],
            "macs": row["executed_macs"],
            "ms": row[f"ms_{size}"],
            "ms_q1": row[f"ms_{size}_q1"],
            "ms_q3": row[f"ms_{size}_q3"],
            "value": row[metric],
            "low": row[f"{metric}_low"],
            "high": row[f"{metric}_high"],
        }
        for row in found.rows
    ]
    title = f"{found.facts['model']}, {found.facts['clips']} clips, batches of {size}"
    return methods_figure(points, metric=metric, title=title)


def _table(rows: Sequence[Row], metric: str, sizes: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the table of all rows."""
    columns = ["method", "keep rate", f"{metric}, %", "against dense, points", "under one point lost?"]
    columns += ["against random, points", "than random", "executed MACs", "saved"]
    columns += [f"ms a clip, batch {size}" for size in sizes] + [f"speed-up, batch {size}" for size in sizes]
    cells = []
    for row in rows:
        name = row["method"] + (f", {row['draws']} draws" if row["draws"] > 1 else "")
        cells.append(
            [
                *(name, f"{row['keep_rate']:g}", with_interval(row, metric)),
                *(with_interval(row, "change", "+"), row["under_one_point"] or ""),
                *(with_interval(row, "over_random", "+"), row["against_random"] or ""),
                *(f"{row['executed_macs'] / 1e6:,.1f} M", f"{row['macs_saved']:.1%}"),
                *(
                    f"{row[f'ms_{size}']:.2f} [{row[f'ms_{size}_q1']:.2f}, {row[f'ms_{size}_q3']:.2f}]"
                    for size in sizes
                ),
                *("" if row["method"] == DENSE else f"{row[f'speed_up_{size}']:.2f}×" for size in sizes),
            ]
        )
    return columns, cells


def with_interval(row: Row, name: str, sign: str = "") -> str:
    """A share in %, or its change in points, with its interval."""
    if row[name] is None:
        return ""
    ends = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if None in ends else f" [{100 * ends[0]:{sign}.1f}, {100 * ends[1]:{sign}.1f}]"
    return f"{100 * row[name]:{sign}.1f}{interval}"


def _add_agreement(report: Report, found: Comparison) -> None:
    """Tables of what methods keep in common, one a keep rate."""
    report.heading("Do they keep the same patches?")
    report.text(
        "Patches that both methods keep over those that either keeps (Jaccard), mean over "
        f"{found.facts['traced']} clips, after each pruning block; behind the stroke, what two independent random "
        "choices of as many patches have in common. Random with random compares different draws. "
        "Methods that merge keep every patch in some token, and choose none."
    )
    for rate in dict.fromkeys(row["keep_rate"] for row in found.agreement):
        rows = [row for row in found.agreement if row["keep_rate"] == rate]
        blocks = sorted({row["block"] for row in rows})
        by_pair: dict[tuple[str, str], dict[int, Row]] = {}
        for row in rows:
            by_pair.setdefault((row["first"], row["second"]), {})[row["block"]] = row
        cells = [
            [
                f"{first}, {second}",
                *(f"{100 * at[block]['overlap']:.0f} / {100 * at[block]['at_random']:.0f}" for block in blocks),
            ]
            for (first, second), at in by_pair.items()
        ]
        report.heading(f"Keep rate {rate:g}", 3)
        report.table(["methods", *(f"block {block}, %" for block in blocks)], cells)
