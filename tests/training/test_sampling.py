from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from small_runs import recipe, write_words

from spectrim.data import AudioDataset, Recording
from spectrim.errors import InvalidSetting
from spectrim.training.finetune import build_trainer, prepare, train
from spectrim.training.recipes import SamplingSettings
from spectrim.training.sampling import BalancedSampler, clip_weights, epoch_size

LABELS = [(0,), (0, 1), (0, 2), (1,), (), (0,)]


def a_part() -> AudioDataset:
    recordings = [Recording(Path(f"{number}.wav"), labels, str(number)) for number, labels in enumerate(LABELS)]
    return AudioDataset(recordings, ["a", "b", "c"], multi_label=True)


def test_a_clip_weighs_the_sum_of_its_labels_rarity() -> None:
    """Label a occurs 4 times, b twice, c once."""
    a, b, c = 1000 / 104, 1000 / 102, 1000 / 101
    assert clip_weights(a_part()).tolist() == pytest.approx([a, a + b, a + c, b, 0, a])


def drawn(epoch: int, number: int, weights: Any = (1.0, 2.0, 0.0, 5.0), *, replacement: bool = True) -> list[int]:
    clips = SimpleNamespace(epoch=epoch)
    sampler = BalancedSampler(torch.tensor(weights), number, replacement=replacement, clips=clips, seed=3)
    assert len(sampler) == number
    draws = list(sampler)
    assert len(set(draws)) == number, "a clip that comes again says how often it came before"
    assert {draw.before for draw in draws} == set(range(max(Counter(draw.clip for draw in draws).values())))
    return [draw.clip for draw in draws]


def test_clips_come_as_often_as_they_weigh() -> None:
    shares = np.bincount(drawn(0, 8000), minlength=4) / 8000
    np.testing.assert_allclose(shares, np.array([1, 2, 0, 5]) / 8, atol=4 * (0.25 / 8000) ** 0.5)


def test_a_draw_depends_on_seed_and_epoch_alone_and_may_be_without_replacement() -> None:
    assert drawn(4, 50) == drawn(4, 50) != drawn(5, 50)
    assert sorted(drawn(0, 3, replacement=False)) == [0, 1, 3]


def test_an_epoch_cannot_have_more_clips_than_there_are_without_replacement() -> None:
    assert epoch_size(SamplingSettings(), a_part()) == 6
    assert epoch_size(SamplingSettings(kind="balanced", clips_per_epoch=40), a_part()) == 40
    with pytest.raises(InvalidSetting, match=r"clips_per_epoch is 6; allowed: up to the 5 training clips with labels"):
        epoch_size(SamplingSettings(kind="balanced", replacement=False), a_part())
    with pytest.raises(ValidationError, match=r"clips_per_epoch is 3; allowed: none with kind: all"):
        SamplingSettings(clips_per_epoch=3)


def test_a_run_draws_its_epochs_and_ends_with_the_mean_of_its_last_checkpoints(tmp_path: Path) -> None:
    words = write_words(tmp_path / "words")
    plan = recipe(
        sampling={"kind": "balanced", "clips_per_epoch": 30},
        optimiser={"epochs": 4, "drop_last": True},
        evaluation={"choose": "average", "average_last": 3, "test_keep_rates": []},
    )
    trainer = build_trainer(prepare(plan, words, tmp_path / "trial"), progress=False, say=None)
    assert len(trainer.get_train_dataloader()) == 2
    results = train(plan, words, tmp_path / "run")
    assert results["chosen"]["averaged_steps"] == [4, 6, 8]
    states = [
        load_file(tmp_path / "run" / "checkpoints" / f"checkpoint-{step}" / "model.safetensors") for step in (4, 6, 8)
    ]
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
    for name, value in saved.items():
        expected = sum(state[name].double() for state in states) / 3
        assert torch.equal(value, expected.float()), name
    assert not torch.equal(saved["head.linear.weight"], states[-1]["head.linear.weight"])
