"""Data sets: one file for each, one table of them.

A new one is a function ``open_it(root, part, *, bad_share, **options) -> AudioDataset`` in a file of its own, an entry
in `DATA_SETS`, and a recipe. What openers have in common is in `spectrim.data.layout` and `spectrim.data.splits`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from spectrim.audio.normalisation import NORMALISATIONS
from spectrim.data.audioset import open_audioset
from spectrim.data.dataset import PARTS, AudioDataset, Clip, Recording
from spectrim.data.esc50 import FOLDS, open_esc50
from spectrim.data.folder import open_folder
from spectrim.data.packed import ANYTIME, is_packed, open_packed
from spectrim.data.speech_commands import WORDS, open_speech_commands
from spectrim.data.table import open_table
from spectrim.data.voxceleb1 import open_voxceleb1
from spectrim.errors import InvalidSetting, nearest_of

__all__ = [
    "DATA_SETS",
    "PARTS",
    "AudioDataset",
    "Clip",
    "DataSet",
    "Folds",
    "Recording",
    "find_data_set",
    "folds_of",
    "frontend_fields",
]


Folds: TypeAlias = Iterable[int] | int | Literal["all"]
"""Numbers of folds, one or several, or all that there are."""


@dataclass(frozen=True)
class DataSet:
    """An entry of `DATA_SETS`. What only the files on disk say is None; an opened part always says it.

    Args:
        title: its name in full.
        opener: ``opener(root, part, **options)`` → `AudioDataset`; part is one of `PARTS`.
        labels: names of all labels in the order of the targets.
        multi_label: whether a clip can have several labels.
        metric: name in `spectrim.measure.metrics.METRICS`.
        mean: mean of the log-mel values of its training part, for the front end.
        std: their standard deviation.
        max_length: frames of 10 ms that a model for it looks at.
        folds: what the option ``fold`` can be, one after another for a cross-validation. Empty where there are none,
            or only the files say: see `AudioDataset.folds`.
    """

    title: str
    opener: Callable[..., AudioDataset]
    labels: tuple[str, ...] | None = None
    multi_label: bool | None = False
    metric: str | None = "accuracy"
    mean: float | None = None
    std: float | None = None
    max_length: int | None = None
    folds: tuple[int, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that it is opened with."""
        parameters = inspect.signature(self.opener).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)

    @property
    def defaults(self) -> dict[str, Any]:
        """The options that say what a packed data set is made of → what they are unless given."""
        parameters = inspect.signature(self.opener).parameters
        return {name: parameters[name].default for name in self.options if name not in ANYTIME}

    def open(self, root: str | Path, part: str, **options: Any) -> AudioDataset:
        """Open a part of it.

        Args:
            root: where it is on disk, as files or packed (`spectrim.data.packed`).
            part: one of `PARTS`.
            options: of its opener.

        Raises:
            InvalidSetting: unknown part, unknown option, or an option out of range.
            DataError: the files are not in its layout, or too many are missing.
        """
        for name, value in options.items():
            if name not in self.options:
                raise InvalidSetting(f"option {name}", value, nearest_of(name, self.options))
        if is_packed(root):
            known = next((name for name, entry in DATA_SETS.items() if entry is self), self.title)
            return open_packed(known, root, part, options)
        return self.opener(root, part, **options)


DATA_SETS: dict[str, DataSet] = {
    "speech-commands": DataSet(
        title="Speech Commands V2, 35 words",
        opener=open_speech_commands,
        labels=WORDS,
        mean=NORMALISATIONS["speech-commands"].mean,
        std=NORMALISATIONS["speech-commands"].std,
        max_length=128,
    ),
    "spoken-commands": DataSet(
        title="Speech Commands V2's words spoken by eSpeak NG (see `spectrim.miniatures.spoken_commands`)",
        opener=open_speech_commands,
        labels=WORDS,
        mean=NORMALISATIONS["spoken-commands"].mean,
        std=NORMALISATIONS["spoken-commands"].std,
        max_length=128,
    ),
    "esc50": DataSet(
        title="ESC-50, environmental sounds in five folds",
        opener=open_esc50,
        mean=NORMALISATIONS["esc50"].mean,
        std=NORMALISATIONS["esc50"].std,
        max_length=512,
        folds=FOLDS,
    ),
    "voxceleb1": DataSet(
        title="VoxCeleb1, identification of 1,251 speakers",
        opener=open_voxceleb1,
        mean=NORMALISATIONS["voxceleb1"].mean,
        std=NORMALISATIONS["voxceleb1"].std,
        max_length=1024,
    ),
    "audioset": DataSet(
        title="AudioSet by AST's manifests",
        opener=open_audioset,
        multi_label=True,
        metric="mAP",
        mean=NORMALISATIONS["audioset"].mean,
        std=NORMALISATIONS["audioset"].std,
        max_length=1024,
    ),
    "folder": DataSet(title="A folder per class", opener=open_folder),
    "csv": DataSet(title="A table of clips", opener=open_table, multi_label=None, metric=None),
}
"""The data sets by the names that recipes and the command line use.

Statistics of Speech Commands, ESC-50, VoxCeleb1 and AudioSet are those of the published recipes; those of the spoken
miniature were measured with `spectrim.data.check` on its 61,250 training clips of seed 0.
"""


def find_data_set(name: str, field: str = "data set") -> DataSet:
    """The entry of a name; `InvalidSetting` for ``field`` if there is none."""
    if name not in DATA_SETS:
        raise InvalidSetting(field, name, nearest_of(name, DATA_SETS))
    return DATA_SETS[name]


def folds_of(name: str, root: str | Path, folds: Folds, options: Mapping[str, Any], how: str) -> tuple[int, ...]:
    """The folds that are asked for, each once.

    Args:
        name: of the data set, in `DATA_SETS`.
        root: where it is.
        folds: ``"all"``, or their numbers, one or several, which the opener checks.
        options: of the opener; those that name single folds do not matter.
        how: how its clips are dealt out into folds, as the user would type it.

    Raises:
        InvalidSetting: all folds are asked for of a data set without folds; says what to do. Or it cannot be dealt out
            into the folds that its options name.
        DataError: it cannot be opened.
    """
    if not isinstance(folds, str):
        numbers = folds if isinstance(folds, Iterable) else [folds]
        return tuple(dict.fromkeys(one.item() if hasattr(one, "item") else one for one in numbers))
    if folds != "all":
        raise InvalidSetting("folds", folds, "all, or the numbers of folds")
    entry = find_data_set(name)
    options = {name: value for name, value in options.items() if name not in ("fold", "validation_fold")}
    if known := entry.folds:
        return known
    if options.get("folds") is not None:
        return entry.open(root, "test", **options).folds
    with suppress(InvalidSetting):  # of shares too small for a split that nobody asks for; others come back below
        if known := entry.open(root, "test", **options).folds:
            return known
    why = f"none: {name} in {root} is not divided into folds"
    if "folds" not in entry.options:
        raise InvalidSetting("folds", folds, f"{why}, but into training, validation and test")
    try:
        entry.open(root, "test", **{**options, "folds": 2})
    except InvalidSetting as error:
        raise InvalidSetting("folds", folds, f"{why}, and cannot be ({error})") from error
    raise InvalidSetting("folds", folds, f"{why}; {how} deals its clips out into five")


def frontend_fields(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Mean, std and max_length for a model's front end: what a recipe says, else what the data set is known for.

    Args:
        name: in `DATA_SETS`.
        given: the recipe's ``model.fields``.

    Raises:
        InvalidSetting: neither says it; names the field and the command that measures it.
    """
    entry = find_data_set(name, "data.name")
    fields = {}
    for field in ("mean", "std", "max_length"):
        fields[field] = given.get(field, getattr(entry, field))
        if fields[field] is None:
            allowed = f"what `spectrim data check {name} DIR` prints for it: it differs from one {name} to the next"
            raise InvalidSetting(f"model.fields.{field}", None, allowed)
    return fields
