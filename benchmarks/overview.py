"""Draw the picture at the head of the README: what is kept of a clip, and what that costs and saves.

    python benchmarks/overview.py [--output docs/overview.png]

Above, one packaged clip and what "spectrim-mini" keeps of it after each of its three pruning blocks. Below, its
accuracy on all 140 packaged clips by keep rate, counted here, and the speed of AST-B/16 as recorded in
benchmarks/results/speed.json. Light and opaque, so that it reads on a dark page too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import spectrim
from spectrim.assets import packaged_clips
from spectrim.pictures.figures import save_figure
from spectrim.pictures.spectrograms import DECIBELS, RANGE_DECIBELS

ROOT = Path(__file__).parents[1]
SHOWN = "seven_32b34913.flac"
SHOWN_RATE = 0.7
RATES = (1.0, 0.9, 0.7, 0.5)
BLUE, ORANGE, GREY = "#2b6cb0", "#c2540a", "#5f6368"
CASE, BATCH_SIZE = "ast-10s", 8


def main() -> None:
    """Count, read and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "overview.png")
    options = parser.parse_args()
    model = spectrim.from_pretrained("spectrim-mini")
    clips = packaged_clips()
    features = spectrim.Frontend.from_config(model.config)([_samples(path) for path, _ in clips])
    values = features.input_values
    place = [path.name for path, _ in clips].index(SHOWN)
    figure = Figure(figsize=(9.0, 4.7), facecolor="white", layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.0, 1.05))
    frames = int(features.num_frames[place])
    draw_stages(above.subplots(1, 4, sharey=True), model, values[place : place + 1], frames, clips[place][1] or "")
    left, right = below.subplots(1, 2)
    draw_accuracy(left, [accuracy(model, values, [label for _, label in clips], rate) for rate in RATES])
    draw_speed(right, json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text(encoding="utf-8"))["rows"])
    save_figure(figure, options.output)


def _samples(path: Path) -> NDArray[np.float32]:
    samples, _ = soundfile.read(path, dtype="float32")
    return samples


def draw_stages(axes: Sequence[Axes], model: Any, values: torch.Tensor, frames: int, label: str) -> None:
    """The clip, and what is left of it after each pruning block; removed patches are grey."""
    with torch.inference_mode():
        out = model(values, keep_rate=SHOWN_RATE, output_token_trace=True)
    found = model.config.id2label[int(out.logits.argmax())]
    picture = values[0].T.numpy()
    loudest = picture[:, :frames].max()
    quietest = loudest - RANGE_DECIBELS / DECIBELS / (2 * model.config.std)
    picture[:, frames:] = quietest
    size = model.config.patch_size
    stages = [(f"the word “{label}”", np.ones(model.config.grid, dtype=bool))]
    for block in model.config.prune_at:
        kept = out.token_trace.kept[block][0].numpy()
        stages.append((f"after block {block}: {kept.sum()} of {kept.size} patches", kept))
    for axis, (title, kept) in zip(axes, stages, strict=True):
        shown = np.kron(kept, np.ones((size, size)))[: picture.shape[0], : picture.shape[1]]
        axis.imshow(picture, origin="lower", aspect="auto", cmap="magma", vmin=quietest, vmax=loudest)
        grey = np.ma.masked_array(picture, shown > 0)
        axis.imshow(grey, origin="lower", aspect="auto", cmap="gray", vmin=quietest - 6.0, vmax=loudest)
        axis.set_title(title, fontsize=9)
        axis.set_xticks([0, 50, 100], ["0", "0.5", "1 s"], fontsize=8)
        axis.set_yticks([])
    axes[0].set_ylabel("mel frequency", fontsize=8)
    axes[-1].set_xlabel(f"answer: “{found}”", fontsize=9)


def accuracy(model: Any, values: torch.Tensor, labels: Sequence[str | None], rate: float) -> float:
    """Share of the clips, in percent, whose first label is right at a keep rate."""
    with torch.inference_mode():
        best = torch.cat([model(part, keep_rate=rate).logits for part in values.split(20)]).argmax(dim=1)
    return 100 * float(
        np.mean([model.config.id2label[int(one)] == label for one, label in zip(best, labels, strict=True)])
    )


def draw_accuracy(axis: Axes, percents: Sequence[float]) -> None:
    """Bars by keep rate, from nought, so that their lengths compare as the numbers do."""
    places = range(len(RATES))
    for bar, percent in zip(axis.bar(places, percents, width=0.6, color=BLUE), percents, strict=True):
        axis.annotate(f"{percent:.1f} %", (bar.get_x() + 0.3, percent), ha="center", va="bottom", fontsize=9)
    axis.set(ylim=(0, 118), yticks=[])
    axis.set_xticks(places, [f"{rate:g}" for rate in RATES], fontsize=9)
    axis.set_xlabel("keep rate", fontsize=9)
    axis.set_title("Accuracy of spectrim-mini on 140 spoken words", fontsize=10)
    axis.spines[["top", "right", "left"]].set_visible(False)


def draw_speed(axis: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Milliseconds a clip of transformers' AST and of ours, as recorded."""
    shown = [
        ("transformers, SDPA", "transformers, sdpa", 1.0),
        *((f"keep rate {rate:g}", "spectrim", rate) for rate in RATES),
    ]
    bars = []
    for name, contender, rate in shown:
        wanted = (CASE, BATCH_SIZE, contender, rate)
        bars += [
            (name, row["ms_per_clip"])
            for row in rows
            if (row["case"], row["batch_size"], row["contender"], row["keep_rate"]) == wanted
        ]
    dense = bars[0][1]
    for place, (_, taken) in enumerate(bars):
        axis.barh(place, taken, height=0.6, color=ORANGE if place else GREY)
        axis.annotate(
            f"{taken:.0f} ms, {dense / taken:.2f}×",
            (taken, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axis.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=9)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1.35 * dense), xticks=[])
    axis.set_title("Time per 10 s clip, AST-B/16 on two CPU cores", fontsize=10)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


if __name__ == "__main__":
    main()
