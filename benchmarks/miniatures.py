"""How long the miniatures take to make, and how far two simple classifiers get on them.

    python benchmarks/miniatures.py --json benchmarks/results/miniatures.json

The classifiers (scikit-learn's random forest and logistic regression) see no more of a clip than mean and standard
deviation over time of its 128 log-mel values. What they reach is a floor: a task on which they were at chance could
teach nothing, and one that they solved would not need a transformer. The time is processor time of one process, which
other work on the machine does not lengthen much.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from showing import write_and_show
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from spectrim.audio.frontend import Frontend
from spectrim.data.audioset import open_audioset
from spectrim.data.dataset import AudioDataset
from spectrim.data.esc50 import FOLDS, open_esc50
from spectrim.data.voxceleb1 import open_voxceleb1
from spectrim.machine import environment
from spectrim.miniatures.sound_sets import synthesize_audioset, synthesize_esc50
from spectrim.miniatures.speakers import synthesize_voxceleb1

SIZES = {"esc50": 2000, "audioset": 800, "voxceleb1": 712}
"""Clips, for AudioSet those for training; a quarter as many evaluate."""


def classifiers() -> dict[str, Any]:
    """Both classifiers, new."""
    return {
        "random forest": RandomForestClassifier(100, min_samples_leaf=2, random_state=0),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)),
    }


def summaries(part: AudioDataset, frontend: Frontend) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over time (clips, 256), and targets (clips, labels)."""
    features, targets = [], []
    for index in range(len(part)):
        clip = part[index]
        frames = frontend.log_mel(torch.from_numpy(clip.waveform)[None])[0].numpy()
        features.append(np.concatenate([frames.mean(0), frames.std(0)]))
        targets.append(clip.target)
    return np.array(features), np.array(targets)


def make(name: str, synthesize: Any, root: Path, seed: int) -> tuple[Path, dict[str, Any]]:
    """Make a miniature in this process and say what it took."""
    start = time.process_time()
    folder = synthesize(root / name, clips=SIZES[name], seed=seed, workers=1)
    seconds = time.process_time() - start
    clips = sum(1 for _ in folder.rglob("*.wav"))
    return folder, {
        "data_set": name,
        "clips": clips,
        "processor_ms_per_clip": 1000 * seconds / clips,
        "clips_per_minute_and_core": 60 * clips / seconds,
    }


def esc50_accuracy(root: Path, frontend: Frontend) -> dict[str, float]:
    """Accuracy in the five folds, each held out once, averaged."""
    folds = [summaries(open_esc50(root, "test", fold=fold), frontend) for fold in FOLDS]
    reached: dict[str, float] = {}
    for name, model in classifiers().items():
        accuracies = []
        for held_out, (features, targets) in enumerate(folds):
            others = [fold for number, fold in enumerate(folds) if number != held_out]
            known, classes = (np.concatenate(both) for both in zip(*others, strict=True))
            model.fit(known, classes.argmax(1))
            accuracies.append(float(np.mean(model.predict(features) == targets.argmax(1))))
        reached[name] = float(np.mean(accuracies))
    return reached


def voxceleb1_accuracy(root: Path, frontend: Frontend) -> dict[str, float]:
    """Accuracy on the test part."""
    features, targets = summaries(open_voxceleb1(root, "train"), frontend)
    test_features, test_targets = summaries(open_voxceleb1(root, "test"), frontend)
    return {
        name: float(np.mean(model.fit(features, targets.argmax(1)).predict(test_features) == test_targets.argmax(1)))
        for name, model in classifiers().items()
    }


def audioset_map(root: Path, frontend: Frontend) -> dict[str, float]:
    """Mean average precision on the evaluation part, the forest's, and of scores without knowledge."""
    features, targets = summaries(open_audioset(root, "train"), frontend)
    test_features, test_targets = summaries(open_audioset(root, "test"), frontend)
    forest = classifiers()["random forest"].fit(features, targets)
    scores = np.stack([share[:, 1] for share in forest.predict_proba(test_features)], axis=1)
    return {
        "random forest": float(average_precision_score(test_targets, scores, average="macro")),
        "chance": float(test_targets.mean()),
        "labels_per_clip": float(targets.sum(1).mean()),
    }


def measure(seed: int) -> dict[str, Any]:
    """Make each miniature and classify it.

    Returns:
        A dictionary for JSON: the rows, the machine and versions.
    """
    frontend = Frontend(max_length=1024, mean=0.0, std=0.5)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, synthesize, metric, classify in (
            ("esc50", synthesize_esc50, "accuracy", esc50_accuracy),
            ("audioset", synthesize_audioset, "mAP", audioset_map),
            ("voxceleb1", synthesize_voxceleb1, "accuracy", voxceleb1_accuracy),
        ):
            root, row = make(name, synthesize, Path(folder), seed)
            rows.append({**row, "metric": metric, **classify(root, frontend)})
            sys.stderr.write(f"{rows[-1]}\n")
    return {
        "what": "processor time of making each miniature in one process; what classifiers reach on mean and standard "
        "deviation over time of 128 log-mel values",
        "seed": seed,
        "rows": rows,
        "environment": environment(),
    }


def main() -> None:
    """Parse, measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        result = measure(arguments.seed)
    write_and_show(result, arguments.json)


if __name__ == "__main__":
    main()
