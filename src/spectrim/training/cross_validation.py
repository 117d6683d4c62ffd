"""A recipe trained and tested once for each fold of a data set, and one table of all of them."""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spectrim.checkpoints import describe
from spectrim.checkpoints.untrusted import read_json
from spectrim.data import PARTS, AudioDataset, Folds, find_data_set, folds_of
from spectrim.data.cache import AudioCache
from spectrim.data.dataset import some
from spectrim.errors import DataError, InvalidSetting, shown
from spectrim.files import sole_writer
from spectrim.machine import is_main_process
from spectrim.measure.metric_intervals import RESAMPLES, how_made, standings
from spectrim.stats.ground import FEWEST_CLIPS, Interval
from spectrim.stats.groups import Groups
from spectrim.training.answers import ANSWERS, Answers
from spectrim.training.branch import branching_point
from spectrim.training.chosen_epoch import epoch_choice
from spectrim.training.finetune import train
from spectrim.training.recipes import Recipe
from spectrim.training.run_folder import CHECKPOINTS, CheckpointFolder, check_run, named_start
from spectrim.training.run_log import Say
from spectrim.training.same_clips import check_clips

FOLD = "{fold}"
"""Stands for the number of a fold in a name."""

DEAL_OUT = "folds: 5 under data.options in the recipe, or --set data.options.folds=5,"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossValidation:
    """What the runs of all folds found; all values are plain, for JSON and CSV.

    Attributes:
        facts: recipe, data_set, metric, keep_rate (that it was trained for), folds, models (where they are, with
            ``{fold}``), clips (over all folds), labels, chosen_on (see `spectrim.training.chosen_epoch`), epoch (how it
            was chosen, in words), interval (what the intervals are, or why there are none).
        folds: one a fold and keep rate: fold, keep_rate, the metric by its name, test_clips, training_clips, epoch and
            step of the weights.
        keep_rates: one a keep rate: mean, sd (standard deviation, of n − 1), lowest and highest of the folds' metrics;
            pooled, the metric over the clips of all folds, each answered by the model that has not heard it, with
            pooled_low and pooled_high; change, its paired difference from keep rate 1, with change_low and change_high.
            None where a value is not defined.
    """

    facts: dict[str, Any]
    folds: list[dict[str, Any]]
    keep_rates: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Fold:
    """A run that is to be: number of the fold, recipe, folder, start, run that it branches from."""

    number: int
    recipe: Recipe
    folder: Path
    init: str | None
    branch_of: str | None


def cross_validate(
    recipe: Recipe,
    data: str | Path,
    output: str | Path,
    *,
    folds: Folds = "all",
    init: str | Path | None = None,
    resume: bool = False,
    branch_of: str | Path | None = None,
    cache: AudioCache | None = None,
    progress: bool = False,
    say: Say | None = None,
) -> CrossValidation:
    """Train and test a recipe once for each fold: each is a run like any other, in ``fold1``, ``fold2`` and so on.

    Args:
        recipe: its ``data.options.fold`` does not matter.
        data: root of the data set.
        output: folder around the runs' folders.
        folds: numbers of the held-out folds, one or several, or ``"all"``.
        init: see `spectrim.training.finetune.train`; ``{fold}`` in it stands for the number of the fold.
        resume: go on with what is in ``output``; runs that are done are not run again.
        branch_of: as ``init``; with ``{fold}`` in it.
        cache, progress, say: see `spectrim.training.finetune.train`.

    Raises:
        InvalidSetting: the data set has no folds, or no such; a fold's folder holds a run already, or another one; or
            as `spectrim.training.finetune.train`. Folds, folders and clips are looked at before the first run begins.
        DataError, CheckpointError, TrainingDiverged: see `spectrim.training.finetune.train`.
    """
    trunk = None if branch_of is None else os.fspath(branch_of)
    runs = _planned(recipe, data, Path(output), folds, named_start(init), trunk)
    _check(runs, data, resume=resume)
    found = []
    for place, fold in enumerate(runs, start=1):
        results = _done(fold.folder) if resume else None
        if results is None:
            with sole_writer(fold.folder if is_main_process() else None):
                results = train(
                    fold.recipe,
                    data,
                    fold.folder,
                    init=fold.init,
                    resume=resume,
                    branch_of=fold.branch_of,
                    cache=cache,
                    progress=progress,
                    say=say,
                    title=f"fold {fold.number} ({place}/{len(runs)})",
                )
        elif say is not None:
            say(f"fold {fold.number} ({place}/{len(runs)}) is done already")
        found.append(results)
    return _summary(recipe, Path(output), runs, found)


def _planned(
    recipe: Recipe,
    data: str | Path,
    output: Path,
    folds: Folds,
    init: str | None,
    branch_of: str | None,
) -> list[_Fold]:
    """The runs, one a fold."""
    if not recipe.evaluation.test_keep_rates:
        raise InvalidSetting("evaluation.test_keep_rates", [], "at least one with folds, to test them at")
    if branch_of is not None and FOLD not in branch_of:
        raise InvalidSetting("branch_of", branch_of, f"a name with {FOLD} in it: each fold has its own")
    options = recipe.data.options
    numbers = folds_of(recipe.data.name, data, folds, options, DEAL_OUT)
    if not numbers:
        raise InvalidSetting("folds", [], "all, or at least one number")
    runs = []
    for number in numbers:
        told = recipe.data.model_copy(update={"options": {**options, "fold": number}})
        of_fold = recipe.model_copy(update={"data": told})
        start, trunk = (None if name is None else name.replace(FOLD, str(number)) for name in (init, branch_of))
        runs.append(_Fold(number, of_fold, output / f"fold{number}", start, trunk))
    return runs


def _check(runs: Sequence[_Fold], data: str | Path, *, resume: bool) -> None:
    """Look at folders and clips of all folds, and at what they start from, before the first run."""
    entry = find_data_set(runs[0].recipe.data.name, "data.name")
    for fold in runs:
        run = {"recipe": fold.recipe.model_dump(mode="json"), "data": str(data), "init": fold.init}
        check_run(run, fold.folder, resume=resume, kind=Recipe)
        try:
            parts = {part: entry.open(data, part, **fold.recipe.data.options) for part in PARTS}
        except DataError as error:
            raise DataError(f"fold {fold.number}: {error}") from error
        if resume:
            check_clips(fold.folder, parts)
        begun = resume and (_done(fold.folder) is not None or CheckpointFolder(fold.folder / CHECKPOINTS).steps())
        if not begun:
            if fold.init is not None:
                describe(fold.recipe.model.start(fold.init))
            if fold.branch_of is not None:
                branching_point(fold.recipe, run, Path(fold.branch_of))
        if is_main_process():
            _warn_of_unheard(fold.number, parts)


def _warn_of_unheard(fold: int, parts: Mapping[str, AudioDataset]) -> None:
    """Name the labels that a model is asked for and never hears."""
    heard, asked = (Counter(k for one in parts[part].recordings for k in one.labels) for part in ("train", "test"))
    names = [shown(parts["test"].labels[number]) for number in asked if number not in heard]
    if names:
        logger.warning(
            "fold %d: no training clip has the label of %d test clips, which its model cannot get right: %s",
            fold,
            sum(count for number, count in asked.items() if number not in heard),
            some(names),
        )


def _done(folder: Path) -> dict[str, Any] | None:
    """The results of a run that came to its end, None of another."""
    written = folder / "results.json"
    if not (written.is_file() and (folder / ANSWERS).is_file() and (folder / "model").is_dir()):
        return None
    try:
        results = read_json(written)
    except ValueError:
        return None
    wanted = {"metric", "test", "test_clips", "training_clips", "chosen", "chosen_on"}
    return results if isinstance(results, dict) and wanted <= results.keys() else None


def _summary(
    recipe: Recipe, output: Path, runs: Sequence[_Fold], found: Sequence[Mapping[str, Any]]
) -> CrossValidation:
    """The tables."""
    metric = found[0]["metric"]
    rows = [
        {
            "fold": fold.number,
            "keep_rate": float(rate),
            metric: value,
            "test_clips": results["test_clips"],
            "training_clips": results["training_clips"],
            **{name: results["chosen"][name] for name in ("epoch", "step")},
        }
        for fold, results in zip(runs, found, strict=True)
        for rate, value in results["test"].items()
    ]
    answers = answers_of(output, [fold.number for fold in runs])
    pooled, interval = _pooled(answers)
    chosen = [results["chosen_on"] for results in found]  # None of a run that ended before its first evaluation
    on = next((clips for clips in ("test", "validation") if clips in chosen), None)
    facts = {
        "recipe": recipe.name,
        "data_set": recipe.data.name,
        "metric": metric,
        "keep_rate": recipe.pruning.keep_rate,
        "folds": [fold.number for fold in runs],
        "models": str(output / f"fold{FOLD}" / "model"),
        "clips": len(answers.ids),
        "labels": len(answers.labels),
        "chosen_on": on,
        "epoch": epoch_choice(runs[0].recipe, on),
        "interval": interval,
    }
    return CrossValidation(facts, rows, [_over_folds(rows, metric, rate) | pooled[rate] for rate in answers.scores])


def answers_of(output: Path, folds: Sequence[int]) -> Answers:
    """The answers of the runs of some folds, each to its own clips, as one."""
    return Answers.together([Answers.load(output / f"fold{number}" / ANSWERS) for number in folds])


def _over_folds(rows: Sequence[Mapping[str, Any]], metric: str, rate: float) -> dict[str, Any]:
    """Mean and spread of the folds at a keep rate; none where a fold's metric is not defined."""
    values = [row[metric] for row in rows if row["keep_rate"] == rate]
    head = {"keep_rate": rate}
    if None in values:
        return {**head, **dict.fromkeys(("mean", "sd", "lowest", "highest"))}
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {**head, "mean": statistics.fmean(values), "sd": spread, "lowest": min(values), "highest": max(values)}


def _pooled(answers: Answers) -> tuple[dict[float, dict[str, Any]], str]:
    """Keep rate → the metric over all clips and its change from keep rate 1, with intervals; and what those are."""
    rates, clips = list(answers.scores), len(answers.ids)
    groups = None if answers.groups is None else Groups.named(answers.groups)
    ways, others = [[answers.scores[rate]] for rate in rates], [0] * len(rates)
    found = standings(ways, answers.targets, answers.metric, others, groups=groups)
    why = None if groups is None else groups.too_few
    if clips < FEWEST_CLIPS:
        why = f"{clips} clips are too few for one, it takes {FEWEST_CLIPS}"
    rows = {}
    for rate, stand in zip(rates, found, strict=True):
        rows[rate] = _ends("pooled", stand.value, few=why is not None)
        change = stand.change if rate < 1.0 in rates else Interval(math.nan, math.nan, math.nan)
        rows[rate] |= _ends("change", change, few=why is not None)
    if why is not None:
        return rows, f"none: {why}"
    other = "clips" if groups is None else "speakers or recordings"
    return rows, (
        f"{how_made(answers.metric, RESAMPLES, clips, groups)} of all folds: what other {other} would "
        "change, not what training again would; none where it has no width"
    )


def _ends(name: str, found: Interval, *, few: bool) -> dict[str, float | None]:
    """A value and the ends of its interval as columns; no ends where there are too few clips or groups, or no width."""
    if few or found.low == found.high:
        found = Interval(found.value, math.nan, math.nan)
    return found.columns(name)
