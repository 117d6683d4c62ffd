"""What is said about a checkpoint that was loaded, because a user would not find it out otherwise."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectrim.assets import EMBEDDED_MODELS
from spectrim.checkpoints.labels import audioset_labels
from spectrim.checkpoints.layouts import Checkpoint
from spectrim.checkpoints.vit import PAPER_DATA_SETS
from spectrim.config import SpectrimConfig
from spectrim.pruning.criteria import CRITERIA
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.reducers import REDUCERS

TO_PYTHON = "to spectrim.from_pretrained; commands take the folder that save_pretrained then writes"
"""Where settings of a checkpoint are given that no command has an option for."""


class UntrainedPruning(UserWarning):
    """Patches are dropped by a ranking, in a model that nothing says was trained so."""


class AmbiguousCheckpoint(UserWarning):
    """The weights just loaded could be those of another kind of model."""


class OtherLength(UserWarning):
    """A description of a checkpoint names other frames than the checkpoint."""


class LicenceNotice(UserWarning):
    """The weights just loaded may not be used for everything."""


def warn_about(checkpoint: Checkpoint, settings: Mapping[str, Any], pruning: Pruning, *, fresh_head: bool) -> None:
    """Say what a user would not find out otherwise.

    Args:
        checkpoint: what was read.
        settings: that the caller gave.
        pruning: the operating point of the model.
        fresh_head: the model is still to be trained.
    """
    source, layout = checkpoint.source, checkpoint.layout
    trained = checkpoint.config.pruning.prunes or _is_embedded(source.name)
    risk = _untrained_risk(pruning, checkpoint.config)
    if risk and pruning.prunes and not trained and not fresh_head:
        warnings.warn(
            f"nothing says that {checkpoint.title} was trained with pruning; without that, {risk}: check on labelled "
            "clips with spectrim compare",
            UntrainedPruning,
            stacklevel=3,
        )
    for name, words in layout.alike.items():
        if name not in settings and checkpoint.outputs:
            warnings.warn(f"{checkpoint.title}: {words} {TO_PYTHON}", AmbiguousCheckpoint, stacklevel=3)
    if words := layout.left_out(source):
        warnings.warn(f"{checkpoint.title}: {words}", stacklevel=3)
    if layout.licence:
        warnings.warn(f"{source.name}: {layout.licence}", LicenceNotice, stacklevel=3)
    said = layout.front_end(source) or "mean" in settings or not {"mean", "do_normalize"}.isdisjoint(source.extractor)
    said = said or source.arguments.get("dataset") in PAPER_DATA_SETS
    if not said and not fresh_head and checkpoint.outputs != len(audioset_labels()):
        warnings.warn(
            f"{checkpoint.title} does not say with which mean and std its log-mel was normalised; AudioSet's are "
            f"taken. If it was trained with others, give mean= and std= {TO_PYTHON}",
            stacklevel=3,
        )


def warn_of_length(checkpoint: Checkpoint, frames: int) -> None:
    """Say that a model hears another length than by itself, where ``frames`` is what a `DescribedSource` says."""
    own = checkpoint.config.max_length
    if frames != own:
        warnings.warn(
            f"{checkpoint.title} hears {frames} frames, as was said, where by itself it hears {own}: it is fitted to "
            "that length, and its scores are others",
            OtherLength,
            stacklevel=3,
        )


def _untrained_risk(pruning: Pruning, config: SpectrimConfig) -> str:
    """What pruning a model that was not trained with it may do; empty for a baseline that knows nothing."""
    if REDUCERS[pruning.reducer].reads != "scores":
        return f"what reducer={pruning.reducer!r} costs is not known"
    name = config.criterion_of(pruning)
    if CRITERIA[name].reads == "nothing":
        return ""
    risk = f"what dropping patches by {name} costs is not known"
    if CRITERIA[name].misleads:
        risk = f"a ranking by attention ({name}) can be worse than dropping patches at random (docs/pruning.md)"
    if config.encoder.placed:
        return risk
    return f"{risk}; reducer 'cluster' cost least, or nearly so, at 0.7 in the models that were tried (docs/pruning.md)"


def _is_embedded(name: str) -> bool:
    """Whether this is a model in the package, which are saved dense and were trained with pruning."""
    return name in EMBEDDED_MODELS or Path(name).absolute() in EMBEDDED_MODELS.values()
