"""The front end in the form that transformers' pipelines and trainers use."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from numbers import Number
from typing import Any, ClassVar

import torch
from transformers import AutoFeatureExtractor, BatchFeature, SequenceFeatureExtractor
from transformers.utils import TensorType, logging

from spectrim.audio.filterbank import count_frames
from spectrim.audio.frontend import FRONTEND_FIELDS, Frontend
from spectrim.audio.normalisation import NORMALISATIONS
from spectrim.audio.waveforms import Batch, as_clips, check_rate
from spectrim.config import SpectrimConfig
from spectrim.errors import AudioError, InvalidSetting

logger = logging.get_logger(__name__)


@functools.lru_cache(maxsize=16)
def _cached_frontend(settings: tuple[tuple[str, Any], ...]) -> Frontend:
    return Frontend(**dict(settings))


class SpectrimFeatureExtractor(SequenceFeatureExtractor):
    """The front end in the form that transformers' pipelines and trainers use.

    Called like ``ASTFeatureExtractor``; saved as ``preprocessor_config.json``. `Frontend` does the work.

    Args:
        sampling_rate, num_mel_bins, max_length, features, mean, std, padding: see `Frontend`.
        **kwargs: what every ``SequenceFeatureExtractor`` has.

    Raises:
        InvalidSetting: naming the setting and what is allowed.

    Examples:
        >>> extractor = spectrim.SpectrimFeatureExtractor(max_length=128, mean=-4.27, std=4.57)
        >>> extractor(np.zeros(16000, np.float32), sampling_rate=16000, return_tensors="pt").input_values.shape
        torch.Size([1, 128, 128])
    """

    model_input_names: ClassVar[list[str]] = ["input_values", "num_frames"]

    def __init__(
        self,
        sampling_rate: int = 16000,
        num_mel_bins: int = 128,
        max_length: int = 1024,
        features: str = "log_mel",
        mean: float = NORMALISATIONS["audioset"].mean,
        std: float = NORMALISATIONS["audioset"].std,
        padding: str = "zero",
        **kwargs: Any,
    ) -> None:
        parents: dict[str, Any] = {"feature_size": 1, "padding_value": 0.0, "return_attention_mask": False, **kwargs}
        super().__init__(sampling_rate=sampling_rate, **parents)
        self.num_mel_bins = num_mel_bins
        self.max_length = max_length
        self.features = features
        self.mean = mean
        self.std = std
        self.padding = padding
        self._frontend()

    @classmethod
    def from_config(cls, config: SpectrimConfig) -> SpectrimFeatureExtractor:
        """Build the feature extractor that belongs to a model of this configuration."""
        return cls(**{name: getattr(config, name) for name in FRONTEND_FIELDS})

    def __call__(
        self,
        raw_speech: Batch | Sequence[float] | Sequence[Sequence[float]],
        sampling_rate: int | None = None,
        return_tensors: str | TensorType | None = None,
        max_length: int | None = None,
        truncation: bool | None = None,
        padding: bool | str | None = None,
    ) -> BatchFeature:
        """Turn one waveform, or several, into the model's input.

        Args:
            raw_speech: one 1-D array, tensor or list of numbers; or a sequence of them, of any lengths; or a
                (batch, samples) array or tensor. See `Frontend.forward` for the types.
            sampling_rate: of ``raw_speech``, in hertz: give it, so that a wrong one is noticed.
            return_tensors: ``"pt"`` for tensors, ``"np"`` for arrays, None for a list with an array a clip.
            max_length: frames, instead of the configured number.
            truncation: False refuses what is longer; else it is cut.
            padding: True, ``"max_length"`` or None, which are the same: all inputs have ``max_length`` frames.

        Returns:
            ``input_values`` (batch, max_length, num_mel_bins) float32 and ``num_frames`` (batch,) int64.

        Raises:
            InvalidSetting: ``sampling_rate`` is not the configured one, or an option is unknown or cannot be had.
            AudioError: a waveform cannot be used, or is too long to go uncut; it is named by its place in the batch.
            InputShapeError: the batch is empty or a waveform has channels.
        """
        if sampling_rate is None:
            logger.warning_once("Give sampling_rate to the feature extractor: without it a wrong one goes unnoticed.")
        check_rate(sampling_rate, self.sampling_rate)
        if return_tensors not in (None, "pt", "np"):
            raise InvalidSetting("return_tensors", return_tensors, "None, 'pt' or 'np'")
        if isinstance(raw_speech, list | tuple) and raw_speech and isinstance(raw_speech[0], Number):
            raw_speech = [raw_speech]
        if padding not in (None, True, "max_length"):
            raise InvalidSetting("padding", padding, "True or 'max_length': the model takes inputs of one length")
        if truncation not in (None, True, False):
            raise InvalidSetting("truncation", truncation, "True, False or None")
        frontend = self._frontend(self.max_length if max_length is None else max_length)
        if truncation is False:
            self._refuse_longer(raw_speech, frontend.max_length)
        input_values, frames = frontend(raw_speech)
        input_values = input_values.to(torch.float32)
        if return_tensors == "pt":
            return BatchFeature({"input_values": input_values, "num_frames": frames})
        arrays = input_values.detach().cpu().numpy(), frames.cpu().numpy()
        if return_tensors == "np":
            return BatchFeature({"input_values": arrays[0], "num_frames": arrays[1]})
        return BatchFeature({"input_values": list(arrays[0]), "num_frames": arrays[1].tolist()})

    def _refuse_longer(self, waveforms: Any, most: int) -> None:
        """Raise `AudioError` for the first waveform of more than ``most`` frames."""
        for number, clip in enumerate(as_clips(waveforms, torch.device("cpu"))):
            frames = count_frames(len(clip), self.sampling_rate, self.features)
            if frames > most:
                raise AudioError(f"waveform {number}", f"has {frames} frames, and {most} are the most uncut")

    def _frontend(self, max_length: int | None = None) -> Frontend:
        """Return the front end of the present settings: a changed attribute counts from the next call on.

        Args:
            max_length: instead of the present one.
        """
        settings = {name: getattr(self, name) for name in FRONTEND_FIELDS}
        settings["max_length"] = self.max_length if max_length is None else max_length
        return _cached_frontend(tuple(settings.items()))


AutoFeatureExtractor.register(SpectrimConfig, SpectrimFeatureExtractor)
