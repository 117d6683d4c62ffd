"""Pictures of what a model keeps of a clip or window: ``spectrim predict --explain`` and ``spectrim demo``."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectrim.audio.files import Window
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting, utf8_text
from spectrim.files import name_with
from spectrim.inference.backend import Backend
from spectrim.inference.results import Scores
from spectrim.pictures.kept_patches import LABELS_SHOWN, explain_picture, kept_stages
from spectrim.pruning.trace import TokenTrace


def window_painter(model: Backend, folder: Path, files: Sequence[str]) -> Callable[[str, Window, Scores], Path]:
    """Make the function that draws a window of a file.

    The picture lies in ``folder`` where the file lies below the parent that all ``files`` share, under its name with
    ``.png`` added; for windows other than the first, ``.at-00010.24s.png``, the second at which it starts. A name too
    long for that is cut (`spectrim.files.name_with`).

    Args:
        model: what to explain.
        folder: where the pictures go; made if needed.
        files: all of the run, also those that an earlier run has done.

    Returns:
        Takes a file, a window of it and the window's scores (labels,); gives the picture's path.

    Raises:
        InvalidSetting: ``folder`` is a file, or the model takes waveforms.
    """
    if model.takes == "waveforms":
        allowed = f"nothing here: {model.name} takes waveforms and shows no spectrogram; export without --front-end"
        raise InvalidSetting("explain", str(folder), allowed)
    draw = clip_painter(folder, "explain")
    parents = {os.path.dirname(os.path.abspath(file)) for file in files}  # noqa: PTH100, PTH120
    common = os.path.commonpath(parents) if parents else ""
    config = copy.deepcopy(model.config)
    config.pruning = model.pruning

    def paint(file: str, window: Window, scores: Scores) -> Path:
        values, num_frames = model.prepare([window.samples])
        below, name = os.path.split(os.path.relpath(file, common))
        ending = (f".at-{window.start:08.2f}s" if window.start else "") + ".png"
        return draw(
            values[0].cpu().numpy(),
            model.trace(values, num_frames),
            config,
            scores,
            f"{utf8_text(os.path.basename(file))}  {window.start:.2f}–{window.end:.2f} s",  # noqa: PTH119
            int(num_frames[0]),
            os.path.join(below, name_with(name, ending)),  # noqa: PTH118
        )

    return paint


def clip_painter(
    folder: Path, field: str = "output"
) -> Callable[[NDArray[np.float32], TokenTrace, SpectrimConfig, Scores, str, int, str], Path]:
    """Make the function that draws a clip and what is kept of it.

    Args:
        folder: where the pictures go; made if needed.
        field: what named the folder, for errors.

    Returns:
        Takes log-mel (frames, mels), the trace of the clip alone, the model's configuration, scores (labels,), a title,
        the number of frames that hold sound, and a name for the file; gives the picture's path.

    Raises:
        InvalidSetting: ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidSetting(field, str(folder), "a folder, or a name that is still free")

    def draw(
        log_mel: NDArray[np.float32],
        trace: TokenTrace,
        config: SpectrimConfig,
        scores: Scores,
        title: str,
        num_frames: int,
        name: str,
    ) -> Path:
        best = np.argsort(-scores, kind="stable")[:LABELS_SHOWN]
        labels = [(config.id2label[int(index)], float(scores[index])) for index in best]
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return explain_picture(log_mel, kept_stages(trace, config), config, labels, title, num_frames, target)

    return draw
