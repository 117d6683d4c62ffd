"""Figures of statistics: what is drawn is what was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from observed import made_up, small_eager_model
from PIL import Image

from spectrim.analysis.statistics import DENSITY_EDGES
from spectrim.analysis.summary import fit_clusters, summarise
from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.pictures.ablations import cluster_curves, criteria_curves
from spectrim.pictures.attention import kendall_curves, received_curves
from spectrim.pictures.clusters import cluster_bar, density_maps, kept_by_cluster, low_patches
from spectrim.pictures.figures import save_figure
from spectrim.pictures.mosaics import mosaic
from spectrim.stats.bootstrap import Estimate

CONFIG = small_eager_model().config
BATCH = made_up(CONFIG, 12)
CLUSTERS = fit_clusters([BATCH], padding="without")
SUMMARY = summarise([BATCH], CONFIG, CLUSTERS, padding="without", seed=None)
ROWS = SUMMARY.rows(resamples=50)
BOUNDS = {name: one.bounds for name, one in CLUSTERS.items()}


def drawn(figure: Figure, tmp_path: Path) -> None:
    """Every figure can be written in all three formats, and is not empty."""
    for ending in ("png", "svg", "pdf"):
        save_figure(figure, tmp_path / f"figure.{ending}")
        assert (tmp_path / f"figure.{ending}").stat().st_size > 1000
    with Image.open(tmp_path / "figure.png") as picture:
        assert len(set(picture.convert("L").get_flattened_data())) > 5


def test_the_cluster_bar_is_as_long_as_its_patches(tmp_path: Path) -> None:
    counts = {name: SUMMARY.cluster_counts(name)[:, 0].sum(axis=0) for name in BOUNDS}
    figure = cluster_bar(counts, BOUNDS)
    for axis, (name, sizes) in zip(figure.axes, counts.items(), strict=True):
        np.testing.assert_allclose([bar.get_width() for bar in axis.patches], sizes / sizes.sum())
        assert f"{sizes.sum():,} patches" in axis.get_title("left")
        shown = [float(text.get_text().replace("−", "-")) for text in axis.get_xticklabels()]
        assert set(shown) <= {round(float(bound), 2) for bound in BOUNDS[name]}
    drawn(figure, tmp_path)


def test_kendall_curves_show_four_forms_of_each_statistic(tmp_path: Path) -> None:
    figure = kendall_curves(ROWS, published={"AS-20K": 0.53, "ESC-50": 0.61})
    wanted = {
        (row["statistic"], row["quantity"]): [] for row in ROWS if row["quantity"].startswith("kendall") and row["mean"]
    }
    for row in ROWS:
        if (row["statistic"], row["quantity"]) in wanted:
            wanted[row["statistic"], row["quantity"]].append(row["mean"])
    for axis, statistic in zip(figure.axes, BOUNDS, strict=True):
        lines = {line.get_label(): line.get_ydata() for line in axis.lines}
        way = lines["the share of the way from random to perfect (Somers' D)"]
        np.testing.assert_allclose(way, wanted[statistic, "kendall_somers_d"])
        values = lines["tau-b with the values themselves"]
        np.testing.assert_allclose(values, wanted[statistic, "kendall_tau_b_values"])
        dotted = [
            line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":" or len(set(line.get_ydata())) == 1
        ]
        assert ({0.53, 0.61} <= set(dotted)) == (statistic == "intensity")
        np.testing.assert_allclose(lines["the paper's form"], wanted[statistic, "kendall_paper"])
        shuffled = wanted[statistic, "kendall_paper_expected_shuffled"]
        np.testing.assert_allclose(lines["the paper's form, scores shuffled"], shuffled)
    drawn(figure, tmp_path)


def test_density_maps_share_one_scale(tmp_path: Path) -> None:
    figure = density_maps(SUMMARY.density, SUMMARY.stages, BOUNDS, DENSITY_EDGES)
    maps = [axis.collections[0] for axis in figure.axes[:3]]
    assert len({(one.norm.vmin, one.norm.vmax) for one in maps}) == 1
    for one, counts in zip(maps, SUMMARY.density, strict=True):
        shown = np.ma.filled(one.get_array(), 0.0).reshape(counts.shape[::-1])
        np.testing.assert_allclose(shown, counts.T / counts.sum())
    titles = [axis.get_title("left").splitlines()[0] for axis in figure.axes[:3]]
    assert titles == ["input", "kept after block 1", "kept after block 2"]
    drawn(figure, tmp_path)


def test_kept_shares_are_bars(tmp_path: Path) -> None:
    figure = kept_by_cluster(ROWS)
    for axis, statistic in zip(figure.axes, BOUNDS, strict=True):
        wanted = [
            100 * row["mean"]
            for number in range(1, 6)
            for row in ROWS
            if (row["quantity"], row["statistic"], row["cluster"]) == ("kept_share", statistic, number)
        ]
        np.testing.assert_allclose([bar.get_height() for bar in axis.patches], wanted)
    drawn(figure, tmp_path)


def row(**fields: Any) -> dict[str, Any]:
    usual = {
        "ablation": "criterion",
        "keep_rate": 0.5,
        "criterion": "attention",
        "block": None,
        "statistic": None,
        "clusters": None,
        "random": False,
        "metric": "accuracy",
        "change": -0.1,
        "change_low": -0.2,
        "change_high": 0.05,
    }
    return usual | fields


def test_ablations_are_drawn_in_points(tmp_path: Path) -> None:
    rows = [
        row(keep_rate=rate, criterion=name, change=-rate / 10)
        for name in ("attention", "random")
        for rate in (0.7, 0.3)
    ]
    figure = criteria_curves(rows)
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["attention"], [-7.0, -3.0])
    np.testing.assert_allclose(lines["random"], [-7.0, -3.0])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0.7", "0.3"]
    drawn(figure, tmp_path)
    rows = [
        row(ablation="clusters", statistic=statistic, clusters="C1+C2", block=block, random=random, change=-block / 100)
        for statistic in BOUNDS
        for block in (3, 9)
        for random in (False, True)
    ]
    figure = cluster_curves(rows)
    for axis in figure.axes:
        lines = {line.get_label(): line.get_ydata() for line in axis.lines}
        np.testing.assert_allclose(lines["C1+C2"], [-3.0, -9.0])
        np.testing.assert_allclose(lines["as many random patches as C1+C2"], [-3.0, -9.0])
    drawn(figure, tmp_path)


def test_attention_and_low_patches(tmp_path: Path) -> None:
    mean = np.array([[2.0, 3.0, 1.5], [0.5, 4.0, 2.0]])
    ratio = Estimate(mean, 0.9 * mean, 1.1 * mean, np.full((2, 3), 9), 0.95)
    figure = received_curves(ratio, (1, 2))
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["kept after block 1"], mean[0])
    np.testing.assert_allclose(lines["kept after block 2"], mean[1])
    drawn(figure, tmp_path)
    share = Estimate(np.array([0.8, 0.4]), np.array([0.7, 0.3]), np.array([0.9, 0.5]), np.full(2, 9), 0.95)
    figure = low_patches({"one": share, "other": share}, ["after block 1", "after block 2"])
    np.testing.assert_allclose([bar.get_height() for bar in figure.axes[0].patches], [80, 40, 80, 40])
    drawn(figure, tmp_path)


def test_nothing_is_left_out_of_many_stages_and_criteria() -> None:
    """As `Pruning.merging` has them: a stage a block."""
    mean = np.arange(1.0, 145.0).reshape(12, 12)
    figure = received_curves(Estimate(mean, 0.9 * mean, 1.1 * mean, np.full((12, 12), 9), 0.95), range(12))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    for stage in range(12):
        np.testing.assert_allclose(lines[f"kept after block {stage}"].get_ydata(), mean[stage])
    names = [f"criterion {number}" for number in range(12)]
    lines = {
        line.get_label(): line
        for line in criteria_curves([row(criterion=name, change=-number / 100) for number, name in enumerate(names)])
        .axes[0]
        .lines
    }
    assert [lines[name].get_ydata()[0] for name in names] == pytest.approx(list(range(0, -12, -1)))
    assert len({(lines[name].get_color(), lines[name].get_marker()) for name in names}) == 12


def test_a_mosaic_has_a_row_a_clip_and_says_what_is_kept(tmp_path: Path) -> None:
    figure = mosaic(("a", "b" * 90), BATCH.log_mel[:2], BATCH.num_frames[:2], BATCH.survived[:2], CONFIG)
    titles = [axis.get_title("left") for axis in figure.axes[:6]]
    assert titles[0] == "spectrogram\na"
    assert titles[3].endswith("…")
    for clip in range(2):
        for stage, block in enumerate((1, 2), 1):
            count = int((BATCH.survived[clip] > block).sum())
            assert titles[3 * clip + stage].endswith(f"{count} of 64")
    drawn(figure, tmp_path)
    with pytest.raises(InputShapeError, match="0 names"):
        mosaic((), BATCH.log_mel[:0], BATCH.num_frames[:0], BATCH.survived[:0], CONFIG)


def test_nothing_to_draw_is_an_error() -> None:
    for draw in (kendall_curves, kept_by_cluster, criteria_curves, cluster_curves):
        with pytest.raises(InvalidSetting, match="to draw"):
            draw([])
