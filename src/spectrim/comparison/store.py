"""What is measured so far, kept beside the results: one file an operating point, named by what it depends on."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.data import AudioDataset
from spectrim.errors import InvalidSetting
from spectrim.files import write_bytes

FOLDER = "cache"
DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


class Store:
    """Arrays by a name and by the settings that they follow from.

    Args:
        root: folder of the results.
        folder: name of the one in it that holds the arrays; tells one command's results from another's.
        command: that writes there, for messages.

    Raises:
        InvalidSetting: the folder holds something else than results of this command.
    """

    def __init__(self, root: Path, folder: str = FOLDER, command: str = "spectrim compare") -> None:
        if root.exists() and not root.is_dir():
            raise InvalidSetting("out", str(root), "a folder, or a name that is still free")
        self.folder = root / folder
        if root.is_dir() and not self.folder.is_dir() and any(root.iterdir()):
            raise InvalidSetting("out", str(root), f"a new folder, or one in which {command} has run")

    def load(self, kind: str, settings: Mapping[str, Any]) -> dict[str, NDArray[Any]] | None:
        """What was saved for the same settings, or None; a damaged file counts as none."""
        try:
            with np.load(self._path(kind, settings), allow_pickle=False) as file:
                return dict(file)
        except DAMAGED:
            return None

    def save(self, kind: str, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write arrays whole, or not at all."""
        content = io.BytesIO()
        np.savez_compressed(content, **dict[str, Any](arrays))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self._path(kind, settings), content.getvalue())

    def _path(self, kind: str, settings: Mapping[str, Any]) -> Path:
        return self.folder / f"{kind}-{digest(settings)}.npz"


def digest(content: Any) -> str:
    """A few digits that tell settings from any others."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:20]


def data_fingerprint(part: AudioDataset) -> str:
    """Tells the files, their state on disk and their labels from any others."""
    states = []
    for recording in part.recordings:
        state = recording.path.stat() if recording.path.exists() else None
        states.append([recording.id, recording.labels, state and (state.st_size, state.st_mtime_ns)])
    return digest([part.labels, part.multi_label, states])
