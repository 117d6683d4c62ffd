"""Whether a part of a data set has the clips that a training run was begun with, by what its folder says."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectrim.checkpoints.untrusted import read_json
from spectrim.data import AudioDataset
from spectrim.data.dataset import clips_digest

CLIPS = "clips.json"
"""In a run's folder: part → number of clips, and a digest of their names and labels in their order."""


class OtherClips(UserWarning):
    """A model may be tested on clips that it was trained on."""


def described(parts: Mapping[str, AudioDataset]) -> dict[str, dict[str, Any]]:
    """What `CLIPS` says of some parts."""
    return {
        name: {"clips": len(part), "sha256": _digest(json.dumps(part.labels) + clips_digest(part.recordings))}
        for name, part in parts.items()
    }


def difference(before: Any, parts: Mapping[str, AudioDataset], folder: Path) -> str | None:
    """Which part is not the one that a run was begun with, in words; None where all are.

    Args:
        before: the content of `CLIPS`.
        parts: as they are now.
        folder: of the run.
    """
    for part, now in described(parts).items():
        then = before.get(part) if isinstance(before, dict) else None
        if then != now:
            count = then.get("clips") if isinstance(then, dict) else None
            return (
                f"{part}: {now['clips']} clips that are not the {count} with which the run in {folder} was begun, or "
                "have other labels: clips that it was trained on may be tested now"
            )
    return None


def warn_of_other_clips(
    model: str | os.PathLike[str], data_set: str, root: Path, part: str, clips: AudioDataset
) -> None:
    """Give an `OtherClips` where a run's model is tested on the run's data, split otherwise than when it was begun.

    Other data say nothing, nor does a model that does not lie in its run's folder.

    Args:
        model: its folder, ``RUN/model`` if it is a run's.
        data_set: name of the data set that is opened.
        root: where it is.
        part: of it.
        clips: that part, as it was opened.
    """
    place = Path(model).absolute()
    folder = place.parent
    try:
        run, before = read_json(folder / "run.json"), read_json(folder / CLIPS)
        own = place.is_dir() and run["recipe"]["data"]["name"] == data_set and root.samefile(run["data"])
    except (OSError, ValueError, LookupError, TypeError):
        return
    if own and (told := difference(before, {part: clips}, folder)) is not None:
        advice = "open them with the options in its run.json, and as they were"
        warnings.warn(f"{told}; {advice}", OtherClips, stacklevel=2)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
