"""Packed weights: the same answers, and an ordinary layer again whenever the weights may have changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import spectrim
from spectrim.assets import packaged_clips
from spectrim.config import BUILDERS
from spectrim.inference.packing import CAN_PACK, PackedLinear, is_packed, pack_weights, unpack_weights
from spectrim.inference.predict import open_model, predict
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
    return sum(is_packed(layer) for layer in module.modules())


def logits(module: AudioTransformer, values: torch.Tensor, keep_rate: float = 0.5) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = module(values, keep_rate=keep_rate).logits
    return found.clone()


@needs_onednn
@pytest.mark.parametrize("keep_rate", [1.0, 0.5])
def test_answers_stay_the_same_to_rounding(model: AudioTransformer, values: torch.Tensor, keep_rate: float) -> None:
    before = logits(model, values, keep_rate)
    assert pack_weights(model) is model
    assert packed_layers(model) == sum(isinstance(layer, nn.Linear) for layer in model.modules()) > 40
    after = logits(model, values, keep_rate)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert not torch.equal(after, before), "the blocks were not used"


@needs_onednn
@pytest.mark.parametrize("rows", [(), (0,), (1,), (5,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_takes_every_shape(rows: tuple[int, ...], bias: bool) -> None:
    layer = nn.Linear(40, 24, bias=bias)
    given = torch.randn(*rows, 80)[..., ::2]
    with torch.no_grad():
        wanted = layer(given)
        found = pack_weights(layer)(given)
    assert type(layer) is PackedLinear
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted)


@needs_onednn
@pytest.mark.parametrize("given", [torch.zeros(2, 41), torch.zeros(()), torch.zeros(2, 40, dtype=torch.float64)])
def test_what_an_ordinary_layer_refuses_is_refused(given: torch.Tensor) -> None:
    layer = pack_weights(nn.Linear(40, 24))
    with pytest.raises((RuntimeError, IndexError)), torch.no_grad():
        layer(given)


def test_elsewhere_nothing_is_done(model: AudioTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrim.inference.packing.CAN_PACK", False)
    assert packed_layers(pack_weights(model)) == 0


def write(model: AudioTransformer) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)


def load(model: AudioTransformer) -> None:
    model.load_state_dict({name: 1.5 * value for name, value in model.state_dict().items()})


def step(model: AudioTransformer) -> None:
    """Fused AdamW changes weights without counting it in their version."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(torch.randn(1, 128, 128)).logits.sum().backward()
    optimiser.step()


def replace(model: AudioTransformer) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.weight = nn.Parameter(1.5 * layer.weight.detach())


def double_and_back(model: AudioTransformer) -> None:
    model.double()
    write(model)
    model.float()


def replace_twice(model: AudioTransformer) -> None:
    """What is freed first is where the second may come to lie."""
    state = model.state_dict()
    for factor in (3.0, 1.5):
        model.load_state_dict({name: factor * value for name, value in state.items()}, assign=True)


@needs_onednn
@pytest.mark.parametrize("change", [replace_twice, write, load, step, replace, double_and_back])
def test_changed_weights_count(
    model: AudioTransformer, values: torch.Tensor, change: Callable[[AudioTransformer], None]
) -> None:
    assert packed_layers(pack_weights(model)) > 0
    logits(model, values)
    change(model)
    fresh = copy.deepcopy(model)
    assert packed_layers(fresh) == 0
    torch.testing.assert_close(logits(model, values), logits(fresh, values), rtol=0, atol=0)
    again = logits(pack_weights(model), values)
    torch.testing.assert_close(again, logits(fresh, values), rtol=1e-4, atol=1e-4)


@needs_onednn
def test_a_move_to_where_it_is_keeps_the_packing(model: AudioTransformer, values: torch.Tensor) -> None:
    pack_weights(model)
    before = packed_layers(model)
    wanted = logits(model, values)
    assert packed_layers(model.to("cpu").float().eval()) == before > 0
    torch.testing.assert_close(logits(model, values), wanted, rtol=0, atol=0)
    assert packed_layers(model.share_memory()) == 0


@needs_onednn
def test_training_and_casts_take_the_packing_back(model: AudioTransformer, values: torch.Tensor) -> None:
    assert packed_layers(pack_weights(model).eval()) > 0
    assert packed_layers(model.train()) == 0
    assert packed_layers(pack_weights(model.eval()).bfloat16()) == 0
    assert packed_layers(pack_weights(model)) == 0, "bfloat16 is oneDNN's own already"
    pack_weights(model.float())
    assert model(values).logits.requires_grad
    assert packed_layers(model) == 0
    assert type(unpack_weights(pack_weights(model)).blocks[0].mlp.up) is nn.Linear


@needs_onednn
def test_a_frozen_model_stays_packed_outside_no_grad(model: AudioTransformer, values: torch.Tensor) -> None:
    pack_weights(model.requires_grad_(False))
    wanted = logits(model, values)
    torch.testing.assert_close(model(values, keep_rate=0.5).logits, wanted, rtol=0, atol=0)
    assert packed_layers(model) > 0


@needs_onednn
@pytest.mark.parametrize("trained", ["weight", "bias"])
def test_what_is_trained_gets_its_gradient(trained: str) -> None:
    layer = nn.Linear(40, 24).requires_grad_(False)
    layer.get_parameter(trained).requires_grad_(True)
    pack_weights(layer)(torch.randn(3, 40)).sum().backward()
    assert layer.get_parameter(trained).grad is not None


@needs_onednn
@pytest.mark.parametrize("bias", [torch.randn(24, 3)[:, 0], torch.ones(1).expand(24)])
def test_a_bias_that_is_not_side_by_side(bias: torch.Tensor) -> None:
    layer = nn.Linear(40, 24)
    layer.bias = nn.Parameter(bias)
    given = torch.randn(3, 40)
    with torch.no_grad():
        torch.testing.assert_close(pack_weights(layer)(given), nn.functional.linear(given, layer.weight, bias))


@needs_onednn
def test_gradients_forward_and_many_weights_at_once() -> None:
    layer, given, step = nn.Linear(40, 24), torch.randn(3, 40), torch.randn(3, 40)
    pack_weights(layer)
    with torch.no_grad():
        _, tangent = torch.func.jvp(layer, (given,), (step,))
        torch.testing.assert_close(tangent, step @ layer.weight.T)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(given, step)
            tangent = torch.autograd.forward_ad.unpack_dual(layer(dual)).tangent
        torch.testing.assert_close(tangent, step @ layer.weight.T)
        weights = {"weight": torch.randn(5, 24, 40), "bias": torch.randn(5, 24)}
        found = torch.func.vmap(lambda one: torch.func.functional_call(layer, one, (given,)))(weights)
        torch.testing.assert_close(
            found, torch.einsum("ni,bji->bnj", given, weights["weight"]) + weights["bias"][:, None]
        )


@needs_onednn
def test_parametrised_layers_stay_what_they_are() -> None:
    layer, given = nn.Linear(40, 24), torch.randn(3, 40)
    wanted = layer(given)
    torch.nn.utils.parametrizations.weight_norm(pack_weights(layer))
    for one in (copy.deepcopy(layer), layer):
        with torch.no_grad():
            torch.testing.assert_close(one(given), wanted)


@needs_onednn
def test_sparse_and_nested_inputs() -> None:
    layer = nn.Linear(40, 24)
    given = torch.randn(3, 40)
    with torch.no_grad():
        wanted = layer(given)
        pack_weights(layer)
        torch.testing.assert_close(layer(given.to_sparse()), wanted)
        nested = layer(torch.nested.nested_tensor([given, given[:2]]))
    torch.testing.assert_close(nested.unbind()[1], wanted[:2])


@needs_onednn
def test_files_do_not_name_our_class(model: AudioTransformer) -> None:
    assert b"PackedLinear" not in pickle.dumps(pack_weights(model))


def test_copies_and_files_hold_ordinary_layers(model: AudioTransformer, values: torch.Tensor, tmp_path: object) -> None:
    wanted = logits(model, values)
    names = list(model.state_dict())
    pack_weights(model)
    assert list(model.state_dict()) == names
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert packed_layers(twin) == 0
        torch.testing.assert_close(logits(twin, values), wanted, rtol=0, atol=0)
    model.save_pretrained(str(tmp_path))
    torch.testing.assert_close(logits(spectrim.from_pretrained(str(tmp_path)), values, 0.5), wanted, rtol=0, atol=0)


@needs_onednn
def test_tracing_autocast_and_a_switched_off_onednn_see_ordinary_layers(
    model: AudioTransformer, values: torch.Tensor
) -> None:
    ordinary = copy.deepcopy(model)
    assert packed_layers(pack_weights(model)) > 0
    program = torch.export.export(model, (values,))
    assert not any("mkldnn" in str(node.target) for node in program.graph.nodes)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(logits(model, values), logits(ordinary, values), rtol=0, atol=0)
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(logits(model, values), logits(ordinary, values), rtol=0, atol=0)


@needs_onednn
def test_products_count_the_same(model: AudioTransformer, values: torch.Tensor) -> None:
    counts = []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter:
            logits(model, values)
        counts.append(counter.get_total_flops())
        assert packed_layers(pack_weights(model)) > 0
    assert counts[0] == counts[1] > 0


@needs_onednn
def test_small_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pair = pack_weights(nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 512)))
    assert [type(layer) for layer in pair] == [nn.Linear, PackedLinear]


@needs_onednn
def test_a_model_opened_by_name_is_packed() -> None:
    model = open_model("spectrim-mini")
    assert packed_layers(model) > 0
    list(predict([packaged_clips()[0][0]], model))
    assert packed_layers(model) > 0, "tagging files unpacked it"
    assert packed_layers(spectrim.from_pretrained("spectrim-mini")) == 0
    assert packed_layers(open_model("spectrim-mini", precision="bf16")) == 0
