"""Packed weights: the same answers in a form of its own, fixed, and a refusal for all that it cannot do."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import spectrim
from spectrim.assets import packaged_clips
from spectrim.backbones import BUILDERS
from spectrim.errors import InvalidSetting, SpectrimError
from spectrim.inference.onnx_export import export
from spectrim.inference.opening import open_model
from spectrim.inference.packing import CAN_PACK, OPERATIONS, PackedLinear, is_packed, pack_weights, unpack_weights
from spectrim.inference.predict import predict_files
from spectrim.inference.torch_model import TorchModel
from spectrim.network.transformer import AudioTransformer

needs_onednn = pytest.mark.skipif(not CAN_PACK, reason="weights are packed on x86-64 only")


@pytest.fixture(autouse=True)
def small_layers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrim.inference.packing.LEAST_WEIGHTS", 1)


@pytest.fixture
def model() -> AudioTransformer:
    torch.manual_seed(0)
    fields = {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 192, "head_init_std": 0.1}
    return AudioTransformer(BUILDERS["ast-tiny"](num_labels=7, max_length=128, **fields)).eval()


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))


def packed_layers(module: nn.Module) -> int:
    return sum(isinstance(layer, PackedLinear) for layer in module.modules())


def logits(module: AudioTransformer, values: torch.Tensor, keep_rate: float = 0.5) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = module(values, keep_rate=keep_rate).logits
    return found.clone()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
@pytest.mark.parametrize("name", OPERATIONS)
def test_pytorch_still_has_what_nothing_public_stands_for(name: str) -> None:
    assert hasattr(torch.ops.mkldnn, name), f"torch.ops.mkldnn.{name} is gone: weights are no longer packed"


@needs_onednn
@pytest.mark.parametrize("keep_rate", [1.0, 0.5])
def test_answers_stay_the_same_to_rounding(model: AudioTransformer, values: torch.Tensor, keep_rate: float) -> None:
    before = logits(model, values, keep_rate)
    frozen = pack_weights(model)
    assert is_packed(frozen)
    assert packed_layers(frozen) == sum(isinstance(layer, nn.Linear) for layer in model.modules()) > 40
    after = logits(frozen, values, keep_rate)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert not torch.equal(after, before), "the blocks were not used"
    with torch.no_grad():
        torch.testing.assert_close(frozen(values, keep_rate=keep_rate).logits, after, rtol=0, atol=0)


@needs_onednn
@pytest.mark.parametrize("rows", [(), (0,), (1,), (5,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_takes_every_shape(rows: tuple[int, ...], bias: bool) -> None:
    layer = nn.Linear(40, 24, bias=bias)
    given = torch.randn(*rows, 80)[..., ::2]
    with torch.no_grad():
        wanted = layer(given)
        found = pack_weights(layer)(given)
    assert type(layer) is nn.Linear
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted)


@needs_onednn
@pytest.mark.parametrize(
    ("given", "what"),
    [
        (torch.zeros(2, 41), r"float32 of shape \(2, 41\), only with float32 of shape \(\.\.\., 40\)"),
        (torch.zeros(()), r"float32 of shape \(\)"),
        (torch.zeros(2, 40, dtype=torch.float64), r"float64 of shape \(2, 40\)"),
        (torch.zeros(2, 40, dtype=torch.bfloat16), r"bfloat16 of shape \(2, 40\)"),
    ],
)
def test_what_does_not_fit_is_refused(given: torch.Tensor, what: str) -> None:
    with pytest.raises(SpectrimError, match=f"^packed weights cannot be multiplied with {what}"), torch.no_grad():
        pack_weights(nn.Linear(40, 24))(given)


@needs_onednn
def test_sparse_and_nested_inputs_are_refused() -> None:
    layer, given = pack_weights(nn.Linear(40, 24)), torch.randn(3, 40)
    for odd in (given.to_sparse(), torch.nested.nested_tensor([given, given[:2]], layout=torch.jagged)):
        with pytest.raises((SpectrimError, RuntimeError)), torch.no_grad():
            layer(odd)


@pytest.mark.parametrize("setting", [{"CAN_PACK": False}, {"LEAST_WEIGHTS": 1 << 17}])
def test_where_nothing_is_packed_it_is_a_frozen_copy_too(
    model: AudioTransformer, values: torch.Tensor, monkeypatch: pytest.MonkeyPatch, setting: dict[str, int]
) -> None:
    for name, value in setting.items():
        monkeypatch.setattr(f"spectrim.inference.packing.{name}", value)
    before = logits(model, values)
    frozen = pack_weights(model.train())
    wanted = logits(frozen, values)
    torch.testing.assert_close(wanted, before, rtol=1e-5, atol=1e-5)
    assert not is_packed(frozen)
    assert model.training and not frozen.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(weight.requires_grad for weight in frozen.parameters())
    write(model)
    torch.testing.assert_close(logits(frozen, values), wanted, rtol=0, atol=0)
    assert unpack_weights(model) is model


@needs_onednn
def test_the_model_stays_as_it_is(model: AudioTransformer, values: torch.Tensor) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = logits(model, values)
    frozen = pack_weights(model.train())
    assert packed_layers(model) == 0
    assert model.training
    assert not frozen.training
    assert all(weight.requires_grad for name, weight in model.named_parameters())
    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(logits(model.eval(), values), wanted, rtol=0, atol=0)
    model(values).logits.sum().backward()
    assert model.blocks[0].mlp.up.weight.grad is not None


def write(model: AudioTransformer) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)


def step(model: AudioTransformer) -> None:
    """Fused AdamW changes weights without counting it in their version."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(torch.randn(1, 128, 128)).logits.sum().backward()
    optimiser.step()


def double(model: AudioTransformer) -> None:
    model.double()
    write(model)


@needs_onednn
@pytest.mark.parametrize("change", [write, step, double])
def test_what_becomes_of_the_model_does_not_reach_it(
    model: AudioTransformer, values: torch.Tensor, change: Callable[[AudioTransformer], None]
) -> None:
    frozen = pack_weights(model)
    wanted = logits(frozen, values)
    change(model)
    assert not torch.allclose(logits(model.float(), values), wanted, atol=1e-2)
    torch.testing.assert_close(logits(frozen, values), wanted, rtol=0, atol=0)


@needs_onednn
def test_what_it_cannot_do_is_refused(model: AudioTransformer, values: torch.Tensor, tmp_path: Path) -> None:
    frozen = pack_weights(model)
    wanted = logits(frozen, values)
    for what, attempt in {
        "trained": lambda: frozen.train(),
        "cast or moved": lambda: pack_weights(model).bfloat16(),
        "cast or moved ": lambda: pack_weights(model).to("meta"),
        "loaded into": lambda: frozen.load_state_dict(model.state_dict()),
    }.items():
        with pytest.raises(SpectrimError, match=f"^packed weights cannot be {what.strip()}; use the model that"):
            attempt()
    assert frozen.to("cpu").float().eval() is frozen
    torch.testing.assert_close(logits(frozen, values), wanted, rtol=0, atol=0)
    with pytest.raises((SpectrimError, RuntimeError), match="packed weights cannot be traced or compiled"):
        torch.export.export(frozen, (values,))
    with pytest.raises(InvalidSetting, match="model is 'one with packed weights'"):
        export(frozen, tmp_path / "model.onnx")


@needs_onednn
def test_gradients_are_refused_and_not_dropped() -> None:
    layer, given = pack_weights(nn.Linear(40, 24)), torch.randn(3, 40)
    with pytest.raises(SpectrimError, match=r"^packed weights cannot be differentiated"):
        layer(given.clone().requires_grad_()).sum().backward()
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.func.jvp(layer, (given,), (given,))
    with torch.autograd.forward_ad.dual_level(), pytest.raises((RuntimeError, NotImplementedError)):
        layer(torch.autograd.forward_ad.make_dual(given, given))


@needs_onednn
@pytest.mark.parametrize("bias", [torch.randn(24, 3)[:, 0], torch.ones(1).expand(24)])
def test_a_bias_that_is_not_side_by_side(bias: torch.Tensor) -> None:
    layer = nn.Linear(40, 24)
    layer.bias = nn.Parameter(bias)
    given = torch.randn(3, 40)
    with torch.no_grad():
        torch.testing.assert_close(pack_weights(layer)(given), nn.functional.linear(given, layer.weight, bias))


@needs_onednn
def test_layers_that_something_else_watches_or_changes_stay_what_they_are() -> None:
    layers = nn.ModuleList(nn.Linear(40, 24) for _ in range(4))
    torch.nn.utils.parametrizations.weight_norm(layers[1])
    layers[2].register_forward_hook(lambda layer, given, output: output + 1)
    layers[3].forward = lambda given: given
    assert [isinstance(layer, PackedLinear) for layer in pack_weights(layers)] == [True, False, False, False]
    assert packed_layers(pack_weights(nn.Linear(40, 24).bfloat16())) == 0, "bfloat16 is oneDNN's own already"


@needs_onednn
def test_a_layer_that_two_places_share_is_packed_once() -> None:
    layer = nn.Linear(40, 40)
    frozen = pack_weights(nn.Sequential(layer, nn.ReLU(), layer))
    assert frozen[0] is frozen[2]
    given = torch.randn(3, 40)
    with torch.no_grad():
        torch.testing.assert_close(frozen(given), layer(layer(given).relu()))


@needs_onednn
def test_copies_and_files_hold_the_same_weights(model: AudioTransformer, values: torch.Tensor, tmp_path: Path) -> None:
    wanted = logits(model, values)
    frozen = pack_weights(model)
    assert list(frozen.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in frozen.state_dict().items())
    for twin in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        torch.testing.assert_close(logits(twin, values), logits(frozen, values), rtol=0, atol=0)
        assert packed_layers(twin) == packed_layers(frozen)
    frozen.save_pretrained(str(tmp_path))
    torch.testing.assert_close(logits(spectrim.from_pretrained(str(tmp_path)), values), wanted, rtol=0, atol=0)
    back = unpack_weights(frozen)
    assert packed_layers(back) == 0
    assert [type(layer) for layer in back.modules()] == [type(layer) for layer in model.modules()]
    torch.testing.assert_close(logits(back, values), wanted, rtol=0, atol=0)
    back.train()(values).logits.sum().backward()
    assert back.blocks[0].mlp.up.weight.grad is not None


@needs_onednn
def test_a_pickled_layer_is_an_ordinary_one_where_nothing_can_be_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, given = nn.Linear(40, 24), torch.randn(3, 40)
    stored = pickle.dumps(pack_weights(layer))
    monkeypatch.setattr("spectrim.inference.packing.CAN_PACK", False)
    loaded = pickle.loads(stored)
    assert type(loaded) is nn.Linear
    with torch.no_grad():
        torch.testing.assert_close(loaded(given), layer(given), rtol=0, atol=0)


@needs_onednn
def test_products_count_the_same(model: AudioTransformer, values: torch.Tensor) -> None:
    counts = []
    for module in (model, pack_weights(model)):
        with FlopCounterMode(display=False) as counter:
            logits(module, values)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@needs_onednn
def test_small_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pair = pack_weights(nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 512)))
    assert [type(layer) for layer in pair] == [nn.Linear, PackedLinear]


@needs_onednn
def test_a_model_opened_by_name_is_packed(model: AudioTransformer) -> None:
    backend = open_model("spectrim-mini")
    assert isinstance(backend, TorchModel)
    assert is_packed(backend.network)
    [prediction] = predict_files([packaged_clips()[0][0]], backend)
    [ordinary] = predict_files([packaged_clips()[0][0]], spectrim.from_pretrained("spectrim-mini"))
    assert dict(prediction.top(99)) == pytest.approx(dict(ordinary.top(99)), abs=1e-5)
    assert not is_packed(spectrim.from_pretrained("spectrim-mini"))
    rounded = open_model("spectrim-mini", precision="bf16")
    assert isinstance(rounded, TorchModel)
    assert not is_packed(rounded.network)
    assert not is_packed(TorchModel(model).network)
    assert is_packed(TorchModel(model).frozen().network)
    assert TorchModel(pack_weights(model), device=torch.device("meta")).device.type == "meta"


@needs_onednn
def test_without_the_operations_nothing_is_packed() -> None:
    """Another PyTorch may have taken them away: import and answers stay."""
    lines = (
        "import torch",
        "class Without:",
        "    def __getattr__(self, name): raise AttributeError(name)",
        "torch.ops.mkldnn = Without()",
        "from spectrim.inference import packing",
        "layer = torch.nn.Linear(512, 512)",
        "assert not packing.CAN_PACK and type(packing.pack_weights(layer)) is torch.nn.Linear",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
