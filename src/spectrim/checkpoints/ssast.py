"""SSAST's ``.pth`` (Gong et al., 2022), pre-trained or fine-tuned: AST whose head reads the mean of the patches.

Pre-trained files say the length of their input. Fine-tuned ones do not say their stride; one with square patches and
two extra tokens has the names and shapes of an official AST, and is taken for one unless ``pooling`` says otherwise.
"""

from __future__ import annotations

from typing import Any

from spectrim.backbones import ssast_base
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.grid import find_grid
from spectrim.checkpoints.sizes import count_outputs, count_positions, cuts_spectrograms, shape_of
from spectrim.checkpoints.vit import official_ast_names, vit_sizes
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, InvalidSetting

PROJECTION, HEAD = "v.patch_embed.proj.weight", "mlp_head.1.weight"
MELS = 128
FRAME_PATCH = (MELS, 2)
"""Mel bins and frames of a patch of the frame models, which cover all frequencies."""

PUBLISHED = {(511, 50): 1, (127, 35): 1}
"""(patches, outputs) of the frame models that the authors' recipes fine-tune, ESC-50 and Speech Commands → stride."""

IGNORED = (r"v\.head(_dist)?\.(weight|bias)", r"[cg]predlayer\.[02]\.(weight|bias)", "mask_embed", r"p_input_[ft]dim")
"""DeiT's heads, the layers of pre-training, and the sizes of the input, which are read and not loaded."""


def is_pretrained(source: Source) -> bool:
    """Recognise the sizes of the input that such a file has among its weights."""
    return {"p_input_fdim", "p_input_tdim"} <= source.weights.keys() and cuts_spectrograms(source, PROJECTION)


def pretrained_fields(source: Source) -> SpectrimConfig:
    """The model from the shapes and the sizes of the input; patches do not overlap.

    Raises:
        CheckpointError: they do not fit each other.
    """
    sizes = _sizes(source)
    height, width = shape_of(source, PROJECTION)[2:]
    mels, frames = (_whole(source, name) for name in ("p_input_fdim", "p_input_tdim"))
    patches = count_positions(source, "v.pos_embed", extra=_extra(source))
    if patches != (mels // height) * (frames // width):
        raise CheckpointError(
            f"{source.name}: {patches} positions are not those of patches of {height}×{width} in {mels} mel bins and "
            f"{frames} frames"
        )
    steps = {"frequency_stride": height, "time_stride": width}
    return ssast_base(**sizes, **steps, num_mel_bins=mels, max_length=frames)


def is_finetuned(source: Source) -> bool:
    """Recognise what no official AST has: patches that are not square, or no [DIST]."""
    if not {"v.cls_token", "v.pos_embed", HEAD} <= source.weights.keys() or not cuts_spectrograms(source, PROJECTION):
        return False
    height, width = shape_of(source, PROJECTION)[2:]
    return height != width or "v.dist_token" not in source.weights


def finetuned_fields(source: Source) -> SpectrimConfig:
    """The model from the shapes; the stride may have to be given.

    Raises:
        CheckpointError: the number of patches fits no stride, or several.
        InvalidSetting: the stride that was given does not fit.
    """
    height, width = shape_of(source, PROJECTION)[2:]
    patches = count_positions(source, "v.pos_embed", extra=_extra(source))
    outputs = count_outputs(source, HEAD)
    if height == width:
        return ssast_base(**_sizes(source), **find_grid(source, patches, height, outputs))
    if (height, width) != FRAME_PATCH:
        raise CheckpointError(f"{source.name}: patches of {height}×{width} are of no model that was published")
    return ssast_base(**_sizes(source), **_frame_grid(source, patches, width, outputs))


def weight_names(source: Source, config: SpectrimConfig) -> dict[str, str]:
    """Their names → ours."""
    names = official_ast_names(source, config)
    if config.extra_tokens == 1:
        del names["v.dist_token"]
    return names


def pretrained_names(source: Source, config: SpectrimConfig) -> dict[str, str]:
    """The same without the head."""
    return {theirs: ours for theirs, ours in weight_names(source, config).items() if not ours.startswith("head.")}


def _extra(source: Source) -> int:
    return 2 if "v.dist_token" in source.weights else 1


def _sizes(source: Source) -> dict[str, Any]:
    return {**vit_sizes(source, "v.", square=False), "qkv_bias": True, "extra_tokens": _extra(source)}


def _whole(source: Source, name: str) -> int:
    value = source.weights[name]
    if value.numel() != 1 or value.is_floating_point() or not 0 < int(value) <= 1_000_000:
        raise CheckpointError(f"{source.name}: {name} is no length of an input")
    return int(value)


def _frame_grid(source: Source, patches: int, width: int, outputs: int) -> dict[str, int]:
    """Strides and frames of a model whose patches are as high as the spectrogram."""
    shortest = {step: (patches - 1) * step + width for step in range(width, 0, -1)}
    choices = "; ".join(
        f"stride=({MELS}, {step}) with {least} to {least + step - 1} frames" for step, least in shortest.items()
    )
    known = PUBLISHED.get((patches, outputs))
    told = [step for step, least in shortest.items() if source.frames and least <= source.frames < least + step]
    if source.stride is not None:
        if source.stride[0] != MELS or source.stride[1] not in shortest:
            raise InvalidSetting("stride", source.stride, f"what makes {patches} patches: {choices}")
        step = source.stride[1]
    elif known is not None and told in ([], [known]):
        step = known
    elif known is None and len(told) == 1:
        step = told[0]
    else:
        raise CheckpointError(
            f"{source.name}: nothing in it says the stride of its patches, and {patches} patches fit several: "
            f"{choices}. Give stride= or frames= (--stride, --frames)"
        )
    frames = source.frames if step in told and source.frames else shortest[step]
    return {"frequency_stride": MELS, "time_stride": step, "max_length": frames}
