"""Records of a model's results on a data set, on disk: shards in safetensors' format and an index in JSON.

``docs/analysis.md`` describes the format. A shard is written to a temporary name and renamed, then added to the index;
shards that the index does not name are ignored. A killed run loses the clips of one shard at most, and can be resumed.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from spectrim.analysis.batches import SHARD_CLIPS, ClipBatch, Layout, layout, packed, unpacked
from spectrim.config import SpectrimConfig
from spectrim.errors import DataError, InvalidSetting
from spectrim.files import write_bytes, write_json

INDEX = "index.json"
FORMAT, VERSION = "spectrim-record", 1
logger = logging.getLogger(__name__)


class StoreWriter:
    """Adds batches to a record; shards are written as they fill up.

    Args:
        folder: of the record; made if needed. An existing record is continued, without damaged shards and those after
            them.
        run: everything that determines the record, as JSON; holds ``config``, ``data.labels``, ``log_mel``, ``scores``.
        shard_clips: a shard is written once it has this many clips, or a few more from the last batch.

    Attributes:
        next_position: place in the data set to go on from.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], *, shard_clips: int = SHARD_CLIPS) -> None:
        if shard_clips < 1:
            raise InvalidSetting("shard_clips", shard_clips, "1 or more")
        self.folder = folder
        self.run = run
        self.shard_clips = shard_clips
        self.tensors = _layout_of(run)
        self.shards: list[dict[str, Any]] = []
        if (folder / INDEX).exists():
            self.shards = _whole_shards(folder, read_index(folder)["shards"])
        self.next_position = self.shards[-1]["next"] if self.shards else 0
        self._waiting: list[tuple[dict[str, NDArray[Any]], tuple[str, ...]]] = []
        self._left_out: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._write_index()

    def append(self, batch: ClipBatch) -> None:
        """Add clips; they are written when their shard is full, or by `flush`."""
        self._waiting.append((packed(batch, self.tensors), batch.ids))
        self._left_out |= batch.left_out
        self.next_position = batch.next_position
        if sum(len(ids) for _, ids in self._waiting) >= self.shard_clips:
            self.flush()

    def flush(self) -> None:
        """Write the clips that are not on disk yet as a shard, then the index."""
        if not self._waiting:
            return
        ids = [name for _, names in self._waiting for name in names]
        tensors = {name: np.concatenate([part[name] for part, _ in self._waiting]) for name in self.tensors}
        content = safetensors.numpy.save(tensors, metadata={"ids": json.dumps(ids)})
        path = self.folder / f"clips-{len(self.shards):05d}.safetensors"
        write_bytes(path, content)
        facts = {"file": path.name, "clips": len(ids), "bytes": len(content), "crc32": zlib.crc32(content)}
        self.shards.append({**facts, "next": self.next_position, "left_out": self._left_out})
        self._waiting, self._left_out = [], {}
        self._write_index()

    def _write_index(self) -> None:
        write_json(
            self.folder / INDEX, {"format": FORMAT, "version": VERSION, "run": dict(self.run), "shards": self.shards}
        )


class Store:
    """A record on disk, for reading.

    Args:
        folder: of the record.

    Raises:
        DataError: there is no record, its index cannot be read, or a shard is missing or of another size.

    Attributes:
        run: what determines the record; see `spectrim.analysis.record.record`.
        config: of the model, with the keep rate of the record.
        left_out: id → reason of the clips that could not be used.
        next_position: number of clips of the data set that were processed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = read_index(self.folder)
        self.run: dict[str, Any] = index["run"]
        self.shards: list[dict[str, Any]] = index["shards"]
        self.config = _config_of(self.run)
        self.tensors = _layout_of(self.run)
        self.left_out = {name: why for shard in self.shards for name, why in shard["left_out"].items()}
        self.next_position: int = self.shards[-1]["next"] if self.shards else 0
        self._checked: set[str] = set()
        for shard in self.shards:
            damage = _damage(self.folder, shard, whole=False)
            if damage is not None:
                raise _damaged(self.folder / shard["file"], damage)

    def __len__(self) -> int:
        """Number of clips."""
        return sum(shard["clips"] for shard in self.shards)

    def batches(self, *, log_mel: bool = False) -> Iterator[ClipBatch]:
        """The clips, a shard at a time; each shard is compared with its checksum when it is first read.

        Args:
            log_mel: read the log-mel values, too, the largest part.

        Raises:
            DataError: a shard is damaged.
            InvalidSetting: ``log_mel``, but the record holds none.
        """
        self._check_log_mel(log_mel)
        for shard in self.shards:
            yield replace(self._read(shard, None, log_mel), left_out=shard["left_out"])

    def clip(self, number: int, *, log_mel: bool = True) -> ClipBatch:
        """One clip, with its log-mel values, as a batch of one.

        Raises:
            DataError: its shard is damaged.
            InvalidSetting: there is no such clip, or no log-mel in the record.
        """
        self._check_log_mel(log_mel)
        if not 0 <= number < len(self):
            raise InvalidSetting("number", number, f"0 to {len(self) - 1}, the clips of the record")
        for shard in self.shards:
            if number < shard["clips"]:
                return self._read(shard, number, log_mel)
            number -= shard["clips"]
        raise InvalidSetting("number", number, "a clip of the record")

    def _check_log_mel(self, wanted: bool) -> None:
        if wanted and "log_mel" not in self.tensors:
            raise InvalidSetting("log_mel", True, f"False: {self.folder} was recorded without log-mel")

    def _read(self, shard: Mapping[str, Any], row: int | None, log_mel: bool) -> ClipBatch:
        path = self.folder / shard["file"]
        if shard["file"] not in self._checked:
            damage = _damage(self.folder, shard, whole=True)
            if damage is not None:
                raise _damaged(path, damage)
            self._checked.add(shard["file"])
        wanted = [name for name in self.tensors if log_mel or not name.startswith("log_mel")]
        try:
            with safe_open(path, framework="numpy") as file:
                ids = json.loads(file.metadata()["ids"])
                if row is None:
                    read = {name: file.get_tensor(name) for name in wanted}
                else:
                    ids = ids[row : row + 1]
                    read = {name: file.get_slice(name)[row : row + 1] for name in wanted}
        except SafetensorError as error:
            raise _damaged(path, str(error)) from error
        for name in wanted:
            shape, kind = self.tensors[name]
            if read[name].shape[1:] != shape or read[name].dtype != np.dtype(kind):
                raise _damaged(path, f"{name} has shape {read[name].shape} and type {read[name].dtype}")
        return unpacked(read, tuple(ids), shard["next"], self.config)


def _config_of(run: Mapping[str, Any]) -> SpectrimConfig:
    names = dict(enumerate(run["model"]["labels"]))
    return SpectrimConfig(**run["model"]["config"], id2label=names, label2id={name: i for i, name in names.items()})


def _layout_of(run: Mapping[str, Any]) -> Layout:
    return layout(_config_of(run), len(run["data"]["labels"]), log_mel=run["log_mel"], scores=run["scores"])


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a record, as it is on disk; raises `DataError` where there is none or it is not one."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no record: {INDEX} is missing") from error
    except ValueError as error:
        raise DataError(f"{path} is not the index of a record: {error}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DataError(f"{path} is not the index of a record")
    if index["version"] != VERSION:
        raise DataError(f"{path} has version {index['version']}; this Spectrim reads version {VERSION}")
    return index


def _damage(folder: Path, shard: Mapping[str, Any], *, whole: bool) -> str | None:
    """What is wrong with a shard, None if nothing; ``whole`` also compares the checksum."""
    path = folder / shard["file"]
    if not path.is_file():
        return "it is missing"
    size = path.stat().st_size
    if size != shard["bytes"]:
        return f"it has {size} bytes, not {shard['bytes']}"
    if whole and zlib.crc32(path.read_bytes()) != shard["crc32"]:
        return "its checksum is not that of the index"
    return None


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is not what was recorded: {reason}; record again with resume to replace it")


def _whole_shards(folder: Path, shards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shards before the first damaged one."""
    for number, shard in enumerate(shards):
        damage = _damage(folder, shard, whole=True)
        if damage is not None:
            logger.warning("%s and what follows it is recorded again: %s", folder / shard["file"], damage)
            return list(shards[:number])
    return list(shards)
