"""PaSST's ``.pt`` (Koutini et al., 2022): AST's naming, but positions of frequency and of time apart.

The second head, of the [DIST] token, is trained by no published code and read by none: the first one gets the mean of
both tokens.
"""

from __future__ import annotations

from spectrim.backbones import passt_base
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.sizes import cuts_spectrograms, shape_of
from spectrim.checkpoints.vit import vit_names, vit_sizes
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, InvalidSetting

MELS = 128
FRAMES = 1000
"""Of 10 s of sound, the length that all published tables of `PUBLISHED` are for."""

PUBLISHED = {(12, 99): 10, (10, 83): 12, (9, 71): 14, (8, 62): 16}
"""(frequencies, times) of the published tables for 10 s → stride."""

FREQUENCY, TIME, EXTRA = "freq_new_pos_embed", "time_new_pos_embed", "new_pos_embed"


def detect(source: Source) -> bool:
    """Recognise the two kinds of positions."""
    return {FREQUENCY, TIME, EXTRA} <= source.weights.keys() and cuts_spectrograms(source, "patch_embed.proj.weight")


def read_fields(source: Source) -> SpectrimConfig:
    """The model from the shapes; the stride along time may have to be given.

    Raises:
        CheckpointError: the positions are those of no stride, or of several.
    """
    sizes = {**vit_sizes(source, ""), "qkv_bias": True}
    shapes = shape_of(source, FREQUENCY), shape_of(source, TIME)
    width = sizes["hidden_size"]
    if [len(shape) for shape in shapes] != [4, 4] or shapes[0][::3] != (1, 1) or shapes[1][:3:2] != (1, 1):
        wanted = f"(1, {width}, F, 1) and (1, {width}, 1, T)"
        raise CheckpointError(f"{source.name}: its positions are of shapes {shapes}, not {wanted}")
    frequencies, times = shapes[0][2], shapes[1][3]
    along_frequency, along_time, frames = _strides(source, frequencies, times, sizes["patch_size"])
    steps = {"frequency_stride": along_frequency, "time_stride": along_time}
    return passt_base(**sizes, **steps, max_length=frames, num_mel_bins=MELS)


def weight_names(_: Source, config: SpectrimConfig) -> dict[str, str]:
    """Their names → ours."""
    names = vit_names(config, "", {"norm": "norm", "head.0": "head.norm", "head.1": "head.linear"})
    del names["pos_embed"]
    return names | {
        "dist_token": "embeddings.dist_token",
        EXTRA: "embeddings.extra_positions",
        FREQUENCY: "embeddings.frequency_positions",
        TIME: "embeddings.time_positions",
    }


def _strides(source: Source, frequencies: int, times: int, patch: int) -> tuple[int, int, int]:
    """Stride along frequency and along time, and frames that need the whole table."""
    fitting = [
        step
        for step in range(patch, 0, -1)
        if MELS // step == frequencies and (MELS - patch) // step + 1 == frequencies
    ]
    if not fitting:
        raise CheckpointError(f"{source.name}: {frequencies} positions of frequency fit no stride from 1 to {patch}")
    known = PUBLISHED.get((frequencies, times))
    told = [step for step in fitting if source.frames is not None and source.frames // step == times]
    if source.stride is not None:
        along_frequency, along_time = source.stride
        if along_frequency not in fitting:
            allowed = f"one of {frequencies} frequencies: {', '.join(map(str, fitting))}"
            raise InvalidSetting("stride", source.stride, allowed)
        if along_time > patch:
            raise InvalidSetting("stride", source.stride, f"at most {patch} along time, the side of a patch")
    elif known is not None and told in ([], [known]):
        along_frequency = along_time = known
    elif known is None and len(told) == 1:
        along_frequency = along_time = told[0]
    else:
        published = "is no size published for 10 s" if known is None else f"is published for stride {known} and 10 s"
        choices = " or ".join(f"stride={step} ({times * step} to {(times + 1) * step - 1} frames)" for step in fitting)
        raise CheckpointError(
            f"{source.name}: nothing in it says the stride of its {frequencies}×{times} positions (frequency × time), "
            f"which {published}: {choices}. Give stride= or frames= (--stride, --frames), if its "
            "frames begin every 10 ms; PaSSTs with frames every 5 or 3.1 ms are not understood, and look the same"
        )
    whole = known is not None and (along_frequency, along_time) == (known, known)
    return along_frequency, along_time, FRAMES if whole else (times - 1) * along_time + patch
