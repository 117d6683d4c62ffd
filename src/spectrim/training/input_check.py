"""Whose length, mean and std a model has that starts from a checkpoint, and whether they suit the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spectrim.audio.frontend import count_frames
from spectrim.config import SpectrimConfig
from spectrim.data import AudioDataset, find_data_set
from spectrim.data.check import LONGEST, LogMelStatistics, examine
from spectrim.data.dataset import spread_places
from spectrim.errors import InvalidSetting
from spectrim.training.recipes import Recipe

FIELDS = ("max_length", "mean", "std")

LOOKED_AT = 32
"""Training clips, evenly spread, that are measured before a run."""

NEAR = 0.25
"""Standard deviations, and share of one, by which mean and std may be off without a word."""

FAR = 1.0
"""Likewise without a refusal, where nobody asked for the values that a checkpoint brings."""


class InputNotice(UserWarning):
    """A model that starts from a checkpoint gets other input than the checkpoint had, or than the data are like."""


@dataclass(frozen=True)
class Heard:
    """Some training clips, measured.

    Attributes:
        frames: of each that can be read.
        mean, std: of their log-mel values, within the length that the model looks at; NaN without a clip.
    """

    frames: list[int]
    mean: float
    std: float

    def cut(self, max_length: int) -> int:
        """How many are longer than a model looks at."""
        return sum(frames > max_length for frames in self.frames)


def look_at(part: AudioDataset, max_length: int) -> Heard:
    """Measure some clips of a data set, at its sampling rate."""
    rate = part.sampling_rate
    statistics = LogMelStatistics(min(max_length, LONGEST), rate)
    frames, heads = [], []
    for place in spread_places(LOOKED_AT, len(part)):
        found = examine(part.recordings[place], statistics.longest, rate)
        if not isinstance(found, str):
            frames.append(count_frames(round(found.seconds * rate), rate))
            heads.append(found.head)
    if heads:
        statistics.add(heads)
    return Heard(frames, statistics.mean, statistics.std)


def whose(recipe: Recipe) -> dict[str, str]:
    """Length, mean and std → who says them: the recipe, the data set that it names, or else the checkpoint."""
    entry = find_data_set(recipe.data.name)
    said = {}
    for field in FIELDS:
        if field in recipe.model.fields:
            said[field] = "the recipe"
        else:
            said[field] = recipe.data.name if getattr(entry, field) is not None else "the checkpoint"
    return said


def check_input(
    recipe: Recipe, init: str, stored: Mapping[str, Any], config: SpectrimConfig, part: AudioDataset
) -> str | None:
    """Say in one line what a model's input takes from the checkpoint and what not, where that is worth a word.

    Args:
        recipe: of the run.
        init: the checkpoint.
        stored: what `spectrim.checkpoints.describe` says of it.
        config: of the model that was made from it.
        part: training clips, at the model's rate; `LOOKED_AT` of them are read.

    Returns:
        The line; None where length, mean and std are the checkpoint's and suit the clips.

    Raises:
        InvalidSetting: nobody asked for the checkpoint's length or its mean and std, and the clips are of another kind.
    """
    said, heard = whose(recipe), look_at(part, config.max_length)
    _refuse_unasked(said, init, config, heard, recipe.data.name)
    words = []
    for who in dict.fromkeys(said.values()):
        fields = [field for field in FIELDS if said[field] == who]
        changed = [field for field in fields if not math.isclose(stored[field], getattr(config, field), rel_tol=1e-4)]
        if who == "the checkpoint":
            words.append(f"{', '.join(fields)} of the checkpoint, since neither recipe nor data set says")
        elif changed:
            here = ", ".join(f"{field} {getattr(config, field):.5g}" for field in changed)
            there = ", ".join(f"{stored[field]:.5g}" for field in changed)
            words.append(f"{here} of {who} (the checkpoint has {there})")
    if stored["max_length"] != config.max_length:
        words.append("the position table is fitted to that length")
    unlike = _unlike(config, heard)
    if not words and not unlike:
        return None
    line = f"input of {init}: {'; '.join([*words, *unlike])}."
    advice = f" `spectrim data check {recipe.data.name} DIR --write-recipe FILE` measures what suits the data."
    return line + advice * bool(unlike or "the checkpoint" in said.values())


def _unlike(config: SpectrimConfig, heard: Heard) -> list[str]:
    """What is notable about some clips beside what the model expects."""
    words = []
    number = len(heard.frames)
    if heard.frames and heard.std == 0.0:
        words.append(f"the {number} training clips that were looked at are alike throughout, as digital silence is")
    if heard.frames and _apart(config, heard) > NEAR:
        words.append(
            f"{number} training clips have mean {heard.mean:.4g} and std {heard.std:.4g}, "
            f"not {config.mean:.4g} and {config.std:.4g}"
        )
    if cut := heard.cut(config.max_length):
        words.append(f"{cut} of {number} clips are longer than {config.max_length} frames and lose their ends")
    elif heard.frames and 2 * max(heard.frames) < config.max_length:
        words.append(f"the longest of {number} clips has {max(heard.frames)} frames, the rest is padding")
    return words


def _apart(config: SpectrimConfig, heard: Heard) -> float:
    """How far mean and std are from those of some clips: in standard deviations, and as a share, the larger one.

    Of digital silence, which has no spread, nothing is known.
    """
    if heard.std == 0.0:
        return 0.0
    return max(abs(config.mean - heard.mean) / heard.std, abs(math.log2(config.std / heard.std)))


def _refuse_unasked(said: Mapping[str, str], init: str, config: SpectrimConfig, heard: Heard, name: str) -> None:
    """Raise where the checkpoint's length or statistics would be wrong for the clips, and nobody asked for them."""
    if not heard.frames:
        return
    measure = f"or what `spectrim data check {name} DIR --write-recipe FILE` measures"
    usual = int(np.median(heard.frames))
    if said["max_length"] == "the checkpoint" and usual > config.max_length:
        allowed = (
            f"a length that the recipe says: {init} looks at {config.max_length} frames, and half of the clips have "
            f"{usual} or more; max_length: {config.max_length} cuts them, {measure}"
        )
        raise InvalidSetting("model.fields.max_length", None, allowed)
    if "the checkpoint" in (said["mean"], said["std"]) and _apart(config, heard) > FAR:
        allowed = (
            f"a mean and std that the recipe says: {init} has {config.mean:.4g} and {config.std:.4g}, the clips "
            f"{heard.mean:.4g} and {heard.std:.4g}; name the ones that you want, {measure}"
        )
        raise InvalidSetting("model.fields.mean", None, allowed)
