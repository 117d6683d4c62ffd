"""Pack a data set into tar archives that WebDataset reads, with an index; see `spectrim.data.packed`.

Archives are written one after another into ``OUTPUT.partial``, each with the rows of the index that are in it, so that
a packing that was broken off goes on behind its last whole archive; the folder gets its name when all is there.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.data import DataSet, find_data_set
from spectrim.data.archives import COLUMNS, Rows, remove_rows, write_archives
from spectrim.data.check import what_is_missing_unsaid
from spectrim.data.dataset import (
    BAD_SHARE,
    PARTS,
    AudioDataset,
    Recording,
    bearable,
    check_bad_share,
    label_table,
    some,
)
from spectrim.data.encoding import Encoded, Fidelity, encode
from spectrim.data.packed import (
    CLIPS,
    DESCRIPTION,
    FORMAT,
    OF_FOLDS,
    array_name,
    description_digest,
    is_packed,
    names_in_bytes,
    part_key,
)
from spectrim.errors import DataError, InvalidSetting, one_of
from spectrim.files import clear, named_when_full, refuse_another_run, sole_writer, write_bytes, write_json
from spectrim.machine import core_count, version_of

FORMATS = ("flac", "original")
SHARD_BYTES, LEAST_SHARD = 10**9, 10**5
LOWEST_RATE, HIGHEST_RATE = 4000, 384_000
"""Rates in hertz that clips can be packed at."""

LOW_RATES = 65535
"""Rates in hertz up to which FLAC's streams write any whole number (RFC 9639, section 9.1.2)."""

RUN = "run.json"
"""In a folder that is being written: what with."""

AHEAD = 8
"""Files a thread that are read ahead of what is written."""

Progress = Callable[[int, int], None]


@dataclass
class PackReport:
    """What was packed.

    Attributes:
        clips: how many, unreadable ones left out.
        hours: their length.
        archives: how many.
        bytes: of all archives.
        fidelity: name of a `Fidelity` → number of clips.
        unreadable: id → reason of files that cannot be read. They are in the index, and another clip stands in for them
            as it would for the file.
        missing: ids of files that the lists name and the disk lacks.
    """

    clips: int
    hours: float
    archives: int
    bytes: int
    fidelity: dict[str, int]
    unreadable: dict[str, str]
    missing: list[str]


@dataclass
class _Contents:
    """All clips of a data set, each once, and which parts they belong to.

    Attributes:
        first: the first part that could be opened: says labels and folds.
        clips: by their numbers.
        parts: key of a part → numbers of its clips.
        said: key of a part → what a `Pack` says of it; of one that could not be opened why.
    """

    first: AudioDataset
    clips: list[Recording]
    parts: dict[str, NDArray[np.int32]]
    said: dict[str, dict[str, Any]]

    def by_archive(self) -> dict[str, list[int]]:
        """Beginning of the archives' names → numbers of the clips in them: a fold's, or a part's."""
        left = np.ones(len(self.clips), dtype=bool)
        found: dict[str, list[int]] = {}
        keys = [(f"fold{fold}", part_key("test", fold)) for fold in self.first.folds]
        for name, key in [*keys, *((part, part) for part in ("train", "test", "validation"))]:
            inside = np.zeros_like(left)
            inside[self.parts.get(key, np.zeros(0, np.int32))] = True
            found[name] = np.flatnonzero(inside & left).tolist()
            left &= ~inside
        return {name: numbers for name, numbers in found.items() if numbers}


def pack(
    name: str,
    root: str | Path,
    output: str | Path,
    *,
    form: str = "flac",
    sampling_rate: int = 16000,
    shard_bytes: int = SHARD_BYTES,
    workers: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> PackReport:
    """Pack a data set.

    Args:
        name: of the data set, in `spectrim.data.DATA_SETS`.
        root: where it is.
        output: folder to make.
        form: ``"flac"``: mono, at one rate; ``"original"``: the files as they are.
        sampling_rate: of the FLAC, in hertz.
        shard_bytes: largest archive; a clip that is larger has one to itself.
        workers: threads that read; one a core unless given.
        resume: go on behind the last whole archive of a packing that was broken off, or begin. Archives from the first
            one that lacks a clip which could not be read then, and can now, are packed anew.
        progress: called with (clips done, clips in all).
        options: of the data set's opener, but for the fold, which is chosen when the pack is opened.

    Raises:
        InvalidSetting: an argument or option is out of range, ``output`` is there, or was begun with other settings.
        DataError: the data set cannot be opened, has changed since the packing was begun, or more than ``bad_share`` of
            a part is missing or unreadable. What has been packed by then stays, for ``resume``.
    """
    root, output = Path(root), Path(output)
    entry = find_data_set(name)
    bad_share = options.pop("bad_share", BAD_SHARE)
    _check_settings(root, output, form, sampling_rate, shard_bytes, workers, bad_share, options)
    rate = sampling_rate if form == "flac" else None
    with sole_writer(output):
        partial = output.with_name(output.name + ".partial")
        if not resume and partial.exists():
            raise InvalidSetting("output", str(output), f"with --resume, to go on with {partial}; or delete that first")
        contents = _gather(entry, root, options, bad_share)
        settings: dict[str, Any] = {
            "data_set": name,
            "root": str(root.resolve()),
            "sampling_rate": rate,
            "shard_bytes": shard_bytes,
            "options": {**entry.defaults, **options},
            "clips": _digest(contents.clips),
        }
        with named_when_full(partial):
            _begin(partial, settings)
            rows = _write(partial, contents, rate, shard_bytes, bad_share, workers or core_count(), progress)
            report = _conclude(partial, contents, rows, settings)
        partial.rename(output)
    return report


def _check_settings(
    root: Path,
    output: Path,
    form: str,
    sampling_rate: int,
    shard_bytes: int,
    workers: int | None,
    bad_share: float,
    options: Mapping[str, Any],
) -> None:
    if form not in FORMATS:
        raise InvalidSetting("format", form, one_of(FORMATS))
    numbers = (
        ("rate", sampling_rate, LOWEST_RATE, HIGHEST_RATE),
        ("shard_size", shard_bytes, LEAST_SHARD, 10**15),
        ("workers", 1 if workers is None else workers, 1, 1024),
    )
    for field_name, value, low, high in numbers:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidSetting(field_name, value, f"a whole number from {low} to {high}")
    if form == "flac" and sampling_rate > LOW_RATES and sampling_rate % 10:
        raise InvalidSetting("rate", sampling_rate, f"a multiple of 10 above {LOW_RATES}: FLAC writes no others")
    check_bad_share(bad_share)
    for option in OF_FOLDS:
        if option in options:
            allowed = "none: every fold is packed, and chosen when the packed data set is opened"
            raise InvalidSetting(f"option {option}", options[option], allowed)
    if is_packed(root):
        raise InvalidSetting("data", str(root), "a data set that is not packed; this one is")
    if output.exists():
        raise InvalidSetting("output", str(output), "a folder that is not there yet")
    if root.is_dir() and output.resolve().is_relative_to(root.resolve()):
        raise InvalidSetting("output", str(output), f"a folder outside of {root}")


def _gather(entry: DataSet, root: Path, options: Mapping[str, Any], bad_share: float) -> _Contents:
    """Open every part, of every fold, and number the clips."""
    opened: dict[str, AudioDataset] = {}
    errors: dict[str, str] = {}

    def open_part(part: str, fold: int | None = None) -> None:
        key, held_out = part_key(part, fold), {} if fold is None else {"fold": fold}
        try:
            opened[key] = entry.open(root, part, **{**options, **held_out, "bad_share": 1.0})
        except DataError as error:
            errors[key] = str(error)

    with what_is_missing_unsaid():
        for part in PARTS:
            open_part(part)
        if not opened:
            raise DataError(next(iter(errors.values())))
        first = next(iter(opened.values()))
        for fold in first.folds:
            open_part("train", fold)
            open_part("test", fold)
    for part in PARTS:
        if part in opened:
            _refuse_too_many(part, "missing", opened[part].missing, len(opened[part]), bad_share)
    numbers: dict[Recording, int] = {}
    parts = {
        key: np.array([numbers.setdefault(one, len(numbers)) for one in clips.recordings], dtype=np.int32)
        for key, clips in opened.items()
    }
    said: dict[str, dict[str, Any]] = {key: {"missing": list(clips.missing)} for key, clips in opened.items()}
    for key, clips in opened.items():
        if clips.drawn_from is not None:
            said[key]["drawn_from"] = clips.drawn_from
    said |= {key: {"error": text} for key, text in errors.items()}
    return _Contents(first, list(numbers), parts, said)


def _refuse_too_many(part: str, what: str, names: Sequence[str], there: int, bad_share: float) -> None:
    total = there + len(names) * (what == "missing")
    if len(names) > bearable(total, bad_share):
        raise DataError(
            f"{part}: {len(names)} of {total} files are {what}, more than bad_share={bad_share:g}: {some(names)}"
        )


def _digest(clips: Sequence[Recording]) -> str:
    """Tells the files and their labels from any others."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(repr((str(clip.path), clip.id, clip.labels, clip.group)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _begin(partial: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder to write in, or refuse one that was begun otherwise."""
    if (partial / RUN).exists():
        before = json.loads((partial / RUN).read_text(encoding="utf-8"))
        refuse_another_run(settings, before, partial, apart_from=("clips",))
        if before["clips"] != settings["clips"]:
            raise DataError(
                f"{settings['root']} has other clips or labels than when {partial} was begun: delete that and pack anew"
            )
        return
    if partial.exists() and (not partial.is_dir() or any(partial.iterdir())):
        raise InvalidSetting("output", str(partial), f"a packing that was broken off, with its {RUN}; move this away")
    clear(partial)
    partial.mkdir(parents=True)
    write_json(partial / RUN, settings)


def _write(
    folder: Path,
    contents: _Contents,
    rate: int | None,
    shard_bytes: int,
    bad_share: float,
    workers: int,
    progress: Progress | None,
) -> list[Rows]:
    """Write the archives that are not there yet; the rows of all."""
    whole: list[Rows] = []
    done = 0
    labels, flaws = contents.first.labels, dict[int, str]()

    def said(number: int, encoded: Encoded) -> dict[str, Any]:
        clip = contents.clips[number]
        names = {"id": clip.id, "labels": [labels[label] for label in clip.labels], "label_numbers": list(clip.labels)}
        return names | {"seconds": encoded.seconds} | ({} if clip.group is None else {"group": clip.group})

    def step(rows: Rows) -> None:
        if rows.flaws.keys() - flaws.keys():
            flaws.update(rows.flaws)
            _refuse_unreadable(contents, flaws, bad_share)
        if progress is not None:
            progress(done + len(rows), len(contents.clips))

    def mended(rows: Rows) -> bool:
        return any(encode(contents.clips[number].path, rate).flaw is None for number in rows.flaws)

    with ThreadPoolExecutor(workers) as pool:
        for prefix, numbers in contents.by_archive().items():

            def left(done: int, numbers: list[int] = numbers) -> Iterator[tuple[int, Encoded]]:
                for start in range(done, len(numbers), AHEAD * workers):
                    here = numbers[start : start + AHEAD * workers]
                    paths = [contents.clips[number].path for number in here]
                    yield from zip(here, pool.map(encode, paths, itertools.repeat(rate)), strict=False)

            for rows in write_archives(folder, prefix, left, said, shard_bytes, step, mended):
                whole.append(rows)
                flaws.update(rows.flaws)
                done += len(rows)
    _refuse_unreadable(contents, flaws, bad_share)
    return whole


def _refuse_unreadable(contents: _Contents, flaws: Mapping[int, str], bad_share: float) -> None:
    for part in PARTS:
        if part in contents.parts:
            inside = contents.parts[part]
            names = [contents.clips[number].id for number in np.intersect1d(inside, [*flaws]).tolist()]
            _refuse_too_many(part, "unreadable", names, len(inside), bad_share)


def _conclude(folder: Path, contents: _Contents, archives: Sequence[Rows], settings: Mapping[str, Any]) -> PackReport:
    """Write the index and the description, and remove what only a resumed packing needs."""
    clips = contents.clips
    columns = {name: np.concatenate([rows.array(name) for rows in archives]) for name in COLUMNS}
    columns["shard"] = np.repeat(np.arange(len(archives), dtype=np.int32), [len(rows) for rows in archives])
    order = np.argsort(columns["number"])
    columns = {name: column[order] for name, column in columns.items()}
    flaws = {number: reason for rows in archives for number, reason in sorted(rows.flaws.items())}
    columns["shard"][[*flaws]] = -1
    suffixes, suffix = np.unique(columns["suffix"], return_inverse=True)
    groups = sorted({clip.group for clip in clips if clip.group is not None})
    places = {group: place for place, group in enumerate(groups)}
    table = label_table(clips)
    id_bounds, ids = names_in_bytes([clip.id for clip in clips])
    content = io.BytesIO()
    arrays: dict[str, Any] = {
        **{name: columns[name] for name in ("shard", "start", "size", "crc32")},
        "suffix": suffix.astype(np.uint16),
        "group": np.array([-1 if clip.group is None else places[clip.group] for clip in clips], np.int32),
        "label_bounds": table.bounds,
        "label_numbers": table.numbers,
        "id_bounds": id_bounds,
        "ids": ids,
        **{array_name(key): numbers for key, numbers in contents.parts.items()},
    }
    np.savez(content, **arrays)
    write_bytes(folder / CLIPS, content.getvalue())
    sizes = {rows.name: (folder / rows.name).stat().st_size for rows in archives}
    shards = [{"name": name, "bytes": size} for name, size in sizes.items()]
    kinds = {kind.name.lower(): int(np.sum(columns["fidelity"] == kind)) for kind in Fidelity}
    kinds["exact"] -= len(flaws)
    description = {
        "format": FORMAT,
        "made_by": f"spectrim {version_of('spectrim')}",
        **{name: settings[name] for name in ("data_set", "options", "sampling_rate")},
        "labels": contents.first.labels,
        "multi_label": contents.first.multi_label,
        "folds": list(contents.first.folds),
        "clips": len(clips),
        "fidelity": kinds,
        "index_sha256": hashlib.sha256(content.getvalue()).hexdigest(),
        "shards": shards,
        "suffixes": suffixes.tolist(),
        "groups": groups,
        "parts": contents.said,
        "unreadable": flaws,
    }
    write_json(folder / DESCRIPTION, {**description, "description_sha256": description_digest(description)})
    remove_rows(folder)
    (folder / RUN).unlink()
    missing = dict.fromkeys(name for part in PARTS for name in contents.said[part].get("missing", ()))
    return PackReport(
        clips=len(clips) - len(flaws),
        hours=float(columns["seconds"].sum()) / 3600,
        archives=len(archives),
        bytes=sum(sizes.values()),
        fidelity=kinds,
        unreadable={clips[number].id: reason for number, reason in flaws.items()},
        missing=list(missing),
    )
