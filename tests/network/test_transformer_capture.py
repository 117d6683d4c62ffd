"""What a CUDA graph needs of the forward pass: nothing crosses between device and host, and no shape hangs on values.

The meta device stands for the GPU: it has shapes and no values, so that reading one fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from plain import BACKBONES, CRITERIA, clips, small_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spectrim.audio.frontend import Frontend

META = torch.device("meta")


class StaysOnTheDevice(TorchDispatchMode):
    """Raises where a tensor of another device is read or made."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.operations += 1
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves([args, kwargs, result]) if isinstance(leaf, Tensor)]
        strangers = {str(tensor.device) for tensor in tensors if tensor.device != META}
        if strangers:
            raise AssertionError(f"{function} leaves the device: {strangers}")
        return result


@pytest.mark.parametrize("keep_rate", [1.0, 0.6])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_forward_pass_can_be_captured(backbone: str, criterion: str, keep_rate: float) -> None:
    model = small_model(backbone, keep_rate=keep_rate, criterion=criterion).to(META)
    values = clips(model.config).to(META)
    with torch.inference_mode():
        model(values)
        with StaysOnTheDevice() as watch:
            logits = model(values, output_token_trace=True).logits
    assert logits.shape == (2, model.config.num_labels) and watch.operations > 100


def test_waveforms_to_input_values_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrim.audio.frontend._without_autocast", nullcontext)  # the meta device has no autocast
    frontend = Frontend(max_length=128, mean=-4.0, std=4.0).to(META)
    waveforms, frames = torch.empty(2, 20000, device=META), torch.empty(2, dtype=torch.int64, device=META)
    with torch.inference_mode(), StaysOnTheDevice() as watch:
        rows = frontend.log_mel(waveforms)
        padded = torch.nn.functional.pad(rows, (0, 0, 0, 128 - rows.shape[1]))
        out = frontend.normalise(padded, frames)
    assert out.input_values.shape == (2, 128, 128) and watch.operations > 10


def test_the_watch_sees_what_a_graph_cannot_hold() -> None:
    values = torch.empty(3, device=META)
    for crossing in (lambda: values + torch.ones(3), lambda: values.cpu(), values.sum().item):
        with pytest.raises((AssertionError, RuntimeError)), StaysOnTheDevice():
            crossing()
