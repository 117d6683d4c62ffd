"""What every arm of the study on real recordings has in every fold, and what it loses against the control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spectrim.pictures.points_lost import points_lost_figure
from spectrim.pictures.report import Report
from spectrim.studies.keep_rates import NAMES
from spectrim.studies.recordings import FREE_METHODS, FREE_RATES, VALUE_NORM, VALUE_NORM_ARMS
from spectrim.studies.recordings_answers import CONTROL_KEY, MARGIN, TUNED, Key, Measured, free_key, in_words, unseen
from spectrim.studies.recordings_described import among
from spectrim.studies.speakers import FOLDS


def add_arms(report: Report, everything: Measured, measured: Measured) -> None:
    """Accuracy of every arm in every fold, and what it loses against the control where folds are interpreted.

    Args:
        report: to add to.
        everything: with the folds below the gate.
        measured: of ``everything``, what is interpreted.
    """
    name, passing, seeds = NAMES[measured.backbone], measured.passing, everything.seeds
    tuned = sorted((key for key in everything.accuracies if key[0] == TUNED and key != CONTROL_KEY), key=_order)
    free = [free_key(method, rate) for rate in FREE_RATES for method in FREE_METHODS]
    free += [free_key(VALUE_NORM, branch.keep_rate) for branch in VALUE_NORM_ARMS]
    free = sorted((key for key in free if key in everything.accuracies), key=_order)
    keys = (CONTROL_KEY, *tuned, *free)
    report.heading(f"{name}: arms", 3)
    for seed, alone in everything.each_seed.items():
        if len(seeds) > 1:
            report.text(f"Seed {seed}:")
        _add_accuracies(report, alone, measured.of_seed(seed), keys)
    if len(measured.seeds) > 1:
        report.text(f"Over {in_words('seed', measured.seeds)}, points lost to the control:")
        table = [(*key, *_lost(measured, key)) for key in keys[1:]]
        report.table(["", "arm", _lost_head(passing), "without fold 0"], table)
    panels = {f"{name}, seed {seed}" if len(seeds) > 1 else name: one for seed, one in measured.each_seed.items()}
    drawn = [row for panel, alone in panels.items() for row in _drawn(alone, keys[1:], panel)]
    if drawn:
        report.figure(
            f"{measured.backbone}-points-lost",
            points_lost_figure(_by_keep_rate(drawn), against="the control", least=MARGIN, dots="speakers"),
            f"{name}: points lost against the control by keep rate and ranking, with 95 % intervals over speakers; "
            "small dots are speakers. "
            f"Folds {', '.join(map(str, passing))}, those of them in which an arm has been run.",
        )


def _add_accuracies(report: Report, everything: Measured, measured: Measured, keys: Sequence[Key]) -> None:
    """A table of accuracies by fold, and of what is lost; arguments as of `add_arms`."""
    there = [fold for fold in range(FOLDS) if everything.fold_mean(CONTROL_KEY, fold) is not None]
    table = []
    for key in (key for key in keys if key in everything.accuracies):
        means = [everything.fold_mean(key, fold) for fold in there]
        cells = ["" if mean is None else f"{mean:.1f}" for mean in means]
        label = f"control, {key[1]}" if key == CONTROL_KEY else key[1]
        table.append((key[0], label, *cells, *(("", "") if key == CONTROL_KEY else _lost(measured, key))))
    heads = (*(f"fold {fold}, %" for fold in there), _lost_head(measured.passing), "without fold 0")
    report.table(["", "arm", *heads], table)


def _lost_head(passing: Sequence[int]) -> str:
    return "lost to control, points" + (f" (folds {', '.join(map(str, passing))})" if passing else "")


def _lost(measured: Measured, key: Key) -> tuple[str, str]:
    """Cells: what an arm loses to the control, and without the fold that had been looked at."""
    passing, without = measured.passing, unseen(measured.passing)
    lost, beside = (measured.difference(CONTROL_KEY, key, folds) for folds in (passing, without))
    return among(lost, passing), among(beside, without)


def _order(key: Key) -> tuple[float, str]:
    """Highest keep rate first, attention first at each."""
    rate, _, rest = key[1].removeprefix("r=").partition("-")
    return -float(rate), rest


def _by_keep_rate(drawn: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the figure by keep rate, whatever series they are of, with the rankings in words."""
    rows = []
    for row in sorted(drawn, key=lambda row: _order((row["series"], row["label"]))):
        rate, ranking = _order((row["series"], row["label"]))
        rows.append({**row, "label": f"{-rate:g}, {ranking or 'attention'}"})
    return rows


def _drawn(measured: Measured, keys: Sequence[Key], panel: str) -> list[dict[str, Any]]:
    """Rows of the figure: what each arm loses against the control, by one seed."""
    rows, folds = [], measured.passing
    for key in keys:
        lost = measured.difference(CONTROL_KEY, key, folds)
        if lost is not None:
            speakers = measured.by_speaker(CONTROL_KEY, key, folds).values()
            runs = [value for fold in speakers for value in fold.values()]
            ends = {"value": lost.mean, "low": lost.low, "high": lost.high, "runs": runs}
            rows.append({"panel": panel, "label": key[1], "series": key[0], **ends})
    return rows
