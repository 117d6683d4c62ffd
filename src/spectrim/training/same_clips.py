"""Whether a run that goes on has the clips that it was begun with: else it may be tested on what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spectrim.checkpoints.untrusted import read_json
from spectrim.data import AudioDataset
from spectrim.errors import DataError
from spectrim.files import write_json
from spectrim.machine import is_main_process
from spectrim.measure.trained_clips import CLIPS, described, difference


def write_clips(output: Path, parts: Mapping[str, AudioDataset]) -> None:
    """Write down the clips of a run that begins."""
    if is_main_process():
        write_json(output / CLIPS, described(parts))


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
    if (told := difference(before, parts, folder)) is not None:
        raise DataError(f"{told}. Bring the data back as it was, or begin another run")
