"""A run that goes on from where another one stopped, and ends as if it had run from the beginning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from spectrim.errors import InvalidSetting
from spectrim.files import refuse_another_run
from spectrim.training.recipes import Recipe
from spectrim.training.resuming import read_state
from spectrim.training.run_folder import CHECKPOINTS, CheckpointFolder, begun_run

MAY_DIFFER = (
    "recipe.name",
    "recipe.description",
    "recipe.pruning.keep_rate",
    "recipe.pruning.criterion",
    "recipe.pruning.reducer",
    "recipe.pruning.reference_compat",
    "recipe.optimiser.stop_after_epochs",
    "recipe.evaluation.first_epoch",
    "recipe.evaluation.test_keep_rates",
)
"""Settings in which a run may differ from the one whose beginning it shares: none has a part in that beginning.

Evaluations draw nothing that training draws, so that it does not matter when the first one was.
"""

COURSE = ("recipe.pruning.shrink_start", "recipe.pruning.shrink_epochs", "recipe.pruning.anneal_every")
"""What it may differ in besides where the other run is dense, whose keep rate never falls."""


def branching_point(recipe: Recipe, run: dict[str, Any], trunk: Path) -> Path:
    """The checkpoint of another run from which this one may go on.

    Args:
        recipe: of this run.
        run: all that determines this run, as JSON.
        trunk: folder of the other run.

    Raises:
        InvalidSetting: the other run differs in more than `MAY_DIFFER` and, if it is dense, `COURSE`; has gone too far;
            or has no whole checkpoint; or this run needs evaluations or checkpoints from before that.
    """
    written = trunk / "run.json"
    if not written.is_file():
        raise InvalidSetting("branch_of", str(trunk), "the folder of a run")
    before = begun_run(written, Recipe)
    dense = before.get("recipe", {}).get("pruning", {}).get("keep_rate") == 1.0
    refuse_another_run(run, before, trunk, apart_from=(*MAY_DIFFER, *(COURSE if dense else ())))
    newest = CheckpointFolder(trunk / CHECKPOINTS).newest()
    if newest is None:
        raise InvalidSetting("branch_of", str(trunk), "a run with a whole checkpoint")
    epoch = read_state(newest).epoch or 0.0
    start = recipe.pruning.shrink_start
    both_dense = dense and recipe.pruning.keep_rate == 1.0
    if not both_dense and epoch > start + 1e-9:
        allowed = f"a run that stopped by pruning.shrink_start={start:g}; its newest checkpoint is of epoch {epoch:g}"
        raise InvalidSetting("branch_of", str(trunk), allowed)
    first = recipe.evaluation.first_epoch
    if recipe.evaluation.choose == "best" and first <= epoch:
        allowed = f"more than {epoch:g}, where it branches off: it does not know the evaluations before"
        raise InvalidSetting("evaluation.first_epoch", first, allowed)
    evaluation, end = recipe.evaluation, recipe.optimiser.stop_after_epochs or recipe.optimiser.epochs
    every = evaluation.every_epochs
    most = math.floor(end / every + 1e-9) - math.ceil(epoch / every - 1e-9) + 1
    if evaluation.choose == "average" and evaluation.average_last > most:
        allowed = f"up to {most}: it has no checkpoints from before epoch {epoch:g}, where it branches off"
        raise InvalidSetting("evaluation.average_last", evaluation.average_last, allowed)
    return newest
