"""Losses against torch's own and their definitions, and labels that cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.network.losses import classification_loss, logit_distillation, ratio_loss, token_distillation

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])


@pytest.mark.parametrize("labels", [[2, 0], np.array([2, 0]), np.array([2, 0], np.int16)])
def test_numbers_of_labels(labels: Any) -> None:
    given = torch.tensor(labels) if isinstance(labels, list) else labels
    loss = classification_loss(LOGITS, given, multi_label=False)
    torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, torch.tensor([2, 0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_targets(dtype: torch.dtype) -> None:
    targets = torch.tensor([[0, 0, 1], [1, 0, 0]])
    several = classification_loss(LOGITS, targets.to(dtype), multi_label=True)
    torch.testing.assert_close(several, functional.binary_cross_entropy_with_logits(LOGITS, targets.float()))
    one = classification_loss(LOGITS, targets.to(dtype), multi_label=False)
    torch.testing.assert_close(one, functional.cross_entropy(LOGITS, torch.tensor([2, 0])))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 3]), "labels is 'from 0 to 3'; allowed: numbers of labels, 0 to 2"),
        (torch.tensor([-100, 1]), "from -100 to 1"),
        (torch.tensor([0.0, 1.0]), "of type torch.float32'; allowed: whole numbers"),
        (torch.tensor([True, False]), "of type torch.bool"),
        (torch.tensor([[0.0, 2.0, 0.0]] * 2), "from 0 to 2'; allowed: numbers from 0 to 1 for each label"),
        (torch.tensor([[0.0, torch.nan, 0.0]] * 2), "from nan to nan"),
        ([0, 1], r"labels is \[0, 1\]; allowed: a tensor"),
        (torch.zeros(2, 3, dtype=torch.complex64), "of type torch.complex64"),
    ],
)
def test_labels_that_cannot_be(labels: Any, words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        classification_loss(LOGITS, labels, multi_label=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_several_labels_a_clip_are_not_for_one_softmax(dtype: torch.dtype) -> None:
    targets = torch.tensor([[0, 0, 1], [1, 1, 0]]).to(dtype)
    with pytest.raises(InvalidSetting, match=r'sum of 2 for one clip.*problem_type="multi_label_classification"'):
        classification_loss(LOGITS, targets, multi_label=False)
    assert classification_loss(LOGITS, targets, multi_label=True).isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_mixed_and_smoothed_targets_are_one_label(dtype: torch.dtype) -> None:
    mixed = torch.rand(64, 1, generator=torch.Generator().manual_seed(0)) * torch.eye(527)[:64]
    mixed = mixed + (1 - mixed.sum(dim=1, keepdim=True)) * torch.eye(527)[64:128]
    smoothed = (0.9 * mixed + 0.1 / 527).to(dtype)
    logits = torch.zeros(64, 527)
    expected = functional.cross_entropy(logits, smoothed.float())
    torch.testing.assert_close(classification_loss(logits, smoothed, multi_label=False), expected)


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 4), (2, 1), (), (2, 3, 1)])
@pytest.mark.parametrize("multi_label", [False, True])
def test_labels_of_another_width(shape: tuple[int, ...], multi_label: bool) -> None:
    with pytest.raises(InputShapeError, match="labels has shape"):
        classification_loss(LOGITS, torch.zeros(shape), multi_label=multi_label)


def test_shares_are_of_what_entered_and_rates_multiply() -> None:
    entered = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
    first, second = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0]]), torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0]])
    wanted = [(0.75 - 0.5) ** 2 + (0.5 - 0.5) ** 2, (0.25 - 0.4) ** 2 + (0.5 - 0.4) ** 2]
    assert ratio_loss([entered, first, second], [0.5, 0.8]).item() == pytest.approx(sum(wanted) / 4)


def test_distillation_is_torch_s_divergence_and_nothing_between_equals() -> None:
    teacher = torch.tensor([[1.0, 0.0, -1.0], [3.0, 0.5, 0.0]])
    one, other = (torch.distributions.Categorical(logits=logits) for logits in (teacher, LOGITS))
    wanted = torch.distributions.kl_divergence(one, other).mean()
    torch.testing.assert_close(logit_distillation(LOGITS, teacher, multi_label=False), wanted)
    one, other = (torch.distributions.Bernoulli(logits=logits) for logits in (teacher, LOGITS))
    wanted = torch.distributions.kl_divergence(one, other).mean()
    torch.testing.assert_close(logit_distillation(LOGITS, teacher, multi_label=True), wanted)
    for several in (False, True):
        assert logit_distillation(teacher, teacher, multi_label=several).item() == pytest.approx(0.0, abs=1e-7)


def test_tokens_that_are_left_are_compared_and_no_others() -> None:
    ours, theirs = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 3.0], [9.0, 9.0], [0.0, 2.0]]])
    assert token_distillation(ours, theirs, torch.tensor([[True, False, True]])).item() == pytest.approx(14.0 / 4)
    assert token_distillation(ours, theirs, torch.zeros(1, 3, dtype=torch.bool)).item() == 0.0
