from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from spectrim.audio.frontend import Frontend
from spectrim.backbones import ast_base
from spectrim.data import Clip
from spectrim.training.augment import (
    NOISE_LEVEL,
    ROLL_FRAMES,
    Draw,
    TrainingClip,
    TrainingClips,
    apply,
    change_speed,
    draw,
    mix,
    pitch_sources,
    smooth_targets,
    structured_mask,
)
from spectrim.training.recipes import AugmentSettings

FRAMES, MELS, GRID, RATE = 64, 128, (8, 4), 16000
EVERYTHING = {
    "mixup": 0.5,
    "time_mask": 20,
    "frequency_mask": 40,
    "noise": True,
    "roll_and_gain": True,
    "mask_time": 0.5,
    "mask_frequency": 0.25,
    "speed": [0.8, 0.9, 1.1, 1.25],
    "pitch": [0.9, 1.1, 1.2],
}


class Part:
    """Clips of different lengths, levels and offsets, in memory."""

    def __init__(self, count: int = 6) -> None:
        generator = np.random.default_rng(0)
        self.clips = [
            Clip(
                (0.1 * (k + 1) + generator.standard_normal(200 + 30 * k)).astype(np.float32),
                np.eye(count, dtype=np.float32)[k],
                f"clip {k}",
                stand_in=k == 2,
            )
            for k in range(count)
        ]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        return self.clips[index]


def training(seed: int = 7, part: Any = None, **chosen: Any) -> TrainingClips:
    return TrainingClips(part or Part(), AugmentSettings(**chosen), seed)


def drawn_for(clip: TrainingClip, **chosen: Any) -> dict[str, torch.Tensor]:
    return draw(AugmentSettings(**chosen), [clip], FRAMES, MELS, GRID, RATE)


def a_clip(seed: int) -> TrainingClip:
    return TrainingClip(np.zeros(1, np.float32), np.zeros(1, np.float32), "clip", random=np.random.default_rng(seed))


# Waveforms


def test_without_augmentations_clips_are_as_they_were() -> None:
    part = Part()
    for index, clip in enumerate(part.clips):
        made = training(part=part)[index]
        assert made.waveform is clip.waveform
        assert (made.target is clip.target, made.id, made.stand_in) == (True, clip.id, clip.stand_in)


samples = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40).map(lambda v: np.array(v, dtype=np.float32))


@given(first=samples, second=samples, share=st.floats(0, 1))
def test_mixup_adds_waveforms_without_their_means(first: np.ndarray, second: np.ndarray, share: float) -> None:
    other = np.zeros(len(first))
    for k in range(min(len(first), len(second))):
        other[k] = second[k] - second.mean(dtype=np.float64)
    expected = share * (first - first.mean(dtype=np.float64)) + (1 - share) * other
    mixed = mix(first, second, share)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, expected, atol=1e-5)


def test_mixup_with_an_empty_waveform_is_silence_beside_the_first() -> None:
    first = np.array([1.0, 3.0], dtype=np.float32)
    assert mix(first, np.zeros(0, np.float32), 0.5).tolist() == [-0.5, 0.5]


def test_mixup_mixes_labels_with_the_share_of_the_waveforms() -> None:
    part, clips = Part(), training(mixup=1.0)
    partners, shares = set(), []
    for epoch in range(40):
        clips.set_epoch(epoch)
        made, first = clips[1], part.clips[1]
        share = 1 - sum(made.target[k] for k in range(6) if k != 1)
        others = [k for k in range(6) if k != 1 and made.target[k] > 0]
        partner = others[0] if others else 1
        assert len(others) <= 1
        assert made.target.sum() == pytest.approx(1)
        if others:
            np.testing.assert_allclose(
                made.waveform, mix(first.waveform, part.clips[partner].waveform, share), atol=1e-5
            )
            shares.append(share)
        partners.add(partner)
    assert partners == set(range(6))
    assert 0.2 < min(shares) < 0.45
    assert 0.55 < max(shares) < 0.8


@pytest.mark.parametrize("alpha", [10.0, 0.5])
def test_the_share_is_drawn_from_beta(alpha: float) -> None:
    """Mean one half and variance 1 / (4·(2α + 1)) of Beta(α, α), within four standard errors."""
    clips, shares = training(mixup=1.0, mixup_alpha=alpha), []
    for epoch in range(400):
        clips.set_epoch(epoch)
        for index in range(6):
            target = clips[index].target
            if target[index] < 1:
                shares.append(target[index])
    variance = 1 / (4 * (2 * alpha + 1))
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * (variance / len(shares)) ** 0.5)
    assert np.var(shares) == pytest.approx(variance, rel=0.15)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_so_many_clips_are_mixed(probability: float) -> None:
    clips, mixed, part = training(mixup=probability), 0, Part()
    for epoch in range(200):
        clips.set_epoch(epoch)
        mixed += sum(not np.array_equal(clips[index].waveform, part[index].waveform) for index in range(6))
    assert mixed / 1200 == pytest.approx(probability, abs=0.06)
    assert probability not in (0.0, 1.0) or mixed / 1200 == probability


def test_roll_and_gain_keep_the_circle_of_samples() -> None:
    part, clips, rolls, gains = Part(), training(roll_and_gain=True), set(), []
    for epoch in range(60):
        clips.set_epoch(epoch)
        made, first = clips[3].waveform, part[3].waveform
        gain = np.abs(made).max() / np.abs(first).max()
        roll = (int(np.abs(made).argmax()) - int(np.abs(first).argmax())) % len(first)
        np.testing.assert_allclose(made, gain * np.roll(first, roll), rtol=1e-5, atol=1e-6)
        rolls.add(roll)
        gains.append(gain)
    assert len(rolls) > 40
    assert 0.5 < min(gains) < 0.9 < 1.1 < max(gains) < 1.5
    assert np.mean(gains) == pytest.approx(1.0, abs=0.06)


def test_an_empty_clip_survives_roll_and_gain() -> None:
    part = Part()
    part.clips[0] = Clip(np.zeros(0, np.float32), np.eye(6, dtype=np.float32)[0], "empty")
    assert len(training(part=part, roll_and_gain=True)[0].waveform) == 0


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_a_faster_tone_is_a_shorter_and_higher_tone(factor: float) -> None:
    """Sample t is the sine at t·factor: exactly, but for the resampler's edges and rounding."""
    tone = np.sin(2 * np.pi * 437.0 / 16000 * np.arange(16000)).astype(np.float32)
    made = change_speed(tone, factor)
    assert len(made) == pytest.approx(16000 / factor, abs=1)
    expected = np.sin(2 * np.pi * 437.0 * factor / 16000 * np.arange(len(made)))
    np.testing.assert_allclose(made[300:-300], expected[300:-300], atol=2e-4)


def test_speeds_are_drawn_from_the_list_for_both_clips_of_a_mixture() -> None:
    clips, lengths = training(speed=[0.5, 1.0, 2.0]), set()
    for epoch in range(40):
        clips.set_epoch(epoch)
        lengths.add(len(clips[3].waveform))
    assert lengths == {145, 290, 580}
    empty = np.zeros(0, np.float32)
    assert change_speed(empty, 1.1) is empty


# Spectrograms


@pytest.mark.parametrize(("factor", "rate"), [(0.85, 16000), (1.0, 16000), (1.2, 16000), (1.2, 8000)])
def test_another_pitch_is_the_spectrum_read_at_other_frequencies(factor: float, rate: int) -> None:
    """Against numpy's interpolation over frequencies on the mel scale, written out."""
    centres = 700 * (np.exp(np.linspace(*1127 * np.log1p(np.array([20, rate / 2]) / 700), MELS + 2)[1:-1] / 1127) - 1)
    values = torch.randn(2, FRAMES, MELS, generator=torch.Generator().manual_seed(0))
    drawn = draw(AugmentSettings(pitch=[factor]), [a_clip(0), a_clip(1)], FRAMES, MELS, GRID, rate)
    made = apply(values, drawn, 0.0).numpy()
    mel = 1127 * np.log1p(centres / 700)
    wanted = 1127 * np.log1p(centres / factor / 700)
    for clip, changed in zip(values.numpy(), made, strict=True):
        expected = np.stack([np.interp(wanted, mel, frame) for frame in clip])
        np.testing.assert_allclose(changed, expected, atol=2e-4)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_tone_of_another_pitch_has_its_peak_where_the_other_tone_has_it(factor: float) -> None:
    frontend = Frontend.from_config(ast_base(max_length=FRAMES))
    at = [torch.from_numpy(np.sin(2 * np.pi * f / 16000 * np.arange(9600))) for f in (1500.0, 1500.0 * factor)]
    low, high = frontend([wave.float() for wave in at]).input_values[:, 10:40].mean(1)
    drawn = {"pitch": torch.from_numpy(pitch_sources(factor, MELS, RATE))[None]}
    made = apply(low[None, None], drawn, 0.0)[0, 0]
    assert abs(int(made.argmax()) - int(high.argmax())) <= 1


def test_stripes_are_narrower_than_their_widest_and_inside() -> None:
    widths: dict[str, list[int]] = {"mels": [], "frames": []}
    for seed in range(400):
        first_mel, end_mel, first_frame, end_frame = drawn_for(a_clip(seed), frequency_mask=24, time_mask=30)[
            "stripes"
        ][0]
        assert 0 <= first_mel <= end_mel <= MELS
        assert 0 <= first_frame <= end_frame <= FRAMES
        widths["mels"].append(int(end_mel - first_mel))
        widths["frames"].append(int(end_frame - first_frame))
    assert set(widths["mels"]) == set(range(24))
    assert set(widths["frames"]) == set(range(30))


def test_a_stripe_that_is_not_asked_for_is_empty_and_a_wide_one_fits() -> None:
    for seed in range(50):
        first_mel, end_mel, first_frame, end_frame = drawn_for(a_clip(seed), time_mask=200)["stripes"][0]
        assert first_mel == end_mel
        assert 0 <= first_frame <= end_frame <= FRAMES
    assert drawn_for(a_clip(0)) == {}


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_stripes_are_blanked_and_nothing_else(seed: int) -> None:
    values = torch.randn(2, FRAMES, MELS, generator=torch.Generator().manual_seed(seed))
    chosen = AugmentSettings(time_mask=30, frequency_mask=60)
    drawn = draw(chosen, [a_clip(seed), a_clip(seed + 1)], FRAMES, MELS, GRID, RATE)
    expected = values.numpy().copy()
    for clip, (first_mel, end_mel, first_frame, end_frame) in zip(expected, drawn["stripes"].tolist(), strict=True):
        clip[:, first_mel:end_mel] = 0.25
        clip[first_frame:end_frame] = 0.25
    assert np.array_equal(apply(values, drawn, 0.25).numpy(), expected)


def test_the_blank_is_what_a_log_mel_value_of_zero_becomes() -> None:
    """The front end pads log-mel values with zeros and normalises them: its padding is the value to compare with."""
    config = ast_base(max_length=FRAMES, mean=-5.0, std=3.0, padding="zero")
    values = Frontend.from_config(config)([torch.zeros(1600)]).input_values
    assert values[0, -1].tolist() == pytest.approx([-config.mean / (2 * config.std)] * MELS)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_noise_is_added_and_then_all_is_rolled(seed: int) -> None:
    values = torch.randn(3, FRAMES, MELS, generator=torch.Generator().manual_seed(seed))
    drawn = draw(AugmentSettings(noise=True), [a_clip(seed + k) for k in range(3)], FRAMES, MELS, GRID, RATE)
    made = apply(values, drawn, 0.0).numpy()
    for k in range(3):
        expected = np.roll((values[k] + drawn["noise"][k]).numpy(), int(drawn["roll"][k]), axis=0)
        assert np.array_equal(made[k], expected)


def test_noise_has_a_drawn_level_and_rolls_either_way() -> None:
    drawn = draw(AugmentSettings(noise=True), [a_clip(seed) for seed in range(300)], FRAMES, MELS, GRID, RATE)
    highest = drawn["noise"].amax(dim=(1, 2))
    assert drawn["noise"].min() >= 0
    assert NOISE_LEVEL == 0.1
    assert 0 < highest.min() < 0.01
    assert 0.09 < highest.max() < 0.1
    uniform = drawn["noise"] / highest[:, None, None]
    assert uniform.mean(dim=(1, 2)).sub(0.5).abs().max() < 0.02
    assert set(drawn["roll"].tolist()) == set(range(-ROLL_FRAMES, ROLL_FRAMES + 1))


def test_each_clip_of_a_batch_has_its_own_patches() -> None:
    chosen = AugmentSettings(mask_time=0.5, mask_frequency=0.25)
    visible = draw(chosen, [a_clip(seed) for seed in range(8)], FRAMES, MELS, GRID, RATE)["visible_patches"]
    assert visible.shape == (8, 6 * 2)
    assert len({tuple(sorted(clip.tolist())) for clip in visible}) > 4


# The same whatever the order


def everything(clip: TrainingClip) -> dict[str, Any]:
    """What training sees of a clip."""
    return {"waveform": clip.waveform, "target": clip.target, **drawn_for(clip, **EVERYTHING)}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_what_is_drawn_depends_on_seed_epoch_and_clip_alone() -> None:
    clips = training(**EVERYTHING)
    clips.set_epoch(3)
    forwards = [everything(clips[index]) for index in range(6)]
    clips.set_epoch(5)
    _ = [everything(clips[index]) for index in range(6)]
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    clips.set_epoch(3)
    backwards = [everything(clips[index]) for index in reversed(range(6))]
    assert all(same(*pair) for pair in zip(forwards, reversed(backwards), strict=True))
    for name in forwards[0]:
        per_clip = {np.asarray(one[name]).tobytes() for one in forwards}
        assert len(per_clip) > 1, name


def test_a_clip_that_comes_again_in_an_epoch_is_another_draw() -> None:
    clips = training(**EVERYTHING)
    once, again, twice = (everything(clips[draw]) for draw in (3, Draw(3, 0), Draw(3, 1)))
    assert same(once, again) and not same(once, twice)
    assert same(twice, everything(clips[Draw(3, 1)])) and not same(twice, everything(clips[Draw(3, 2)]))


@pytest.mark.parametrize("change", ["epoch", "seed"])
def test_a_new_epoch_or_seed_draws_anew(change: str) -> None:
    one, other = training(seed=7, **EVERYTHING), training(seed=8 if change == "seed" else 7, **EVERYTHING)
    other.set_epoch(1 if change == "epoch" else 0)
    first, second = ([everything(clips[index]) for index in range(6)] for clips in (one, other))
    for name in ("waveform", "stripes", "noise", "visible_patches"):
        assert not any(np.array_equal(a[name], b[name]) for a, b in zip(first, second, strict=True)), name


@pytest.mark.parametrize("epoch", [0, 4])
def test_worker_processes_change_nothing(epoch: int) -> None:
    clips = training(**EVERYTHING)
    clips.set_epoch(epoch)
    loads = [
        [everything(clip) for batch in DataLoader(clips, 2, num_workers=workers, collate_fn=list) for clip in batch]
        for workers in (0, 2)
    ]
    assert len(loads[0]) == 6
    assert all(same(*pair) for pair in zip(*loads, strict=True))


# Masking and smoothing


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 64),
    time=st.floats(0, 0.99),
    frequency=st.floats(0, 0.99),
    batch=st.integers(1, 4),
)
def test_masking_keeps_whole_rows_and_columns(
    rows: int, columns: int, time: float, frequency: float, batch: int
) -> None:
    kept = structured_mask(batch, (rows, columns), time, frequency)
    kept_columns, kept_rows = max(1, int(columns * (1 - time))), max(1, int(rows * (1 - frequency)))
    assert kept.shape == (batch, kept_rows * kept_columns)
    for clip in kept:
        assert len(set(clip.tolist())) == len(clip)
        assert len({index // columns for index in clip.tolist()}) == kept_rows
        assert len({index % columns for index in clip.tolist()}) == kept_columns
    assert kept.min() >= 0
    assert kept.max() < rows * columns


def test_each_clip_is_masked_anew() -> None:
    torch.manual_seed(0)
    kept = structured_mask(8, (8, 64), 0.3, 0.3).sort(dim=1).values
    assert len({tuple(clip.tolist()) for clip in kept}) == 8


def test_smoothing_moves_that_share_to_all_labels() -> None:
    targets = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert torch.allclose(smooth_targets(targets, 0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]))
    assert torch.equal(smooth_targets(targets, 0.0), targets)


def test_smoothing_of_several_labels_moves_each_towards_one_half() -> None:
    targets = torch.tensor([[1.0, 1.0, 0.0]])
    assert torch.allclose(smooth_targets(targets, 0.2, multi_label=True), torch.tensor([[0.9, 0.9, 0.1]]))
