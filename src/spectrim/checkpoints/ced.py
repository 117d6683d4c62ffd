"""CED's ``.pt``, and its release on the Hugging Face hub (Dinkel et al., 2024): a ViT without [CLS] on 64 mel bins.

Both hold the same weights; the release puts ``encoder.`` before the names of all but the head, and brings a
``config.json``. The file of the authors holds the window and the mel filters of its front end, the release its
settings: either is compared with ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from spectrim.audio.filterbank import window_and_filters
from spectrim.backbones import ced_base
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.sizes import count_outputs, cuts_spectrograms, shape_of
from spectrim.checkpoints.vit import vit_names, vit_sizes
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, InvalidSetting

MODEL_TYPE = "ced"
TIMES, FRAMES = 63, 1001
"""Times of the published position tables, and frames of the 10 s of sound that the authors train and test with."""

NORM = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
"""{their weight of the input norm: ours}."""

WINDOW, FILTERS = "front_end.0.spectrogram.window", "front_end.0.mel_scale.fb"
IGNORED = (r"(encoder\.)?init_bn\.(1\.)?num_batches_tracked", WINDOW.replace(".", r"\."), FILTERS.replace(".", r"\."))
"""The constants of the front end, which are compared and not loaded, and a counter of training steps."""

SETTINGS: dict[str, tuple[Any, ...]] = {
    "f_min": (0,),
    "f_max": (None, 8000),
    "center": (True,),
    "win_size": (512,),
    "n_fft": (512,),
    "hop_size": (160,),
    "sampling_rate": (16000,),
}
"""Settings of the front end in the release's JSON files → what ours computes."""

POOLINGS = ("mean", "logit")
"""Of the release's ``config.json``; with ``logit`` the model leaves the sigmoid of its ``mean`` to others."""


def detect(source: Source) -> bool:
    """Recognise the two kinds of positions beside the statistics of the input norm."""
    prefix = _prefix(source)
    known = {f"{prefix}time_pos_embed", f"{prefix}freq_pos_embed", f"{_norm(source)}running_mean"}
    return known <= source.weights.keys() and cuts_spectrograms(source, f"{prefix}patch_embed.proj.weight")


def read_fields(source: Source) -> SpectrimConfig:
    """The model from the shapes, its number of heads from ``config.json`` where there is one.

    Raises:
        CheckpointError: positions, front end or pooling are those of another model.
        InvalidSetting: a stride is given that is not the side of a patch.
    """
    prefix, described = _prefix(source), source.config if source.config.get("model_type") == MODEL_TYPE else {}
    sizes = {**vit_sizes(source, prefix), "qkv_bias": True}
    width, patch = sizes["hidden_size"], sizes["patch_size"]
    mels = shape_of(source, f"{_norm(source)}running_mean")[0]
    shapes = shape_of(source, f"{prefix}freq_pos_embed"), shape_of(source, f"{prefix}time_pos_embed")
    if [len(shape) for shape in shapes] != [4, 4]:
        wanted = f"(1, {width}, F, 1) and (1, {width}, 1, T)"
        raise CheckpointError(f"{source.name}: its positions are of shapes {shapes}, not {wanted}")
    frequencies, times = shapes[0][2], shapes[1][3]
    if source.stride not in (None, (patch, patch)):
        raise InvalidSetting("stride", source.stride, f"{patch}: the patches of CED do not overlap")
    if frequencies * patch != mels or described.get("patch_stride", patch) not in (patch, [patch, patch]):
        raise CheckpointError(
            f"{source.name}: {frequencies} positions of frequency are not those of {mels} mel bins in patches of "
            f"{patch}, side by side; CEDs whose patches overlap are not understood"
        )
    pooling = described.get("pooling", "mean")
    if pooling not in POOLINGS:
        raise CheckpointError(
            f"{source.name}: its pooling is {pooling!r}; only {' and '.join(POOLINGS)} are understood"
        )
    _check_front_end(source, mels, described)
    own_sigmoid = count_outputs(source, "outputlayer.1.weight") > 0 and pooling == "mean"
    return ced_base(
        **sizes | {"num_attention_heads": described.get("num_heads", sizes["num_attention_heads"])},
        num_mel_bins=mels,
        max_length=times * patch,
        frequency_stride=patch,
        time_stride=patch,
        problem_type="multi_label_classification" if own_sigmoid else None,
    )


def heard(_: Source, stored: SpectrimConfig) -> dict[str, int]:
    """The length of 10 s of sound, where the table is that of the published models, which is for a little more."""
    return {"max_length": FRAMES} if stored.grid[1] == TIMES and stored.patch_shape[1] == 16 else {}


def weight_names(source: Source, config: SpectrimConfig) -> dict[str, str]:
    """Their names → ours."""
    prefix = _prefix(source)
    modules = {f"{prefix}norm": "norm", "outputlayer.0": "head.norm", "outputlayer.1": "head.linear"}
    names = vit_names(config, prefix, modules)
    for name in ("cls_token", "pos_embed"):
        del names[f"{prefix}{name}"]
    return names | {
        f"{prefix}freq_pos_embed": "embeddings.frequency_positions",
        f"{prefix}time_pos_embed": "embeddings.time_positions",
        **{f"{_norm(source)}{theirs}": f"embeddings.input_norm.{ours}" for theirs, ours in NORM.items()},
    }


def _prefix(source: Source) -> str:
    """What the release puts before names."""
    return "encoder." if "encoder.time_pos_embed" in source.weights else ""


def _norm(source: Source) -> str:
    """What stands before the names of the input norm, which in the authors' file lies between two transpositions."""
    return "encoder.init_bn." if _prefix(source) else "init_bn.1."


def _check_front_end(source: Source, mels: int, described: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless the front end of the file is the one of ``features="mel_decibels"``."""
    for said in (described, source.extractor):
        for name, allowed in {**SETTINGS, "n_mels": (mels,), "feature_size": (mels,)}.items():
            if name in said and said[name] not in allowed:
                raise CheckpointError(f"{source.name}: its front end is another one: {name} is {said[name]!r}")
    window, filters = window_and_filters(mels, 16000, "mel_decibels")
    for name, ours in ((WINDOW, np.concatenate([[0.0], window[:-1]])), (FILTERS, filters)):
        there = source.weights.get(name)
        alike = there is None or (
            there.shape == ours.shape and torch.allclose(there.double(), torch.from_numpy(ours), rtol=0.0, atol=1e-4)
        )
        if not alike:
            raise CheckpointError(f"{source.name}: its front end is another one: {name} differs from ours")
