"""Which clips an epoch consists of: all of them, or a draw in which rare labels weigh more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from spectrim.data import AudioDataset
from spectrim.data.dataset import label_table
from spectrim.errors import InvalidSetting
from spectrim.training.augment import Draw
from spectrim.training.recipes import SamplingSettings

MOST_CLIPS = 1 << 24
"""So many can torch.multinomial choose among."""

ADDED_TO_COUNTS = 100
"""Added to how often a label occurs, so that the rarest ones do not fill every batch."""


def clip_weights(clips: AudioDataset) -> Tensor:
    """Weights that balance labels, as PSLA (Gong et al., 2021), AST and AudioMAE have them for AudioSet.

    A label that n clips have weighs 1000 / (n + 100), and a clip the sum over its labels.

    Args:
        clips: the training part; all that counts is its labels.

    Returns:
        (clips,) float64; 0 for a clip without labels, which is then never drawn.
    """
    table = label_table(clips.recordings)
    of_label = 1000.0 / (np.bincount(table.numbers, minlength=len(clips.labels)) + ADDED_TO_COUNTS)
    weights = np.bincount(table.owners, of_label[table.numbers], minlength=len(clips))
    return torch.from_numpy(weights.astype(np.float64))


class BalancedSampler(Sampler[Draw]):
    """Draw the clips of an epoch by their weights, the same ones for a seed and epoch in every process.

    Args:
        weights: (clips,) of `clip_weights`.
        number: of clips to draw.
        replacement: whether a clip can come twice in an epoch.
        clips: says by its ``epoch`` which epoch begins.
        seed: of the run.
    """

    def __init__(self, weights: Tensor, number: int, *, replacement: bool, clips: Any, seed: int) -> None:
        self.weights, self.number, self.replacement = weights, number, replacement
        self.clips, self.seed = clips, seed

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[Draw]:
        before: Counter[int] = Counter()
        generator = torch.Generator().manual_seed((self.seed << 32) + self.clips.epoch)
        drawn = torch.multinomial(self.weights, self.number, replacement=self.replacement, generator=generator)
        for index in drawn.tolist():
            yield Draw(index, before[index])
            before[index] += 1


def epoch_size(settings: SamplingSettings, clips: AudioDataset) -> int:
    """How many clips an epoch has.

    Raises:
        InvalidSetting: more are asked for without replacement than there are with labels, or more than one draw can
            choose among.
    """
    number = settings.clips_per_epoch or len(clips)
    if settings.kind == "balanced":
        labelled = int((np.diff(label_table(clips.recordings).bounds) > 0).sum())
        if not settings.replacement and number > labelled:
            allowed = f"up to the {labelled} training clips with labels, without replacement"
            raise InvalidSetting("sampling.clips_per_epoch", number, allowed)
        if len(clips) > MOST_CLIPS or not labelled:
            allowed = f"all, unless there are 1 to {MOST_CLIPS} training clips with labels"
            raise InvalidSetting("sampling.kind", settings.kind, allowed)
    return number
