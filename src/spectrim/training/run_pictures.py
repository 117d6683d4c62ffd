"""Pictures and tables of a finished run: how it went, which labels are told, and what they are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectrim.checkpoints.untrusted import read_json
from spectrim.errors import DataError
from spectrim.files import write_text
from spectrim.measure.metrics import confusion_counts, label_metrics
from spectrim.measure.runs import confusion_rows, label_rows
from spectrim.pictures.figures import save_figure
from spectrim.pictures.per_class import save_label_figures
from spectrim.pictures.training_curve import training_curve
from spectrim.tables import table_csv
from spectrim.training.answers import ANSWERS, Answers
from spectrim.training.run_log import read_log

FIGURES = "figures"
"""Folder of the pictures, in that of the run."""


def draw_run(folder: str | Path) -> list[Path]:
    """Draw what a finished run's folder says.

    Args:
        folder: of `spectrim.training.finetune.train` or `spectrim.training.pretrain.pretrain`.

    Returns:
        What was written: ``figures/training.png``; and, where the run was tested, what `draw_answers` writes, for the
        keep rate that it was trained for.

    Raises:
        DataError: there is no finished run.
        CheckpointError: its answers cannot be read.
    """
    folder = Path(folder)
    try:
        run, results = (read_json(folder / name) for name in ("run.json", "results.json"))
        recipe = run["recipe"]
        name = str(recipe["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: no finished run is there to be drawn ({error})") from error
    figures = folder / FIGURES
    figures.mkdir(exist_ok=True)
    chosen = results.get("chosen", {}).get("epoch")
    shown = training_curve(
        read_log(folder / "metrics.jsonl"), metric=results.get("metric"), chosen=chosen, title=f"{name}: training"
    )
    save_figure(shown, figures / "training.png")
    written = [figures / "training.png"]
    if (folder / ANSWERS).is_file():
        rate = float(recipe["pruning"]["keep_rate"])
        written += draw_answers(Answers.load(folder / ANSWERS), folder, rate, f"{name}: test clips")
    return written


def draw_answers(answers: Answers, folder: Path, rate: float, title: str) -> list[Path]:
    """Write the results of each label.

    Args:
        answers: to draw.
        folder: where to.
        rate: keep rate of the pictures, one of those of the answers; beside it stands keep rate 1.
        title: of the pictures.

    Returns:
        What was written: ``per_class.csv``, a row a keep rate and label (`spectrim.measure.runs.label_rows`), and
        ``figures/per_class.png``; where clips have one label, ``confusions.csv``, a row a keep rate, label and answer
        that occurs, wrong ones first, and ``figures/confusion.png``.
    """
    per_class = {one: _label_rows(answers, one) for one in answers.scores}
    confusions: dict[float, list[dict[str, Any]]] = {}
    if answers.metric == "accuracy":
        confusions = {
            one: confusion_rows(answers.labels, confusion_counts(scores, answers.targets))
            for one, scores in answers.scores.items()
        }
    written = []
    for name, rows in (("per_class.csv", per_class), ("confusions.csv", confusions)):
        if rows:
            table = [{"keep_rate": one, **row} for one, some in rows.items() for row in some]
            write_text(folder / name, table_csv(table))
            written.append(folder / name)
    (folder / FIGURES).mkdir(exist_ok=True)
    dense: Sequence[dict[str, Any]] = per_class.get(1.0, []) if rate < 1.0 else []
    names = (f"keep rate {rate:g}", "keep rate 1" if dense else None)
    return written + save_label_figures(
        folder / FIGURES, per_class[rate], dense, confusions.get(rate, []), names=names, title=title
    )


def _label_rows(answers: Answers, rate: float) -> list[dict[str, Any]]:
    found = label_metrics(answers.scores[rate], answers.targets, multi_label=answers.metric != "accuracy")
    return label_rows(answers.labels, found.positives, [found])
