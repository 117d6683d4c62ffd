"""Whether a run that goes on has the clips that it was begun with: else it may be tested on what it was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectrim.checkpoints.untrusted import read_json
from spectrim.data import AudioDataset
from spectrim.data.dataset import clips_digest
from spectrim.errors import DataError
from spectrim.files import write_json
from spectrim.machine import is_main_process

CLIPS = "clips.json"
"""In a run's folder: part → number of clips, and a digest of their names and labels in their order."""


def write_clips(output: Path, parts: Mapping[str, AudioDataset]) -> None:
    """Write down the clips of a run that begins."""
    if is_main_process():
        write_json(output / CLIPS, _described(parts))


def check_clips(folder: Path, parts: Mapping[str, AudioDataset]) -> None:
    """Refuse other clips than those of the run in a folder; one that wrote none down is taken at its word.

    Raises:
        DataError: a part has other clips or labels now, or what was written down cannot be read.
    """
    try:
        before = read_json(folder / CLIPS)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / CLIPS} cannot be read: {error}") from error
    for part, now in _described(parts).items():
        then = before.get(part) if isinstance(before, dict) else None
        if then != now:
            count = then.get("clips") if isinstance(then, dict) else None
            raise DataError(
                f"{part}: {now['clips']} clips that are not the {count} with which the run in {folder} was begun, or "
                "have other labels: clips that it was trained on may be tested now. Bring the data back as it was, or "
                "begin another run"
            )


def _described(parts: Mapping[str, AudioDataset]) -> dict[str, Any]:
    return {
        name: {"clips": len(part), "sha256": _digest(json.dumps(part.labels) + clips_digest(part.recordings))}
        for name, part in parts.items()
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
