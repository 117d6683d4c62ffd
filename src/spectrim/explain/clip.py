"""What a model does with one clip, as arrays: scores and kept patches of each window, and the effect of each stage."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrim.audio.decoding import decode_files
from spectrim.audio.files import Note, Window, iterate_windows
from spectrim.audio.frontend import FrontendOutput
from spectrim.config import SpectrimConfig
from spectrim.errors import AudioError, InvalidSetting
from spectrim.inference.backend import hop_frames
from spectrim.inference.results import Scores, WindowScores, aggregated
from spectrim.inference.torch_model import TorchModel
from spectrim.network.transformer import AudioTransformer
from spectrim.pictures.kept_patches import kept_stages
from spectrim.pictures.spectrograms import kept_area

BATCH_SIZE = 8
"""Windows in a forward pass."""

Rate = float | Sequence[float]


@dataclass(frozen=True)
class Stage:
    """A pruning block: its number, its keep rate, and what it is called, e.g. ``"after block 3"``."""

    block: int
    keep_rate: float

    @property
    def name(self) -> str:
        """As in the pictures."""
        return f"after block {self.block}"


@dataclass(frozen=True)
class StageChange:
    """Effect of one stage on a window, as scores (labels,) to compare with the dense ones.

    Attributes:
        removed: (F, T) bool, the patches that go at this stage in the pruned model and that no token carries on.
        so_far: this stage and those before it prune, those after it do not. The last stage's are the pruned model's.
        alone: only this stage prunes. It then chooses among all patches, so others may go than in the pruned model.
            None where the stages apart were not asked for.
        unseen: nothing prunes, but the patches of ``removed`` are hidden from the first block on; None likewise, and
            where there are none, as with reducers that merge patches.
    """

    removed: NDArray[np.bool_]
    so_far: Scores
    alone: Scores | None
    unseen: Scores | None


@dataclass(frozen=True)
class WindowDetail:
    """Arrays for the pictures of a window.

    Attributes:
        log_mel: (frames, mels) float32, normalised.
        scores: (blocks, F, T) float32, the criterion's score in each block of the pruned model; NaN where the patch
            was gone before it.
        pictured: names and (F, T) bool, as `spectrim.pictures.kept_patches.explain_picture` takes them.
        changes: one a stage.
    """

    log_mel: NDArray[np.float32]
    scores: NDArray[np.float32]
    pictured: list[tuple[str, NDArray[np.bool_]]]
    changes: list[StageChange]


@dataclass(frozen=True)
class ExplainedWindow:
    """One window of the clip.

    Attributes:
        start, end: in the clip, in seconds.
        num_frames: frames that hold sound.
        dense: (labels,) scores at keep rate 1.
        pruned: (labels,) scores as asked for.
        kept: (1 + stages, F, T) bool: the patches that enter block 0, then those alive after each stage.
        tokens: how many tokens carry these patches and those joined into others, before block 0 and after each stage.
        detail: None for windows that are not drawn.
    """

    start: float
    end: float
    num_frames: int
    dense: Scores
    pruned: Scores
    kept: NDArray[np.bool_] = field(repr=False)
    tokens: list[int]
    detail: WindowDetail | None = field(repr=False)


@dataclass(frozen=True)
class Explanation:
    """Results of explaining one clip.

    Attributes:
        clip: the file.
        model: what the model is called.
        config: of the model.
        labels: names, in the order of the scores.
        stages: the pruning blocks, first one first.
        windows: in the order of time.
        dense: (labels,) scores at keep rate 1, mean over the windows, weighted by their lengths.
        pruned: (labels,) scores as asked for, likewise.
        note: as of a `spectrim.inference.results.FilePrediction`.
    """

    clip: str
    model: str
    config: SpectrimConfig
    labels: list[str]
    stages: list[Stage]
    windows: list[ExplainedWindow]
    dense: Scores
    pruned: Scores
    note: str | None = None

    @property
    def seconds(self) -> float:
        """Seconds of the clip up to the end of the last window."""
        return self.windows[-1].end

    @property
    def detailed(self) -> list[ExplainedWindow]:
        """The windows that are drawn."""
        return [window for window in self.windows if window.detail is not None]

    @property
    def num_frames(self) -> int:
        """Frames of the front end in the whole clip."""
        return (len(self.windows) - 1) * hop_frames(self.config) + self.windows[-1].num_frames

    def names(self) -> list[str]:
        """Names of the states of `ExplainedWindow.kept`."""
        first = "padding removed" if self.config.drop_padding else "all patches"
        return [first, *(stage.name for stage in self.stages)]

    def shown_labels(self, dense: Scores, pruned: Scores, number: int) -> list[int]:
        """Indices of the best labels of either, best dense ones first, each once."""
        best = [np.argsort(-scores, kind="stable")[:number].tolist() for scores in (dense, pruned)]
        return list(dict.fromkeys([*best[0], *best[1]]))

    def mask_at(self, state: int, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mark what a kept patch covers, (mels, n), in given frames (n,) of the clip; see `kept_area`.

        Args:
            state: index of `names`.
            frames: numbers from 0 to `num_frames` - 1.
        """
        hop = hop_frames(self.config)
        numbers = np.minimum(frames // hop, len(self.windows) - 1)
        mask = np.zeros((self.config.num_mel_bins, len(frames)), dtype=bool)
        for number in np.unique(numbers):
            inside = numbers == number
            area = kept_area(self.windows[number].kept[state], self.config, self.config.max_length)
            mask[:, inside] = area[:, frames[inside] - number * hop]
        return mask


def explain_clip(
    clip: str | os.PathLike[str],
    model: AudioTransformer | TorchModel,
    *,
    keep_rate: Rate | None = None,
    windows: int = 8,
    device: torch.device | str | None = None,
    name: str = "",
    on_window: Callable[[int], object] | None = None,
) -> Explanation:
    """Run a clip through the dense and the pruned model, and its first windows through what lies between them.

    The clip is cut into windows as `spectrim.predict` does by default: each fills the model's frames, each
    frame is heard once.

    Args:
        clip: any audio file.
        model: stays as it is.
        keep_rate: share of the patches kept at each pruning block, in (0, 1]: one number or one a block; None as the
            model says.
        windows: how many windows get a `WindowDetail`, which takes up to three forward passes a stage; the first ones.
        device: where to run; None for where it is.
        name: what the model is called.
        on_window: called with the number of windows done after each.

    Raises:
        InvalidSetting: the clip is no file, the keep rate is out of range, or ``windows`` negative.
        AudioError: the clip cannot be used, wherever in it the fault lies.
    """
    check_clip(clip)
    if isinstance(windows, bool) or windows < 0:
        raise InvalidSetting("windows", windows, "0 or more")
    backend = TorchModel(model) if isinstance(model, AudioTransformer) else model
    backend = backend if device is None else backend.to(str(device))
    backend = backend.at(keep_rate=keep_rate)
    notes: list[str] = []
    with closing(_decoded(clip, backend, notes)) as decoded:
        explanation = explain_windows(clip, decoded, backend, windows=windows, name=name, on_window=on_window)
    return replace(explanation, note="; ".join(notes) or None)


def check_clip(clip: Any) -> None:
    """Raise `InvalidSetting` for what names no file."""
    if not isinstance(clip, str | os.PathLike):
        allowed = "the name of a sound file, from which the sound is made too; soundfile.write makes one of samples"
        raise InvalidSetting("clip", type(clip).__name__, allowed)


def explain_windows(
    clip: str | os.PathLike[str],
    decoded: Iterable[Window],
    model: TorchModel,
    *,
    windows: int = 8,
    stages_apart: bool = True,
    name: str = "",
    on_window: Callable[[int], object] | None = None,
) -> Explanation:
    """As `explain_clip`, of windows that are decoded already, at the model's operating point.

    Args:
        clip: the file that the windows are from; its sound is read from there.
        decoded: windows of the clip in the order of time, at the model's sampling rate, `TorchModel.hop_seconds` apart.
        model: with the operating point to explain.
        windows: how many windows get a `WindowDetail`, the first ones.
        stages_apart: also run each stage alone, and without what it removes: two more forward passes a stage.
        name: what the model is called.
        on_window: called with the number of windows done after each.

    Raises:
        AudioError: there is no window.
    """
    config, rates = model.config, model.pruning.rates
    if model.pruning != config.pruning:
        config = copy.deepcopy(config)
        config.pruning = model.pruning
    stages = [Stage(block, rates[block]) for block in sorted(rates)]
    operating_points = _OperatingPoints(model, config, stages, stages_apart)
    explained: list[ExplainedWindow] = []
    remaining = iter(decoded)
    while batch := list(islice(remaining, BATCH_SIZE)):
        features = model.prepare([window.samples for window in batch])
        for window in operating_points.explain(batch, features, windows - len(explained)):
            explained.append(window)
            if on_window is not None:
                on_window(len(explained))
    dense, pruned = (
        aggregated([WindowScores(window.start, window.end, getattr(window, kind)) for window in explained], "mean")
        for kind in ("dense", "pruned")
    )
    if dense is None or pruned is None:
        raise AudioError(str(clip), "has no window")
    return Explanation(os.fspath(clip), name, config, model.labels, stages, explained, dense, pruned)


def _windows_and_notes(path: str, **options: Any) -> Iterator[Window | Note]:
    """Windows of a file on this machine, then what is to be said of it; arguments as of `iterate_windows`."""
    notes: list[str] = []
    yield from iterate_windows(path, **options, notes=notes)
    yield from map(Note, notes)


def _decoded(clip: str | os.PathLike[str], model: TorchModel, notes: list[str]) -> Generator[Window]:
    """Windows of a clip, decoded in a worker process, because a damaged file may crash the decoder.

    ``notes`` gets what is to be said of the clip.
    """
    cutter = partial(
        _windows_and_notes,
        window_seconds=model.window_seconds,
        hop_seconds=model.hop_seconds,
        sampling_rate=model.config.sampling_rate,
    )
    with closing(decode_files([os.fspath(clip)], cutter, workers=1)) as events:
        for _, event in events:
            if isinstance(event, AudioError):
                raise event
            if isinstance(event, Window):
                yield event
            elif isinstance(event, Note):
                notes.append(event.text)


class _OperatingPoints:
    """The model at the operating points that are compared."""

    def __init__(self, model: TorchModel, config: SpectrimConfig, stages: Sequence[Stage], stages_apart: bool) -> None:
        self.model = model
        self.config = config
        self.stages = stages
        self.stages_apart = stages_apart

    def rates(self, pruning: Sequence[Stage]) -> list[float]:
        """Keep rates in the order of ``prune_at``, 1 at the blocks that are not to prune."""
        chosen = {stage.block: stage.keep_rate for stage in pruning}
        return [chosen.get(block, 1.0) for block in self.model.pruning.at]

    def scores(
        self, features: FrontendOutput, pruning: Sequence[Stage], visible: NDArray[np.bool_] | None = None
    ) -> Scores:
        """Scores (batch, labels) if only these stages prune; patches outside ``visible`` (F, T) bool are hidden."""
        visible_patches = None if visible is None else self._index(visible)
        point = self.model.at(keep_rate=self.rates(pruning))
        return self.model.activate(point.output(*features, visible_patches=visible_patches).logits).cpu().numpy()

    def explain(self, batch: Sequence[Window], features: FrontendOutput, detailed: int) -> Iterator[ExplainedWindow]:
        """Explain windows, the first ``detailed`` of them in detail."""
        dense = self.scores(features, ())
        output = self.model.at(keep_rate=self.rates(self.stages)).output(*features, output_token_trace=True)
        pruned = self.model.activate(output.logits).cpu().numpy()
        scores = torch.stack(output.token_trace.scores, dim=1).float().cpu().numpy()
        kept = torch.stack(output.token_trace.kept, dim=1).cpu().numpy()
        source = torch.stack(output.token_trace.source, dim=1).cpu().numpy()
        carried = source >= 0
        for place, window in enumerate(batch):
            entering = ~np.isnan(scores[place, 0])
            states = [entering, *(kept[place, stage.block] for stage in self.stages)]
            there = [entering, *(carried[place, stage.block] for stage in self.stages)]
            detail = None
            if place < detailed:
                clip_features = FrontendOutput(*(values[place : place + 1] for values in features))
                detail = WindowDetail(
                    log_mel=clip_features.input_values[0].float().cpu().numpy(),
                    scores=scores[place],
                    pictured=kept_stages(output.token_trace, self.config, place),
                    changes=self._changes(clip_features, there, pruned[place]),
                )
            yield ExplainedWindow(
                window.start,
                window.end,
                int(features.num_frames[place]),
                dense[place],
                pruned[place],
                np.stack(states),
                [int(entering.sum()), *(_tokens(source[place, stage.block]) for stage in self.stages)],
                detail,
            )

    def _changes(
        self, features: FrontendOutput, there: Sequence[NDArray[np.bool_]], pruned: Scores
    ) -> list[StageChange]:
        """Of each stage; ``there``: the patches of which something is left, before the first stage and after each."""
        changes = []
        for number, stage in enumerate(self.stages):
            removed = there[number] & ~there[number + 1]
            alone = self.scores(features, [stage])[0] if self.stages_apart else None
            if number == len(self.stages) - 1:
                so_far = pruned
            elif number == 0 and alone is not None:
                so_far = alone
            else:
                so_far = self.scores(features, self.stages[: number + 1])[0]
            hides = self.stages_apart and removed.any()
            unseen = self.scores(features, (), ~removed)[0] if hides else None
            changes.append(StageChange(removed, so_far, alone, unseen))
        return changes

    def _index(self, visible: NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(np.flatnonzero(visible)).unsqueeze(0).to(self.model.device)


def _tokens(source: NDArray[np.int64]) -> int:
    """How many tokens carry patches, by the place of each patch's token, −1 for none."""
    return len(np.unique(source[source >= 0]))
