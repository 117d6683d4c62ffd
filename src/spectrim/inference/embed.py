"""Sounds to vectors: what the classification head reads, window by window, for tasks of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spectrim.audio.files import Window
from spectrim.audio.finding import Paths, Selection, select_files
from spectrim.errors import InvalidSetting
from spectrim.files import file_beside
from spectrim.inference.backend import KeepRate
from spectrim.inference.opening import ModelSource, open_model
from spectrim.inference.predict import BATCH_SIZE, decoded_windows, tag_selection
from spectrim.inference.results import FilePrediction, Scores
from spectrim.inference.tagger import Tagger


@dataclass(frozen=True, eq=False)
class FileEmbedding:
    """The vectors of one file; equal only to itself.

    Attributes:
        path: the file, as it was named or found.
        times: (windows, 2) float64: where each window starts and ends, in seconds.
        vectors: (windows, width) float32; no row after an error.
        error: one line that says why there are no vectors; None if all is well.
        note: as of a `spectrim.inference.results.FilePrediction`.
    """

    path: str
    times: np.ndarray = field(repr=False)
    vectors: Scores = field(repr=False)
    error: str | None = None
    note: str | None = None


def embed_files(
    paths: Paths | Selection,
    model: ModelSource = "spectrim-mini",
    *,
    keep_rate: KeepRate | None = None,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    window: float | None = None,
    hop: float | None = None,
    workers: int | None = None,
    on_window: Callable[[Window], object] | None = None,
) -> Iterator[FileEmbedding]:
    """Pooled vectors of audio files (`AudioTransformer.embed`), one a window; as `predict_files` but for that.

    Args:
        paths, model, keep_rate, batch_size, device, window, hop, workers, on_window: as for
            `spectrim.inference.predict.predict_files`; the model has to run in PyTorch.

    Raises:
        InvalidSetting: a setting is out of range, there is not one file, or the model is an exported file.
        CheckpointError: the model cannot be loaded.
    """
    selection = paths if isinstance(paths, Selection) else select_files(paths)
    backend = open_model(model, keep_rate, device=device)
    if not backend.embeds:
        raise InvalidSetting("model", backend.name, "a checkpoint: an exported file gives logits only")
    tagger = Tagger(backend, batch_size, "none", score=backend.embeddings)
    events = decoded_windows(selection.files, backend, window=window, hop=hop, batch_size=batch_size, workers=workers)
    width = backend.config.hidden_size
    return (_embedding(found, width) for found in tag_selection(selection, events, tagger, on_window))


def _embedding(found: FilePrediction, width: int) -> FileEmbedding:
    times = np.array([(window.start, window.end) for window in found.timeline]).reshape(-1, 2)
    vectors = np.array([window.scores for window in found.timeline], np.float32).reshape(-1, width)
    return FileEmbedding(found.path, times, vectors, found.error, found.note)


def write_embeddings(path: str | Path, embeddings: Sequence[FileEmbedding]) -> None:
    """Write vectors as a NumPy archive (.npz, read by `numpy.load` without pickles); it appears whole or not at all.

    Its arrays: ``files`` (files,) names; ``errors`` (files,), empty where all is well; ``notes`` (files,), likewise;
    ``vectors`` (windows, width) float32; ``file_index`` (windows,) the place in ``files`` of each; ``start`` and
    ``end`` (windows,) in seconds.

    Args:
        path: of the file, replaced if it is there.
        embeddings: of one model; of none the arrays are empty, ``vectors`` (0, 0).
    """
    counts = np.array([len(embedding.vectors) for embedding in embeddings], dtype=np.int64)
    times = np.concatenate([np.zeros((0, 2)), *(embedding.times for embedding in embeddings)])
    vectors = [embedding.vectors for embedding in embeddings] or [np.zeros((0, 0), np.float32)]
    with file_beside(Path(path)) as beside, beside.open("wb") as file:
        np.savez(
            file,
            files=np.array([embedding.path for embedding in embeddings], dtype=np.str_),
            errors=np.array([embedding.error or "" for embedding in embeddings], dtype=np.str_),
            notes=np.array([embedding.note or "" for embedding in embeddings], dtype=np.str_),
            vectors=np.concatenate(vectors),
            file_index=np.repeat(np.arange(len(embeddings)), counts),
            start=times[:, 0],
            end=times[:, 1],
        )
