"""A model as one ONNX file, compared with PyTorch on real clips before it gets its name."""

from __future__ import annotations

import copy
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrim.assets import packaged_clips
from spectrim.audio import files as audio
from spectrim.audio.frontend import Frontend
from spectrim.config import SpectrimConfig
from spectrim.data.dataset import spread_places
from spectrim.errors import ExportError, InvalidSetting, one_of
from spectrim.files import file_beside
from spectrim.inference.backend import activated, window_length
from spectrim.inference.exported_model import SUFFIX, need, trace_of
from spectrim.inference.onnx_metadata import EXPORT_PRECISIONS, write_metadata
from spectrim.inference.onnx_model import OnnxModel
from spectrim.inference.packing import is_packed
from spectrim.inference.torch_model import TorchModel
from spectrim.network.transformer import AudioTransformer

LARGEST_FILE = 2**31 - 2**24
"""Bytes of weights that one ONNX file holds, with room for the graph."""

LOGIT_TOLERANCE = 1e-4
"""Largest difference of a logit that an fp32 file may have."""
RELATIVE_TOLERANCE = {"fp16": 0.05, "int8": 0.5}
"""Root mean square of the logits' differences over their standard deviation, that a smaller file may have."""
TIE = 1e-4
"""Scores that differ by less than this share of themselves are equal to rounding: which of them goes is chance."""

TIE_FLOOR = 0.01
"""So much of the mean score is added to a score's own size: the rounding of a score near 0 is that of its parts."""

CHECK_CLIPS = 16
Progress = Callable[[str, int, int], object]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Tie:
    """Patches of a clip that the two sides chose differently, because their scores are equal to rounding.

    Attributes:
        clip: place of the clip among those compared.
        block: the pruning block.
        patches: their places (f, t) on the grid.
        gap: how far the scores that one side kept lie from those that the other kept, as a share of their own size.
    """

    clip: int
    block: int
    patches: list[tuple[int, int]]
    gap: float


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from the model in PyTorch.

    Attributes:
        clips: how many were compared.
        largest_difference: of any logit, over the clips without a tie.
        relative_difference: root mean square of the logits' differences over the logits' standard deviation.
        first_label_agrees: share of the clips.
        kept_equal: share of the clips of which both keep the same patches to the end.
        kept_shared: share of the patches that PyTorch keeps to the end, that the file keeps too.
        ties: what differs because scores are equal; only looked for in an fp32 file.
    """

    clips: int
    largest_difference: float
    relative_difference: float
    first_label_agrees: float
    kept_equal: float
    kept_shared: float
    ties: list[Tie] = field(default_factory=list)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        megabytes: its size.
        precision: one of `EXPORT_PRECISIONS`.
        takes: ``"log_mel"`` or ``"waveforms"``.
        patches: of a clip: those that enter, then what is left after each pruning block.
        parity: how it compares with PyTorch.
    """

    path: Path
    megabytes: float
    precision: str
    takes: str
    patches: list[int]
    parity: Parity


def export(
    model: AudioTransformer,
    path: str | os.PathLike[str],
    *,
    front_end: bool = False,
    precision: str = "fp32",
    clips: Sequence[audio.Samples] | None = None,
    traced: str | os.PathLike[str] | None = None,
    on_step: Progress | None = None,
) -> Exported:
    """Write a model at its operating point as one ONNX file, with any batch size.

    The file takes ``input_values`` (batch, frames, mels), or with the front end ``waveforms`` (batch, samples) and
    ``num_samples`` (batch,): where each clip ends. It gives ``logits`` and ``scores`` (batch, labels), and ``kept``
    (batch, F, T): of how many pruning blocks a patch came out alive. Its metadata hold the labels and all settings.
    The file is written beside ``path`` and gets its name once `check_export` finds it equal to the model.

    Args:
        model: to export; not changed.
        path: the file, with the ending .onnx; a previous one is replaced.
        front_end: put the front end into the graph.
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``; see `spectrim.inference.onnx_graph.encoder_graph`.
        clips: waveforms to compare on; None for clips that the package ships.
        traced: an fp32 file of this very model that takes log-mel spectrograms, to quantise; saves tracing the model
            again for ``"int8"``. The check finds out if it is of another.
        on_step: told what is being done.

    Raises:
        InvalidSetting: a setting cannot be had; before any work.
        MissingExtra: onnx, onnxscript or onnxruntime is not installed; likewise.
        ExportError: the file does not do what the model does; nothing is left behind.
    """
    target = check_settings(path, precision)
    _check_model(model, precision)
    _refuse_no_clips(clips)
    tell = on_step or _silent
    from spectrim.inference import onnx_graph

    model = copy.deepcopy(model).cpu().float().eval()
    tell("trace", 0, 1)
    if traced is not None and precision == "int8":
        graph = onnx_graph.quantised(onnx_graph.read(traced))
    else:
        graph = onnx_graph.encoder_graph(model, partial(activated, config=model.config), precision)
    if front_end:
        graph = onnx_graph.with_front_end(graph, Frontend.from_config(model.config))
    takes = "waveforms" if front_end else "log_mel"
    facts = write_metadata(model.config, precision, takes)
    tell("trace", 1, 1)
    with file_beside(target) as beside:
        onnx_graph.write(graph, beside, facts)
        parity = check_export(beside, model, clips, on_step=tell)
    return Exported(target, target.stat().st_size / 1e6, precision, takes, json.loads(facts["patches"]), parity)


def check_settings(path: str | os.PathLike[str], precision: str) -> Path:
    """Refuse a file that cannot be written, and a precision that there is not; give the path.

    Raises:
        InvalidSetting: naming what is wrong.
        MissingExtra: a package is not installed.
    """
    if precision not in EXPORT_PRECISIONS:
        raise InvalidSetting("precision", precision, one_of(EXPORT_PRECISIONS))
    target = Path(path)
    if target.suffix.lower() != SUFFIX:
        raise InvalidSetting("output", str(path), f"a name that ends in {SUFFIX}")
    special = target.exists() and not target.is_file()
    if special or not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise InvalidSetting("output", str(path), "a file in a folder that exists and can be written to")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package, "exporting a model")
    return target


def _check_model(model: AudioTransformer, precision: str) -> None:
    """Refuse what no graph can do."""
    if is_packed(model):
        raise InvalidSetting("model", "one with packed weights", "the model that pack_weights was given")
    if model.config.drop_padding:
        raise InvalidSetting("drop_padding", True, "False to export: how many patches are padding is not in a graph")
    if model.config.attention_mass > 0.0:
        allowed = "0 to export: how many patches a clip keeps is not in a graph"
        raise InvalidSetting("attention_mass", model.config.attention_mass, allowed)
    if model.config.reference_compat:
        raise InvalidSetting("reference_compat", True, "False to export: it is for studies of the public code only")
    size = sum(weight.numel() for weight in model.parameters()) * (2 if precision == "fp16" else 4)
    if size > LARGEST_FILE:
        raise InvalidSetting(
            "precision", precision, f"fp16, or a smaller model: {size / 1e9:.1f} GB are no single file"
        )


def _refuse_no_clips(clips: Sequence[audio.Samples] | None) -> None:
    """Refuse to compare on nothing."""
    if clips is not None and not len(clips):
        raise InvalidSetting("clips", [], "at least one waveform; None for some of the package's")


def check_export(
    path: str | os.PathLike[str],
    model: AudioTransformer,
    clips: Sequence[audio.Samples] | None = None,
    *,
    on_step: Progress | None = None,
) -> Parity:
    """Run a file in ONNX Runtime and the model in PyTorch on the same clips, in batches of 1, 3 and more.

    An fp32 file must give every logit to `LOGIT_TOLERANCE` and keep the same patches at every pruning block. Where
    patches differ, their scores must be equal to rounding (`TIE`): such a clip is named in the report, and its logits,
    which then may differ, are not held against the file; at least half of the clips must be free of ties. A file of
    another precision must keep to `RELATIVE_TOLERANCE`, and the report says how often it agrees.

    Args:
        path: what `export` wrote.
        model: what it was made from, on the CPU, in float32.
        clips: waveforms (n,) at the model's sampling rate; None for some of the package's, joined to fill its frames.
        on_step: told how far it is.

    Raises:
        InvalidSetting: there is not one clip.
        ExportError: the file does something else; says what.
        CheckpointError: it cannot be read.
    """
    _refuse_no_clips(clips)
    exported = OnnxModel(path)
    _same_settings(exported, model)
    waves = comparison_clips(model.config) if clips is None else list(clips)
    network, frontend = TorchModel(model, device=torch.device("cpu")).network, Frontend.from_config(model.config)
    parts: list[_Compared] = []
    tell = on_step or _silent
    for start, stop in _batches(len(waves)):
        tell("check", start, len(waves))
        parts.append(_compare(exported, network, frontend, waves[start:stop]))
    tell("check", len(waves), len(waves))
    return _judge(exported, parts)


def comparison_clips(config: SpectrimConfig, count: int = CHECK_CLIPS) -> list[audio.Samples]:
    """Clips of the package for comparing: every other one is joined with further ones until it fills the frames."""
    files = [path for path, _ in packaged_clips()]
    length = window_length(config)
    chosen = spread_places(count, len(files))
    waves = []
    for turn, index in enumerate(chosen):
        wave = audio.read(files[index], config.sampling_rate).samples
        further = index
        while turn % 2 and len(wave) < length:
            further = (further + 1) % len(files)
            wave = np.concatenate([wave, audio.read(files[further], config.sampling_rate).samples])
        waves.append(wave[:length])
    return waves


@dataclass(frozen=True)
class _Compared:
    """A batch on both sides: logits (batch, labels), and kept and scores (batch, F, T) of every pruning block."""

    wanted: Tensor
    found: Tensor
    kept_wanted: dict[int, Tensor]
    kept_found: dict[int, Tensor]
    scores: dict[int, Tensor]


def _same_settings(exported: OnnxModel, model: AudioTransformer) -> None:
    """Raise `ExportError` unless the file says of itself what the model says."""
    ours = write_metadata(model.config, exported.precision, exported.takes)
    theirs = write_metadata(exported.config, exported.precision, exported.takes)
    if ours != theirs:
        before, after = json.loads(ours["config"]), json.loads(theirs["config"])
        different = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        raise ExportError(f"{exported.path}: is of another model or operating point; it differs in {different}")


def _batches(count: int) -> list[tuple[int, int]]:
    """Where to part clips: one, three, then eight each."""
    edges = [0, 1, 4, *range(12, count, 8)]
    edges = [*(edge for edge in edges if edge < count), count]
    return list(itertools.pairwise(edges))


def _compare(
    exported: OnnxModel, model: AudioTransformer, frontend: Frontend, waves: Sequence[audio.Samples]
) -> _Compared:
    features = frontend(waves)
    given = exported.prepare(waves) if exported.takes == "waveforms" else features
    logits, counts = exported.run(*given)
    kept = trace_of(counts, exported.config).kept
    with torch.inference_mode():
        wanted = model(features.input_values, output_token_trace=True)
    blocks = sorted(model.config.prune_at)
    return _Compared(
        wanted.logits,
        logits,
        {block: wanted.token_trace.kept[block] for block in blocks},
        {block: kept[block] for block in blocks},
        {block: wanted.token_trace.scores[block] for block in blocks},
    )


def _judge(exported: OnnxModel, parts: Sequence[_Compared]) -> Parity:
    """Sum up; raise `ExportError` if it is too far off."""
    wanted, found = torch.cat([part.wanted for part in parts]), torch.cat([part.found for part in parts])
    ties = _ties(exported, parts) if exported.precision == "fp32" else []
    tied = {tie.clip for tie in ties}
    free = [clip for clip in range(len(wanted)) if clip not in tied]
    if 2 * len(free) < len(wanted):
        raise ExportError(f"{exported.path}: {len(tied)} of {len(wanted)} clips have ties; nothing could be compared")
    difference = (found - wanted).double()
    pairs = [(part.kept_wanted[last], part.kept_found[last]) for part in parts for last in [*part.kept_wanted][-1:]]
    same = [bool((one == other).all()) for ours, theirs in pairs for one, other in zip(ours, theirs, strict=True)]
    alive = sum(int(ours.sum()) for ours, _ in pairs)
    parity = Parity(
        clips=len(wanted),
        largest_difference=float(difference[free].abs().max()),
        relative_difference=float(difference.square().mean().sqrt() / wanted.double().std().clamp(min=1e-12)),
        first_label_agrees=float((found.argmax(dim=1) == wanted.argmax(dim=1)).double().mean()),
        kept_equal=sum(same) / len(same) if same else 1.0,
        kept_shared=sum(int((ours & theirs).sum()) for ours, theirs in pairs) / alive if alive else 1.0,
        ties=ties,
    )
    name, allowed = "largest_difference", LOGIT_TOLERANCE
    if exported.precision != "fp32":
        name, allowed = "relative_difference", RELATIVE_TOLERANCE[exported.precision]
    value = asdict(parity)[name]
    if not value <= allowed:
        what = f"its logits are not those of the model: {name.replace('_', ' ')} {value:.3g}, allowed {allowed:g}"
        raise ExportError(f"{exported.path}: {what} ({exported.precision}, {len(wanted)} clips)")
    return parity


def _ties(exported: OnnxModel, parts: Sequence[_Compared]) -> list[Tie]:
    """Where the two sides first keep other patches of a clip.

    Raises:
        ExportError: the scores of those patches are not equal to rounding.
    """
    ties, first = [], 0
    for part in parts:
        for place in range(len(part.wanted)):
            for block, kept in part.kept_wanted.items():
                ours, theirs = kept[place], part.kept_found[block][place]
                other = ours != theirs
                if not other.any():
                    continue
                gap = _gap(part.scores[block][place].double(), ours, theirs, exported.config.pruning.time_segments)
                tie = Tie(first + place, block, [(int(f), int(t)) for f, t in other.nonzero()], gap)
                if not gap <= TIE:
                    raise ExportError(
                        f"{exported.path}: keeps other patches than the model: clip {tie.clip}, block {block}, "
                        f"patches {tie.patches[:6]}, whose scores differ by {gap:.2g} of their size"
                    )
                ties.append(tie)
                break
        first += len(part.wanted)
    return ties


def _gap(scores: Tensor, ours: Tensor, theirs: Tensor, segments: int) -> float:
    """How far the scores (F, T) of the patches that one side alone keeps lie apart, as a share of their own size.

    Where each of several segments along time keeps its share, those of a segment are held against each other; those of
    segments of which the sides keep unequally many, all together: they compete for the places that are left over.
    """
    other, columns = ours != theirs, scores.shape[1]
    segment = (torch.arange(columns) * segments // columns).expand_as(scores)
    groups = [other & (segment == number) for number in range(segments)]
    even = [group for group in groups if int((group & ours).sum()) == int((group & theirs).sum())]
    rest = other & ~torch.stack(even).any(dim=0) if even else other
    floor, largest = TIE_FLOOR * scores[~scores.isnan()].abs().mean(), 0.0
    for group in (group for group in (*even, rest) if group.any()):
        swapped = scores[group]
        if swapped.max() != swapped.min():
            gap = (swapped.max() - swapped.min()) / (swapped.abs().max() + floor)
            largest = max(largest, float(gap.nan_to_num(torch.inf)))
    return largest


def _silent(what: str, done: int, total: int) -> Any:
    """Tell nobody."""
