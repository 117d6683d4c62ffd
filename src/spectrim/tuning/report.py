"""The files of a search: the model, the front as CSV, JSON and figure, and a report as one page and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectrim.comparison.rows import Row
from spectrim.data.splits import drawn_in_words
from spectrim.files import clear, folder_beside, write_json, write_text
from spectrim.pictures.front import front_figure
from spectrim.pictures.report import Report
from spectrim.tables import table_csv
from spectrim.tuning.conclusion import Tuning

MODEL = "model"
READING = (
    "Nothing is trained. Points were chosen on one half of the clips; the other half was held out, and nothing was "
    "chosen on it. Speed is measured, all points in turn; the chosen one was timed anew after the choice."
)
CAUTION = (
    "Choosing from the front by its held-out column would make that half one to choose on: what is promised holds for "
    "the chosen point, on this machine, for clips like these."
)


def write(found: Tuning, folder: Path, command: str) -> Path:
    """Write ``front.csv``, ``results.json``, ``report.html``, ``report.md``, ``figures/``, and ``model/`` if chosen.

    Args:
        found: what to write.
        folder: where. The model of an earlier run is removed.
        command: that made it.

    Returns:
        Path of the Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if found.network is None:
        clear(folder / MODEL)
    else:
        with folder_beside(folder / MODEL) as beside:
            found.network.save_pretrained(beside)
    write_json(folder / "results.json", {"command": command, **found.as_dict()})
    write_text(folder / "front.csv", table_csv([_flat(row) for row in found.rows]))
    facts = found.facts
    report = Report(f"Operating points of {facts['model']}: {facts['target']}", folder)
    report.text(f"{_data(facts)} {READING}")
    report.command(command)
    report.heading("In words")
    report.items(found.sentences)
    report.text(CAUTION)
    report.heading("The front")
    title = f"{facts['model']}, {facts['speed_of']}, passes of {facts['clips_at_once']}"
    figure = front_figure(found.rows, metric=facts["metric"], title=title, max_drop=facts["max_drop"])
    report.figure("front", figure, "What is lost over measured speed, on both halves of the clips")
    report.table(*_table(found.rows, facts["metric"]))
    if found.final:
        report.heading("Timed anew after the choice", 3)
        report.table(*_table(found.final, facts["metric"]))
    report.text(f"Held out: intervals are {facts['interval']}. {_times(facts)}")
    report.heading("Is a ranking better than dropping at random?")
    report.text(
        f"At the model's own blocks {', '.join(map(str, facts['own_blocks']))}, with one keep rate, on the half to "
        f"choose on; 95 % paired intervals, with the luck of the draws. Searched with: "
        f"{', '.join(facts['searched_methods'])}; {facts['points_tried']} points were tried."
    )
    report.items([*found.rankings, *(f"Left out: {name}: {why}." for name, why in facts["left_out"].items())])
    report.write()
    return folder / "report.md"


def _flat(row: Row) -> Row:
    """Lists as text, for a cell."""
    return {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in row.items()}


def _data(facts: Mapping[str, Any]) -> str:
    halves = []
    for name, what in (("search_groups", "to choose on"), ("held_groups", "held out")):
        groups = facts[name]["groups"]
        of = f" of {groups} speakers or longer recordings" if groups else ""
        halves.append(f"{facts[name]['clips']:,}{of} {what}")
    left = "" if not facts["unreadable"] else f" {len(facts['unreadable'])} could not be read."
    drawn = drawn_in_words(facts["part"], facts["drawn_from"])
    return f"Clips of {facts['data_set']}, {facts['part']}, {facts['labels']} labels: {'; '.join(halves)}.{left}" + (
        drawn and f" {drawn}"
    )


def _times(facts: Mapping[str, Any]) -> str:
    machine = facts["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"ms a clip: the model alone, from log-mel to logits, median and quartiles of {facts['repeats']} passes of "
        f"{facts['clips_at_once']} clips, all points in turn, in an order drawn anew for each; speed-up: median over "
        f"the rounds of the dense model's time over the point's. {machine['processor']}, {machine['device']}, "
        f"{machine['torch_threads']} threads of {machine['cores']} cores. Python {machine['python']}, {versions}."
    )


def _table(rows: Sequence[Row], metric: str) -> tuple[list[str], list[list[str]]]:
    """Columns and cells."""
    columns = ["point (block:keep rate)", "executed MACs", "saved", "ms a clip", "speed-up", f"{metric}, %"]
    columns += ["lost, points", "held out: lost, points", "front"]
    cells = []
    for row in rows:
        cells.append(
            [
                *(row["name"], f"{row['executed_macs'] / 1e6:,.1f} M", f"{row['macs_saved']:.1%}"),
                f"{row['ms']:.2f} [{row['ms_q1']:.2f}, {row['ms_q3']:.2f}]",
                f"{row['speed_up']:.2f}×",
                *(f"{100 * row['metric']:.1f}", f"{100 * row['drop']:.1f}", held_lost(row)),
                "chosen" if row.get("chosen") else "yes" if row["on_front"] else "",
            ]
        )
    return columns, cells


def held_lost(row: Row) -> str:
    """What is lost on the held-out half, in points with the 95 % interval; empty where that was not looked at."""
    if row.get("held_drop") is None:
        return ""
    low, high = row["held_drop_low"], row["held_drop_high"]
    ends = "" if low is None or high is None else f" [{100 * low + 0.0:.1f}, {100 * high + 0.0:.1f}]"
    return f"{100 * row['held_drop'] + 0.0:.1f}{ends}"
