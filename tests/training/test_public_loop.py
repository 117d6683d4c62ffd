"""Twenty steps of our training beside the public code's losses; how they were recorded: reference/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from seeded import seeded_input, seeded_state
from torch.utils.data import DataLoader

from spectrim.checkpoints import from_pretrained
from spectrim.training.finetune import FineTuningRun, build_trainer
from spectrim.training.recipes import Recipe

HERE = Path(__file__).parents[1] / "reference"
RECORDED = json.loads((HERE / "shapes.json").read_text())
LOSSES = json.loads((HERE / "losses.json").read_text())
CLIPS, FRAMES, LABELS = 16, 128, 10

COMMON = {"optimiser": {"batch_size": 8, "epochs": 10, "max_grad_norm": 0}}
RECIPES: dict[str, dict[str, Any]] = {
    "ast": {
        "loss": "binary_cross_entropy",
        "optimiser": {
            **COMMON["optimiser"],
            "name": "adam",
            "learning_rate": 2.5e-4,
            "betas": [0.95, 0.999],
            "weight_decay": 5e-7,
            "decay": "all",
        },
        "schedule": {"kind": "step", "start": 2, "every": 1, "factor": 0.85},
        "pruning": {"keep_rate": 0.5, "shrink_start": 3, "shrink_epochs": 4, "anneal_every": "epoch"},
    },
    "audiomae": {
        "optimiser": {
            **COMMON["optimiser"],
            "learning_rate": 1e-3,
            "betas": [0.9, 0.95],
            "weight_decay": 1e-4,
            "layer_decay": 0.75,
        },
        "schedule": {"kind": "cosine", "warmup_epochs": 4, "warmup_form": "from_zero", "final": 1e-5},
        "pruning": {"keep_rate": 0.5, "shrink_start": 4, "shrink_epochs": 4, "anneal_every": "epoch"},
    },
}
"""AST's epochs are counted from 1, so its ``shrink_start_epoch`` of 4 is 3 here; all else is as it was recorded."""


def losses_of(family: str, folder: Path) -> list[float]:
    """The losses of ten epochs of two steps, from weights and spectrograms that a seed makes, without a shuffle."""
    plan = Recipe(
        **{"name": family, "data": {"name": "csv"}, "tensorboard": False, **RECIPES[family]},
        evaluation={"every_epochs": 10, "first_epoch": 10, "choose": "last", "test_keep_rates": []},
    )
    shapes = dict(RECORDED["shapes"][family])
    if family == "ast":
        shapes["module.v.pos_embed"] = [1, 2 + FRAMES // 2, 128]
    state = seeded_state(shapes, RECORDED["seed"])
    torch.save(state if family == "ast" else {"model": state}, folder / "start.pth")
    cut = "auto" if family == "ast" else "reference_compat"
    step = 16 if family == "ast" else None
    model = from_pretrained(folder / "start.pth", stride=step, frames=FRAMES, positions=cut, drop_path_rate=0.0)
    model.config.problem_type = f"{'multi' if family == 'ast' else 'single'}_label_classification"
    inputs = seeded_input(FRAMES, RECORDED["seed"], CLIPS)
    targets = torch.nn.functional.one_hot(torch.arange(CLIPS) * 7 % LABELS, LABELS).float()
    batches = [
        {"input_values": x, "labels": y, "num_frames": torch.full((8,), FRAMES), "counted": torch.ones(8).bool()}
        for x, y in zip(inputs.split(8), targets.split(8), strict=True)
    ]
    parts: Any = dict.fromkeys(("train", "validation", "test"), Sized())
    trainer = build_trainer(
        FineTuningRun(plan, folder / "run", None, "accuracy", parts, model), progress=False, say=None
    )
    losses: list[float] = []
    computed = trainer.compute_loss

    def recording(*args: Any, **kwargs: Any) -> Any:
        loss = computed(*args, **kwargs)
        losses.append(loss.item())
        return loss

    trainer.compute_loss = recording  # type: ignore[method-assign]
    trainer.evaluate = lambda *args, **kwargs: {}  # type: ignore[method-assign]
    trainer.get_train_dataloader = lambda: DataLoader(batches, batch_size=None)  # type: ignore[method-assign, arg-type]
    trainer.train()
    return losses


class Sized:
    """A part of a data set of which only the size is asked."""

    def __len__(self) -> int:
        return CLIPS


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("family", ["ast", "audiomae"])
def test_twenty_steps_have_the_losses_of_the_public_loop(family: str, tmp_path: Path) -> None:
    assert losses_of(family, tmp_path) == pytest.approx(LOSSES[family], rel=1e-5)
