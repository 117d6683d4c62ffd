"""Prune a model that another library holds in memory, sharing its weights."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spectrim.checkpoints.files import Source, check_stride
from spectrim.checkpoints.labels import check_labels
from spectrim.checkpoints.layouts import LAYOUTS
from spectrim.checkpoints.loading import build_model, check_given, open_checkpoint
from spectrim.checkpoints.notices import warn_about
from spectrim.checkpoints.strict import JOINED, listed
from spectrim.checkpoints.unwrap import COMPILED, PREFIXES
from spectrim.errors import CheckpointError, InvalidSetting, one_of
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning, given_pruning

ADAPTED = ".base_layer."
"""In the name of every weight that PEFT has put an adapter on."""

_KEY_VALUE = re.compile(r"(.*attention\.)key_value\.(weight|bias)")


def prune(
    model: nn.Module,
    keep_rate: float | Sequence[float] | None = None,
    *,
    pruning: Pruning | None = None,
    prune_at: Sequence[int] | None = None,
    criterion: str | None = None,
    feature_extractor: Any = None,
    labels: Sequence[str] | None = None,
    **settings: Any,
) -> AudioTransformer:
    """Make a model that is in memory drop patches.

    The new model has the weights of the old one, which are kept once: a step of training that changes one changes the
    other, and what is frozen stays so. Several models that are pruned from one share them too. Not shared are weights
    that are laid out otherwise here (query, key and value as one in other layouts, AudioMAE's patch projection).

    Args:
        model: `transformers.ASTForAudioClassification` or another module whose weights have one of the layouts that
            `spectrim.from_pretrained` knows, also inside ``torch.compile``, ``DataParallel`` and the like. It goes on
            working, and gives what it gave.
        keep_rate: share of the patches kept at each pruning block, in (0, 1]: one number, or one a block; 0.7 where
            neither it nor ``pruning`` is given.
        pruning: the operating point as a value, instead of its fields one by one.
        prune_at: the pruning blocks, counted from 0; 3, 6 and 9 of twelve, and to be named for a model of four or
            fewer.
        criterion: what ranks the patches; see `spectrim.pruning.criteria`.
        feature_extractor: the ``ASTFeatureExtractor`` that made the model's input: its mean, std and rate go along, so
            that files can be tagged. AudioSet's otherwise.
        labels: of a fresh head, for an encoder without one.
        **settings: as for `spectrim.from_pretrained`; also ``stride`` of official ASTs.

    Returns:
        The model in evaluation mode, where the old one is and in its type of numbers.

    Raises:
        CheckpointError: it is of a kind that is not known, its weights do not fit or are of several types, or it has
            adapters (PEFT), which are to be merged first.
        InvalidSetting: a setting is out of range.

    Examples:
        >>> from transformers import ASTConfig, ASTForAudioClassification
        >>> ast = ASTForAudioClassification(ASTConfig(num_hidden_layers=4, hidden_size=96, num_attention_heads=4))
        >>> pruned = spectrim.prune(ast, keep_rate=0.7, prune_at=[1, 2])
        >>> pruned.config.pruning.rates
        {1: 0.7, 2: 0.7}
    """
    model = _unwrapped(model)
    title = type(model).__name__
    _check_model(model, title)
    if pruning is None and keep_rate is None:
        keep_rate = 0.7
    stride = check_stride(settings.pop("stride", None))
    flat, given = check_given(
        pruning, {**settings, "keep_rate": keep_rate, "prune_at": prune_at, "criterion": criterion}
    )
    source = _source(model, title, feature_extractor, stride)
    try:
        checkpoint = open_checkpoint(source)
    except CheckpointError as error:
        known = one_of(name for name in LAYOUTS if not name.startswith("spectrim"))
        raise CheckpointError(
            f"{title} cannot be pruned: {error}. Known are transformers' ASTForAudioClassification, and modules with "
            f"weights as in {known}"
        ) from error
    pruned = build_model(
        checkpoint,
        labels=None if labels is None else check_labels(labels),
        positions="auto",
        settings=given,
        pruning=given_pruning(checkpoint.config.pruning, pruning, flat),
    )
    warn_about(checkpoint, given, pruned.config.pruning, fresh_head=labels is not None)
    first = next(model.parameters())
    pruned = pruned.to(device=first.device, dtype=first.dtype)
    _freeze(model, checkpoint.names, pruned)
    _share(model, checkpoint.names, pruned)
    return pruned


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module of which all weights are, inside what puts one of `PREFIXES` before their names."""
    while isinstance(model, nn.Module):
        names = list(model.state_dict())
        prefix = next((prefix for prefix in PREFIXES if names and all(name.startswith(prefix) for name in names)), "")
        inside = getattr(model, prefix.removesuffix("."), None) if prefix else None
        if not isinstance(inside, nn.Module):
            break
        model = inside
    return model


def _check_model(model: object, title: str) -> None:
    """Raise `CheckpointError` for what is no model that could be pruned, and say what could be."""
    if isinstance(model, AudioTransformer):
        raise CheckpointError(f"{title} prunes already: model.set_pruning(keep_rate=…), or model(…, pruning=…)")
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"{title} is no model in memory; spectrim.from_pretrained takes files and hub ids")
    if any(ADAPTED in name for name, _ in model.named_parameters()):
        raise CheckpointError(
            f"{title} has adapters beside its weights: prune what merge_and_unload() of the PeftModel gives, or prune "
            "the model before it gets adapters"
        )
    types = {str(parameter.dtype) for parameter in model.parameters()}
    if len(types) > 1:
        raise CheckpointError(f"{title} has weights of {listed(types)}; bring it to one type first, e.g. model.float()")


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Its parameters, without what torch.compile puts inside names."""
    return ((name.replace(COMPILED, ""), parameter) for name, parameter in model.named_parameters())


def _source(model: nn.Module, title: str, feature_extractor: Any, stride: tuple[int, int] | None) -> Source:
    """A model in memory as `open_checkpoint` reads one from files."""
    described: Any = getattr(model, "config", None)
    settings = getattr(model, "cfg", None) if hasattr(getattr(model, "cfg", None), "__dict__") else None
    return Source(
        name=title,
        weights={name.replace(COMPILED, ""): value.detach().cpu() for name, value in model.state_dict().items()},
        config=json.loads(described.to_json_string(use_diff=False)) if hasattr(described, "to_json_string") else {},
        extractor=_described(feature_extractor),
        label_file=None,
        arguments={} if settings is None else {"cfg": dict(vars(settings))},
        stride=stride,
    )


def _described(feature_extractor: Any) -> dict[str, Any]:
    """What a feature extractor's preprocessor_config.json would hold."""
    if feature_extractor is None:
        return {}
    if isinstance(feature_extractor, type) or not hasattr(feature_extractor, "to_dict"):
        made = "the ASTFeatureExtractor that made the model's input: ASTFeatureExtractor.from_pretrained(…), an object"
        raise InvalidSetting("feature_extractor", feature_extractor, made)
    described: dict[str, Any] = feature_extractor.to_dict()
    return described


def _freeze(model: nn.Module, names: Mapping[str, str], pruned: AudioTransformer) -> None:
    """Let no weight be trained that is frozen in the old model; one that joins several is if all of them are."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in _named_parameters(model):
        for place in _joined_places(names.get(name, "")):
            parts.setdefault(place, []).append(parameter)
    for place, ours in pruned.named_parameters():
        trained = [part.requires_grad for part in parts.get(place, ())]
        if trained and not any(trained):
            ours.requires_grad_(False)
        elif not all(trained):
            warnings.warn(
                f"{place} is one weight here, of which {type(model).__name__} has a part frozen: all of it is trained",
                stacklevel=3,
            )


def _joined_places(place: str) -> list[str]:
    """Names of our weights that what a layout puts in this place becomes, or becomes a part of."""
    joined = JOINED.fullmatch(place)
    if joined is None:
        return [re.sub(r"\.weight_[gv]$", ".weight", place)]
    both = f"{joined[1]}key_value.{joined[2]}"
    return [f"{joined[1]}query.{joined[2]}", both] if ".qkv." in place else [both]


@torch.no_grad()
def _share(model: nn.Module, names: Mapping[str, str], pruned: AudioTransformer) -> None:
    """Keep what both models have once.

    Ours lie where the old ones do: other models that were pruned from them go on sharing. Only keys and values that lie
    apart become views of ours, which have them as one.
    """
    theirs = {names[name]: parameter for name, parameter in _named_parameters(model) if name in names}
    for place, weight in pruned.named_parameters():
        joined = _KEY_VALUE.fullmatch(place)
        places = [f"{joined[1]}{kind}.{joined[2]}" for kind in ("key", "value")] if joined else [place]
        parts = [theirs[part] for part in places if part in theirs]
        rows = [len(part) for part in parts]
        if len(parts) < len(places) or sum(rows) != len(weight):
            continue
        pieces = weight.split(rows)
        if not all(torch.equal(piece, part) for piece, part in zip(pieces, parts, strict=True)):
            continue
        if _one_after_another(parts):
            weight.data = parts[0].data.as_strided(weight.shape, weight.stride())
        else:
            for piece, part in zip(pieces, parts, strict=True):
                part.data = piece.data


def _one_after_another(parts: Sequence[Tensor]) -> bool:
    """Whether these lie in memory as they would if they were one."""
    following = all(
        before.untyped_storage().data_ptr() == part.untyped_storage().data_ptr()
        and before.storage_offset() + before.numel() == part.storage_offset()
        for before, part in itertools.pairwise(parts)
    )
    return following and all(part.is_contiguous() for part in parts)
