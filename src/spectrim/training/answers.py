"""What a trained model said about the clips that it is tested on, on disk: ``answers.npz``."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from spectrim.data import AudioDataset
from spectrim.data.whole_groups import groups_of, own_group
from spectrim.errors import CheckpointError, InvalidSetting
from spectrim.files import file_beside

ANSWERS = "answers.npz"
"""Where a run's folder has them."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Scores of clips at several keep rates; clips that could not be read are not among them.

    Attributes:
        ids: (clips,) names of the clips within the data set.
        labels: of the columns.
        metric: of the data set, by its name in `spectrim.measure.metrics.METRICS`.
        targets: (clips, labels) float32, 1 for each label that a clip has.
        scores: keep rate → (clips, labels) float32: logits where each label is a question of its own, else logarithms
            of the softmax.
        groups: (clips,) name of the group of each clip, its own where it has none; None where no clip has one, or an
            earlier version wrote the file.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    targets: NDArray[np.float32]
    scores: Mapping[float, NDArray[np.float32]]
    groups: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        part: AudioDataset,
        targets: NDArray[np.float32],
        counted: NDArray[np.bool_],
        logits: Mapping[float, NDArray[np.float32]],
        *,
        multi_label: bool,
    ) -> Answers:
        """Answers to a part of a data set.

        Args:
            part: the clips, in the order of the rows.
            targets: (clips, labels).
            counted: (clips,), False where another clip stood in for one that cannot be read.
            logits: keep rate → (clips, labels).
            multi_label: whether the model judges each label by itself, as one does that was trained with binary cross
                entropy; of another the scores are logarithms of probabilities.
        """
        recordings = [one for one, counts in zip(part.recordings, counted, strict=True) if counts]
        ids, groups = tuple(one.id for one in recordings), groups_of(recordings)
        scores = {
            rate: (each if multi_label else log_softmax(each, axis=1)).astype(np.float32)[counted]
            for rate, each in logits.items()
        }
        named = None if groups is None else tuple(groups)
        return cls(ids, tuple(part.labels), part.metric, targets.astype(np.float32)[counted], scores, named)

    @classmethod
    def together(cls, parts: Sequence[Answers]) -> Answers:
        """The answers of several models, each to clips of its own, as if they were one model's.

        Raises:
            InvalidSetting: they do not have the same labels, metric and keep rates, or a clip is in two of them.
        """
        first = parts[0]
        for one in parts:
            kind = (one.labels, one.metric, one.scores.keys())
            if kind != (first.labels, first.metric, first.scores.keys()):
                raise InvalidSetting("answers", kind, "the same labels, metric and keep rates in all folds")
        ids = tuple(name for one in parts for name in one.ids)
        if len(set(ids)) < len(ids):
            twice = next(name for place, name in enumerate(ids) if name in ids[:place])
            raise InvalidSetting("folds", twice, "folds that share no clip")
        scores = {rate: np.concatenate([one.scores[rate] for one in parts]) for rate in first.scores}
        groups = None
        if any(one.groups for one in parts):
            groups = tuple(name for one in parts for name in one.groups or map(own_group, one.ids))
        return cls(ids, first.labels, first.metric, np.concatenate([one.targets for one in parts]), scores, groups)

    def save(self, path: Path) -> None:
        """Write them as an npz file, whole or not at all."""
        with file_beside(path) as beside, beside.open("wb") as file:
            np.savez(
                file,
                ids=np.array(self.ids, dtype=np.str_),
                labels=np.array(self.labels, dtype=np.str_),
                metric=np.array(self.metric),
                targets=self.targets.astype(np.uint8),
                keep_rates=np.array(list(self.scores), dtype=np.float64),
                scores=np.stack(list(self.scores.values())),
                **dict[str, Any]({} if self.groups is None else {"groups": np.array(self.groups, dtype=np.str_)}),
            )

    @classmethod
    def load(cls, path: Path) -> Answers:
        """Read what `save` wrote; raises `CheckpointError` for what is none."""
        try:
            with np.load(path, allow_pickle=False) as file:
                ids, labels, metric, targets, rates, scores = (
                    file[name] for name in ("ids", "labels", "metric", "targets", "keep_rates", "scores")
                )
                groups = file["groups"] if "groups" in file.files else None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path}: it cannot be read as the answers of a run ({error})") from error
        if scores.shape != (len(rates), len(ids), len(labels)) or targets.shape != scores.shape[1:]:
            raise CheckpointError(f"{path}: {scores.shape} scores for {len(ids)} clips and {len(labels)} labels")
        if groups is not None and groups.shape != ids.shape:
            raise CheckpointError(f"{path}: {len(groups)} groups for {len(ids)} clips")
        return cls(
            tuple(map(str, ids)),
            tuple(map(str, labels)),
            str(metric),
            targets.astype(np.float32),
            dict(zip(map(float, rates), scores, strict=True)),
            None if groups is None else tuple(map(str, groups)),
        )
