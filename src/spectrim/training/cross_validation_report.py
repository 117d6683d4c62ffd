"""The results of a cross-validation as files: JSON, CSV and Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spectrim.files import folder_beside, write_json, write_text
from spectrim.machine import environment
from spectrim.pictures.markdown import code_span, plain_markdown
from spectrim.tables import table_csv
from spectrim.training.cross_validation import CrossValidation, answers_of
from spectrim.training.run_pictures import draw_answers

FOLDER = "cross_validation"
"""Where they are, beside the runs' folders."""


def table_cells(found: CrossValidation) -> list[list[str]]:
    """The results as text, the header first: a row a fold, then mean and spread, all clips, and change by pruning.

    Shares are in %, changes in points.
    """
    metric, rates = found.facts["metric"], [row["keep_rate"] for row in found.keep_rates]
    value = {(row["fold"], row["keep_rate"]): row[metric] for row in found.folds}
    rows = [[f"{metric}, %", "test clips", "epoch", *(f"keep rate {rate:g}" for rate in rates)]]
    for fold in found.facts["folds"]:
        one = next(row for row in found.folds if row["fold"] == fold)
        head = [f"fold {fold}", str(one["test_clips"]), f"{one['epoch']:g}"]
        rows.append([*head, *(_percent(value[fold, rate]) for rate in rates)])
    if len(rows) > 2:
        means = [_percent(row["mean"]) + _percent(row["sd"], before=" ± ") for row in found.keep_rates]
        rows.append(["mean ± SD", "", "", *means])
    named = " [95 %]" if any(row["pooled_low"] is not None for row in found.keep_rates) else ""
    everything = [_with_interval(row, "pooled") for row in found.keep_rates]
    rows.append([f"all clips{named}", str(found.facts["clips"]), "", *everything])
    if len(rates) > 1 and 1.0 in rates:
        changes = ["" if row["keep_rate"] == 1.0 else _with_interval(row, "change", "+") for row in found.keep_rates]
        rows.append([f"change, points{named}", "", "", *changes])
    return rows


def _percent(value: float | None, sign: str = "", before: str = "") -> str:
    return "" if value is None else f"{before}{100 * value:{sign}.2f}"


def _with_interval(row: dict[str, Any], name: str, sign: str = "") -> str:
    text, ends = _percent(row[name], sign), (row[f"{name}_low"], row[f"{name}_high"])
    return text if None in ends else f"{text} [{_percent(ends[0], sign)}, {_percent(ends[1], sign)}]"


def notes(found: CrossValidation) -> list[str]:
    """What the figures stand on, line by line."""
    facts = found.facts
    lines = [f"Epoch: {facts['epoch']}.", f"Intervals: {facts['interval']}."]
    if facts["metric"] != "accuracy":
        lines.append(
            f"{facts['metric']} over all clips ranks the scores of different models against each other, and so differs "
            "from the mean of the folds."
        )
    return lines


def write(found: CrossValidation, output: Path) -> Path:
    """Write ``cross_validation/``: ``results.json``, ``folds.csv``, ``keep_rates.csv``, ``results.md``, and the labels.

    The latter are what `spectrim.training.run_pictures.draw_answers` writes, over the clips of all folds.

    Args:
        found: the results.
        output: folder around it, and around those of the runs.

    Returns:
        The folder, which appears whole or not at all.
    """
    place = output / FOLDER
    with folder_beside(place) as beside:
        beside.mkdir(parents=True)
        write_json(beside / "results.json", {**found.as_dict(), "environment": environment()})
        write_text(beside / "folds.csv", table_csv(found.folds))
        write_text(beside / "keep_rates.csv", table_csv(found.keep_rates))
        write_text(beside / "results.md", as_markdown(found))
        facts = found.facts
        title = f"{facts['recipe']}: {len(facts['folds'])} folds"
        draw_answers(answers_of(output, facts["folds"]), beside, facts["keep_rate"], title)
    return place


def as_markdown(found: CrossValidation) -> str:
    """A page with the table and what it stands on."""
    facts = found.facts
    head, *rows = [[plain_markdown(cell) for cell in row] for row in table_cells(found)]
    table = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    lines = [f"| {' | '.join(row)} |" for row in table]
    title = f"# {plain_markdown(facts['recipe'])}: {len(facts['folds'])} folds of {plain_markdown(facts['data_set'])}"
    said = [plain_markdown(line) for line in notes(found)]
    models = f"Models: {code_span(facts['models'])}"
    return "\n\n".join([title, "\n".join(lines), *said, models]) + "\n"
