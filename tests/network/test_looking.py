"""What looks at values does not where there are none to look at."""

from __future__ import annotations

import pytest
import torch
from plain import clips, small_model
from torch._subclasses.fake_tensor import FakeTensorMode

from spectrim.network.looking import may_look
from spectrim.pruning.pruning import Pruning

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
SHALLOW = {"num_hidden_layers": 3, "prune_at": [1], "keep_rate": 0.6}


def test_values_are_looked_at_where_there_are_some() -> None:
    assert may_look(torch.ones(2, 3)) and may_look(torch.tensor(1)) and may_look(torch.ones(1, dtype=torch.bool))
    assert not may_look(torch.ones(0, 3)) and not may_look(torch.ones(1, device="meta"))


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_gradients_of_each_clip(problem: str) -> None:
    model = small_model("ast", problem_type=problem, **SHALLOW)
    values, targets = clips(model.config, batch=3), torch.eye(5, dtype=torch.float64)[[0, 4, 2]]
    weights = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def loss(weights: dict, clip: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        given = {"input_values": clip.unsqueeze(0), "labels": target.unsqueeze(0)}
        return torch.func.functional_call(model, weights, kwargs=given).loss

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, values, targets)
    for clip in range(3):
        model.zero_grad()
        model(values[clip : clip + 1], labels=targets[clip : clip + 1]).loss.backward()
        for name in ("head.linear.weight", "blocks.0.attention.query.weight", "embeddings.projection.weight"):
            torch.testing.assert_close(found[name][clip], model.get_parameter(name).grad, **CLOSE)


@pytest.mark.parametrize(("backbone", "criterion"), [("ast", "auto"), ("ast", "random"), ("beats", "random")])
def test_shapes_without_values(backbone: str, criterion: str) -> None:
    model = small_model(backbone, criterion=criterion, **SHALLOW)
    values, pruning = clips(model.config), Pruning(0.6, at=(1,), criterion=criterion, seed=71)
    with FakeTensorMode() as mode:
        weights = {name: mode.from_tensor(value) for name, value in model.state_dict(keep_vars=True).items()}
        given = {"input_values": mode.from_tensor(values), "labels": torch.tensor([0, 1]), "pruning": pruning}
        out = torch.func.functional_call(model, weights, kwargs=given)
    assert out.logits.shape == (2, 5) and out.loss.shape == ()
    assert model(values, pruning=pruning).logits.isfinite().all()
