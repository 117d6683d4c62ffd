"""AudioMAE's score, and attention with it, from one kernel launch: on NVIDIA GPUs, in half precision.

The map of n × n shares never exists: `spectrim.pruning.kernels.attention` says how. Per pair of query and key the
kernel computes one product for the softmax's maxima and sums, one again for the column sums, and one more for the
output, if that is wanted. Two ways follow, in units of n²·width multiply-accumulates, with m tokens that go on:

* attention and score of all n queries together, of which the block then picks its survivors: 3;
* the score alone, then ``scaled_dot_product_attention`` of the survivors' queries: 2 + 2·m/n.

They cost the same at m = n/2. From there on the first is cheaper and saves one launch; below, the second is.
`together_pays` holds that rule. Blocks whose scores nothing goes by take the second where they are wanted: looking at
scores then changes no bit of the logits. A map in memory takes only 1 + 2·m/n, but 12 bytes of traffic a pair (logits
and shares, each written and read): with heads of 64 on an H200 (4.8 TB/s, 790 TFLOP/s), that takes five times as long
as all three products.

Before it is used the kernel is compared with float64, once a process, device and type: `agrees`.

Inference only: no gradient flows through these functions. The scores are made without one anyhow, so training uses the
score; attention with gradients, float32 (no matrix unit without rounding), masks, CPUs, exports and machines without
triton take the plain way in `spectrim.pruning.criteria.attention` and `spectrim.network.blocks`.
"""

from __future__ import annotations

import importlib.util
import warnings

import torch
from torch import Tensor

DEVICES = ("cuda",)
"""Device types that the kernel runs on."""
TYPES = (torch.float16, torch.bfloat16)
"""Types that it pays for."""
WIDEST_HEAD = 128
"""Largest head dimension whose tiles stay in registers."""
OLDEST_GPU = (8, 0)
"""Compute capability from which bfloat16 has matrix units."""
COMPARED = (((2, 2, 67, 64), 1), ((1, 3, 131, 32), 2))
"""Shapes (batch, heads, extra + n, head_dim) and extra tokens for which the kernel is compared before it is used."""


def score_fused(queries: Tensor, keys: Tensor, mask: Tensor | None) -> bool:
    """Whether `mean_attention` below may stand for the plain one.

    Args:
        queries: (batch, heads, extra + n, head_dim).
        keys: the same shape.
        mask: additive mask over the keys, or None.
    """
    return mask is None and not _needs_gradient(queries, keys) and _suits(queries)


def together_pays(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, going_on: int) -> bool:
    """Whether attention and score are best computed together.

    Args:
        queries: (batch, heads, extra + n, head_dim).
        keys: the same shape.
        values: likewise.
        mask: additive mask over the keys, or None.
        going_on: number of tokens whose attention output is needed.
    """
    enough = 2 * going_on >= queries.shape[2]
    return enough and mask is None and not _needs_gradient(queries, keys, values) and _suits(queries)


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _suits(queries: Tensor) -> bool:
    device = queries.device
    return (
        device.type in DEVICES
        and queries.dtype in TYPES
        and queries.shape[3] <= WIDEST_HEAD
        and not torch.compiler.is_exporting()
        and _runs_on(device.type, device.index, queries.dtype)
    )


@torch.compiler.assume_constant_result
def _runs_on(device_type: str, index: int | None, dtype: torch.dtype) -> bool:
    """Whether there is a Triton, a GPU that is new enough for it, and a kernel that computes there what it should.

    torch.compile calls this while it traces, so the comparison is in no graph. While a CUDA graph is captured nothing
    can be compared: what was not found right before takes the plain way.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    if device_type == "cuda":
        if torch.version.hip is not None or torch.cuda.get_device_capability(index) < OLDEST_GPU:
            return False
        index = torch.cuda.current_device() if index is None else index
        if (device_type, index, dtype) not in _found and torch.cuda.is_current_stream_capturing():
            return False
    return agrees(torch.device(device_type, index) if index is not None else torch.device(device_type), dtype)


def agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel gives the plain way's output and score there; compared once a process, device and type.

    Where it does not, or does not run at all, a warning says so, and models take the plain way from then on.

    Args:
        device: of the tensors.
        dtype: their type.
    """
    key = (device.type, device.index, dtype)
    if key not in _found:
        wrong = _difference(device, dtype)
        _found[key] = wrong is None
        if wrong is not None:
            warnings.warn(
                f"the fused attention kernel is not used on {device} in {dtype}: {wrong}. The plain way is taken, "
                "which is slower and as good; please report this",
                stacklevel=2,
            )
    return _found[key]


_found: dict[tuple[str, int | None, torch.dtype], bool] = {}
"""What `agrees` has found: (device type, index, type of the tensors) → whether the kernel is right there."""


@torch.no_grad()
def _difference(device: torch.device, dtype: torch.dtype) -> str | None:
    """What the kernel does other than float64 on the CPU, for seeded tensors; None where it is only rounding."""
    from triton.errors import TritonError

    from spectrim.pruning.kernels.attention import launch

    rounding = 4 * max(torch.finfo(dtype).eps, 1e-6)
    for shape, extra in COMPARED:
        generator = torch.Generator().manual_seed(0)
        given = [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]
        queries, keys, values = (tensor.double() for tensor in given)
        shares = (queries @ keys.mT * shape[-1] ** -0.5).softmax(dim=-1)
        output, score = (shares @ values).transpose(1, 2).flatten(2), shares[:, :, extra:, extra:].mean(dim=(1, 2))
        q, k, v = (tensor.to(device) for tensor in given)
        try:
            with torch.cuda.device_of(q):
                found = launch(q, k, v, extra)
                alone = launch(q, k, None, extra)[1]
            results = {"output": (found[0], output), "score": (found[1], score), "score alone": (alone, score)}
            for name, (ours, wanted) in results.items():
                error = float((ours.cpu().double() - wanted).norm() / wanted.norm())
                if not error <= (rounding if name == "output" else 1e-3):
                    return f"its {name} for {tuple(shape)} is {error:.2g} (relative) away from float64"
        except (TritonError, RuntimeError, OSError, ImportError, ValueError, TypeError, AttributeError) as error:
            return f"it does not run ({type(error).__name__})"
    return None


@torch.library.custom_op(
    "spectrim::mean_attention", mutates_args=(), schema="(Tensor queries, Tensor keys, int extra) -> Tensor"
)
def mean_attention(queries: Tensor, keys: Tensor, extra: int) -> Tensor:
    """Attention that a patch receives, mean over heads and over the patch queries.

    Args:
        queries: (batch, heads, extra + n, head_dim); float16, bfloat16 or, in the interpreter, float32.
        keys: the same shape and type.
        extra: number of extra tokens.

    Returns:
        (batch, n) float32, as `spectrim.pruning.criteria.attention.mean_attention`; the same on every run.
    """
    from spectrim.pruning.kernels.attention import launch

    with torch.cuda.device_of(queries):
        return launch(queries, keys, None, extra)[1]


@mean_attention.register_fake
def _(queries: Tensor, keys: Tensor, extra: int) -> Tensor:
    return queries.new_empty(queries.shape[0], queries.shape[2] - extra, dtype=torch.float32)


@torch.library.custom_op(
    "spectrim::attend_and_score",
    mutates_args=(),
    schema="(Tensor queries, Tensor keys, Tensor values, int extra) -> (Tensor, Tensor)",
)
def attend_and_score(queries: Tensor, keys: Tensor, values: Tensor, extra: int) -> tuple[Tensor, Tensor]:
    """Attention output of every token, and the attention that each patch receives.

    Args:
        queries: (batch, heads, extra + n, head_dim); float16, bfloat16 or, in the interpreter, float32.
        keys: the same shape and type.
        values: likewise.
        extra: number of extra tokens.

    Returns:
        The heads side by side, (batch, extra + n, heads · head_dim), of the type of ``values``; and the score as
        `mean_attention` gives it.
    """
    from spectrim.pruning.kernels.attention import launch

    with torch.cuda.device_of(queries):
        output, score = launch(queries, keys, values, extra)
    return output, score


@attend_and_score.register_fake
def _(queries: Tensor, keys: Tensor, values: Tensor, extra: int) -> tuple[Tensor, Tensor]:
    batch, heads, length, head_dim = queries.shape
    output = values.new_empty(batch, length, heads * head_dim)
    return output, queries.new_empty(batch, length - extra, dtype=torch.float32)
