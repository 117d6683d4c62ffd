"""A frozen form of a model for inference: weights of linear layers, laid out once for the processor that multiplies.

A matrix product on a CPU copies its weight matrix into blocks first, at every call. oneDNN, which comes with PyTorch,
can be given the blocks instead; docs/performance.md has what that saves. PyTorch has no public name for that product:
the two operations in `OPERATIONS` are those that its own compiler uses, and where they are missing nothing is packed.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils.flop_counter import addmm_flop, flop_registry, register_flop_formula

from spectrim.errors import SpectrimError

OPERATIONS = ("_reorder_linear_weight", "_linear_pointwise")
"""What lays out a weight, and what multiplies by it, in ``torch.ops.mkldnn``."""

CAN_PACK = (
    platform.machine().lower() in ("x86_64", "amd64")
    and torch.backends.mkldnn.is_available()
    and all(hasattr(torch.ops.mkldnn, name) for name in OPERATIONS)
)
"""Whether this processor and this build of PyTorch have what `pack_weights` needs."""

LEAST_WEIGHTS = 1 << 17
"""Smaller layers are not packed: what a call costs beside the product outweighs the gain when rows are few."""

_Module = TypeVar("_Module", bound=nn.Module)


def pack_weights(model: _Module) -> _Module:
    """Make a frozen form of a model, for float32 inference on an x86-64 CPU.

    Its linear layers hold their weights as the processor multiplies by them (`PackedLinear`); the logits are the same
    to rounding. It shares nothing with the model, which stays as it is: what becomes of the model's weights later does
    not reach the frozen form, whose own are fixed. With packed weights it is not trained, cast, moved, traced or
    compiled, and says so; `save_pretrained` and ``state_dict`` give ordinary weights.

    Args:
        model: any module; its layers of type `torch.nn.Linear` with float32 weights on a CPU, and no fewer of them than
            `LEAST_WEIGHTS`, are packed, the rest is copied.

    Returns:
        The frozen form, in evaluation mode. Where there is nothing to pack (small layers, other processors or types of
        weights, PyTorch without oneDNN) it is an ordinary copy whose weights ask for no gradients.

    Examples:
        >>> model = spectrim.from_pretrained("spectrim-mini")
        >>> values = torch.zeros(1, 128, 128)
        >>> torch.allclose(spectrim.pack_weights(model)(values).logits, model(values).logits, atol=1e-4)
        True
    """
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and _pays(layer)]
    memo: dict[int, Any] = {id(layer): PackedLinear(layer.weight, layer.bias) for layer in linear}
    return copy.deepcopy(model, memo).eval().requires_grad_(False)


def unpack_weights(model: _Module) -> _Module:
    """Make an ordinary model of a frozen form: one with the same weights in `torch.nn.Linear`, all of them trainable.

    Args:
        model: what `pack_weights` gave; the model itself comes back where nothing in it is packed.
    """
    packed = [layer for layer in model.modules() if isinstance(layer, PackedLinear)]
    if not packed:
        return model
    memo: dict[int, Any] = {id(layer): _linear(layer.weight, layer.bias) for layer in packed}
    return copy.deepcopy(model, memo).requires_grad_(True)


def is_packed(model: nn.Module) -> bool:
    """Whether a model is a frozen form."""
    return any(isinstance(layer, PackedLinear) for layer in model.modules())


class PackedLinear(nn.Module):
    """A linear layer whose weights are fixed, in the blocks that oneDNN multiplies by.

    Args:
        weight: (out_features, in_features) float32 on the CPU.
        bias: (out_features,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._blocks = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self.bias = None if bias is None else bias.detach().clone(memory_format=torch.contiguous_format)
        self.training = False

    @property
    def weight(self) -> Tensor:
        """(out_features, in_features): the weights as a `torch.nn.Linear` has them, copied out of the blocks."""
        weight: Tensor = self._blocks.to_dense()
        return weight

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) float32 → (..., out_features)."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            _refuse("traced or compiled")
        if input.dtype != torch.float32 or input.shape[-1:] != (self.in_features,):
            given = f"{str(input.dtype).removeprefix('torch.')} of shape {tuple(input.shape)}"
            _refuse(f"multiplied with {given}, only with float32 of shape (..., {self.in_features})")
        if torch.is_inference_mode_enabled():
            return _product(input, self._blocks, self.bias)
        product: Tensor = _Product.apply(input, self._blocks, self.bias)
        return product

    def train(self, mode: bool = True) -> PackedLinear:
        """Evaluation mode stays.

        Raises:
            SpectrimError: training mode is asked for.
        """
        if mode:
            _refuse("trained")
        return self

    def extra_repr(self) -> str:
        """Sizes, for ``print(module)``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        moved = fn(torch.empty(0))
        if moved.dtype != torch.float32 or moved.device.type != "cpu":
            _refuse("cast or moved")
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        _refuse("loaded into")

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedLinear:
        return self  # nothing in it ever changes

    def __reduce__(self) -> Any:
        return _again, (self.weight, self.bias)


class _Product(Function):
    """The product where PyTorch may be recording: gradients, in either direction, are refused and not dropped."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
        return _product(input, blocks, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> NoReturn:
        _refuse("differentiated")


def _product(input: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(input, blocks, bias, "none", [], "")
    return product


def _refuse(what: str) -> NoReturn:
    raise SpectrimError(f"packed weights cannot be {what}; use the model that pack_weights was given")


def _again(weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A pickled layer, packed anew where that can be done, else an ordinary one."""
    return PackedLinear(weight, bias) if CAN_PACK else _linear(weight, bias).requires_grad_(False).eval()


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer.eval()


def _pays(layer: nn.Linear) -> bool:
    """Whether a layer is an ordinary one that nothing else watches or changes, large enough, and of the right type."""
    if not CAN_PACK or type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return False
    return _plain(layer.weight) and layer.weight.numel() >= LEAST_WEIGHTS and (layer.bias is None or _plain(layer.bias))


def _plain(parameter: Tensor) -> bool:
    return type(parameter) is nn.Parameter and parameter.dtype == torch.float32 and parameter.device.type == "cpu"


def _flops(input_shape: list[int], weight_shape: list[int], bias_shape: Any, *rest: Any, out_shape: Any = None) -> int:
    """Floating-point operations of a packed layer, for `torch.utils.flop_counter`: those of a linear one."""
    rows = 1
    for size in input_shape[:-1]:
        rows *= size
    return int(addmm_flop(None, [rows, input_shape[-1]], [weight_shape[1], weight_shape[0]]))


if CAN_PACK and torch.ops.mkldnn._linear_pointwise not in flop_registry:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)
