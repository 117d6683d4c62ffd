"""What an analysis found of one model: results that the report is made from, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from spectrim.analysis.ablations import Condition, ablation_rows, ranked
from spectrim.analysis.summary import Summary
from spectrim.config import SpectrimConfig
from spectrim.data import AudioDataset
from spectrim.errors import DataError
from spectrim.files import write_bytes
from spectrim.measure.scoring import groups_of_clips
from spectrim.network.macs import macs
from spectrim.stats.clusters import Clusters
from spectrim.stats.groups import Groups

VERSION = 2
"""Of the file; another is not read."""
SUMMARY_ARRAYS = ("targets", "logits", "survived", "counted", "kendall", "counts", "received", "density")
"""Arrays of a `Summary` that are kept."""


@dataclass(frozen=True)
class Examples:
    """A few clips for pictures.

    Attributes:
        names: of the clips: their labels.
        log_mel: (k, frames, mels).
        num_frames: (k,).
        survived: (k, F, T) at the plan's first keep rate, as in `Summary`.
    """

    names: tuple[str, ...]
    log_mel: NDArray[np.float32]
    num_frames: NDArray[np.int64]
    survived: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Findings:
    """Results of one model, from which the report is made.

    Attributes:
        name: of the model.
        config: of the model.
        facts: what determines the numbers, as JSON.
        metric: of the data set.
        labels: of the data set.
        summaries: keep rate → summary; 1.0 is the dense model.
        ratios: keep rate → (n, stages, blocks), see `spectrim.analysis.ablations.attention_ratio`.
        scores: condition → (n, labels), in the order of the data set's labels.
        removed: condition → (n,) patches flagged.
        examples: clips for pictures.
        left_out: id → reason of clips that could not be used.
    """

    name: str
    config: SpectrimConfig
    facts: Mapping[str, Any]
    metric: str
    labels: tuple[str, ...]
    summaries: Mapping[float, Summary]
    ratios: Mapping[float, NDArray[np.float64]]
    scores: Mapping[Condition, NDArray[np.float32]]
    removed: Mapping[Condition, NDArray[np.int64]]
    examples: Examples
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def backbone(self) -> str:
        """``"ast"`` or ``"audiomae"``."""
        return self.config.backbone

    @property
    def groups(self) -> Groups | None:
        """Of the clips."""
        return self.summaries[1.0].groups

    def with_groups_of(self, part: AudioDataset) -> Findings:
        """The same with the groups that a data set says its clips are of; they are no part of what is saved."""
        groups = groups_of_clips(part, self.summaries[1.0].ids)
        return replace(self, summaries={rate: replace(one, groups=groups) for rate, one in self.summaries.items()})

    def ablations(self) -> list[dict[str, Any]]:
        """Rows of `spectrim.analysis.ablations.ablation_rows`, with MACs of a clip where the keep rate decides them."""
        summary = self.summaries[1.0]
        seen = np.count_nonzero(summary.survived > 0, axis=(1, 2))
        targets = summary.targets.astype(np.float32)
        rows = ablation_rows(self.scores, self.removed, targets, self.metric, seen, summary.groups)
        whole = self._paper_macs(1.0)
        for row in rows:
            cost = None if row["ablation"] == "clusters" else self._paper_macs(row["keep_rate"])
            row |= {"paper_macs": cost, "macs_saved": None if cost is None else 1.0 - cost / whole}
        return rows

    def _paper_macs(self, keep_rate: float) -> int:
        return macs(self.config, pruning=ranked(self.config.pruning, keep_rate)).paper


def save_findings(findings: Findings, path: Path) -> None:
    """Keep findings on disk, as one file in safetensors' format that appears whole or not at all."""
    tensors: dict[str, NDArray[Any]] = {}
    for rate, summary in findings.summaries.items():
        tensors |= {f"{rate}/{name}": getattr(summary, name) for name in SUMMARY_ARRAYS}
    tensors |= {f"{rate}/ratio": values for rate, values in findings.ratios.items()}
    conditions = list(findings.scores)
    tensors["scores"] = np.stack([findings.scores[condition] for condition in conditions])
    tensors["removed"] = np.stack([findings.removed[condition] for condition in conditions])
    for name in ("log_mel", "num_frames", "survived"):
        tensors[f"example/{name}"] = getattr(findings.examples, name)
    dense = findings.summaries[1.0]
    clusters = {
        statistic: {each.name: _listed(getattr(of_statistic, each.name)) for each in fields(Clusters)}
        for statistic, of_statistic in dense.clusters.items()
    }
    notes = {
        "facts": findings.facts,
        "metric": findings.metric,
        "labels": findings.labels,
        "left_out": findings.left_out,
        "ids": dense.ids,
        "stages": dense.stages,
        "rates": list(findings.summaries),
        "padding": dense.padding,
        "clusters": clusters,
        "conditions": [asdict(condition) for condition in conditions],
        "examples": findings.examples.names,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_bytes(path, safetensors.numpy.save(contiguous, metadata={"findings": json.dumps(notes)}))


def load_findings(path: Path, name: str, config: SpectrimConfig, facts: Mapping[str, Any]) -> Findings | None:
    """Findings from disk, if they are those that ``facts`` determine; None where they are not, or cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            if _notes(file)["facts"] != json.loads(json.dumps(facts)):
                return None
        return replace(read_findings(path, name), config=config)
    except (OSError, SafetensorError, KeyError, ValueError, DataError):
        return None


def read_findings(path: Path, name: str) -> Findings:
    """Findings from disk, of whatever model, clips and plan: their facts say which.

    Args:
        path: written by `save_findings`.
        name: of the model.

    Raises:
        DataError: they cannot be read, or are of another version.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            notes = _notes(file)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        version = notes["facts"]["version"]
        if version == VERSION:
            return _findings_of(notes, tensors, name)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: no findings of spectrim analyze: {type(error).__name__}: {error}") from error
    raise DataError(f"{path} has version {version}; this Spectrim reads version {VERSION}")


def _findings_of(notes: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], name: str) -> Findings:
    clusters = {statistic: _clusters(written) for statistic, written in notes["clusters"].items()}
    summaries = {}
    for rate in notes["rates"]:
        arrays: dict[str, Any] = {key: tensors[f"{rate}/{key}"] for key in SUMMARY_ARRAYS}
        known = (notes["padding"], clusters, tuple(notes["stages"]), tuple(notes["ids"]))
        summaries[rate] = Summary(*known, **arrays)
    conditions = [Condition(**{**written, "clusters": tuple(written["clusters"])}) for written in notes["conditions"]]
    pictured = (tensors[f"example/{key}"] for key in ("log_mel", "num_frames", "survived"))
    return Findings(
        name=name,
        config=SpectrimConfig(**notes["facts"]["config"]),
        facts=notes["facts"],
        metric=notes["metric"],
        labels=tuple(notes["labels"]),
        summaries=summaries,
        ratios={rate: tensors[f"{rate}/ratio"] for rate in notes["rates"] if rate != 1.0},
        scores=dict(zip(conditions, tensors["scores"], strict=True)),
        removed=dict(zip(conditions, tensors["removed"], strict=True)),
        examples=Examples(tuple(notes["examples"]), *pictured),
        left_out=notes["left_out"],
    )


def _notes(file: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((file.metadata() or {})["findings"])
    return found


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _clusters(written: Mapping[str, Any]) -> Clusters:
    arrays = {key: None if written[key] is None else np.array(written[key]) for key in ("centres", "counts")}
    return Clusters(
        np.array(written["bounds"]), written["source"], written["padding"], **arrays, inertia=written["inertia"]
    )
