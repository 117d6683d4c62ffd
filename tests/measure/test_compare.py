"""Clips at several keep rates against `predict_files` run by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from exported import exported
from plain import small_model
from scipy import stats

from spectrim.errors import AudioError, InvalidSetting, SpectrimError
from spectrim.inference.predict import predict_files
from spectrim.inference.results import FilePrediction
from spectrim.inference.torch_model import TorchModel
from spectrim.measure import timed_passes as module
from spectrim.measure.compare import choose_clips, compare
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning

SINGLE, MULTIPLE = "single_label_classification", "multi_label_classification"
RATES = (1.0, 0.6, 0.3)
OF_TIME = {"files_ms", "files_q1_ms", "files_q3_ms", "files_per_second", "files_speed_up", "read_share"}


def make_model(problem: str, labels: int = 8, **fields: Any) -> AudioTransformer:
    sizes = {"num_hidden_layers": 4, "prune_at": [1, 2], "max_length": 64, "mean": -9.0, "std": 5.0}
    return small_model("ast", dtype=torch.float32, problem_type=problem, num_labels=labels, **{**sizes, **fields})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine clips of one window or several, and two that cannot be read."""
    place = tmp_path_factory.mktemp("clips")
    for number in range(9):
        generator = np.random.default_rng(number)
        samples = generator.standard_normal(round(16000 * generator.uniform(0.2, 2.0)))
        loud = np.abs(np.sin(np.linspace(0, generator.uniform(2, 30), len(samples))))
        soundfile.write(place / f"{number}.wav", 0.2 * samples * loud, 16000)
    (place / "4 empty.wav").touch()
    (place / "7 text.wav").write_text("not audio " * 100)
    return place


def scores_by_hand(folder: Path, model: AudioTransformer, rate: float) -> np.ndarray:
    good = sorted(str(path) for path in folder.iterdir() if path.stem.isdigit())
    found = [prediction.scores for prediction in predict_files(good, model, keep_rate=rate)]
    return np.stack([scores for scores in found if scores is not None])


def exact_interval(successes: int, trials: int) -> tuple[float, float]:
    """Clopper & Pearson (1934), by quantiles of the beta distribution."""
    low = stats.beta.ppf(0.025, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(0.975, successes + 1, trials - successes) if successes < trials else 1.0
    return low, high


def test_random_pruning_stands_beside_the_ranking(folder: Path) -> None:
    model = make_model(SINGLE)
    found = compare([folder], model, RATES, passes=1, batch_size=4, draws=3)
    dense = scores_by_hand(folder, model, 1.0).argmax(axis=1)
    assert "random_agreement" not in found.rows[0]
    for row in found.rows[1:]:
        shares = []
        for seed in range(3):
            point = Pruning(row["keep_rate"], (1, 2), "random", seed=seed)
            drawn = scores_by_hand(folder, make_model(SINGLE).set_pruning(point), row["keep_rate"])
            shares.append(float((drawn.argmax(axis=1) == dense).mean()))
        assert row["random_agreement"] == pytest.approx(np.mean(shares))
        assert row["over_random"] == pytest.approx(row["agreement"] - np.mean(shares))
        assert row["over_random_low"] <= row["over_random"] <= row["over_random_high"]
        assert row["against_random"] == "cannot say" and "same best label" in row["why_random"]


def test_more_patches_than_random_pruning_keeps_are_no_better_ranking(folder: Path) -> None:
    found = compare([folder], make_model(SINGLE, attention_mass=0.9), (0.5,), passes=1, batch_size=4, draws=2)
    row = found.rows[0]
    assert row["over_random"] is not None and row["against_random"] == "cannot say"
    assert row["why_random"].startswith("attention_mass leaves clips more patches")


def test_a_model_that_ranks_at_random_is_compared_with_no_other_draws(folder: Path) -> None:
    model = make_model(SINGLE, criterion="random")
    found = compare([folder], model, (1.0, 0.5), passes=1, batch_size=4, draws=2)
    assert all("random_agreement" not in row for row in found.rows)
    with pytest.raises(InvalidSetting, match="draws is 1"):
        compare([folder], model, draws=1)


def test_a_backend_is_counted_at_its_own_pruning_blocks(folder: Path) -> None:
    model, point = make_model(SINGLE), Pruning(0.6, (3,), "intensity")
    found = compare([folder], TorchModel(model, point), (0.5,), passes=1, batch_size=4)
    count = macs(model, pruning=point.changed({"keep_rate": 0.5}))
    row = found.rows[0]
    assert (row["keep_rate"], row["paper_macs"], row["executed_macs"]) == (0.5, count.paper, count.executed)


@pytest.mark.parametrize("problem", [SINGLE, MULTIPLE])
def test_rows_are_what_predict_says_compared_by_hand(folder: Path, problem: str) -> None:
    model = make_model(problem)
    found = compare([folder], model, RATES, passes=1, batch_size=4, threshold=0.6)
    assert [row["keep_rate"] for row in found.rows] == list(RATES)
    dense = scores_by_hand(folder, model, 1.0)
    assert len(dense) == found.facts["clips"] == 9
    for row in found.rows:
        count = macs(model, keep_rate=row["keep_rate"])
        assert (row["paper_macs"], row["executed_macs"]) == (count.paper, count.executed)
        pruned = scores_by_hand(folder, model, row["keep_rate"])
        same, overlaps, best, changes = [], [], [], []
        for one, other in zip(dense.tolist(), pruned.tolist(), strict=True):
            same.append(one.index(max(one)) == other.index(max(other)))
            first = {label for label, score in enumerate(one) if score >= 0.6}
            second = {label for label, score in enumerate(other) if score >= 0.6}
            if first | second:
                overlaps.append(len(first & second) / len(first | second))
            tops = [set(sorted(range(8), key=lambda label: -scores[label])[:5]) for scores in (one, other)]
            best.append(len(tops[0] & tops[1]) / 5)
            changes.append([abs(b - a) for a, b in zip(one, other, strict=True)])
        assert row["agreement"] == pytest.approx(sum(same) / 9)
        assert row["mean_change"] == pytest.approx(np.mean(changes), abs=1e-5)
        assert row["clip_change"] == pytest.approx(np.mean([max(change) for change in changes]), abs=1e-5)
        assert row["largest_change"] == pytest.approx(max(map(max, changes)), abs=1e-5)
        if problem == MULTIPLE:
            assert (row["label_overlap"], row["label_clips"]) == (pytest.approx(np.mean(overlaps)), len(overlaps))
            assert row["top5_overlap"] == pytest.approx(np.mean(best))
        else:
            assert not {"label_overlap", "label_clips", "top5_overlap"} & set(row)
        if row["keep_rate"] == 1.0:
            assert {row[name] for name in row if name.endswith(("_low", "_high"))} == {None}
        else:
            assert (row["agreement_low"], row["agreement_high"]) == pytest.approx(exact_interval(sum(same), 9))
            assert row["clip_change_low"] < row["clip_change"] < row["clip_change_high"]
        assert set(row) >= OF_TIME
    lowest = found.rows[-1]
    assert lowest["agreement"] < 1.0
    assert json.loads(json.dumps([found.rows, found.facts])) == [found.rows, found.facts]


def test_what_was_heard_and_what_was_not(folder: Path) -> None:
    model = make_model(SINGLE)
    named: list[AudioError] = []
    told: list[tuple[str, int, int]] = []
    found = compare(
        [folder],
        model,
        [0.5],
        passes=2,
        workers=2,
        on_error=named.append,
        on_progress=lambda *how_far: told.append(how_far),
    )
    assert [(Path(error.source).name, error.reason.split(":")[0]) for error in named] == [
        ("4 empty.wav", "empty file (0 bytes)"),
        ("7 text.wav", "cannot be read as audio"),
    ]
    assert found.errors == named
    predictions = [one for one in predict_files([folder], model) if one.error is None]
    facts = found.facts
    assert facts["windows"] == sum(len(one.timeline) for one in predictions) > 9
    assert facts["audio_seconds"] == pytest.approx(sum(one.seconds for one in predictions))
    assert (facts["clips"], facts["unreadable"], facts["passes"], facts["workers"]) == (9, 2, 2, 2)
    assert [how_far for how_far in told if how_far[0] == "read"] == [("read", done, 11) for done in range(1, 12)]
    passes = 1 + 2 * 3
    assert [how_far[1:] for how_far in told if how_far[0] == "clips"] == [
        (done, 9 * passes) for done in range(1, 9 * passes + 1)
    ]


def test_times_begin_with_the_first_window_and_the_median_of_the_passes_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pass starts for 5 s; then decoding takes 0.9 s, with the front end 1.8 s, and the rates what is listed.

    The first forward pass at each keep rate takes 100 s more, but that is over before.
    """
    now = [0.0]
    working = {1.0: iter([9.0, 18.0, 27.0]), 0.5: iter([4.5, 9.0, 4.5])}
    order, warm = [], {}

    def first_time(keep_rate: float, windows: int) -> None:
        now[0] += 0.0 if keep_rate in warm else 100.0
        warm.setdefault(keep_rate, windows)

    class Clock:
        def perf_counter(self) -> float:
            return now[0]

    def fake_predict(selection: Any, *_: Any, keep_rate: float, on_window: Any, **__: Any) -> Any:
        order.append(keep_rate)
        now[0] += 5.0
        on_window(1.0)
        first_time(keep_rate, 0)
        now[0] += next(working[keep_rate])
        yield from (
            FilePrediction(path, [], scores=np.full(8, 0.125, np.float32), timeline=()) for path in selection.files
        )

    true_windows = module.decoded_windows

    def fake_windows(*arguments: Any, **options: Any) -> Any:
        now[0] += 5.0
        for number, event in enumerate(true_windows(*arguments, **options)):
            now[0] += 0.9 if number == 1 else 0.0
            yield event

    true_prepare, true_forward = TorchModel.prepare, AudioTransformer.forward

    def fake_prepare(backend: TorchModel, waveforms: Any) -> Any:
        now[0] += 0.9
        return true_prepare(backend, waveforms)

    def fake_forward(model: AudioTransformer, values: torch.Tensor, *, pruning: Pruning, **rest: Any) -> Any:
        first_time(pruning.keep_rate, len(values))
        return true_forward(model, values, pruning=pruning, **rest)

    model = make_model(SINGLE)
    monkeypatch.setattr(module, "time", Clock())
    monkeypatch.setattr(module, "predict_files", fake_predict)
    monkeypatch.setattr(module, "decoded_windows", fake_windows)
    monkeypatch.setattr(TorchModel, "prepare", fake_prepare)
    monkeypatch.setattr(AudioTransformer, "forward", fake_forward)
    found = compare([folder], model, (1.0, 0.5), passes=3, batch_size=1000)
    assert order == [1.0, 0.5] * 3
    assert warm == {1.0: found.facts["windows"], 0.5: found.facts["windows"]}
    dense, pruned = found.rows
    assert [dense[name] for name in ("files_q1_ms", "files_ms", "files_q3_ms")] == pytest.approx([1500, 2000, 2500])
    assert (pruned["files_ms"], pruned["files_per_second"], pruned["files_speed_up"]) == pytest.approx((500, 2, 4))
    assert (found.facts["read_ms"], found.facts["input_ms"]) == pytest.approx((100, 200))
    assert (dense["read_share"], pruned["read_share"]) == pytest.approx((0.05, 0.2))
    assert found.facts["start_seconds"] == pytest.approx(5.0)


def test_dense_is_run_for_the_comparison_where_it_is_not_asked_for(folder: Path) -> None:
    model = make_model(SINGLE)
    model.train()
    with_dense = compare([folder], model, (1.0, 0.5), passes=1)
    alone = compare([folder], model, (0.5,), passes=1)
    assert [row["keep_rate"] for row in alone.rows] == [0.5]
    untimed = {name: value for name, value in alone.rows[0].items() if name not in OF_TIME}
    assert untimed == pytest.approx({name: with_dense.rows[1][name] for name in untimed})
    assert model.training
    assert model.config.keep_rate == 1.0


def test_the_untimed_batch_is_one_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any pass that tags: there the run ends."""
    heard = []
    true_forward = AudioTransformer.forward

    def fake_forward(model: AudioTransformer, values: torch.Tensor, *, pruning: Pruning, **rest: Any) -> Any:
        heard.append((pruning.keep_rate, len(values)))
        return true_forward(model, values, pruning=pruning, **rest)

    monkeypatch.setattr(AudioTransformer, "forward", fake_forward)
    monkeypatch.setattr(module, "predict_files", None)
    with pytest.raises(TypeError):
        compare([folder], make_model(SINGLE), (1.0, 0.5, 0.3), batch_size=4)
    assert heard == [(1.0, 4), (0.5, 4), (0.3, 4)]


def test_a_model_in_another_precision_is_compared_with_what_is_given(folder: Path) -> None:
    model = make_model(SINGLE)
    rounded = copy.deepcopy(model).to(torch.bfloat16)
    wanted = scores_by_hand(folder, model, 1.0)
    told: list[tuple[str, int, int]] = []
    found = compare(
        [folder], rounded, (1.0, 0.5), dense=model, passes=1, on_progress=lambda *how_far: told.append(how_far)
    )
    assert told[-1] == ("clips", 9 * 5, 9 * 5)
    assert found.facts["dense_precision"] == "float32"
    for row in found.rows:
        change = np.abs(scores_by_hand(folder, rounded, row["keep_rate"]) - wanted)
        assert row["largest_change"] == pytest.approx(change.max(), rel=1e-3)
        assert row["clip_change"] == pytest.approx(change.max(axis=1).mean(), rel=1e-3)
        assert 0 < row["clip_change_low"] <= row["clip_change"] <= row["clip_change_high"]
    with pytest.raises(InvalidSetting, match=r"^dense is 'a model of 5 labels'; allowed: one with the same labels$"):
        compare([folder], rounded, (1.0, 0.5), dense=make_model(SINGLE, labels=5))


@pytest.mark.parametrize("front_end", [False, True])
def test_an_exported_model_is_timed_and_compared_with_nothing(folder: Path, front_end: bool) -> None:
    from spectrim.inference.onnx_model import OnnxModel

    model, path = exported("ast" if front_end else "audiomae", front_end=front_end)
    found = compare([folder], OnnxModel(path), passes=1)
    [row] = found.rows
    assert set(row) == {"keep_rate", "paper_macs", "executed_macs"} | OF_TIME
    assert (row["keep_rate"], row["executed_macs"]) == (0.6, macs(model).executed)
    assert found.facts["clips"] == 9
    [beside] = compare([folder], OnnxModel(path), dense=model, passes=1).rows
    change = np.abs(scores_by_hand(folder, model, 0.6) - scores_by_hand(folder, model, 1.0))
    assert beside["largest_change"] == pytest.approx(change.max(), abs=1e-4)
    with pytest.raises(InvalidSetting, match=r"^keep_rate is 0.5; allowed: nothing here: .* was exported at 0.6"):
        compare([folder], OnnxModel(path), [0.5])


# Which clips


def test_limit_takes_files_evenly_spread(folder: Path) -> None:
    every = choose_clips([folder]).files
    assert len(every) == 11
    assert choose_clips([folder], 3).files == [every[0], every[5], every[10]]
    assert choose_clips([folder], 100).files == every
    assert choose_clips([folder], 1).files == [every[0]]


def test_clips_that_are_not_there_are_refused_before_any_work(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "none").mkdir()
    for paths, message in (
        ([tmp_path / "no such folder"], r"^clips is '.*no such folder'; allowed: a folder, file or pattern"),
        ([folder, tmp_path / "nothing.wav"], "^clips is '.*nothing.wav'"),
        ([tmp_path / "none"], "no audio file in this folder"),
        ([tmp_path / "*.wav"], "no audio file matches this pattern"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            choose_clips(paths)
    assert len(compare([folder, tmp_path / "none"], make_model(SINGLE), [0.5], passes=1).errors) == 3


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(SpectrimError, match=r"^none of the 1 clips can be read; the first: .*a.wav: empty file"):
        compare([tmp_path], make_model(SINGLE), passes=1)


def test_a_file_that_changes_on_the_way_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes((folder / "1.wav").read_bytes())

    def spoil(stage: str, *_: int) -> None:
        if stage == "clips":
            path.write_bytes(b"")

    with pytest.raises(AudioError, match=r"a.wav: empty file \(0 bytes\); it could be read a moment ago$"):
        compare([path], make_model(SINGLE), (1.0, 0.5), passes=2, on_progress=spoil)


def test_scores_that_are_no_numbers_are_named(folder: Path) -> None:
    model = make_model(SINGLE)
    with torch.no_grad():
        next(iter(model.parameters())).fill_(torch.nan)
    with pytest.raises(SpectrimError, match=r"0.wav: NaN or infinite scores at keep rate 1$"):
        compare([folder], model, (1.0,), passes=1)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"keep_rates": [1.0, 0.0]}, "keep_rate"),
        ({"keep_rates": []}, "keep_rates"),
        ({"passes": 0}, "passes"),
        ({"batch_size": 0}, "batch_size"),
        ({"workers": 0}, "workers"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    folder: Path, options: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "decoded_windows", None)
    with pytest.raises(InvalidSetting) as caught:
        compare([folder], make_model(SINGLE), **options)
    assert caught.value.field == field


def test_limit_0_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"^limit is 0; allowed: 1 or more$"):
        choose_clips([folder], 0)
