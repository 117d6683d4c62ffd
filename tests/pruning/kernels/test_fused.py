"""The kernel in Triton's interpreter against NumPy in float64, and where the model takes it."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import clips, small_model
from torch import Tensor

from spectrim.pruning.criteria.attention import Projections, mean_attention
from spectrim.pruning.kernels import fused

triton = pytest.importorskip("triton", reason="Triton runs the kernel")
kernel = pytest.importorskip("spectrim.pruning.kernels.attention")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="these tests run the interpreter, not the GPU")

TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Relative error: of float32 sums, and of an output rounded to 10 or 7 bits."""


@pytest.fixture(autouse=True)
def products_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bfloat16 as bits and multiplies those; let it multiply the numbers."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    usual = InterpreterBuilder.create_dot

    def as_numbers(builder: InterpreterBuilder, handle: TensorHandle) -> TensorHandle:
        is_bits = handle.dtype.scalar == triton.language.bfloat16
        return builder.cast_impl(handle, triton.language.float32) if is_bits else handle

    def create_dot(builder: InterpreterBuilder, a: TensorHandle, b: TensorHandle, *rest: object) -> TensorHandle:
        return usual(builder, as_numbers(builder, a), as_numbers(builder, b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def projections(shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values (batch, heads, length, head_dim), laid out as the encoder's projections are."""
    batch, heads, length, head_dim = shape
    generator = torch.Generator().manual_seed(length)
    query = torch.randn(batch, length, heads * head_dim, generator=generator)
    key_value = torch.randn(batch, length, 2 * heads * head_dim, generator=generator)
    parts = [query, *key_value.to(dtype).chunk(2, dim=-1)]
    return [part.to(dtype).unflatten(-1, (heads, head_dim)).transpose(1, 2) for part in parts]


def oracle(queries: Tensor, keys: Tensor, values: Tensor, extra: int) -> tuple[np.ndarray, np.ndarray]:
    """Output (batch, length, width) and score (batch, n) in float64."""
    q, k, v = (tensor.double().numpy() for tensor in (queries, keys, values))
    logits = np.einsum("bhqd,bhkd->bhqk", q, k) / np.sqrt(q.shape[-1])
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    output = np.einsum("bhqk,bhkd->bqhd", shares, v)
    return output.reshape(*output.shape[:2], -1), shares[:, :, extra:, extra:].mean(axis=(1, 2))


def relative(found: Tensor, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found.double().numpy() - wanted) / np.linalg.norm(wanted))


def errors(shape: tuple[int, int, int, int], extra: int, dtype: torch.dtype, tiles: object) -> tuple[float, float]:
    """Relative error of the output, and the largest one of a score; the score alone must have the same bits."""
    queries, keys, values = projections(shape, dtype)
    wanted_output, wanted_score = oracle(queries, keys, values, extra)
    output, score = kernel.launch(queries, keys, values, extra, tiles)
    assert output.shape == wanted_output.shape and output.dtype == dtype
    assert score.shape == wanted_score.shape and score.dtype == torch.float32
    none, alone = kernel.launch(queries, keys, None, extra, tiles)
    assert none.numel() == 0 and torch.equal(alone, score)
    return relative(output, wanted_output), float(np.abs(score.numpy() / wanted_score - 1).max())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("shape", "extra"),
    [((1, 1, 65, 64), 1), ((2, 3, 64, 64), 1), ((3, 2, 63, 32), 2), ((1, 2, 131, 16), 2), ((2, 1, 129, 64), 0)],
)
def test_output_and_score_are_those_of_float64(
    shape: tuple[int, int, int, int], extra: int, dtype: torch.dtype
) -> None:
    of_output, of_scores = errors(shape, extra, dtype, kernel.TILES)
    assert of_output < TOLERANCE[dtype] and of_scores < 1e-5


@settings(max_examples=25)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    patches=st.integers(1, 70),
    extra=st.integers(0, 4),
    head_dim=st.sampled_from([5, 16, 24, 32, 64]),
    tiles=st.sampled_from([(16, 16), (16, 64), (64, 16), (32, 32)]),
)
def test_any_shape_and_any_tiles(
    batch: int, heads: int, patches: int, extra: int, head_dim: int, tiles: tuple[int, int]
) -> None:
    shape = (batch, heads, patches + extra, head_dim)
    of_output, of_scores = errors(shape, extra, torch.float32, kernel.Tiles(*tiles))
    assert of_output < TOLERANCE[torch.float32] and of_scores < 1e-5


@pytest.mark.parametrize("factor", [30.0, 3000.0])
def test_large_logits_do_not_overflow(factor: float) -> None:
    queries, keys, values = projections((2, 2, 70, 32))
    keys = keys * factor
    wanted_output, wanted_score = oracle(queries, keys, values, 1)
    output, score = kernel.launch(queries, keys, values, 1)
    assert torch.isfinite(output).all() and torch.isfinite(score).all()
    assert relative(output, wanted_output) < 1e-3
    np.testing.assert_allclose(score.numpy(), wanted_score, atol=1e-3 / 69)
    np.testing.assert_allclose(score.sum(dim=1).numpy(), wanted_score.sum(axis=1), rtol=1e-3)


def test_equal_scores_where_all_patches_are_alike() -> None:
    queries, keys, values = (
        tensor.mean(dim=2, keepdim=True).expand(-1, -1, 40, -1) for tensor in projections((1, 2, 9, 16))
    )
    output, score = kernel.launch(queries, keys, values, 2)
    np.testing.assert_allclose(score.numpy(), np.full((1, 38), 1 / 40), rtol=1e-6)
    wanted = values.transpose(1, 2).flatten(2)
    torch.testing.assert_close(output, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("extra", [1, 2])
def test_the_score_is_that_of_the_criterion(extra: int) -> None:
    queries, keys, values = projections((2, 3, 140, 32))
    wanted = mean_attention(Projections(queries, keys, values, extra))
    torch.testing.assert_close(fused.mean_attention(queries, keys, extra), wanted, rtol=1e-5, atol=0)
    output, score = fused.attend_and_score(queries, keys, values, extra)
    torch.testing.assert_close(score, wanted, rtol=1e-5, atol=0)
    attended = torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
    torch.testing.assert_close(output, attended.transpose(1, 2).flatten(2), rtol=1e-5, atol=1e-5)


def test_the_same_bits_on_every_run_and_whoever_is_in_the_batch() -> None:
    queries, keys, values = projections((3, 2, 100, 32))
    output, score = kernel.launch(queries, keys, values, 1)
    again, score_again = kernel.launch(queries, keys, values, 1)
    assert torch.equal(output, again) and torch.equal(score, score_again)
    alone, score_alone = kernel.launch(queries[1:2], keys[1:2], values[1:2], 1)
    assert torch.equal(output[1:2], alone) and torch.equal(score[1:2], score_alone)


def test_any_memory_layout() -> None:
    queries, keys, values = projections((2, 2, 40, 16))
    wanted = kernel.launch(queries, keys, values, 1)
    turned = [tensor.transpose(2, 3).contiguous().transpose(2, 3) for tensor in (queries, keys, values)]
    assert all(tensor.stride(-1) != 1 for tensor in turned)
    for found, expected in zip(kernel.launch(*turned, 1), wanted, strict=True):
        assert torch.equal(found, expected)


def test_the_operators_tell_the_truth_about_shapes_and_inputs() -> None:
    queries, keys, values = projections((2, 2, 20, 16))
    torch.library.opcheck(fused.mean_attention, (queries, keys, 1))
    torch.library.opcheck(fused.attend_and_score, (queries, keys, values, 2))


@pytest.fixture
def on_any_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Let the model take the kernel here too; notes each launch, True with an output."""
    launches: list[bool] = []
    usual = kernel.launch
    assert fused.agrees(torch.device("cpu"), torch.float32)  # compared now, so that these launches are not counted

    def noting(queries: Tensor, keys: Tensor, values: Tensor | None, extra: int) -> tuple[Tensor, Tensor]:
        launches.append(values is not None)
        return usual(queries, keys, values, extra)

    monkeypatch.setattr(kernel, "launch", noting)
    monkeypatch.setattr(fused, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setattr(fused, "TYPES", (torch.float32,))
    torch.compiler.reset()
    yield launches
    torch.compiler.reset()


def plainly(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> object:
    with monkeypatch.context() as patch:
        patch.setattr(fused, "TYPES", ())
        return call()


@pytest.mark.parametrize(("keep_rate", "together"), [(0.7, True), (0.5, True), (0.3, False)])
def test_the_model_answers_the_same(
    keep_rate: float, together: bool, on_any_device: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("audiomae", keep_rate=keep_rate, num_hidden_layers=3, prune_at=[0, 1]).float()
    values = clips(model.config).float()

    @torch.no_grad()
    def passing() -> object:
        return model(values, output_token_trace=True)

    found = passing()
    assert on_any_device == [together, together, False]
    wanted = plainly(passing, monkeypatch)
    assert len(on_any_device) == 3
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found.token_trace.kept, wanted.token_trace.kept, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(found.token_trace.scores, wanted.token_trace.scores, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0, equal_nan=True)


def test_training_takes_the_score_and_has_the_same_gradients(
    on_any_device: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("audiomae", keep_rate=0.6, num_hidden_layers=2, prune_at=[1]).float().train()
    values, labels = clips(model.config).float(), torch.tensor([1, 2])

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model(values, labels=labels).loss.backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    found = gradients()
    assert on_any_device == [False]
    wanted = plainly(gradients, monkeypatch)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)


def test_masks_and_other_criteria_take_the_plain_way(on_any_device: list[bool]) -> None:
    model = small_model("audiomae", keep_rate=0.6, num_hidden_layers=2, prune_at=[0], drop_padding=True).float()
    values = clips(model.config).float()
    with torch.no_grad():
        model(values, num_frames=torch.tensor([128, 50]))
        assert on_any_device == []
        model.set_pruning(drop_padding=False)
        other = small_model("ast", keep_rate=0.6, num_hidden_layers=2, prune_at=[0]).float()
        other(clips(other.config).float())
    assert on_any_device == []


@pytest.mark.parametrize("keep_rate", [0.6, 0.3])
def test_what_is_asked_for_changes_no_bit_of_the_logits(keep_rate: float, on_any_device: list[bool]) -> None:
    model = small_model("audiomae", keep_rate=keep_rate, num_hidden_layers=3, prune_at=[1]).float()
    values = clips(model.config).float()
    with torch.no_grad():
        usual = model(values).logits
        assert on_any_device == [keep_rate > 0.5]
        shown = model(values, output_attentions=True, output_token_trace=True)
        assert on_any_device[1:] == [False, keep_rate > 0.5, False]
    assert torch.equal(shown.logits, usual)
    stayed = 1 + math.ceil(keep_rate * 64)
    assert [part.shape[2] for part in shown.attentions] == [65, stayed, stayed - 1]
    torch.testing.assert_close(shown.attentions[1].sum(dim=-1), torch.ones(2, 4, stayed))


@pytest.mark.parametrize("keep_rate", [0.6, 0.3])
def test_compiles_as_one_graph_with_the_kernel_in_it(keep_rate: float, on_any_device: list[bool]) -> None:
    model = small_model("audiomae", keep_rate=keep_rate, num_hidden_layers=2, prune_at=[0]).float()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    values = clips(model.config).float()
    with torch.no_grad():
        wanted = model(values).logits
        torch.testing.assert_close(compiled(values).logits, wanted, rtol=1e-5, atol=1e-6)
    assert on_any_device == [keep_rate > 0.5] * 2


def test_exports_hold_no_operator_of_ours(on_any_device: list[bool]) -> None:
    model = small_model("audiomae", keep_rate=0.6, num_hidden_layers=2, prune_at=[0]).float()
    with torch.no_grad():
        program = torch.export.export(model, (clips(model.config).float(),), strict=False)
    assert on_any_device == []
    assert "spectrim" not in {str(node.target).partition(".")[0] for node in program.graph.nodes}


def test_what_takes_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = projections((1, 2, 20, 16), torch.bfloat16)
    queries, keys, _ = tensors
    mask = torch.zeros(1, 1, 1, 20)
    assert not fused.score_fused(queries, keys, None), "the CPU has no matrix units for it"
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    assert fused.score_fused(queries, keys, None)
    assert not fused.score_fused(queries, keys, mask)
    assert not fused.score_fused(queries.float(), keys.float(), None)
    assert not fused.score_fused(queries.detach().requires_grad_(), keys, None)
    with torch.no_grad():
        assert fused.score_fused(queries.detach().requires_grad_(), keys, None)
    wide = torch.zeros(1, 1, 20, 256, dtype=torch.bfloat16)
    assert not fused.score_fused(wide, wide, None)
    assert [fused.together_pays(*tensors, None, going_on) for going_on in (9, 10, 20)] == [False, True, True]
    assert not fused.together_pays(*tensors, mask, 20)
    assert not fused.together_pays(queries, keys, tensors[2].detach().requires_grad_(), None, 20)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not fused.score_fused(queries, keys, None)
    assert not fused.together_pays(*tensors, None, 20)


@pytest.fixture
def nothing_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has compared nothing yet, whose CPU counts as a device for the kernel."""
    monkeypatch.setattr(fused, "_found", {})
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    monkeypatch.setattr(fused, "TYPES", (torch.float32, torch.float16, torch.bfloat16))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_kernel_that_is_right_is_compared_once_and_taken(
    dtype: torch.dtype, nothing_compared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[torch.dtype] = []
    usual = fused._difference
    monkeypatch.setattr(fused, "_difference", lambda device, kind: compared.append(kind) or usual(device, kind))
    queries, keys, _ = projections((1, 2, 20, 16), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [fused.score_fused(queries, keys, None) for _ in range(3)] == [True] * 3
    assert compared == [dtype]


@pytest.mark.parametrize("fault", ["score", "output", "score alone", "nan", "does not run"])
def test_a_kernel_that_is_wrong_steps_aside_with_one_warning(
    fault: str, nothing_compared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = kernel.launch

    def wrong(queries: Tensor, keys: Tensor, values: Tensor | None, extra: int) -> tuple[Tensor, Tensor]:
        if fault == "does not run":
            raise RuntimeError("no kernel image is available")
        output, score = usual(queries, keys, values, extra)
        if fault == "score alone":
            return output, score if values is not None else score * 1.01
        if fault == "score":
            return output, score.roll(1, dims=1)
        return output * (float("nan") if fault == "nan" else 1.05), score

    monkeypatch.setattr(kernel, "launch", wrong)
    model = small_model("audiomae", keep_rate=0.6, num_hidden_layers=2, prune_at=[0]).float()
    values = clips(model.config).float()
    with torch.no_grad(), pytest.warns(UserWarning, match="fused attention kernel is not used on cpu") as told:
        found = [model(values).logits for _ in range(2)]
    assert len(told) == 1
    wanted = plainly(lambda: model(values).logits, monkeypatch)
    assert all(torch.equal(logits, wanted) for logits in found)


def test_a_graph_that_is_being_captured_takes_no_kernel_that_was_not_compared(
    nothing_compared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    assert not fused._runs_on("cuda", None, torch.float16)
    fused._found["cuda", 0, torch.float16] = True
    assert fused._runs_on("cuda", None, torch.float16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    assert not fused._runs_on("cuda", 0, torch.float16)
