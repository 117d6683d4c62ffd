"""Groups of clips that stay together, speakers or longer recordings, held out whole."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sklearn.model_selection

from spectrim.data.dataset import Recording, labels_have
from spectrim.errors import DataError

MOST_FOLDS = 20
"""Into which groups are dealt so that a share of them can be held out."""

FAR = 4
"""So many times more or fewer clips than asked for are not held out."""


def groups_of(recordings: Sequence[Recording]) -> list[str] | None:
    """The group of each recording, of its own where it has none; None where none has."""
    if all(recording.group is None for recording in recordings):
        return None
    return [own_group(one.id) if one.group is None else f"group {one.group}" for one in recordings]


def own_group(name: str) -> str:
    """The group of a clip, by its id, that belongs to no other."""
    return f"clip {name}"


def split_groups(
    recordings: Sequence[Recording], groups: Sequence[str], count: int, seed: int, stratify: bool, leave: int
) -> tuple[list[Recording], list[Recording]]:
    """Hold out groups with about ``count`` recordings: see `_whole_groups`, and where that is far off, `_by_size`."""
    names = len(set(groups))
    if names <= leave:
        few = f"one {groups[0]}" if names == 1 else f"{names} groups, fewer than there are parts"
        raise DataError(
            f"all {len(recordings)} clips to be split are of {few}; say yourself which belong to train, validation and "
            "test"
        )
    labels = [min(recording.labels, default=-1) if stratify else 0 for recording in recordings]
    chosen = _whole_groups(range(len(recordings)), labels, groups, count, seed, leave)
    if far(chosen, count):
        chosen = min(chosen, *_by_size(groups, count, seed, leave), key=lambda some: far(some, count))
    held_out = set(chosen)
    rest = [recording for place, recording in enumerate(recordings) if place not in held_out]
    if stratify and (gone := {one.labels for one in recordings} - {one.labels for one in rest}):
        known = next(one.id for one in recordings if one.labels in gone)
        raise DataError(
            f"{labels_have(len(gone))} no clip left to train on, e.g. that of {known}, whose clips are of one group "
            "or few; name other groups, or say yourself which clips belong to train, validation and test"
        )
    return rest, [recordings[place] for place in sorted(held_out)]


def _whole_groups(
    places: Sequence[int], labels: Sequence[int], groups: Sequence[str], count: int, seed: int, leave: int
) -> list[int]:
    """About ``count`` of some places: those of the groups that are dealt into the first of many folds.

    Where groups are so unequal that this is off by more than a quarter, those folds that come nearer; of a single fold
    that is still too large, again a share.
    """
    folds = min(len({groups[place] for place in places}), MOST_FOLDS)
    dealt = _dealt(places, labels, groups, folds, seed)
    chosen = dealt[: max(1, min(round(folds * count / len(places)), folds - leave))]
    if _off(chosen, count) > count / 4:
        chosen = min(chosen, _nearest(dealt, count, leave), key=lambda some: _off(some, count))
        if len(chosen) == 1 and len(chosen[0]) > 1.25 * count and len({groups[place] for place in chosen[0]}) > 1:
            return _whole_groups(chosen[0], labels, groups, count, seed, leave=1)
    return [place for fold in chosen for place in fold]


def _dealt(
    places: Sequence[int], labels: Sequence[int], groups: Sequence[str], folds: int, seed: int
) -> list[list[int]]:
    """The places in each fold, by scikit-learn's ``StratifiedGroupKFold``.

    Labels of which there are fewer clips than folds cannot be shared out evenly, and are not.
    """
    kinds = [labels[place] for place in places]
    if max(Counter(kinds).values()) < folds:
        kinds = [0] * len(kinds)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splitter = sklearn.model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        dealt = splitter.split(kinds, kinds, [groups[place] for place in places])
        return [[places[number] for number in numbers] for _, numbers in dealt]


def _off(folds: list[list[int]], count: int) -> int:
    """How many recordings more or fewer than ``count`` are in some folds."""
    return abs(sum(map(len, folds)) - count)


def _nearest(dealt: list[list[int]], count: int, leave: int) -> list[list[int]]:
    """Folds with about ``count`` recordings: in their order those that fit in, then one more where that is nearer.

    At least one, and ``leave`` of them stay where there are so many.
    """
    folds = [places for places in dealt if places]
    most = max(1, len(folds) - leave)
    chosen: list[list[int]] = []
    for places in folds:
        if len(chosen) < most and sum(map(len, [*chosen, places])) <= count:
            chosen.append(places)
    others = sorted((places for places in folds if places not in chosen), key=len)
    one_more = [*chosen, *others[:1]]
    return one_more if not chosen or (len(chosen) < most and _off(one_more, count) < _off(chosen, count)) else chosen


def far(held_out: Sequence[Any], count: int) -> bool:
    """Whether these are `FAR` times more or fewer than ``count``."""
    return not count / FAR <= len(held_out) <= count * FAR


def _by_size(groups: Sequence[str], count: int, seed: int, leave: int) -> list[list[int]]:
    """Places of whole groups: the largest that fit into ``count``, and the next larger group; the nearer of them first.

    The first are far off (`far`) only where all sets of groups are that leave ``leave`` of them, and a quarter of the
    clips that ought to stay.
    """
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    by_size = list(members.values())
    random.Random(seed).shuffle(by_size)
    by_size.sort(key=len)
    fitting: list[int] = []
    left = len(by_size)
    for places in reversed(by_size):
        if left > leave and len(fitting) + len(places) <= count:
            fitting += places
            left -= 1
    larger = next((places for places in by_size if len(places) > count), [])
    if len(groups) - len(larger) < (len(groups) - count) / FAR:
        larger = []
    there = [places for places in (fitting, larger) if places]
    return sorted(there, key=lambda places: max(len(places) / count, count / len(places)))
