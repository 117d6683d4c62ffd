"""Run a model over a data set once: logits, scores and kept patches, as batches of arrays or as a record on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectrim.analysis.batches import SHARD_CLIPS, ClipBatch, layout
from spectrim.analysis.statistics import padded_patches
from spectrim.analysis.store import INDEX, Store, StoreWriter, read_index
from spectrim.audio.frontend import Frontend
from spectrim.checkpoints import from_pretrained
from spectrim.config import SpectrimConfig
from spectrim.data import AudioDataset, Clip
from spectrim.data.dataset import NO_REASON
from spectrim.errors import InvalidSetting
from spectrim.files import refuse_another_run
from spectrim.network.entering import spectrogram_of
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.criteria.spectrogram import intensity, variation
from spectrim.pruning.pruning import Pruning

Progress = Callable[[int, int], object]
"""Called with the number of clips of the data set that are done, and the number of all."""


def observe(
    model: AudioTransformer,
    part: AudioDataset,
    *,
    pruning: Pruning | None = None,
    batch_size: int = 8,
    begin: int = 0,
    limit: int | None = None,
    on_progress: Progress | None = None,
) -> Iterator[ClipBatch]:
    """Run a model over a data set and yield its results, a batch at a time; nothing is stored.

    Clips that stand in for unreadable files are left out; the batches say which and why. Their order is the data set's,
    and a clip's numbers depend on no other's beyond float rounding.

    Args:
        model: in eval mode, on its device.
        part: of a data set.
        pruning: instead of the model's own operating point.
        batch_size: clips in a forward pass; what is held in memory at once.
        begin: place in the data set to begin at.
        limit: look only at the first so many clips of the data set; None for all.
        on_progress: is told how far it is.

    Raises:
        InvalidSetting: before any work: a keep rate, ``batch_size``, ``begin`` or ``limit`` is out of range, or the
            model is in training mode or hears a higher sampling rate than that at which the clips are packed.
        DataError: too many files turn out unreadable.
    """
    if model.training:
        raise InvalidSetting("model.training", True, "False: call model.eval() first")
    if batch_size < 1:
        raise InvalidSetting("batch_size", batch_size, "1 or more")
    if limit is not None and limit < 1:
        raise InvalidSetting("limit", limit, "1 or more")
    if begin < 0:
        raise InvalidSetting("begin", begin, "0 or more")
    pruning = model.config.pruning if pruning is None else pruning
    model.config.plan(pruning=pruning)
    part = part.at_rate(model.config.sampling_rate)
    end = len(part) if limit is None else min(limit, len(part))
    return _observed(model, part, pruning, batch_size, range(begin, end), on_progress)


def _observed(
    model: AudioTransformer,
    part: AudioDataset,
    pruning: Pruning,
    batch_size: int,
    places: range,
    on_progress: Progress | None,
) -> Iterator[ClipBatch]:
    frontend = Frontend.from_config(model.config).to(model.device)
    waiting: list[tuple[int, Clip]] = []
    left_out: dict[str, str] = {}
    for place in places:
        clip = part[place]
        if clip.stand_in:
            name = part.recordings[place].id
            left_out[name] = part.broken.get(name, NO_REASON)
        else:
            waiting.append((place, clip))
        last = place == places[-1]
        if len(waiting) == batch_size or (last and (waiting or left_out)):
            yield _run(model, frontend, waiting, len(part.labels), pruning, place + 1, left_out)
            waiting, left_out = [], {}
            if on_progress is not None:
                on_progress(place + 1, places.stop)


@torch.inference_mode()
def _run(
    model: AudioTransformer,
    frontend: Frontend,
    waiting: Sequence[tuple[int, Clip]],
    labels: int,
    pruning: Pruning,
    next_position: int,
    left_out: dict[str, str],
) -> ClipBatch:
    config = model.config
    if not waiting:
        return _no_clips(config, labels, next_position, left_out)
    clips = [clip for _, clip in waiting]
    values, frames = frontend([clip.waveform for clip in clips])
    output = model(values.to(model.dtype), num_frames=frames, pruning=pruning, output_token_trace=True)
    spectrogram = spectrogram_of(values, config)
    num_frames = frames.cpu().numpy()
    return ClipBatch(
        ids=tuple(clip.id for clip in clips),
        positions=np.array([place for place, _ in waiting], dtype=np.int64),
        num_frames=num_frames,
        targets=np.stack([clip.target for clip in clips]) > 0,
        logits=output.logits.float().cpu().numpy(),
        intensity=intensity(spectrogram).cpu().numpy(),
        variation=variation(spectrogram).cpu().numpy(),
        scores=torch.stack(output.token_trace.scores, dim=1).float().cpu().numpy(),
        survived=torch.stack(output.token_trace.kept).sum(dim=0).to(torch.uint8).cpu().numpy(),
        padded=padded_patches(num_frames, config.grid, config.time_stride),
        next_position=next_position,
        left_out=left_out,
        log_mel=values.float().cpu().numpy(),
    )


def _no_clips(config: SpectrimConfig, labels: int, next_position: int, left_out: dict[str, str]) -> ClipBatch:
    patches = np.zeros((0, *config.grid), dtype=np.float32)
    return ClipBatch(
        ids=(),
        positions=np.zeros(0, dtype=np.int64),
        num_frames=np.zeros(0, dtype=np.int64),
        targets=np.zeros((0, labels), dtype=bool),
        logits=np.zeros((0, config.num_labels), dtype=np.float32),
        intensity=patches,
        variation=patches,
        scores=np.zeros((0, config.num_hidden_layers, *config.grid), dtype=np.float32),
        survived=patches.astype(np.uint8),
        padded=patches.astype(bool),
        next_position=next_position,
        left_out=left_out,
        log_mel=np.zeros((0, config.max_length, config.num_mel_bins), dtype=np.float32),
    )


def record(
    model: AudioTransformer,
    part: AudioDataset,
    folder: str | Path,
    *,
    model_name: str,
    data_name: str,
    pruning: Pruning | None = None,
    log_mel: str = "uint8",
    scores: str = "float32",
    batch_size: int = 8,
    shard_clips: int = SHARD_CLIPS,
    limit: int | None = None,
    resume: bool = False,
    on_progress: Progress | None = None,
) -> Store:
    """Run a model over a data set and write its results to disk; see ``docs/analysis.md`` for the format.

    Memory holds one shard, however large the data set. ``resume`` continues a record that was interrupted, and extends
    one that was made with a ``limit`` if the limit is now higher or None.

    Args:
        model: in eval mode, on its device.
        part: of a data set.
        folder: of the record.
        model_name: where the model came from, for whoever reads the record.
        data_name: data set and part, likewise.
        pruning: instead of the model's own operating point.
        log_mel: one of `spectrim.analysis.batches.LOG_MELS`.
        scores: one of `spectrim.analysis.batches.SCORES`.
        batch_size: clips in a forward pass.
        shard_clips: clips of a file.
        limit: look only at the first so many clips of the data set; None for all.
        resume: go on with the record in ``folder``, if there is one.
        on_progress: is told how far it is.

    Raises:
        InvalidSetting: before any work: as for `observe`; ``folder`` holds a record and ``resume`` is False, or holds
            one of another model, other weights, other clips or other settings.
        DataError: too many files turn out unreadable.
    """
    folder = Path(folder)
    run = _run_facts(model, part, pruning) | {"log_mel": log_mel, "scores": scores}
    run["model"]["source"], run["data"]["name"] = model_name, data_name
    layout(model.config, len(part.labels), log_mel=log_mel, scores=scores)
    observed = partial(observe, model, part, pruning=pruning, batch_size=batch_size, limit=limit)
    observed()  # checks its settings, and runs nothing until it is asked for a batch
    _check_folder(folder, run, resume)
    writer = StoreWriter(folder, run, shard_clips=shard_clips)
    try:
        for batch in observed(begin=writer.next_position, on_progress=on_progress):
            writer.append(batch)
    finally:
        writer.flush()
    return Store(folder)


def _check_folder(folder: Path, run: Any, resume: bool) -> None:
    """Raise `InvalidSetting` unless the folder is free, or holds a record of this run that is to be gone on with."""
    if folder.exists() and not folder.is_dir():
        raise InvalidSetting("output", str(folder), "a folder, or a name that is still free")
    if (folder / INDEX).exists():
        if not resume:
            raise InvalidSetting("output", str(folder), "a folder without a record in it, or resume to go on with it")
        refuse_another_run(run, read_index(folder)["run"], folder)


def _run_facts(model: AudioTransformer, part: AudioDataset, pruning: Pruning | None) -> Any:
    """What two runs must share to be one record, as JSON."""
    config = model.config
    own = config_facts(config, pruning)
    ids = "\n".join(recording.id for recording in part.recordings).encode(errors="surrogateescape")
    return {
        "model": {
            "weights": weights_digest(model),
            "labels": [config.id2label[number] for number in range(config.num_labels)],
            "config": own,
        },
        "data": {"clips": len(part), "ids": hashlib.sha256(ids).hexdigest(), "labels": list(part.labels)},
    }


NEWER_SETTINGS = ("reducer", "time_segments", "attention_mass")
"""Settings of pruning that the first records did not have."""


def config_facts(config: SpectrimConfig, pruning: Pruning | None = None) -> dict[str, Any]:
    """What determines a model beside its weights, as JSON.

    A setting that is newer than the first records stands in it only where it is not what they were made with.
    """
    own = SpectrimConfig.own_fields(config)
    if pruning is not None:
        own |= pruning.to_flat()
    for name, value in Pruning().to_flat().items():
        if name in NEWER_SETTINGS and own[name] == value:
            del own[name]
    if own["predictor_blocks"] is None:
        del own["predictor_blocks"]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 of all parameters and buffers that a checkpoint holds, with their names and types."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def checkpoint_digest(model: str | os.PathLike[str]) -> str:
    """`weights_digest` of a checkpoint; ``model`` is what `spectrim.from_pretrained` takes."""
    return weights_digest(from_pretrained(model))
