"""Load a checkpoint into `AudioTransformer`: every weight used, every weight filled, or nothing loaded."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectrim.checkpoints.files import DescribedSource, Source, check_frames, check_place, check_stride, read_source
from spectrim.checkpoints.labels import audioset_labels, check_labels, label_names
from spectrim.checkpoints.layouts import LAYOUTS, Checkpoint
from spectrim.checkpoints.notices import warn_about, warn_of_length
from spectrim.checkpoints.settings import MALFORMED
from spectrim.checkpoints.strict import check_shapes, fold_weight_norms, join_projections, listed, take_weights
from spectrim.checkpoints.untrusted import one_line
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, InvalidSetting, one_of
from spectrim.network.positions import POSITION_METHODS, adapt_positions
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import FLAT_NAMES, Pruning, given_pruning

FURTHER_SETTINGS = ("drop_path_rate", "mean", "std", "padding", "pooling", "problem_type")
"""Fields of the configuration that `from_pretrained` takes besides its named arguments and those of `Pruning`."""

UNTOLD = {"pooling"}
"""Those of them that weights were trained with; taken only for layouts that leave them open (`Layout.alike`)."""

DESCRIBED = (
    *("backbone", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size"),
    *("frequency_stride", "time_stride", "max_length", "num_mel_bins", "sampling_rate", "features", "mean", "std"),
    *("padding", "problem_type", "predictor_blocks", *FLAT_NAMES),
)
"""Fields of the configuration that `describe` shows."""

HEAD = "head.linear.weight"


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    pruning: Pruning | None = None,
    keep_rate: float | Sequence[float] | None = None,
    prune_at: Sequence[int] | None = None,
    criterion: str | None = None,
    labels: Sequence[str] | None = None,
    stride: int | Sequence[int] | None = None,
    frames: int | None = None,
    positions: str = "auto",
    **settings: Any,
) -> AudioTransformer:
    """Load AST, AudioMAE or other weights in any layout of `LAYOUTS`, and prune them.

    None leaves a setting as the checkpoint says. Checkpoints of others say nothing of pruning: keep rate 1, blocks
    3, 6 and 9, the backbone's own score; only the paper's AudioMAE carries its rate and blocks along. Where nothing
    says the front end's mean and std, AudioSet's stand, with zeros as padding; the paper's AST, which pads with the
    clip's minimum, is saved just as the official one, so say ``padding="minimum"`` for it.

    Args:
        source: a directory, a file, a hub id ``owner/name``, or a model in the package, ``"spectrim-mini"`` or
            ``"spectrim-words"``.
        pruning: the operating point as a value; or, instead, its fields one by one:
        keep_rate: share of the patches kept at each pruning block, in (0, 1]: one number, or one a block.
        prune_at: the pruning blocks, counted from 0; needed for a keep rate below 1 where the model has none.
        criterion: what ranks the patches; see `spectrim.pruning.criteria`.
        labels: replace the head by a fresh one for these labels. Needed where the checkpoint has no head.
        stride: step between patches, one number or (along frequency, along time), for official ASTs and lone Hugging
            Face weights, which do not say it. Their published sizes are known; others need ``stride`` or ``frames``.
        frames: length of the input, in frames of 10 ms, if it is to differ from the checkpoint's. Where the file does
            not tell its stride and none is given: the length that it was trained for, from which the stride follows.
        positions: how the position table is then fitted; see `spectrim.network.positions.adapt_position_table`.
        **settings: further fields of `Pruning`, named as in config.json, and any of `FURTHER_SETTINGS`, as in
            `SpectrimConfig`; ``pooling`` only for a layout that leaves it open. ``problem_type`` is
            ``"multi_label_classification"`` where a clip can have several labels: a sigmoid and a binary cross-entropy
            for each; or ``"single_label_classification"``: one softmax over all.

    Returns:
        The model in evaluation mode, float32, on the CPU.

    Raises:
        InvalidSetting: a setting is out of range; before any weight is read, as far as it can be told.
        CheckpointError: unknown layout, missing or unexpected weights, wrong shapes, or a file that cannot be
            read or would run code.

    Examples:
        >>> model = spectrim.from_pretrained("spectrim-mini", keep_rate=0.7)
        >>> model.config.pruning.rates, model.config.num_labels
        ({3: 0.7, 6: 0.7, 9: 0.7}, 86)
    """
    if pruning is None and isinstance(source, DescribedSource):
        criterion = source.criterion if criterion is None else criterion
        settings["reducer"] = source.reducer if settings.get("reducer") is None else settings["reducer"]
    settings |= {"keep_rate": keep_rate, "prune_at": prune_at, "criterion": criterion}
    flat, given = check_given(pruning, settings)
    if positions not in POSITION_METHODS:
        raise InvalidSetting("positions", positions, one_of(POSITION_METHODS))
    check_frames(frames)
    check_stride(stride)
    names = None if labels is None else check_labels(labels)
    described = _described(source, stride, frames)
    said = described.frames if frames is None else None
    frames = said if frames is None else frames
    checkpoint = open_checkpoint(read_source(described))
    model = build_model(
        checkpoint,
        labels=names,
        positions=positions,
        settings={**({"max_length": frames} if frames else {}), **given},
        pruning=given_pruning(checkpoint.config.pruning, pruning, flat),
    )
    warn_about(checkpoint, given, model.config.pruning, fresh_head=names is not None)
    if said is not None and names is None:
        warn_of_length(checkpoint, said)
    return model.float()


def build_model(
    checkpoint: Checkpoint,
    *,
    labels: list[str] | None,
    positions: str,
    settings: Mapping[str, Any],
    pruning: Pruning,
) -> AudioTransformer:
    """A model with a checkpoint's weights.

    Args:
        checkpoint: as `open_checkpoint` gives it.
        labels: those of a fresh head; None for the checkpoint's own.
        positions: how the position table is fitted, as for `from_pretrained`.
        settings: fields of the configuration in which the model is to differ from the checkpoint's.
        pruning: its operating point.

    Raises:
        CheckpointError: weights are missing, left over or of other shapes, or there is no head and no labels for one.
        InvalidSetting: the model cannot have such settings.
    """
    stored = checkpoint.config
    if labels is not None:
        stored = _with_labels(stored, labels, None)
    elif not checkpoint.outputs:
        raise CheckpointError(f"{checkpoint.title}: is an encoder without a head; give labels=[…] for a fresh one")
    for name in UNTOLD & settings.keys() - checkpoint.layout.alike.keys():
        if settings[name] != (there := getattr(stored, name)):
            raise InvalidSetting(name, settings[name], f"{there!r}, as in the checkpoint {checkpoint.title}")
    if stored.num_labels == 1 and settings.get("problem_type", stored.problem_type) != stored.problem_type:
        raise InvalidSetting("problem_type", settings["problem_type"], f"{stored.problem_type!r} with a single label")
    becomes = checkpoint.layout.becomes(checkpoint.source, stored)
    wanted = _with_settings(stored, {**becomes, **settings, "pruning": pruning})
    state = _convert(checkpoint, stored, fresh_head=labels is not None)
    method = checkpoint.layout.positions if positions == "auto" else positions
    state |= adapt_positions(state, stored, wanted, method)
    model = _empty(wanted)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def describe(
    source: str | os.PathLike[str], *, stride: int | Sequence[int] | None = None, frames: int | None = None
) -> dict[str, Any]:
    """Say what a checkpoint holds, without building a model.

    Args:
        source, stride, frames: as for `from_pretrained`.

    Returns:
        A flat dictionary: ``source``, ``layout``, ``backbone``, sizes, ``labels`` (number of outputs, 0 without a
        head), ``label_names``, ``parameters``, front end, pruning, and ``licence`` (None where we know of no limit).

    Raises:
        CheckpointError: as for `from_pretrained`.
    """
    described = _described(source, stride, frames)
    checkpoint = open_checkpoint(read_source(described))
    becomes = checkpoint.layout.becomes(checkpoint.source, checkpoint.config)
    pruning = given_pruning(
        checkpoint.config.pruning, None, {"criterion": described.criterion, "reducer": described.reducer}
    )
    config = _with_settings(checkpoint.config, {**becomes, "pruning": pruning})
    weights = checkpoint.source.weights
    return {
        "source": checkpoint.source.name,
        "layout": checkpoint.layout_name,
        **{name: getattr(config, name) for name in DESCRIBED},
        "grid": config.grid,
        "parameters": sum(weights[name].numel() for name in checkpoint.names if name in weights),
        "labels": checkpoint.outputs,
        "label_names": [config.id2label[index] for index in range(checkpoint.outputs)],
        "licence": checkpoint.layout.licence,
    }


def _described(
    source: str | os.PathLike[str], stride: int | Sequence[int] | None, frames: int | None
) -> DescribedSource:
    """A source with the stride and frames that are given, where it has none of its own."""
    check_place(source)
    if not isinstance(source, DescribedSource):
        return DescribedSource(os.fspath(source), stride, frames)
    return replace(
        source,
        stride=source.stride if source.stride is not None else stride,
        frames=source.frames if source.frames is not None else frames,
    )


def check_given(pruning: Pruning | None, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell the fields of an operating point from other settings, and refuse what is wrong for every checkpoint.

    Args:
        pruning: an operating point as a value.
        settings: fields of `Pruning`, named as in config.json, and of `FURTHER_SETTINGS`; None where not given.

    Returns:
        The fields of the operating point, and the others that are given.

    Raises:
        InvalidSetting: a setting is unknown or out of range.
    """
    flat = {name: value for name, value in settings.items() if name in FLAT_NAMES}
    given = {name: value for name, value in settings.items() if name not in FLAT_NAMES and value is not None}
    _check_pruning(pruning, flat)
    for name in given:
        if name not in FURTHER_SETTINGS:
            there = ", ".join((*FLAT_NAMES, *FURTHER_SETTINGS))
            raise InvalidSetting(name, given[name], f"no such setting here; there are {there}")
    SpectrimConfig(**given)
    return flat, given


def _check_pruning(pruning: Pruning | None, flat: Mapping[str, Any]) -> None:
    """Refuse an operating point that is wrong for every checkpoint."""
    alone = given_pruning(Pruning(), pruning, flat)
    if pruning is None and flat.get("prune_at") is None:
        alone = dataclasses.replace(alone, keep_rate=1.0)
    if pruning is None and flat.get("criterion") is None:
        alone = dataclasses.replace(alone, reference_compat=False)
    alone.check(max(alone.at, default=0) + 1)


def open_checkpoint(read: Source) -> Checkpoint:
    """Recognise a checkpoint, and understand what it says about its model.

    Raises:
        CheckpointError: its layout is unknown, or its settings make no model.
        InvalidSetting: the stride that was given is not the one that it has.
    """
    layout_name = next((name for name, layout in LAYOUTS.items() if layout.detect(read)), None)
    if layout_name is None:
        some = ", ".join(sorted(read.weights)[:5])
        raise CheckpointError(
            f"{read.name}: has none of the known layouts ({', '.join(LAYOUTS)}); its weights are named {some}, …"
        )
    layout = LAYOUTS[layout_name]
    try:
        config = layout.fields(read)
    except MALFORMED as error:
        if isinstance(error, InvalidSetting) and error.field == "stride":
            raise
        raise CheckpointError(
            f"{read.name} (layout {layout_name}): its settings make no model: {one_line(error)}"
        ) from error
    there = (config.frequency_stride, config.time_stride)
    if read.stride not in (None, there):
        raise InvalidSetting("stride", read.stride, f"{there}, as {read.name} says")
    names = layout.names(read, config)
    head = next(
        (read.weights[theirs] for theirs, ours in names.items() if ours == HEAD and theirs in read.weights), None
    )
    outputs = head.shape[0] if head is not None and head.ndim == 2 else 0
    if outputs:
        called = label_names(read, outputs, layout.labels, audioset=layout.audioset)
        config = _with_labels(config, called, config.problem_type)
    return Checkpoint(read, layout_name, layout, config, names, outputs)


def _with_labels(config: SpectrimConfig, labels: list[str], problem_type: str | None) -> SpectrimConfig:
    """The configuration for other labels; AudioSet's are not exclusive, nor is one alone, others are taken to be."""
    changed = copy.deepcopy(config)
    changed.id2label = dict(enumerate(labels))
    changed.label2id = {name: index for index, name in changed.id2label.items()}
    multiple = len(labels) in (1, len(audioset_labels()))
    usual = "multi_label_classification" if multiple else "single_label_classification"
    changed.problem_type = usual if len(labels) == 1 else problem_type or usual
    return changed


def _with_settings(config: SpectrimConfig, settings: Mapping[str, Any]) -> SpectrimConfig:
    changed = copy.deepcopy(config)
    for name, value in settings.items():
        setattr(changed, name, list(value) if isinstance(value, tuple) else value)
    changed.check()
    return changed


def _empty(config: SpectrimConfig) -> AudioTransformer:
    """A model whose weights have shapes but no memory yet, so that none can stay random."""
    with torch.device("meta"):
        return AudioTransformer(config)


def _convert(checkpoint: Checkpoint, config: SpectrimConfig, *, fresh_head: bool) -> dict[str, Tensor]:
    """The state dictionary of our model, complete and checked.

    Args:
        checkpoint: what was read.
        config: the checkpoint's, or for a fresh head with other labels.
        fresh_head: leave the checkpoint's head and initialise one.

    Raises:
        CheckpointError: keys or shapes do not fit, or weights are not finite numbers.
    """
    names = checkpoint.names
    unused = {theirs for theirs, ours in names.items() if ours.startswith("head.")} if fresh_head else set()
    pieces = take_weights(
        checkpoint.title, checkpoint.source.weights, names, unused=unused, ignored=checkpoint.layout.ignored
    )
    if checkpoint.layout.flat:
        matrix = pieces["embeddings.projection.weight"]
        pieces["embeddings.projection.weight"] = matrix.reshape(len(matrix), 1, *config.patch_shape)
    if checkpoint.layout.colours:
        pieces["embeddings.projection.weight"] = pieces["embeddings.projection.weight"].sum(dim=1, keepdim=True)
    if checkpoint.layout.transposed:
        pieces["embeddings.projection.weight"] = pieces["embeddings.projection.weight"].transpose(2, 3).contiguous()
    if checkpoint.layout.bare_positions:
        table = pieces["embeddings.position_table"]
        pieces["embeddings.position_table"] = functional.pad(table, (0, 0, config.extra_tokens, 0))
    state = fold_weight_norms(join_projections(pieces, checkpoint.title), checkpoint.title)
    expected = {name: tuple(value.shape) for name, value in _empty(config).state_dict().items()}
    unfilled = expected.keys() - state.keys()
    may_be_fresh = (*checkpoint.layout.fresh, *(("head.",) if fresh_head else ()))
    if not all(name.startswith(may_be_fresh) for name in unfilled):
        raise CheckpointError(f"{checkpoint.title}: nothing loaded, nothing fills {listed(unfilled)}")
    state |= _fresh(unfilled, expected, config)
    check_shapes(checkpoint.title, state, expected)
    return state


def _fresh(names: set[str], shapes: Mapping[str, tuple[int, ...]], config: SpectrimConfig) -> dict[str, Tensor]:
    """Initial weights of a head (and, for a pre-trained AudioMAE, of the norm before it)."""
    state = {name: torch.zeros(shapes[name]) for name in names}
    for name, value in state.items():
        if name == HEAD:
            nn.init.trunc_normal_(value, std=config.head_init_std)
        elif name.endswith("norm.weight"):
            value.fill_(1.0)
    return state
