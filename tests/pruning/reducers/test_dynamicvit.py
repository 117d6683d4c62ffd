"""DynamicViT beside its public code, its definition with loops, and every way in which a model is run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from exported import noise, tiny_model
from full_size import ONE_BACKBONE
from plain import BACKBONES, clips, layer_norm, linear, plain_mlp, randomise, small_config, small_model
from reduced import EXACT, assert_compiles_as_one_graph, assert_executed_is_counted, indices, seeded_blocks
from seeded import seeded_state, uniform
from torch import Tensor
from torch.nn import functional

from spectrim import Pruning, from_pretrained
from spectrim.audio.frontend import Frontend
from spectrim.errors import CheckpointError, InvalidSetting
from spectrim.inference.onnx_export import export
from spectrim.network.losses import ratio_loss, token_distillation
from spectrim.network.predictor import Predictor, policy_attention
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.tokens import Tokens
from spectrim.pruning.trace import grid_order

RECORDED = np.load(Path(__file__).parents[2] / "reference" / "dynamicvit.npz")
AT, PATCHES = (3, 6, 9), 196
SINGLE = {"rtol": 2e-5, "atol": 2e-6}
"""The public code takes the softmax of masked attention in float32."""
RATES = {2: 0.7, 5: 0.4, 8: 0.5}


def public_predictors() -> torch.nn.ModuleList:
    """Predictors of width 64 with the weights that the public code was recorded with, under our names."""
    matrices = {"in_conv.1": (64, 64), "out_conv.0": (32, 64), "out_conv.2": (16, 32), "out_conv.4": (2, 16)}
    shapes = {f"{n}.{name}.weight": shape for n in range(3) for name, shape in matrices.items()}
    shapes |= {f"{n}.in_conv.0.weight": (64,) for n in range(3)}
    shapes |= {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}
    ours = {"in_conv.0": "norm", "in_conv.1": "project", "out_conv.2": "narrow", "out_conv.4": "decide"}
    state = {}
    for name, weight in seeded_state(shapes, 7).items():
        number, place, kind = name[0], name[2:].rpartition(".")[0], name.rpartition(".")[2]
        if place == "out_conv.0" and kind == "weight":
            state[f"{number}.own.weight"], state[f"{number}.common.weight"] = weight[:, :32], weight[:, 32:]
        else:
            state[f"{number}.{ours.get(place, 'own')}.{kind}"] = weight
    predictors = torch.nn.ModuleList(Predictor(64) for _ in AT).double()
    predictors.load_state_dict(state)
    return predictors


def public_model() -> tuple[AudioTransformer, Tensor, Tensor]:
    """The recorded model's blocks with predictors, and the weight and bias of its head."""
    model = seeded_blocks(extra=1).add_predictors(AT)
    for block, predictor in zip(AT, public_predictors(), strict=True):
        model.blocks[block].predictor = predictor
    model.norm.load_state_dict(seeded_state({"weight": (64,), "bias": (64,)}, 7))
    head = seeded_state({"weight": (10, 64), "bias": (10,)}, 7)
    return model, head["weight"].double(), head["bias"].double()


def entering() -> Tokens:
    values = uniform("tokens", (2, PATCHES + 1, 64), 7).double().requires_grad_()
    return Tokens(values, torch.arange(-1, PATCHES).expand(2, -1), extra=1)


@pytest.fixture
def _drawn_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Draw the exponential numbers of Gumbel's noise from the seed of the recording."""
    calls = iter(range(100))

    def exponential(target: Tensor, *_: float) -> Tensor:
        drawn = (uniform(f"gumbel-{next(calls)}", target.shape, 7).double() + 1.0) / 2.0
        return target.copy_(-drawn.clamp(min=1e-6).log())

    monkeypatch.setattr(torch.Tensor, "exponential_", exponential)
    yield


def test_a_predictor_is_that_of_the_public_code() -> None:
    predictor, patches = public_predictors()[0], entering().values[:, 1:]
    policy = (uniform("policy", (2, PATCHES), 7) > 0).double()
    for name, counted in (("whole", None), ("whole", torch.ones_like(policy)), ("part", policy)):
        found = predictor(patches, counted).detach()
        torch.testing.assert_close(found, torch.from_numpy(RECORDED[f"predictor/{name}"]), **EXACT)


def test_masked_attention_is_that_of_the_public_code() -> None:
    policy = (uniform("policy", (2, PATCHES), 7) > 0).double()
    tokens = entering()._replace(policy=policy)
    logits = 3.0 * uniform("logits", (2, 4, PATCHES + 1, PATCHES + 1), 7).double()
    found = policy_attention(
        math.sqrt(PATCHES + 1) * torch.eye(PATCHES + 1).double(), logits.mT, tokens.attended("all")
    )
    torch.testing.assert_close(found[:, :, ::16, ::16], torch.from_numpy(RECORDED["softmax"]), **SINGLE)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones_like(found[..., 0]), **EXACT)


def test_inference_is_that_of_the_public_code() -> None:
    """It keeps 98, 49 and 25 of 196 patches, which it was told: it rounds down and we up."""
    model, weight, bias = public_model()
    tokens, counts = entering(), []
    with torch.no_grad():
        plans = model.config.plan(PATCHES, Pruning(0.5, reducer="dynamicvit"), full_output=True)
        for block, plan in zip(model.blocks, plans, strict=True):
            tokens = block(tokens.values, tokens, plan).tokens
            counts.append(tokens.alive.shape[1])
        logits = functional.linear(model.norm(tokens.values[:, 0]), weight, bias)
    assert counts == [196] * 3 + [98] * 3 + [49] * 3 + [25] * 3
    torch.testing.assert_close(logits, torch.from_numpy(RECORDED["inference/logits"]), **EXACT)


def test_the_mean_of_a_clip_in_float16_does_not_overflow() -> None:
    predictor = Predictor(64)
    with torch.no_grad():
        predictor.project.bias.fill_(150.0)
        predictor.common.weight.mul_(0.01)
    patches, counted = torch.randn(1, 600, 64, generator=torch.Generator().manual_seed(0)), torch.ones(1, 600)
    expected = predictor(patches, counted)
    found = predictor.half()(patches.half(), counted)
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.usefixtures("_drawn_again")
def test_training_losses_and_gradients_are_those_of_the_public_code() -> None:
    model, weight, bias = public_model()
    first = entering()
    tokens = first.sampled()
    decisions = [tokens.policy]
    for block, plan in zip(
        model.blocks, model.config.plan(PATCHES, Pruning(0.7, reducer="dynamicvit"), full_output=True), strict=True
    ):
        tokens = block(tokens.values, tokens, plan).tokens
        decisions += [tokens.policy] if plan.predicts else []
    features = model.norm(tokens.values)
    logits = functional.linear(features[:, 0], weight, bias)
    kept = np.unpackbits(RECORDED["training/kept"]).reshape(3, 2, PATCHES)
    np.testing.assert_array_equal(torch.stack(decisions[1:]).detach().numpy(), kept)
    np.testing.assert_array_equal((tokens.alive >= 0).numpy(), kept[-1])
    taught = uniform("teacher-logits", (2, 10), 7).double(), uniform("teacher-tokens", (2, PATCHES, 64), 7).double()
    losses = {
        "labels": functional.cross_entropy(logits, torch.tensor([3, 8])),
        "ratio": ratio_loss(decisions, [0.7] * 3),
        "logits": functional.kl_div(
            logits.log_softmax(dim=1), taught[0].log_softmax(dim=1), reduction="batchmean", log_target=True
        ),
        "tokens": token_distillation(features[:, 1:], taught[1], decisions[-1] > 0.5),
    }
    total = losses["labels"] + 2.0 * losses["ratio"] + 0.5 * losses["logits"] + 0.5 * losses["tokens"]
    found = [losses["labels"], 3.0 * losses["ratio"], losses["logits"], losses["tokens"], total]
    torch.testing.assert_close(torch.stack(found).detach(), torch.from_numpy(RECORDED["training/losses"]), **SINGLE)
    total.backward()
    compared = {"logits": logits, "tokens": features[:, 1::4, ::4], "gradient": first.values.grad[:, ::4, ::4]}
    for number, block in enumerate(AT):
        predictor = model.blocks[block].predictor
        both = torch.cat([predictor.own.weight.grad, predictor.common.weight.grad], dim=1)
        compared[f"predictor-{number}"] = both[::2, ::2]
    for name, value in compared.items():
        torch.testing.assert_close(value.detach(), torch.from_numpy(RECORDED[f"training/{name}"]), **SINGLE)


def predicting(backbone: str, **fields: object) -> AudioTransformer:
    """A model with predictors in three blocks."""
    given = {"reducer": "dynamicvit", "prune_at": list(RATES), "keep_rate": list(RATES.values())}
    return small_model(backbone, **{**given, "predictor_blocks": list(RATES), **fields})


def plain_scores(model: AudioTransformer, block: int, patches: Tensor) -> Tensor:
    """Log-probability of keeping each of the patches (n, width)."""
    weights, name = dict(model.named_parameters()), f"blocks.{block}.predictor"
    width = patches.shape[1]
    rows = functional.gelu(linear(layer_norm(patches, weights, f"{name}.norm", 1e-5), weights, f"{name}.project"))
    mean = sum(row[width // 2 :] for row in rows) / len(rows)
    hidden = functional.gelu(
        linear(rows[:, : width // 2], weights, f"{name}.own") + linear(mean, weights, f"{name}.common")
    )
    return linear(functional.gelu(linear(hidden, weights, f"{name}.narrow")), weights, f"{name}.decide").log_softmax(1)[
        :, 0
    ]


def plain_predicted(
    model: AudioTransformer, clip: Tensor, rates: dict[int, float], visible: set[int] | None = None
) -> tuple[Tensor, list[set[int]]]:
    """Logits of one clip with loops: score by the predictor, drop, and only then attend; and what is kept of it."""
    config, weights = model.config, dict(model.named_parameters())
    extra, width, heads = config.extra_tokens, config.hidden_size, config.num_attention_heads
    rows = model.embeddings(clip.unsqueeze(0))[0]
    first, names = rows[:extra], grid_order(config.grid, config.patch_order).tolist()
    patches = {name: row for name, row in zip(names, rows[extra:], strict=True) if visible is None or name in visible}
    kept = []
    for block in range(config.num_hidden_layers):
        if block in rates:
            scores = plain_scores(model, block, torch.stack([*patches.values()]))
            ranked = sorted(zip(scores.tolist(), patches, strict=True), reverse=True)
            going = {name for _, name in ranked[: math.ceil(rates[block] * len(patches))]}
            patches = {name: row for name, row in patches.items() if name in going}
        name, values = f"blocks.{block}", torch.stack([*first, *patches.values()])
        before = config.norm_first
        normed = layer_norm(values, weights, f"{name}.norm1", config.layer_norm_eps) if before else values
        query = linear(normed, weights, f"{name}.attention.query")
        key, value = linear(normed, weights, f"{name}.attention.key_value").split(width, dim=1)
        parts = [slice(h * width // heads, (h + 1) * width // heads) for h in range(heads)]
        mixed = [(query[:, p] @ key[:, p].T / math.sqrt(width // heads)).softmax(dim=1) @ value[:, p] for p in parts]
        values = values + linear(torch.cat(mixed, dim=1), weights, f"{name}.attention.output")
        values = values if before else layer_norm(values, weights, f"{name}.norm1", config.layer_norm_eps)
        values = plain_mlp(config, weights, name, values)
        first, patches = values[:extra], dict(zip(patches, values[extra:], strict=True))
        kept.append(set(patches))
    pooled = first if config.pooling == "extra_tokens" else torch.stack([*patches.values()]).mean(dim=0, keepdim=True)
    if before:
        pooled = layer_norm(pooled, weights, "norm", config.layer_norm_eps)
    pooled = pooled.mean(dim=0)
    if config.head_norm:
        pooled = layer_norm(pooled, weights, "head.norm", config.head_norm_eps)
    return linear(pooled, weights, "head.linear"), kept


@pytest.mark.parametrize("rates", [RATES, {0: 0.5}, {11: 0.6}], ids=["three", "first", "last"])
@pytest.mark.parametrize("backbone", [*BACKBONES, "kwt"])
def test_every_clip_is_that_of_the_definition(backbone: str, rates: dict[int, float]) -> None:
    at = list(rates)
    model = predicting(backbone, prune_at=at, keep_rate=list(rates.values()), predictor_blocks=at)
    values = clips(model.config)
    with torch.no_grad():
        found = model(values, output_token_trace=True, output_hidden_states=True)
        short = model(values)
        for item in range(2):
            logits, kept = plain_predicted(model, values[item], rates)
            torch.testing.assert_close(found.logits[item], logits, **EXACT)
            assert [indices(one[item]) for one in found.token_trace.kept] == kept
    torch.testing.assert_close(short.logits, found.logits, **EXACT)
    for block, (scores, source) in enumerate(zip(found.token_trace.scores, found.token_trace.source, strict=True)):
        entered = found.token_trace.kept[block - 1] if block else torch.ones_like(found.token_trace.kept[0])
        assert torch.equal(~scores.isnan(), entered)
        assert bool((scores[entered] < 0).all()) if block in rates else bool((scores[entered] == 0).all())
        assert torch.equal(source >= 0, found.token_trace.kept[block])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_clip_of_a_ragged_batch_is_as_if_alone(backbone: str) -> None:
    model = predicting(backbone, drop_padding=True)
    values, frames = clips(model.config, batch=4), torch.tensor([128, 17, 80, 0])
    with torch.no_grad():
        found = model(values, num_frames=frames, output_token_trace=True)
        for item, count in enumerate(frames.tolist()):
            real = {f * 8 + t for f in range(8) for t in range(8) if t == 0 or 16 * t < count}
            logits, kept = plain_predicted(model, values[item], RATES, visible=real)
            torch.testing.assert_close(found.logits[item], logits, **EXACT)
            assert [indices(one[item]) for one in found.token_trace.kept] == kept


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("backbone", [*BACKBONES, "kwt"])
def test_what_is_masked_while_training_is_as_good_as_gone(
    backbone: str, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each draw keeps the most probable patches, training computes what inference does, but for 1e-6 of a row."""
    model = predicting(backbone, drop_padding=padded)
    values, options = clips(model.config), {}
    if padded:
        options["num_frames"] = torch.tensor([model.config.max_length // 2, model.config.max_length])
    with torch.no_grad():
        wanted = model(values, output_token_trace=True, **options)
    stages = iter(RATES)

    def as_inferred(read: Tensor, *, hard: bool) -> Tensor:
        assert hard
        kept = wanted.token_trace.kept[next(stages)].flatten(1)
        order = grid_order(model.config.grid, model.config.patch_order)
        if padded:
            grid = kept[:, order]
            real = wanted.token_trace.kept[0].flatten(1)[:, order]
            place = (~real).to(torch.int8).argsort(dim=1, stable=True)[:, : read.shape[1]]
            keep = grid.gather(1, place).double()
        else:
            keep = kept[:, order].double()
        return torch.stack([keep, 1.0 - keep], dim=-1)

    monkeypatch.setattr(functional, "gumbel_softmax", as_inferred)
    found = model.train()(values, output_token_trace=True, output_attentions=True, **options)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(*pair) for pair in zip(found.token_trace.kept, wanted.token_trace.kept, strict=True))
    assert all(bool(((one.sum(dim=-1) - 1.0).abs() < 1e-9).all()) for one in found.attentions)
    entered = found.decisions[0].sum(dim=1)
    assert entered.tolist() == ([32.0, 64.0] if padded else [64.0, 64.0])
    for block, left in zip(RATES, found.decisions[1:], strict=True):
        assert torch.equal(left.sum(dim=1), wanted.token_trace.kept[block].flatten(1).sum(dim=1).double())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_clip_that_loses_every_patch_still_has_an_answer_and_gradients(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(read: Tensor, *, hard: bool) -> Tensor:
        return torch.zeros_like(read) + 0.0 * read

    monkeypatch.setattr(functional, "gumbel_softmax", none)
    model = predicting(backbone).train()
    out = model(clips(model.config), labels=torch.tensor([0, 1]))
    (out.loss + ratio_loss(out.decisions, list(RATES.values()))).backward()
    grown = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert bool(out.loss.isfinite()) and all(bool(one.isfinite().all()) for one in grown)


@pytest.mark.parametrize("at", [AT, (0, 11), (5,)])
@pytest.mark.parametrize("backbone", [*BACKBONES, "kwt"])
def test_the_executed_count_is_what_torch_counts(backbone: str, at: tuple[int, ...]) -> None:
    pruning = Pruning(0.7, at=at, reducer="dynamicvit")
    assert_executed_is_counted(small_config(backbone, predictor_blocks=list(at)), pruning)


@pytest.mark.parametrize("backbone", ONE_BACKBONE)
def test_compiles_as_one_graph(backbone: str) -> None:
    model = predicting(backbone)
    assert_compiles_as_one_graph(model)


def test_gradients_go_through_checkpointed_blocks() -> None:
    model = predicting("audiomae").train()
    values, grown = clips(model.config), []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable()
        torch.manual_seed(3)
        model.zero_grad()
        out = model(values, labels=torch.tensor([0, 1]))
        (out.loss + ratio_loss(out.decisions, list(RATES.values()))).backward()
        grown.append([model.blocks[block].predictor.decide.weight.grad.clone() for block in RATES])
    for plain, again in zip(*grown, strict=True):
        assert bool(plain.any())
        torch.testing.assert_close(again, plain, **EXACT)


@pytest.mark.parametrize("backbone", ONE_BACKBONE)
def test_an_exported_file_predicts_too(backbone: str, tmp_path: Path) -> None:
    model = tiny_model(backbone, reducer="dynamicvit", keep_rate=0.6, predictor_blocks=[0, 1])
    export(model, tmp_path / "dynamicvit.onnx", clips=noise())
    values = Frontend.from_config(model.config)(noise()[:3]).input_values
    session = onnxruntime.InferenceSession(tmp_path / "dynamicvit.onnx", providers=["CPUExecutionProvider"])
    logits, kept = session.run(["logits", "kept"], {"input_values": values.numpy()})
    for item, clip in enumerate(values):
        with torch.no_grad():
            wanted, stages = plain_predicted(model, clip, {0: 0.6, 1: 0.6})
        np.testing.assert_allclose(logits[item], wanted, atol=1e-4)
        assert kept[item].flatten().tolist() == [sum(patch in stage for stage in stages) for patch in range(32)]


def test_a_saved_model_has_its_predictors_and_loads_no_less(tmp_path: Path) -> None:
    model = predicting("ast", dtype=torch.float32)
    values = clips(model.config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "whole")
    again = from_pretrained(tmp_path / "whole")
    assert again.config.pruning == model.config.pruning and again.config.predictor_blocks == list(RATES)
    with torch.no_grad():
        assert torch.equal(again(values).logits, model(values).logits)
    state = {name: weight for name, weight in model.state_dict().items() if "5.predictor.decide" not in name}
    model.save_pretrained(tmp_path / "part", state_dict=state)
    with pytest.raises(CheckpointError, match=r"Missing: blocks\.5\.predictor\.decide\.bias"):
        from_pretrained(tmp_path / "part")


def test_a_model_without_predictors_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidSetting, match="spectrim train ast-esc50-dynamicvit --init MODEL") as error:
        from_pretrained("spectrim-mini", keep_rate=0.7, reducer="dynamicvit")
    assert error.value.field == "reducer"
    model = small_model("ast", predictor_blocks=[3])
    with pytest.raises(InvalidSetting, match="have no predictor") as error:
        model(clips(model.config), pruning=Pruning(0.7, reducer="dynamicvit"))
    assert error.value.field == "prune_at"
    assert model.set_pruning(Pruning(0.7, at=(3,), reducer="dynamicvit")).config.pruning.prunes


def test_new_predictors_stand_beside_old_ones_and_change_nothing_yet() -> None:
    model = randomise(AudioTransformer(small_config("ast", predictor_blocks=[3]))).eval()
    values, old = clips(model.config, dtype=torch.float32), model.blocks[3].predictor
    with torch.no_grad():
        before = model(values).logits
        assert torch.equal(model.add_predictors([6, 3]).forward(values).logits, before)
    assert model.config.predictor_blocks == [3, 6] and model.blocks[3].predictor is old
    assert 0.0 < float(model.blocks[6].predictor.project.weight.detach().std()) < 0.03
    assert not model.blocks[6].predictor.project.bias.any()
    with pytest.raises(InvalidSetting, match="predictor_blocks"):
        model.add_predictors([12])


@pytest.mark.parametrize(
    ("field_name", "fields"),
    [
        ("criterion", {"criterion": "intensity"}),
        ("criterion", {"criterion": "cls_attention"}),
        ("time_segments", {"time_segments": 2}),
        ("reducer", {"criterion": "intensity", "reference_compat": True}),
    ],
)
def test_what_cannot_be_is_refused_by_name(field_name: str, fields: dict) -> None:
    model = small_model("ast", predictor_blocks=list(AT))
    with pytest.raises(InvalidSetting) as error:
        model.set_pruning(Pruning(**{"keep_rate": 0.5, "reducer": "dynamicvit", **fields}))
    assert error.value.field == field_name
    assert model.config.pruning == Pruning()
