"""A packed data set: the clips of another one in tar archives, found by an index, with its labels, parts and folds.

On disk: ``spectrim-pack.json`` says what was packed and how, under a checksum; ``clips.npz`` holds place, checksum,
labels and name of every clip; ``train-000000.tar`` and so on hold pairs of ``000000000.flac`` and ``000000000.json``,
as WebDataset has them. It opens under the name of the data set that it was packed from, and gives the same clips in the
same order.
`spectrim.data.packing` writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from spectrim.audio.members import Member
from spectrim.data.dataset import BAD_SHARE, AudioDataset, LabelTable, Recording, Recordings
from spectrim.data.layout import check_part
from spectrim.data.splits import check_folds
from spectrim.errors import DataError, InvalidSetting, shown
from spectrim.files import file_digest

DESCRIPTION, CLIPS, FORMAT = "spectrim-pack.json", "clips.npz", 1

OF_FOLDS = ("fold", "validation_fold")
"""Options that are chosen when a packed data set is opened; all others that say what a clip is were chosen before."""

ANYTIME = (*OF_FOLDS, "bad_share")


@dataclass(frozen=True, eq=False)
class Pack:
    """The index of a packed data set, in arrays: 2 million clips take about 200 MB.

    Attributes:
        root: its folder.
        name: of the data set that was packed.
        options: of its opener, with which it was packed.
        labels: names of all labels, in the order of their numbers.
        multi_label: whether a clip can have several labels.
        folds: numbers of its folds, none where it has none.
        sampling_rate: at which it was packed, in hertz; None where files are as they were.
        shards: name and bytes of each archive.
        digest: SHA-256 of the index.
        suffixes: endings of the members' names.
        flaws: number of a clip → why it could not be read.
        groups: names of the groups.
        parts: key of a part (`part_key`) → ``missing``, ids of files that were not there, and where a share was drawn
            for it ``drawn_from``, see `AudioDataset`; or ``error``, why there is no such part.
        arrays: ``shard`` (−1 for unreadable ones), ``start``, ``size``, ``crc32``, ``suffix``, ``group`` (−1 for none)
            of each clip; ``label_bounds`` and ``label_numbers``, see `LabelTable`; ``id_bounds`` and ``ids``, UTF-8
            bytes of all names; ``part_KEY``, the numbers of a part's clips in their order.
    """

    root: Path
    name: str
    options: dict[str, Any]
    labels: tuple[str, ...]
    multi_label: bool
    folds: tuple[int, ...]
    sampling_rate: int | None
    shards: tuple[tuple[str, int], ...]
    digest: str
    suffixes: tuple[str, ...]
    flaws: dict[int, str]
    groups: tuple[str, ...]
    parts: dict[str, dict[str, Any]]
    arrays: dict[str, NDArray[Any]]

    @property
    def label_table(self) -> LabelTable:
        """The labels of all clips."""
        return LabelTable(self.arrays["label_bounds"], self.arrays["label_numbers"])

    def recording(self, number: int, labelled: bool = True) -> Recording:
        """A clip by its number."""
        arrays, table = self.arrays, self.label_table
        low, high = (int(bound) for bound in arrays["id_bounds"][number : number + 2])
        labels = table.numbers[table.bounds[number] : table.bounds[number + 1]].tolist() if labelled else ()
        shard, group = int(arrays["shard"][number]), int(arrays["group"][number])
        archive = self.root / (self.shards[shard][0] if shard >= 0 else DESCRIPTION)
        member = Member(
            archive,
            member_name(number, self.suffixes[arrays["suffix"][number]] if shard >= 0 else ""),
            int(arrays["start"][number]),
            int(arrays["size"][number]),
            int(arrays["crc32"][number]),
            self.flaws[number] if shard < 0 else None,
        )
        name = arrays["ids"][low:high].tobytes().decode("utf-8", "surrogateescape")
        return Recording(archive, tuple(labels), name, None if group < 0 else self.groups[group], member)

    def check_shards(self) -> None:
        """Refuse archives that are not there, or have not the size that they had.

        Raises:
            DataError: names the archive, what it has and what it ought to have.
        """
        for name, size in self.shards:
            path = self.root / name
            try:
                there = path.stat().st_size
            except OSError as error:
                raise DataError(f"{path} is missing: the packed data set is not whole ({error.strerror})") from error
            if there != size:
                raise DataError(f"{path} has {there} bytes, not the {size} that were packed: copy or pack it anew")

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that would have to be chosen before packing.

        Raises:
            InvalidSetting: one is not what it was then.
        """
        for name, value in options.items():
            if name not in ANYTIME and value != self.options.get(name):
                allowed = f"{self.options.get(name)!r}, with which {self.root} was packed; pack it anew for another"
                raise InvalidSetting(f"option {name}", value, allowed)

    def part(self, part: str, fold: int | None, validation_fold: int | str | None) -> PackedRecordings:
        """The clips of a part, in the order in which the data set had them."""
        key, without = self._keys(part, fold, validation_fold)
        numbers = self._numbers(key)
        if without is not None:
            numbers = numbers[~np.isin(numbers, self._numbers(without))]
        return PackedRecordings(self, numbers)

    def missing(self, part: str, fold: int | None, validation_fold: int | str | None) -> list[str]:
        """Ids of the files of a part that were missing when it was packed; see `part`."""
        key, without = self._keys(part, fold, validation_fold)
        elsewhere = set() if without is None else set(self._missing(without))
        return [name for name in self._missing(key) if name not in elsewhere]

    def drawn_from(self, part: str, fold: int | None, validation_fold: int | str | None) -> int | None:
        """See `AudioDataset.drawn_from`; None also of packs from before that was written down."""
        return self.parts[self._keys(part, fold, validation_fold)[0]].get("drawn_from")

    def _keys(self, part: str, fold: int | None, validation_fold: int | str | None) -> tuple[str, str | None]:
        """Key of what a part is made of, and of what is taken from it."""
        if fold is None and validation_fold is None:
            return part_key(part), None
        if not self.folds:
            given = validation_fold if fold is None else fold
            raise InvalidSetting("fold", given, f"none: {self.root} was packed without folds")
        fold = self.folds[0] if fold is None else fold
        other, fold = check_folds(fold, validation_fold, self.folds), int(fold)  # 2.0 is fold 2, and has its key
        if part != "train":
            return part_key("test", fold if part == "test" or other is None else other), None
        return part_key("train", fold), None if other is None else part_key("test", other)

    def _numbers(self, key: str) -> NDArray[np.int32]:
        if "error" in self.parts[key]:
            raise DataError(self.parts[key]["error"])
        return self.arrays[array_name(key)]

    def _missing(self, key: str) -> list[str]:
        return self.parts[key].get("missing", [])


class PackedRecordings(Recordings):
    """Clips of a pack, by their numbers.

    Args:
        pack: holds them.
        numbers: (n,) of clips.
        labelled: whether they have their labels.
    """

    def __init__(self, pack: Pack, numbers: NDArray[np.int32], labelled: bool = True) -> None:
        self.pack, self.numbers, self.labelled = pack, numbers, labelled

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> PackedRecordings: ...
    def __getitem__(self, index: int | slice) -> Recording | PackedRecordings:
        """A recording, or some of them."""
        if isinstance(index, slice):
            return PackedRecordings(self.pack, self.numbers[index], self.labelled)
        return self.pack.recording(int(self.numbers[index]), self.labelled)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedRecordings):
            return NotImplemented
        return (self.pack.root, self.digest) == (other.pack.root, other.digest)

    __hash__ = None  # type: ignore[assignment]

    @property
    def label_table(self) -> LabelTable:
        """The labels of all of them."""
        if not self.labelled:
            return LabelTable(np.zeros(len(self) + 1, np.int64), np.zeros(0, np.int32))
        table = self.pack.label_table
        counts = np.diff(table.bounds)[self.numbers]
        bounds = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(table.bounds[self.numbers] - bounds[:-1], counts) + np.arange(bounds[-1])
        return LabelTable(bounds, table.numbers[places])

    @property
    def digest(self) -> str:
        """Tells them from any others."""
        said = f"{self.pack.digest} {self.labelled} "
        return hashlib.sha256(said.encode() + self.numbers.tobytes()).hexdigest()

    def unlabelled(self) -> PackedRecordings:
        """The same without labels."""
        return PackedRecordings(self.pack, self.numbers, labelled=False)


def part_key(part: str, fold: int | None = None) -> str:
    """What a part is called in a pack: ``test``, or ``test_2`` where fold 2 is held out."""
    return part if fold is None else f"{part}_{fold}"


def array_name(key: str) -> str:
    """The array of a part's clips."""
    return f"part_{key}"


def member_name(number: int, suffix: str) -> str:
    """The name of a clip in its archive: no dot but that before its ending, as WebDataset wants it."""
    return f"{number:09d}.{suffix}"


def is_packed(root: str | Path) -> bool:
    """Whether a folder is a packed data set."""
    return (Path(root) / DESCRIPTION).is_file()


def description_digest(said: Mapping[str, Any]) -> str:
    """SHA-256 of all that a description says beside this: labels that trade places would be wrong answers."""
    rest = {name: value for name, value in said.items() if name != "description_sha256"}
    as_read = json.loads(json.dumps(rest))  # numbers that are keys become text
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def open_packed(name: str, root: str | Path, part: str, options: Mapping[str, Any]) -> AudioDataset:
    """Open a part of a packed data set.

    Args:
        name: the data set that is wanted.
        root: folder of the archives.
        part: one of `spectrim.data.PARTS`.
        options: of the data set's opener. ``fold``, ``validation_fold`` and ``bad_share`` are free; others must be what
            they were when it was packed.

    Raises:
        InvalidSetting: unknown part; the pack is of another data set, or of other options; or there is no such fold.
        DataError: an archive or the index is missing or damaged, or the part is empty.
    """
    check_part(part)
    pack = read_pack(Path(root))
    if name != pack.name:
        raise InvalidSetting("data set", name, f"{pack.name}, from which {root} was packed")
    pack.check_options(options)
    pack.check_shards()
    folds = options.get("fold"), options.get("validation_fold")
    return AudioDataset(
        pack.part(part, *folds),
        list(pack.labels),
        multi_label=pack.multi_label,
        missing=pack.missing(part, *folds),
        bad_share=options.get("bad_share", BAD_SHARE),
        folds=pack.folds,
        drawn_from=pack.drawn_from(part, *folds),
        highest_rate=pack.sampling_rate,
    )


def read_pack(root: Path) -> Pack:
    """The index of a packed data set, read once as long as it stays the same.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        state = (root / DESCRIPTION).stat()
    except OSError as error:
        raise DataError(f"{root} is no packed data set: {DESCRIPTION} cannot be read ({error.strerror})") from error
    return _read(root.absolute(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(root: Path, size: int, modified: int) -> Pack:
    path = root / DESCRIPTION
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise DataError(f"{path} is of format {said['format']!r}; this version reads {FORMAT!r}: pack it anew")
        if said["description_sha256"] != description_digest(said):
            raise DataError(f"{path} is not as it was written, its checksum says: copy or pack it anew")
        pack = Pack(
            root=root,
            name=said["data_set"],
            options=said["options"],
            labels=tuple(said["labels"]),
            multi_label=said["multi_label"],
            folds=tuple(said["folds"]),
            sampling_rate=said["sampling_rate"],
            shards=tuple((str(one["name"]), int(one["bytes"])) for one in said["shards"]),
            digest=said["index_sha256"],
            suffixes=tuple(said["suffixes"]),
            flaws={int(number): reason for number, reason in said["unreadable"].items()},
            groups=tuple(said["groups"]),
            parts=said["parts"],
            arrays=_arrays(root / CLIPS, said["index_sha256"]),
        )
        _check(pack)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} does not describe a packed data set: {shown(str(error))}") from error
    return pack


def _arrays(path: Path, digest: str) -> dict[str, NDArray[Any]]:
    try:
        if file_digest(path) != digest:
            raise DataError(f"{path} is damaged: it does not have the checksum in {DESCRIPTION}")
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _check(pack: Pack) -> None:
    """Refuse an index that points to what is not there."""
    arrays = pack.arrays
    clips = len(arrays["shard"])
    for name in ("start", "size", "crc32", "suffix", "group"):
        _expect(len(arrays[name]) == clips, f"{name} of {len(arrays[name])} clips, not {clips}")
    for bounds, values in (("label_bounds", "label_numbers"), ("id_bounds", "ids")):
        ends = arrays[bounds]
        rising = len(ends) == clips + 1 and ends[0] == 0 and bool((np.diff(ends) >= 0).all())
        _expect(rising and int(ends[-1]) == len(arrays[values]), f"{bounds} that do not fit")
    _within("shard", arrays["shard"], -1, len(pack.shards))
    _within("group", arrays["group"], -1, len(pack.groups))
    _within("suffix", arrays["suffix"], 0, len(pack.suffixes))
    _within("label_numbers", arrays["label_numbers"], 0, len(pack.labels))
    unreadable = set(np.flatnonzero(arrays["shard"] < 0).tolist())
    _expect(unreadable == pack.flaws.keys(), "clips without a place or reason")
    _expect(all(Path(name).name == name for name, _ in pack.shards), "archives elsewhere")
    keys = [*map(part_key, ("train", "validation", "test"))]
    for key in [*keys, *(part_key(part, fold) for fold in pack.folds for part in ("train", "test"))]:
        _expect(isinstance(pack.parts[key].get("drawn_from"), int | None), "a share of no number of clips")
        if "error" not in pack.parts[key]:
            _within(key, arrays[array_name(key)], 0, clips)


def _within(what: str, numbers: NDArray[Any], low: int, high: int) -> None:
    fine = not len(numbers) or (numbers.min() >= low and numbers.max() < high)
    _expect(bool(fine), f"{what} out of range")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def names_in_bytes(names: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Names as ``id_bounds`` and ``ids`` of a `Pack`."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return bounds, np.frombuffer(b"".join(encoded), dtype=np.uint8)
