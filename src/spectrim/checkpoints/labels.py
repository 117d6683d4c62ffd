"""Names for the outputs of a head."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from spectrim.assets import audioset_classes
from spectrim.checkpoints.files import Source
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, DataError, InvalidSetting
from spectrim.tables import read_class_labels, read_lines

_WORDS = (
    "backward follow five bed zero on learn two house tree dog stop seven eight down six forward cat right visual "
    "four wow no nine off three left marvin yes up sheila happy bird go one"
)
SPEECH_COMMANDS = tuple(_WORDS.split())
"""Speech Commands V2's 35 words in the order in which AST, and the paper's code after it, number them."""


@cache
def audioset_labels() -> tuple[str, ...]:
    """AudioSet's 527 class names in the order of its ``class_labels_indices.csv``."""
    return tuple(audioset_classes().values())


def read_label_file(file: Path) -> list[str]:
    """Names from a ``class_labels_indices.csv`` (columns index, mid, display_name), in the order of the index.

    Of a text file: one name a line.

    Raises:
        CheckpointError: what `spectrim.tables` finds wrong with it, or a name is there twice.
    """
    try:
        if file.suffix == ".txt":
            names = [name for _, name in read_lines(file)]
            if len(set(names)) != len(names):
                raise CheckpointError(f"{file}: a label is there twice")
            return names
        return list(read_class_labels(file).values())
    except DataError as error:
        raise CheckpointError(str(error)) from error


def label_names(source: Source, count: int, usual: Sequence[str] = (), *, audioset: bool = True) -> list[str]:
    """Name the outputs of a head, from the best thing that says so.

    Args:
        source: its config's ``id2label`` comes first, then the ``label_dict`` inside it, then the label file beside it.
        count: number of outputs.
        usual: names of the layout's published models, for as many outputs that nothing names.
        audioset: whether AudioSet's names stand for 527 outputs that nothing names.

    Returns:
        One name an output; ``LABEL_0`` … where nothing is known.

    Raises:
        CheckpointError: config.json or the file itself names another number of outputs than the head has.
    """
    inside = source.arguments.get("label_dict")
    for where, table in (("id2label in config.json", source.config.get("id2label")), ("its label_dict", inside)):
        named = _names_in_table(table, where, source.name)
        if named is not None:
            if len(named) != count:
                raise CheckpointError(f"{source.name}: {where} names {len(named)} labels, but the head has {count}")
            return named
    if source.config.get("model_type") == SpectrimConfig.model_type and not source.config.get("id2label") and count > 2:
        raise CheckpointError(f"{source.name}: config.json has no id2label for the {count} outputs of the head")
    if source.label_file is not None:
        named = read_label_file(source.label_file)
        if len(named) == count:
            return named
        warnings.warn(
            f"{source.label_file} names {len(named)} labels, but the head has {count}: it is not used", stacklevel=4
        )
    if audioset and count == len(audioset_labels()):
        return list(audioset_labels())
    if count == len(usual):
        return list(usual)
    return [f"LABEL_{index}" for index in range(count)]


def _names_in_table(table: Any, where: str, name: str) -> list[str] | None:
    """Names out of a table {number: name}; None where there are none but LABEL_0, LABEL_1, …

    AudioSet's codes, such as ``/m/09x0r``, become the names that they stand for.
    """
    if table is not None and not isinstance(table, dict):
        raise CheckpointError(f"{name}: {where} is a {type(table).__name__}, not an object")
    if not table:
        return None
    if not all(isinstance(label, str | int | float) for label in table.values()):
        raise CheckpointError(f"{name}: {where} must have names as values")
    try:
        names = [str(table[key]) for key in sorted(table, key=int)]
        indices = sorted(int(key) for key in table)
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{name}: {where} must have numbers as keys") from error
    if indices != list(range(len(names))):
        raise CheckpointError(f"{name}: {where} must count 0, 1, 2, … without gaps")
    codes = audioset_classes()
    if all(label in codes for label in names):
        return [codes[label] for label in names]
    return None if all(re.fullmatch(r"LABEL_\d+", label) for label in names) else names


def check_labels(labels: Sequence[str]) -> list[str]:
    """Raise `InvalidSetting` unless ``labels`` are different, non-empty names; return them as a list."""
    names = [labels] if isinstance(labels, str) else list(labels)
    fine = bool(names) and all(isinstance(name, str) and name for name in names)
    if isinstance(labels, str) or not fine or len(set(names)) != len(names):
        raise InvalidSetting("labels", labels, "a list of different names, one an output of the new head")
    return names
