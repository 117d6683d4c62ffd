"""Parts of the files to passes, as tables that go from machine to machine. What decodes them does not load torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from spectrim.audio.decoding import DecodingProcess, Event
from spectrim.audio.files import windows_and_notes
from spectrim.audio.remote import is_url
from spectrim.inference.passes import Pass, passes, silence
from spectrim.inference.results import Scores


@dataclass(frozen=True)
class Cutting:
    """How files are cut: window and hop in seconds, rate in hertz, and the folder that relative paths start from."""

    window: float
    hop: float
    rate: int
    folder: str


@lru_cache(maxsize=1)
def _decoder(cutting: Cutting) -> DecodingProcess:
    """The process beside this one that decodes, the same for every part."""
    cutter = partial(
        windows_and_notes, window_seconds=cutting.window, hop_seconds=cutting.hop, sampling_rate=cutting.rate
    )
    return DecodingProcess(cutter)


def decoded_passes(table: Any, cutting: Cutting, batch_size: int) -> Iterator[Any]:
    """Decode parts of the files on some machine; a task of Ray.

    Args:
        table: with columns ``part`` and ``files``.
        cutting: how.
        batch_size: windows of a pass.

    Yields:
        A table a pass.
    """
    for row in table.to_pylist():
        for found in passes(_events(row["files"], cutting), batch_size):
            yield _table_of(row["part"], found)


def _events(files: Sequence[bytes], cutting: Cutting) -> Iterator[tuple[int, Event]]:
    decoder = _decoder(cutting)
    for index, name in enumerate(files):
        path = os.fsdecode(name)
        for event in decoder.decode(path if is_url(path) else os.path.join(cutting.folder, path)):  # noqa: PTH118
            yield index, event


def passes_schema(content: str) -> Any:
    """Of a table of passes, one a row, with ``content``, ``"samples"`` or ``"scores"``, as bytes of float32."""
    import pyarrow as arrow

    numbers, places, times = arrow.int64(), arrow.list_(arrow.int32()), arrow.list_(arrow.float64())
    return arrow.schema(
        {
            "part": numbers,
            "number": numbers,
            "before": numbers,
            "after": numbers,
            "files": places,
            "starts": times,
            "lengths": places,
            "ends": arrow.string(),
            content: arrow.large_binary(),
        }
    )


def _table_of(part: int, found: Pass) -> Any:
    import pyarrow

    row = {
        "part": part,
        "number": found.number,
        "before": found.before,
        "after": found.after,
        "files": found.files,
        "starts": found.starts,
        "lengths": [len(one) for one in found.samples],
        "ends": json.dumps(found.ends),
        "samples": np.concatenate([np.zeros(0, np.float32), *found.samples]).tobytes(),
    }
    return pyarrow.Table.from_pylist([row], schema=passes_schema("samples"))


def pass_of(row: Mapping[str, Any], labels: int) -> tuple[Pass, Scores]:
    """A pass without its samples, and the scores of its windows (windows, labels)."""
    silent = [silence(length) for length in row["lengths"]]
    ends = [(index, error, notes) for index, error, notes in json.loads(row["ends"])]
    found = Pass(row["number"], row["before"], row["after"], row["files"], row["starts"], silent, ends)
    return found, np.frombuffer(row["scores"], np.float32).reshape(-1, labels)
