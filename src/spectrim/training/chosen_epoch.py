"""How the epoch of a run's weights is chosen."""

from __future__ import annotations

from collections.abc import Mapping

from spectrim.data import AudioDataset, find_data_set
from spectrim.training.recipes import Recipe


def chosen_on(recipe: Recipe, parts: Mapping[str, AudioDataset]) -> str | None:
    """The clips that the epoch is chosen on: "validation", "test" where some of those are tested too, None for none."""
    if recipe.evaluation.choose != "best":
        return None
    tested = {clip.id for clip in parts["test"].recordings}
    return "test" if any(clip.id in tested for clip in parts["validation"].recordings) else "validation"


def epoch_choice(recipe: Recipe, on: str | None, averaged: int | None = None) -> str:
    """How the epoch is chosen, in words.

    Args:
        recipe: of the run.
        on: see `chosen_on`.
        averaged: of how many checkpoints the mean was taken; None for as many as the recipe wants.
    """
    data, evaluation = recipe.data, recipe.evaluation
    if on == "test":
        in_folds = "fold" in data.options or find_data_set(data.name).folds
        apart = "data.options.validation_fold=next chooses it on another fold, " if in_folds else ""
        return (
            f"chosen on the clips that are tested, which flatters the result; {apart}evaluation.choose=last takes the "
            "last"
        )
    if on == "validation":
        return "chosen on validation clips that are neither trained nor tested on"
    if evaluation.choose == "average":
        count = evaluation.average_last if averaged is None else averaged
        return f"none chosen: the mean of the weights of the last {count} checkpoints"
    return "none chosen: the last one"
