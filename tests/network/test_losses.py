"""Classification losses against torch's own, and labels that cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.network.losses import classification_loss

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


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 4), (2, 1), (), (2, 3, 1)])
@pytest.mark.parametrize("multi_label", [False, True])
def test_labels_of_another_width(shape: tuple[int, ...], multi_label: bool) -> None:
    with pytest.raises(InputShapeError, match="labels has shape"):
        classification_loss(LOGITS, torch.zeros(shape), multi_label=multi_label)
