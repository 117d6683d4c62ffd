"""Recipes: what a training run does, as YAML, checked before any work.

A recipe is data. ``base: other.yaml`` starts from another recipe beside it; what stands in the file itself wins.
Every field can be overridden by its path, e.g. ``optimiser.learning_rate=3e-4``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from spectrim.config import BUILDERS, CRITERION_NAMES, SpectrimConfig
from spectrim.errors import InvalidSetting, one_of

Share = Field(default=0.0, ge=0.0, lt=1.0)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelSettings(_Strict):
    """The model to build when no checkpoint is given; fields of `SpectrimConfig` that differ from the builder's.

    The data set's mean, std and length stand where ``fields`` says nothing. With a checkpoint, sizes must agree.
    """

    builder: str = "ast-base"
    fields: dict[str, Any] = Field(default_factory=dict)


class DataSettings(_Strict):
    """The data set, by its name in `spectrim.data.DATA_SETS`, and options of its opener."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class OptimiserSettings(_Strict):
    """Optimiser, and the course of the learning rate: linear warm-up, then a cosine to ``final_share`` of the peak.

    ``stop_after_epochs`` ends the run early on the course of the whole of ``epochs``.
    """

    name: Literal["adam", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0.0)
    batch_size: PositiveInt = 64
    epochs: PositiveFloat = 10
    stop_after_epochs: PositiveFloat | None = None
    warmup_epochs: float = Field(default=0.0, ge=0.0)
    final_share: float = Field(default=0.0, ge=0.0, le=1.0)
    max_grad_norm: float = Field(default=1.0, ge=0.0)


class PruningSettings(_Strict):
    """The keep rate to train with, and how it falls to it (EViT's annealing).

    It is 1 until ``shrink_start`` epochs, falls by a cosine over ``shrink_epochs``, and then stays at ``keep_rate``.
    ``anneal_every`` "step" moves it at every step, as EViT does; "epoch" at every epoch, as the paper's code does.
    """

    keep_rate: float = Field(default=1.0, gt=0.0, le=1.0)
    prune_at: list[int] = Field(default_factory=lambda: [3, 6, 9])
    criterion: str = "auto"
    shrink_start: float = Field(default=0.0, ge=0.0)
    shrink_epochs: float = Field(default=0.0, ge=0.0)
    anneal_every: Literal["step", "epoch"] = "step"


class AugmentSettings(_Strict):
    """What is changed in training batches; with pruning, masking is off from ``shrink_start`` on.

    ``mask_time`` and ``mask_frequency`` are the shares of patch columns and rows that are removed before block 0
    (AudioMAE's 2-D masking). ``label_smoothing`` spreads that share of a target over all labels.
    """

    mask_time: float = Share
    mask_frequency: float = Share
    label_smoothing: float = Share


class EvaluationSettings(_Strict):
    """How often to evaluate on the validation part, and the batch size for it."""

    every_epochs: PositiveFloat = 1
    batch_size: PositiveInt = 128


class Recipe(_Strict):
    """A training run. See the files in ``recipes/``."""

    name: str
    description: str = ""
    data: DataSettings
    model: ModelSettings = Field(default_factory=ModelSettings)
    optimiser: OptimiserSettings = Field(default_factory=OptimiserSettings)
    pruning: PruningSettings = Field(default_factory=PruningSettings)
    augment: AugmentSettings = Field(default_factory=AugmentSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    seed: int = 0

    def check(self) -> None:
        """Raise `InvalidSetting` for what types alone do not tell."""
        if self.model.builder not in BUILDERS:
            raise InvalidSetting("model.builder", self.model.builder, one_of(BUILDERS))
        if self.pruning.criterion not in CRITERION_NAMES:
            raise InvalidSetting("pruning.criterion", self.pruning.criterion, one_of(CRITERION_NAMES))
        pruning, optimiser = self.pruning, self.optimiser
        end = pruning.shrink_start + pruning.shrink_epochs
        if pruning.keep_rate < 1.0 and end > optimiser.epochs:
            allowed = f"a start and a length that end within optimiser.epochs={optimiser.epochs:g}"
            raise InvalidSetting("pruning.shrink_start + pruning.shrink_epochs", end, allowed)
        if optimiser.warmup_epochs > optimiser.epochs:
            allowed = f"up to optimiser.epochs={optimiser.epochs:g}"
            raise InvalidSetting("optimiser.warmup_epochs", optimiser.warmup_epochs, allowed)
        known = set(SpectrimConfig.__dataclass_fields__)
        for field in self.model.fields:
            if field not in known:
                raise InvalidSetting(f"model.fields.{field}", self.model.fields[field], one_of(known))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file.
        overrides: ``field.path=value`` each; the value is read as YAML.

    Raises:
        InvalidSetting: no such file, or a field is unknown or out of range; names the field, the value and what
            is allowed.
    """
    tree = _read(Path(path))
    for override in overrides:
        field, equals, value = override.partition("=")
        if not equals or not field:
            raise InvalidSetting("--set", override, "field=value, e.g. optimiser.epochs=5")
        *parents, last = field.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise InvalidSetting("--set", override, f"a field of the recipe; {parent} has no fields of its own")
        node[last] = yaml.safe_load(value)
    try:
        recipe = Recipe(**tree)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidSetting(f"{path}: {field}", first["input"], first["msg"]) from error
    recipe.check()
    return recipe


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise InvalidSetting("base", str(path), "a recipe that does not start from itself")
    if not path.is_file():
        raise InvalidSetting("recipe", str(path), "a YAML file; the repository's are in recipes/")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InvalidSetting("recipe", str(path), f"valid YAML ({error})") from error
    if not isinstance(tree, dict):
        raise InvalidSetting("recipe", str(path), "a YAML mapping")
    base = tree.pop("base", None)
    return _merge(_read(path.parent / base, (*seen, path)), tree) if base else tree


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
