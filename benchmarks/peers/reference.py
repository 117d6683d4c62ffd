"""The paper's public models, from a checkout that the caller names; nothing of it is part of this repository.

    git clone https://github.com/andylee-24/token-pruning-audio-transformer REF
    pip install --target LIBS --no-deps timm==0.4.5 einops

Needed beside the checkout: timm 0.4.5, which its AST asks for, and einops, both in a folder of their own (``LIBS``).
Names that it imports and does not use when a model runs (wget, torchvision) stand empty where they are missing. Its
AST file does not compile as published: a dictionary display holds an assignment, which is repaired in memory.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

BROKEN = "{f'block-{self.block_id}.attn_score': attn_score = attn"
REPAIRED = "{f'block-{self.block_id}.attn_score': attn"
UNUSED = ("wget", "torchvision", "torchvision.transforms", "torchvision.transforms.functional")
BLOCKS = 12
PRUNE_AT = (3, 6, 9)


class _Anything(ModuleType):
    """A module in which every name is there and can be subclassed, called and read."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def _importable(libraries: Path) -> Iterator[None]:
    """Put timm 0.4.5 and einops before everything, and empty modules where an unused one is missing."""
    missing = [name for name in UNUSED if importlib.util.find_spec(name.partition(".")[0]) is None]
    for name in missing:
        sys.modules[name] = _Anything(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    sys.path.insert(0, str(libraries))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(libraries))
        for name in missing:
            del sys.modules[name]


def _module(path: Path, name: str) -> ModuleType:
    """Run a file of the checkout as a module, with the one line that does not compile repaired."""
    module = ModuleType(name)
    module.__file__ = str(path)
    source = path.read_text(encoding="utf-8").replace(BROKEN, REPAIRED)
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def ast(checkout: Path, libraries: Path, frames: int, labels: int) -> nn.Module:
    """Its AST-B/16 with random weights; input (batch, frames, mels)."""
    with _importable(libraries), redirect_stdout(io.StringIO()):
        module = _module(checkout / "ast/src/models/ast_models.py", "reference_ast")
        model: nn.Module = module.ASTModel(
            label_dim=labels,
            input_tdim=frames,
            imagenet_pretrain=False,
            verbose=False,
            drop_loc=PRUNE_AT,
            base_keep_rate=1.0,
        )
    return model.eval()


def audiomae(checkout: Path, libraries: Path, frames: int, labels: int) -> nn.Module:
    """Its AudioMAE ViT-B with random weights; input (batch, 1, frames, mels)."""
    with _importable(libraries):
        module = _module(checkout / "audiomae/models_vit.py", "reference_audiomae")
        model: nn.Module = module.vit_base_patch16(
            img_size=(frames, 128),
            in_chans=1,
            num_classes=labels,
            mean_pooling=True,
            drop_loc=PRUNE_AT,
            base_keep_rate=1.0,
        )
    return model.eval()


def caller(model: nn.Module, backbone: str, rate: float) -> Callable[[Tensor], Tensor]:
    """Log-mel (batch, frames, mels) → logits, at a keep rate."""
    rates = [rate if block in PRUNE_AT else 1.0 for block in range(BLOCKS)]

    def call(values: Tensor) -> Tensor:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits: Tensor = model(values if backbone == "ast" else values.unsqueeze(1), keep_rate_list=rates)
            return logits

    return call


BUILDERS = {"ast": ast, "audiomae": audiomae}


def save(model: nn.Module, backbone: str, folder: Path) -> Path:
    """Write its weights as the public training scripts do, for `spectrim.from_pretrained`; returns the file."""
    path = folder / "weights.pth"
    torch.save(model.state_dict() if backbone == "ast" else {"model": model.state_dict()}, path)
    return path


def commit(checkout: Path) -> str | None:
    """Which commit the checkout is at, None where git does not say."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
