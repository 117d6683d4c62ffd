"""What pruning costs the published Keyword Transformer on real recordings, without training: a linear probe on [CLS].

    python benchmarks/kwt.py --data arabic-speech-commands --weights kwt1.tflite --json benchmarks/results/kwt.json

The recordings need a ``labels.csv`` with the columns path, label, split and speaker. They are words that the model was
not trained on, so its own head does not apply: logistic regression on the frozen [CLS] of the dense model takes its
place. Five times, a fifth of the speakers is heard by nobody before the test, another fifth chooses C, the others are
the training part; so every clip is tested once. The pruned model's [CLS] goes through the same probe. Intervals:
bootstrap over speakers. ``official`` is the same with the speakers' parts as ``labels.csv`` has them.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import soundfile
import torch
from numpy.typing import NDArray
from showing import write_and_show
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import spectrim
from spectrim import AudioTransformer, Pruning
from spectrim.machine import environment
from spectrim.stats.bootstrap import bootstrap
from spectrim.stats.ratios import Ratio

FOLDS = 5
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Values of C, the inverse strength of the probe's regularisation, among which validation chooses."""

RANKINGS = (
    ("cls_attention", "drop"),
    ("cls_attention", "fuse"),
    ("mean_attention", "drop"),
    ("intensity", "drop"),
    ("variation", "drop"),
    ("value_norm", "drop"),
    ("cls_attention_so_far", "drop"),
    ("cls_without_sinks", "drop"),
    ("auto", "cluster"),
    ("regular", "drop"),
    ("random", "drop"),
)
"""Criteria and reducers that are compared, random pruning last. Those from `value_norm` on were added when the others
were known, and when `value_norm`, `cluster` and attention so far had done well in other models."""


@dataclass(frozen=True)
class Recordings:
    """What is tested on.

    Attributes:
        values: (clips, frames, coefficients), what the front end makes of them.
        labels: (clips,) words.
        speakers: (clips,).
        parts: (clips,) ``train``, ``validation`` or ``test``, as the data set says.
    """

    values: torch.Tensor
    labels: NDArray[np.str_]
    speakers: NDArray[np.str_]
    parts: NDArray[np.str_]


def read(folder: Path, model: AudioTransformer, clips: int | None) -> Recordings:
    """Read the first ``clips`` recordings, or all, and make the model's input of them."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:clips]
    frontend = spectrim.Frontend.from_config(model.config)
    values = []
    for start in range(0, len(rows), 256):
        waveforms = []
        for row in rows[start : start + 256]:
            samples, rate = soundfile.read(folder / row["path"], dtype="float32")
            if rate != model.config.sampling_rate:
                raise SystemExit(f"{row['path']}: {rate} Hz, and the model hears {model.config.sampling_rate}")
            waveforms.append(samples)
        values.append(frontend(waveforms).input_values)
    columns = (np.array([row[name] for row in rows]) for name in ("label", "speaker", "split"))
    return Recordings(torch.cat(values), *columns)


@torch.inference_mode()
def run(
    model: AudioTransformer, values: torch.Tensor, pruning: Pruning
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """[CLS] (clips, width) at an operating point, and the first label (clips,) of the model's own head."""
    pooled = []
    for batch in values.split(128):
        pooled.append(model.embed(batch, pruning))
    vectors = torch.cat(pooled)
    return vectors.numpy(), model.head(vectors).argmax(dim=1).numpy()


def folds(speakers: NDArray[np.str_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Clips to validate on and to test on, (clips,) each; the others are the training part."""
    names = np.unique(speakers)
    for fold in range(FOLDS):
        held, validation = names[fold::FOLDS], names[(fold + 1) % FOLDS :: FOLDS]
        yield np.isin(speakers, validation), np.isin(speakers, held)


def fitted(
    vectors: NDArray[np.float32], labels: NDArray[np.str_], validation: NDArray[np.bool_], test: NDArray[np.bool_]
) -> tuple[Pipeline, float]:
    """The probe that is best on the validation part, trained on the training part, and its C."""
    train = ~validation & ~test
    best: tuple[float, Pipeline, float] | None = None
    for strength in STRENGTHS:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        probe.fit(vectors[train], labels[train])
        score = float(probe.score(vectors[validation], labels[validation]))
        if best is None or score > best[0]:
            best = (score, probe, strength)
    if best is None:
        raise SystemExit("no C to choose from")
    return best[1], best[2]


def points(rates: Sequence[float], draws: int, at: tuple[int, ...]) -> Iterator[tuple[str, str, float, list[Pruning]]]:
    """Criterion, reducer, keep rate, and the operating points whose mean is taken."""
    for rate in rates:
        for criterion, reducer in RANKINGS:
            seeds = range(draws if criterion == "random" else 1)
            yield criterion, reducer, rate, [Pruning(rate, at, criterion, reducer, seed=seed) for seed in seeds]


def interval(hits: NDArray[np.float64], speakers: NDArray[np.str_]) -> dict[str, float]:
    """Mean of (clips,) hits, or of differences of them, in percent, with its interval over speakers."""
    names, places = np.unique(speakers, return_inverse=True)
    top = np.bincount(places, hits, len(names))
    found = bootstrap(Ratio(top, np.bincount(places, minlength=len(names)).astype(np.float64)))
    return {key: round(100.0 * float(value), 3) for key, value in zip(("mean", "low", "high"), found, strict=False)}


def measure(
    model: AudioTransformer,
    recordings: Recordings,
    rates: Sequence[float],
    draws: int,
    at: tuple[int, ...] = (3, 6, 9),
    progress: bool = True,
) -> dict[str, Any]:
    """The whole comparison: dense, and every criterion at every keep rate."""
    labels, speakers = recordings.labels, recordings.speakers
    dense, own = run(model, recordings.values, Pruning())
    chosen = [(fitted(dense, labels, validation, test), test) for validation, test in folds(speakers)]

    def hits(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        found = np.zeros(len(labels))
        for (probe, _), test in chosen:
            found[test] = probe.predict(vectors[test]) == labels[test]
        return found

    right, rows = hits(dense), []
    by_rate: dict[float, list[NDArray[np.float64]]] = {}
    for criterion, reducer, rate, prunings in points(rates, draws, at):
        runs = [run(model, recordings.values, pruning) for pruning in prunings]
        single = [hits(vectors) for vectors, _ in runs]
        mean = np.mean(single, axis=0)
        by_rate.setdefault(rate, []).append(mean)
        count = spectrim.macs(model, pruning=prunings[0])
        rows.append(
            {
                "criterion": criterion,
                "reducer": reducer,
                "keep_rate": rate,
                "draws": [round(100.0 * float(one.mean()), 3) for one in single],
                "accuracy": interval(mean, speakers),
                "lost": interval(right - mean, speakers),
                "own_label_stays": round(100.0 * float(np.mean([stays == own for _, stays in runs])), 3),
                "macs": {"executed": count.executed, "paper": count.paper},
            }
        )
        if progress:
            sys.stderr.write(f"{criterion} {reducer} {rate}: {rows[-1]['accuracy']['mean']:.2f} %\n")
    for row in rows:  # the random ranking is the last of its keep rate
        group = by_rate[row["keep_rate"]]
        place = RANKINGS.index((row["criterion"], row["reducer"]))
        row["over_random"] = interval(group[place] - group[-1], speakers)
    count = spectrim.macs(model, pruning=Pruning())
    return {
        "dense": {
            "accuracy": interval(right, speakers),
            "macs": {"executed": count.executed, "paper": count.paper},
            "c": [strength for (_, strength), _ in chosen],
        },
        "official": official(dense, recordings),
        "rows": rows,
    }


def official(dense: NDArray[np.float32], recordings: Recordings) -> dict[str, Any]:
    """The dense model with the parts of the data set."""
    validation, test = recordings.parts == "validation", recordings.parts == "test"
    probe, strength = fitted(dense, recordings.labels, validation, test)
    hits = (probe.predict(dense[test]) == recordings.labels[test]).astype(np.float64)
    return {"accuracy": interval(hits, recordings.speakers[test]), "clips": int(test.sum()), "c": strength}


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and the recordings")
    parser.add_argument("--weights", type=Path, required=True, help="kwt1.tflite, or its folder")
    parser.add_argument("--keep-rates", type=float, nargs="+", default=[0.9, 0.7, 0.5, 0.3])
    parser.add_argument("--blocks", type=int, nargs="+", default=[3, 6, 9], help="where to prune")
    parser.add_argument("--draws", type=int, default=5, help="seeds of the random ranking")
    parser.add_argument("--clips", type=int, help="only the first clips")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = spectrim.from_pretrained(options.weights)
    recordings = read(options.data, model, options.clips)
    found = measure(model, recordings, options.keep_rates, options.draws, tuple(options.blocks))
    facts = {
        "environment": environment(),
        "weights": options.weights.name,
        "data": options.data.name,
        "clips": len(recordings.labels),
        "speakers": len(np.unique(recordings.speakers)),
        "labels": len(np.unique(recordings.labels)),
        "folds": FOLDS,
        "blocks": options.blocks,
        "scikit_learn": sklearn.__version__,
    }
    write_and_show({**facts, **found}, options.json)


if __name__ == "__main__":
    main()
