"""Train, validation and test parts where the data set does not define them: folds, seeded shares, and halves."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import sklearn.model_selection

from spectrim.data.dataset import AudioDataset, Recording, labels_have
from spectrim.data.whole_groups import far, groups_of, split_groups
from spectrim.errors import DataError, InvalidSetting

NAMES = {"train": "training", "validation": "validation", "test": "test"}
"""How a message calls the clips of a part."""

TESTED_ON_ALL = ", or --set test_share=1 to test a model that was trained on none of them on all"

TRIED = 5
"""So many shares are tried before none is named instead of one that cannot be."""

NEXT = "next"
"""As ``validation_fold``: the fold after the one that is held out, and the first after the last."""


def check_folds(fold: int, validation_fold: int | str | None, folds: Sequence[int]) -> int | None:
    """The number of the validation fold, None where it is the one for test; refuses folds that are not there."""
    allowed = f"one of {', '.join(map(str, folds))}"
    if validation_fold == NEXT and fold in folds:
        validation_fold = folds[(folds.index(fold) + 1) % len(folds)]
    for field, value in (("fold", fold), ("validation_fold", validation_fold)):
        if value is None and field == "validation_fold":
            continue
        if isinstance(value, bool) or value not in folds:
            raise InvalidSetting(field, value, allowed + f", or {NEXT}" * (field == "validation_fold"))
    if validation_fold == fold:
        raise InvalidSetting("validation_fold", validation_fold, f"{allowed}, other than fold={fold}")
    return None if validation_fold is None else int(validation_fold)


def divide(recordings: Sequence[Recording], folds: int, *, seed: int, groups: Sequence[str] | None = None) -> list[int]:
    """Number of the fold of each recording, from 1: about the same share of each label in every fold.

    By scikit-learn's ``StratifiedKFold``, or ``StratifiedGroupKFold`` where there are groups; of recordings with
    several labels, the rarest one counts.

    Args:
        recordings: in an order that does not change, since it decides.
        folds: how many, 2 or more.
        seed: of the order in which recordings are dealt out.
        groups: of each recording: those of one group are in one fold.

    Raises:
        InvalidSetting: ``folds`` is no such number, or more than a label has recordings, or than there are groups.
    """
    check_seed(seed)
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise InvalidSetting("folds", folds, "a whole number from 2")
    sizes = Counter(label for recording in recordings for label in recording.labels)
    labels = [min(recording.labels, key=lambda label: (sizes[label], label), default=-1) for recording in recordings]
    single = all(len(recording.labels) == 1 for recording in recordings)
    most = min(sizes.values(), default=0) if single else len(recordings)
    if groups is not None:
        most = min(most, len(set(groups)))
    if folds > most:
        why = "as many as the label with the fewest has clips" if single else "as many as there are clips"
        raise InvalidSetting(
            "folds", folds, f"2 to {most}: at most {why}" + ", and as there are groups" * (groups is not None)
        )
    kind = sklearn.model_selection.StratifiedKFold if groups is None else sklearn.model_selection.StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    numbers = [0] * len(recordings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for number, (_, held_out) in enumerate(splitter.split(labels, labels, groups), start=1):
            for place in held_out:
                numbers[place] = number
    return numbers


def check_seed(seed: int) -> None:
    """Refuse what seeds no generator."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InvalidSetting("seed", seed, "a whole number from 0 to 2^32 - 1")


def in_part(part: str, fold_of_recording: int, fold: int, validation_fold: int | None) -> bool:
    """Whether a recording belongs to a part when one fold is held out.

    Test is ``fold``. Validation is ``validation_fold``, or ``fold`` again where that is None. Training is what
    neither of them is.
    """
    held_out = {"test": fold, "validation": fold if validation_fold is None else validation_fold}
    if part in held_out:
        return fold_of_recording == held_out[part]
    return fold_of_recording not in held_out.values()


def complete(
    recordings_of: Mapping[str, Sequence[Recording]],
    part: str,
    *,
    validation_share: float,
    test_share: float,
    seed: int,
    stratify: bool,
) -> tuple[Sequence[Recording], int | None]:
    """The recordings of a part, those parts made that the data set does not have; and out of how many it was drawn.

    Given training, validation and test: as they are. Without validation, ``validation_share`` of the training part is
    held out for it. With a validation part and no test part, the validation part is also the test part. With neither,
    ``test_share`` of all recordings is held out for test and ``validation_share`` of all for validation. A data set
    without a training part, or all of which is held out for test, can be tested on and not trained on. What shares a
    `Recording.group` stays together, so that as many are held out as whole groups come near to. The number is that of
    `AudioDataset.drawn_from`.

    Args:
        recordings_of: part → its recordings, for the parts that are given.
        part: the one that is wanted.
        validation_share: see above; in (0, 1).
        test_share: see above; in (0, 1].
        seed: of what is drawn.
        stratify: hold out about the same share of each label; each recording then has one.

    Raises:
        InvalidSetting: a share is out of range, holds out or leaves fewer recordings than there are labels, or is one
            that whole groups do not come near to.
        DataError: there are no recordings for the part, a label has fewer than two of them or is of one group alone,
            or there are too few groups.
    """
    for field, share in (("validation_share", validation_share), ("test_share", test_share)):
        everything = field == "test_share" and share == 1
        if isinstance(share, bool) or not isinstance(share, int | float) or not (0 < share < 1 or everything):
            raise InvalidSetting(field, share, "a share between 0 and 1" + (", or 1" if field == "test_share" else ""))
    check_seed(seed)
    if test_share < 1 <= validation_share + test_share:
        raise InvalidSetting("validation_share + test_share", validation_share + test_share, "less than 1")
    parts = {name: recordings for name, recordings in recordings_of.items() if recordings}
    if test_share == 1 and parts.keys() == {"train"}:
        parts = {"test": parts["train"]}
    if "train" not in parts:
        wanted = "validation" if part == "test" and "test" not in parts else part
        if wanted not in parts:
            there = " and ".join(parts) or "nothing"
            raise DataError(f"there are no {NAMES[part]} clips, only {there}; a part that is there can be evaluated")
        return parts[wanted], None
    total = len(parts["train"])
    held_out = part != "train" and part not in parts and "validation" not in parts
    if "validation" not in parts:
        if "test" not in parts:
            parts["train"], parts["test"] = _split(
                parts["train"], total, "test_share", test_share, seed, stratify, 2, TESTED_ON_ALL * (part == "test")
            )
        parts["train"], parts["validation"] = _split(
            parts["train"], total, "validation_share", validation_share, seed, stratify
        )
    wanted = "validation" if part == "test" and "test" not in parts else part
    return parts[wanted], total if held_out else None


def drawn_in_words(part: str, drawn_from: int | None) -> str:
    """What a result on a part says of a share that was drawn for it; nothing where none was."""
    if drawn_from is None:
        return ""
    everything = "--part test " * (part != "test") + "--set test_share=1"
    return (
        f"The clips are a share of {drawn_from:,}, drawn by seed for {NAMES[part]} as when a model is trained on the "
        f"others; {everything} (of archives, when they are packed) takes all, for a model that was trained on none."
    )


def _split(
    recordings: Sequence[Recording],
    total: int,
    field: str,
    share: float,
    seed: int,
    stratify: bool,
    leave: int = 1,
    otherwise: str = "",
) -> tuple[list[Recording], list[Recording]]:
    """Hold out a share of ``total`` recordings by scikit-learn's ``train_test_split``: the rest, and those, in order.

    Where there are groups, whole ones are held out, so that it is about as many, and ``leave`` groups stay.
    ``otherwise`` ends the refusal of a share.
    """
    groups, count = groups_of(recordings), round(share * total)
    if groups is not None:
        count = max(1, count)
        rest, held_out = split_groups(recordings, groups, count, seed, stratify, leave)
        if far(held_out, count):
            raise InvalidSetting(
                field,
                share,
                f"a share that whole groups come near to: of the {len(recordings)} clips to be split, of "
                f"{len(set(groups))} groups, they hold out {len(held_out)}, not {count}; name another share or "
                "smaller groups, or say yourself which clips belong to train, validation and test",
            )
        return rest, held_out
    numbers = range(len(recordings))
    labels = [recording.labels[0] for recording in recordings] if stratify else None
    sizes = Counter(labels or ())
    if single := [recordings[labels.index(label)].id for label, size in sizes.items() if size < 2 and labels]:
        raise DataError(
            f"{labels_have(len(single))} fewer than two clips left to be split, e.g. that of {single[0]}; "
            "add clips, or say yourself which belong to train, validation and test"
        )
    least = max(1, len(sizes))
    if not least <= count <= len(recordings) - least:
        allowed = f"a share that holds out {least} to {len(recordings) - least} of {len(recordings)} clips, not {count}"
        allowed += ", with as many clips as labels on both sides" if sizes else ""
        fields = ("test_share", "validation_share") if field == "test_share" else (field,)
        fitting = _fitting_share(recordings, total, fields, seed, stratify, least)
        if fitting is None:
            allowed += "; or add clips, or say yourself which belong to train, validation and test"
        else:
            allowed += "; e.g. " + " ".join(f"--set {name}={fitting}" for name in fields)
        allowed += otherwise
        raise InvalidSetting(field, share, allowed)
    rest, held_out = sklearn.model_selection.train_test_split(
        numbers, test_size=count, random_state=seed, stratify=labels
    )
    return [recordings[number] for number in sorted(rest)], [recordings[number] for number in sorted(held_out)]


def _fitting_share(
    recordings: Sequence[Recording], total: int, fields: Sequence[str], seed: int, stratify: bool, least: int
) -> float | None:
    """A share of at least ``least`` recordings that can be held out for each of ``fields`` in turn; None for none."""
    first = math.ceil(100 * least / total)
    for share in (hundredths / 100 for hundredths in range(first, first + TRIED)):
        held = round(share * total)
        if held < least or len(fields) * held + least > len(recordings):
            continue
        rest = recordings
        try:
            for field in fields:
                rest, _ = _split(rest, total, field, share, seed, stratify)
        except DataError:
            continue
        return share
    return None


def halves(part: AudioDataset, seed: int = 0) -> tuple[AudioDataset, AudioDataset]:
    """Two parts of a data set, about as large, the labels shared out evenly as far as that goes.

    What shares a `Recording.group` (a speaker, a longer recording) goes to one side, so that what is found on one half
    holds for voices and places on the other that it has not heard. By scikit-learn's ``StratifiedGroupKFold``, or
    ``GroupKFold`` where clips can have several labels.

    Args:
        part: what to split.
        seed: of the split.

    Raises:
        DataError: all clips are of one group, or there is one clip only.
    """
    groups = groups_of(part.recordings) or [recording.id for recording in part.recordings]
    if len(set(groups)) < 2:
        what = f"all of its {len(groups)} clips are of one {groups[0]}" if groups[1:] else "there is one clip"
        raise DataError(f"this part of the data set cannot be halved: {what}")
    labels = [min(recording.labels, default=-1) for recording in part.recordings]
    options = {"n_splits": 2, "shuffle": True, "random_state": seed}
    splitter = sklearn.model_selection.GroupKFold(**options)
    if not part.multi_label and max(Counter(labels).values()) > 1:
        splitter = sklearn.model_selection.StratifiedGroupKFold(**options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        first, second = next(splitter.split(labels, labels, groups))
    one, other = ([part.recordings[place] for place in sorted(places)] for places in (first, second))
    return replace(part, recordings=one, missing=()), replace(part, recordings=other, missing=())
