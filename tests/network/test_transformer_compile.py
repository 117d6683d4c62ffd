"""The same forward compiled, exported, checkpointed, copied and pickled."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Iterator

import pytest
import torch
from plain import BACKBONES, CRITERIA, clips, small_config, small_model

from spectrim.network.losses import ratio_loss
from spectrim.network.transformer import AudioTransformer, AudioTransformerOutput

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
SHALLOW = {"num_hidden_layers": 5, "prune_at": [1, 3]}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_compiles_as_one_graph_with_pruning_on(backbone: str) -> None:
    model = small_model(backbone, keep_rate=0.6, num_hidden_layers=2, prune_at=[0, 1])
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
    with torch.no_grad():
        for batch in (2, 3):
            values = clips(model.config, batch)
            torch.testing.assert_close(compiled(values).logits, model(values).logits, **CLOSE)


def test_compiled_training_has_the_same_gradients() -> None:
    model = small_model("audiomae", keep_rate=0.6, num_hidden_layers=2, prune_at=[0]).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    values, labels = clips(model.config), torch.tensor([1, 2])
    gradients = []
    for forward in (model, compiled):
        model.zero_grad()
        forward(values, labels=labels).loss.backward()
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        gradients.append({name: weight.grad.clone() for name, weight in trained.items()})
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], **CLOSE)


def test_a_compiled_model_follows_an_annealed_keep_rate() -> None:
    model = small_model("ast", num_hidden_layers=1, prune_at=[0])
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    values = clips(model.config)
    with torch.no_grad():
        for keep_rate in (1.0, 0.93, 0.7):
            found, wanted = compiled(values, keep_rate=keep_rate).logits, model(values, keep_rate=keep_rate).logits
            torch.testing.assert_close(found, wanted, **CLOSE)
        model.set_pruning(keep_rate=0.5)
        torch.testing.assert_close(compiled(values).logits, model(values).logits, **CLOSE)


@pytest.mark.parametrize("criterion", ["variation", "random"])
def test_compiled_patch_criteria_and_masks_agree(criterion: str) -> None:
    model = small_model("audiomae", keep_rate=0.6, num_hidden_layers=2, prune_at=[1], criterion=criterion)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    values = clips(model.config)
    visible = torch.arange(0, 64, 2).expand(2, -1)
    with torch.no_grad():
        found = compiled(values, visible_patches=visible, output_token_trace=True)
        wanted = model(values, visible_patches=visible, output_token_trace=True)
    torch.testing.assert_close(found.logits, wanted.logits, **CLOSE)
    for ours, theirs in zip(found.token_trace.kept, wanted.token_trace.kept, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("criterion", ["auto", "intensity"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_exports_with_any_batch_size(backbone: str, criterion: str) -> None:
    model = small_model(backbone, keep_rate=0.6, num_hidden_layers=2, prune_at=[0, 1], criterion=criterion)
    batch = torch.export.Dim("batch", min=1, max=1024)
    with torch.no_grad():
        program = torch.export.export(
            model, (clips(model.config, 2),), dynamic_shapes={"input_values": {0: batch}}, strict=False
        )
        for size in (1, 2, 5):
            values = clips(model.config, size)
            torch.testing.assert_close(program.module()(values).logits, model(values).logits, **CLOSE)


@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    ("backbone", "fields"),
    [
        *((backbone, {"criterion": "random"}) for backbone in BACKBONES),
        ("ast", {**SHALLOW, "reducer": "fuse"}),
        ("ast", {**SHALLOW, "reducer": "dynamicvit", "predictor_blocks": [1, 3]}),
        ("beats", {**SHALLOW, "criterion": "mean_attention"}),
        ("beats", {**SHALLOW, "reducer": "dynamicvit", "predictor_blocks": [1, 3]}),
    ],
    ids=lambda part: part.get("reducer", "drop") if isinstance(part, dict) else part,
)
def test_gradient_checkpointing_gives_the_same_gradients(backbone: str, fields: dict, reentrant: bool) -> None:
    model = small_model(backbone, keep_rate=0.6, drop_path_rate=0.3, **fields).train()
    values, labels = clips(model.config), torch.tensor([0, 4])
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            assert all(block.gradient_checkpointing for block in model.blocks)
        model.zero_grad()
        torch.manual_seed(3)
        out = model(values.clone().requires_grad_(), labels=labels)
        (out.loss + (0.0 if out.decisions is None else ratio_loss(out.decisions, [0.6, 0.6]))).backward()
        gradients.append(
            {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}
        )
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], **CLOSE)
    model.gradient_checkpointing_disable()
    assert not any(block.gradient_checkpointing for block in model.blocks)


def test_gradient_checkpointing_without_pixel_gradients_still_reaches_the_first_block() -> None:
    model = small_model("audiomae", keep_rate=0.6).train()
    model.gradient_checkpointing_enable()
    model(clips(model.config), labels=torch.tensor([0, 4])).loss.backward()
    assert model.blocks[0].attention.query.weight.grad.abs().sum() > 0
    assert model.embeddings.projection.weight.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_reentrant_checkpointing_of_a_frozen_model_trains_what_is_not(backbone: str) -> None:
    model = small_model(backbone, keep_rate=0.6).requires_grad_(False).train()
    model.enable_input_require_grads()  # as PEFT does
    trained = [model.blocks[number].mlp.down.weight.requires_grad_() for number in (0, 9)]
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        model.zero_grad()
        model(clips(model.config), labels=torch.tensor([0, 4])).loss.backward()
        gradients.append([weight.grad.clone() for weight in trained])
    for plain, again in zip(*gradients, strict=True):
        assert plain.abs().sum() > 0
        torch.testing.assert_close(again, plain, **CLOSE)
    assert all(weight.grad is None for weight in model.embeddings.parameters())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_copies_and_pickles_are_the_same_model(backbone: str) -> None:
    model = small_model(backbone, keep_rate=0.6, criterion="random", random_seed=4)
    values = clips(model.config)
    logits = model(values).logits
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = AudioTransformer(copy.deepcopy(model.config)).double().eval()
    assert not torch.equal(loaded(values).logits, logits)
    loaded.load_state_dict(model.state_dict(), strict=True)
    others = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False), loaded)
    for other in others:
        assert torch.equal(other(values).logits, logits)
        assert other.config.to_dict() == model.config.to_dict()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_hidden_states_and_attentions_have_the_shapes_that_are_documented(backbone: str) -> None:
    model = small_model(backbone, keep_rate=0.5, prune_at=[2, 11])
    extra = model.config.extra_tokens
    values = clips(model.config, batch=3)
    tokens = [64 + extra] * 3 + [32 + extra] * 9 + [16 + extra]
    out = model(values, output_hidden_states=True, output_attentions=True)
    assert isinstance(out, AudioTransformerOutput)
    assert [tuple(state.shape) for state in out.hidden_states] == [(3, count, 64) for count in tokens]
    assert [tuple(part.shape) for part in out.attentions] == [
        (3, 4, computed, entering) for entering, computed in itertools.pairwise(tokens)
    ]
    for part in out.attentions:
        torch.testing.assert_close(part.sum(dim=-1), torch.ones_like(part[..., 0]))
    for state in out.hidden_states:
        assert state.requires_grad
    computed_for_the_head = {"ast": extra, "audiomae": 16}[backbone]
    short = model(values, output_attentions=True).attentions[-1]
    assert tuple(short.shape) == (3, 4, computed_for_the_head, 32 + extra)
    first = model.embeddings(values)
    assert torch.equal(out.hidden_states[0], first)

    as_tuple = model(values, return_dict=False, labels=torch.tensor([0, 1, 2]), output_token_trace=True)
    named = model(values, labels=torch.tensor([0, 1, 2]), output_token_trace=True)
    assert isinstance(as_tuple, tuple) and len(as_tuple) == 3
    assert torch.equal(as_tuple[0], named.loss) and torch.equal(as_tuple[1], named.logits)
    asked = copy.deepcopy(model)
    asked.config.output_hidden_states = True
    assert len(asked(values).hidden_states) == 13


def test_the_loss_is_that_of_the_problem() -> None:
    model = small_model("ast", keep_rate=0.5, problem_type="single_label_classification")
    values = clips(model.config)
    logits = model(values).logits
    labels = torch.tensor([3, 1])
    wanted = -(logits.softmax(dim=1).log()[[0, 1], labels]).mean()
    torch.testing.assert_close(model(values, labels=labels).loss, wanted)
    soft = torch.tensor([[0.2, 0.8, 0, 0, 0], [0, 0, 0.5, 0.5, 0]])
    wanted = -(soft * logits.softmax(dim=1).log()).sum(dim=1).mean()
    torch.testing.assert_close(model(values, labels=soft).loss, wanted)
    model.config.problem_type = "multi_label_classification"
    targets = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    chance = logits.sigmoid()
    wanted = -(targets * chance.log() + (1 - targets) * (1 - chance).log()).mean()
    torch.testing.assert_close(model(values, labels=targets).loss, wanted)
    torch.testing.assert_close(model(values, labels=targets.float()).loss, wanted)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_training_mode_differs_only_where_chance_is_wanted(criterion: str) -> None:
    model = small_model("audiomae", keep_rate=0.5, criterion=criterion)
    values = clips(model.config)
    usual = model(values).logits
    torch.manual_seed(0)
    once, again = model.train()(values).logits, model(values).logits
    assert torch.equal(once, usual) == (criterion != "random")
    assert torch.equal(once, again) == (criterion != "random")
    dropping = AudioTransformer(small_config("audiomae", drop_path_rate=0.5, keep_rate=0.5)).double()
    assert [block.drop_path.rate for block in dropping.blocks] == pytest.approx([0.5 * i / 11 for i in range(12)])
