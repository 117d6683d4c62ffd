"""The model that a recipe trains: a checkpoint with a head for the data, or a fresh one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from spectrim.backbones import BUILDERS
from spectrim.checkpoints import DescribedSource, UntrainedPruning, describe, from_pretrained
from spectrim.checkpoints.loading import FURTHER_SETTINGS
from spectrim.data import AudioDataset, find_data_set, frontend_fields
from spectrim.errors import InvalidSetting
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.reducers import REDUCERS
from spectrim.training.recipes import Recipe

DENSE = {"keep_rate": 1.0, "reducer": "drop"}
"""What an operating point becomes where every patch is kept and no predictor asked."""


def problem_type(recipe: Recipe, part: AudioDataset) -> str:
    """The configuration's word for a recipe's loss on a data set."""
    alone = len(part.labels) == 1
    several = part.each_label_apart if recipe.loss == "auto" else recipe.loss == "binary_cross_entropy"
    if alone and not several:
        raise InvalidSetting("loss", recipe.loss, f"binary_cross_entropy: {part.labels[0]!r} is the only label")
    if part.multi_label and not several:
        raise InvalidSetting(
            "loss", recipe.loss, f"binary_cross_entropy: clips of {recipe.data.name} have several labels"
        )
    return "multi_label_classification" if several else "single_label_classification"


def build_model(recipe: Recipe, init: str | None, part: AudioDataset) -> AudioTransformer:
    """The model to train: a checkpoint with a head for a data set, or a fresh one from the recipe's builder.

    Mean, std and length of the input are the recipe's, else the data set's, else the checkpoint's.

    Args:
        recipe: says builder, fields, and pruning; the model carries its keep rate, which training overrides.
        init: what `spectrim.from_pretrained` takes, or None for random weights.
        part: says the labels; a checkpoint's head is kept where it has the same ones.

    Raises:
        InvalidSetting: a size, or another field, in the recipe is not that of the checkpoint; or that takes MFCC, for
            which neither the data sets' statistics nor all augmentations are meant; or the recipe says the stride or
            length of a checkpoint and there is none.
    """
    problem, pruning = problem_type(recipe, part), recipe.pruning.operating_point
    if init is None:
        for name in ("stride", "frames"):
            if (value := getattr(recipe.model, name)) is not None:
                allowed = "null without --init, whose checkpoint it is said of; model.fields has those of a fresh model"
                raise InvalidSetting(f"model.{name}", value, allowed)
        names = {"id2label": dict(enumerate(part.labels)), "label2id": {n: i for i, n in enumerate(part.labels)}}
        fields = {**recipe.model.fields, **frontend_fields(recipe.data.name, recipe.model.fields)}
        asked = {"predictor_blocks": list(pruning.at)} if needs_predictors(pruning) else {}
        fields |= {"pruning": pruning, "problem_type": problem, **asked, **names}
        return initialise_head(AudioTransformer(BUILDERS[recipe.model.builder](**fields)), recipe)
    described = describe(recipe.model.start(init))
    if described["features"] != "log_mel":
        allowed = f"a checkpoint that takes log-mel; {init} takes {described['features']}, which recipes do not know"
        raise InvalidSetting("init", init, allowed)
    known = {name: getattr(find_data_set(recipe.data.name), name) for name in ("mean", "std", "max_length")}
    fields_asked = {**{name: value for name, value in known.items() if value is not None}, **recipe.model.fields}
    frames = fields_asked.pop("max_length", None)
    further = {name: fields_asked.pop(name) for name in FURTHER_SETTINGS if name in fields_asked}
    head_std = fields_asked.pop("head_init_std", None)
    fields_asked.pop("initializer_range", None)
    fresh = recipe.model.fresh_head or not same_labels(described["label_names"], part.labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedPruning)
        model = from_pretrained(
            DescribedSource(init, (described["frequency_stride"], described["time_stride"]), recipe.model.frames),
            pruning=pruning.changed(DENSE) if needs_predictors(pruning) else pruning,
            labels=part.labels if fresh else None,
            frames=frames,
            positions=recipe.model.positions,
            **further,
        )
    for name, value in fields_asked.items():
        if (there := getattr(model.config, name)) != value:
            raise InvalidSetting(f"model.fields.{name}", value, f"{there!r}, as in the checkpoint {init}")
    if fresh and head_std not in (None, model.config.head_init_std):
        model.config.head_init_std = head_std
        torch.nn.init.trunc_normal_(model.head.linear.weight, std=head_std)
    if needs_predictors(pruning):
        model.add_predictors(pruning.at).set_pruning(pruning)
    model.config.problem_type = problem
    return initialise_head(model, recipe) if fresh else in_order(model, part.labels)


def same_labels(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two lists have the same labels, in any order."""
    return list(ours) == list(theirs) or (sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours))


def in_order(model: AudioTransformer, labels: Sequence[str]) -> AudioTransformer:
    """Bring the outputs of a model into the order of the same labels elsewhere.

    Args:
        model: its head is changed in place.
        labels: its own, each once, in any order.
    """
    names = [*model.config.id2label.values()]
    if names != list(labels):
        order = torch.tensor([names.index(label) for label in labels])
        with torch.no_grad():
            for values in model.head.linear.parameters():
                values.copy_(values[order.to(values.device)].clone())
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: number for number, label in enumerate(labels)}
    return model


def needs_predictors(pruning: Pruning) -> bool:
    """Whether a model needs predictors at the pruning blocks."""
    return REDUCERS[pruning.reducer].reads == "predictor"


def initialise_head(model: AudioTransformer, recipe: Recipe) -> AudioTransformer:
    """Give a fresh head the start that the recipe names; see `ModelSettings`."""
    if recipe.model.head_init == "linear":
        model.head.linear.reset_parameters()
    return model
