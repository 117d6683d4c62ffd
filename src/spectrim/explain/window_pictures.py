"""Pictures of the patches that a model keeps, one for each window of a file, for ``spectrim predict --explain``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectrim.audio.files import Window
from spectrim.audio.frontend import Frontend
from spectrim.errors import InvalidSetting
from spectrim.inference.onnx_model import OnnxModel
from spectrim.network.transformer import AudioTransformer
from spectrim.pictures.spectrograms import LABELS_SHOWN, explain_picture, kept_stages


def window_painter(
    model: AudioTransformer | OnnxModel,
    frontend: Frontend,
    folder: Path,
    files: Sequence[str],
    keep_rate: float | None = None,
) -> Callable[[str, Window, NDArray[np.float32]], Path]:
    """Make the function that draws a window of a file.

    The picture lies in ``folder`` where the file lies below the parent that all ``files`` share, under its name with
    ``.png`` added; for windows other than the first, ``.at-00010.24s.png``, the second at which it starts.

    Args:
        model: what to explain, on its device.
        frontend: that belongs to it, likewise.
        folder: where the pictures go; made if needed.
        files: all that may come.
        keep_rate: instead of the model's.

    Returns:
        Takes a file, a window of it and the window's scores (labels,); gives the picture's path.

    Raises:
        InvalidSetting: ``folder`` is a file, or the model takes waveforms.
    """
    if isinstance(model, OnnxModel) and model.takes == "waveforms":
        allowed = (
            f"nothing here: {model.path.name} takes waveforms and shows no spectrogram; export without --front-end"
        )
        raise InvalidSetting("explain", str(folder), allowed)
    if folder.exists() and not folder.is_dir():
        raise InvalidSetting("explain", str(folder), "a folder, or a name that is still free")
    parents = {os.path.dirname(os.path.abspath(file)) for file in files}  # noqa: PTH100, PTH120
    common = os.path.commonpath(parents) if parents else ""

    def paint(file: str, window: Window, scores: NDArray[np.float32]) -> Path:
        with torch.inference_mode():
            features = frontend([window.samples])
            values = features.input_values.to(model.dtype)
            trace: Any = model(
                values, num_frames=features.num_frames, keep_rate=keep_rate, output_token_trace=True
            ).token_trace
        best = np.argsort(-scores, kind="stable")[:LABELS_SHOWN]
        labels = [(model.config.id2label[int(index)], float(scores[index])) for index in best]
        name = os.path.relpath(file, common) + (f".at-{window.start:08.2f}s" if window.start else "") + ".png"
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return explain_picture(
            features.input_values[0].cpu().numpy(),
            kept_stages(trace, model.config),
            model.config,
            labels,
            f"{printable(os.path.basename(file))}  {window.start:.2f}–{window.end:.2f} s",  # noqa: PTH119
            int(features.num_frames[0]),
            target,
        )

    return paint


def printable(path: str) -> str:
    """A path as text, with a replacement character for what is not UTF-8 in it."""
    return os.fsencode(path).decode(errors="replace")
