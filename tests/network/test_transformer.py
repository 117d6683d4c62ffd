"""The encoder against the plain order of computing of `plain.py`, and the arithmetic of its tokens."""

from __future__ import annotations

import copy

import pytest
import torch
from plain import BACKBONES, CRITERIA, clips, plain_forward, small_model

from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning

EXACT = {"rtol": 1e-9, "atol": 1e-9}

CASES = [
    *({"backbone": b, "criterion": c, "keep_rate": 0.7} for b in BACKBONES for c in CRITERIA),
    *({"backbone": b, "keep_rate": r} for b in BACKBONES for r in (1.0, 0.9, 0.35, 0.01)),
    *({"backbone": b, "keep_rate": [0.9, 0.5, 0.6, 1.0], "prune_at": [0, 1, 7, 4]} for b in BACKBONES),
    *({"backbone": b, "keep_rate": 0.5, "prune_at": [5, 11]} for b in BACKBONES),
    *({"backbone": b, "keep_rate": 0.5, "prune_at": [11], "criterion": "mean_attention"} for b in BACKBONES),
    *({"backbone": b, "keep_rate": 0.6, "prune_at": range(12), "criterion": "intensity"} for b in BACKBONES),
    {"backbone": "ast", "keep_rate": 0.7, "frequency_stride": 10, "time_stride": 10},
    {"backbone": "ast", "keep_rate": 0.7, "frequency_stride": 10, "time_stride": 10, "criterion": "variation"},
    {"backbone": "ast", "keep_rate": 0.7, "frequency_stride": 12, "time_stride": 14, "criterion": "mean_attention"},
    {"backbone": "audiomae", "keep_rate": 0.7, "max_length": 144, "num_mel_bins": 64},
    {"backbone": "ast", "keep_rate": 0.5, "qkv_bias": False, "head_norm": False, "extra_tokens": 1},
    {"backbone": "audiomae", "keep_rate": 0.5, "extra_tokens": 2, "head_norm": True, "layer_norm_eps": 1e-2},
    {"backbone": "ast", "keep_rate": 0.5, "pooling": "mean_patches", "patch_order": "time_major"},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def test_logits_trace_and_gradients_are_those_of_the_plain_order(case: dict) -> None:
    model = small_model(**case)
    values = clips(model.config)
    weighting = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    out = model(values, output_token_trace=True)
    plain = [plain_forward(model, clip) for clip in values]
    logits = torch.stack([result.logits for result in plain])

    assert logits.abs().mean() > 0.1
    torch.testing.assert_close(out.logits, logits, **EXACT)
    frequency, time = model.config.grid
    for item, result in enumerate(plain):
        for block in range(model.config.num_hidden_layers):
            kept, scores = out.token_trace.kept[block][item], out.token_trace.scores[block][item]
            assert kept.shape == scores.shape == (frequency, time)
            assert {f * time + t for f, t in kept.nonzero().tolist()} == result.kept[block]
            expected = torch.full((frequency * time,), float("nan"), dtype=torch.float64)
            for patch, score in result.scores[block].items():
                expected[patch] = score
            torch.testing.assert_close(scores.double().flatten(), expected, equal_nan=True, rtol=1e-6, atol=1e-9)
    found = torch.autograd.grad((out.logits * weighting).sum(), list(trained.values()))
    wanted = torch.autograd.grad((logits * weighting).sum(), list(trained.values()))
    for name, ours, theirs in zip(trained, found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


def test_ten_seconds_are_those_of_the_plain_order() -> None:
    for backbone, keep_rate in (("ast", 0.7), ("audiomae", 0.35)):
        model = small_model(backbone, max_length=1024, keep_rate=keep_rate)
        values = clips(model.config, batch=1)
        with torch.no_grad():
            torch.testing.assert_close(model(values).logits[0], plain_forward(model, values[0]).logits, **EXACT)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_input_has_gradients_of_the_plain_order(backbone: str) -> None:
    model = small_model(backbone, keep_rate=0.5)
    values = clips(model.config, batch=1).requires_grad_()
    (found,) = torch.autograd.grad(model(values).logits.sum(), values)
    (wanted,) = torch.autograd.grad(plain_forward(model, values[0]).logits.sum(), values)
    torch.testing.assert_close(found, wanted, **EXACT)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_keep_rate_one_is_the_dense_model_to_the_bit(backbone: str, criterion: str) -> None:
    dense = small_model(backbone, dtype=torch.float32, prune_at=[])
    values = clips(dense.config, dtype=torch.float32)
    pruned = copy.deepcopy(dense).set_pruning(prune_at=[0, 3, 6, 11], keep_rate=1.0, criterion=criterion)
    assert torch.equal(pruned(values).logits, dense(values).logits)
    pruned.set_pruning(keep_rate=0.5)
    assert torch.equal(pruned(values, keep_rate=1.0).logits, dense(values).logits)
    assert not torch.equal(pruned(values).logits, dense(values).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_looking_changes_nothing(backbone: str, criterion: str, dtype: torch.dtype) -> None:
    model = small_model(backbone, dtype=dtype, keep_rate=0.6, criterion=criterion)
    values = clips(model.config, dtype=torch.float32)
    plain = model(values)
    assert plain.token_trace is None and plain.hidden_states is None and plain.attentions is None
    assert torch.equal(model(values, output_token_trace=True).logits, plain.logits)
    assert torch.equal(model(values, output_attentions=True).logits, plain.logits)
    states = model(values, output_hidden_states=True)
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(states.logits, plain.logits, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_clips_of_a_batch_do_not_touch_each_other(backbone: str, criterion: str) -> None:
    model = small_model(backbone, keep_rate=0.5, criterion=criterion)
    values = clips(model.config, batch=4)
    before = model(values, output_token_trace=True)
    changed = values.clone()
    changed[1] = 50.0 * changed[1] + 7.0
    after = model(changed, output_token_trace=True)
    others = [0, 2, 3]
    torch.testing.assert_close(after.logits[others], before.logits[others], rtol=0, atol=1e-10)
    for old, new in zip(before.token_trace.kept, after.token_trace.kept, strict=True):
        assert torch.equal(old[others], new[others])
    for old, new in zip(before.token_trace.scores, after.token_trace.scores, strict=True):
        torch.testing.assert_close(new[others], old[others], rtol=0, atol=1e-7, equal_nan=True)
    assert not torch.allclose(after.logits[1], before.logits[1])

    shuffled = model(values[[2, 0, 3, 1]], output_token_trace=True)
    torch.testing.assert_close(shuffled.logits, before.logits[[2, 0, 3, 1]], rtol=0, atol=1e-10)
    assert all(
        torch.equal(new, old[[2, 0, 3, 1]])
        for old, new in zip(before.token_trace.kept, shuffled.token_trace.kept, strict=True)
    )
    for item in range(4):
        alone = model(values[item : item + 1]).logits[0]
        torch.testing.assert_close(alone, before.logits[item], rtol=0, atol=1e-10)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_trace_is_consistent(backbone: str, criterion: str) -> None:
    model = small_model(backbone, keep_rate=[0.7, 0.5], prune_at=[2, 11], criterion=criterion)
    values = clips(model.config, batch=3)
    trace = model(values, output_token_trace=True).token_trace
    alive = torch.ones(3, 8, 8, dtype=torch.bool)
    assert len(trace.scores) == len(trace.kept) == 12
    for block, (scores, kept) in enumerate(zip(trace.scores, trace.kept, strict=True)):
        assert kept.dtype == torch.bool and scores.is_floating_point()
        assert torch.equal(~scores.isnan(), alive)
        assert not (kept & ~alive).any()
        lowest_kept = scores.masked_fill(~kept, float("inf")).amin(dim=(1, 2))
        highest_gone = scores.masked_fill(kept | ~alive, -float("inf")).amax(dim=(1, 2))
        assert (lowest_kept >= highest_gone).all()
        wanted = {2: 45, 11: 23}.get(block, int(alive[0].sum()))
        assert (kept.sum(dim=(1, 2)) == wanted).all()
        alive = kept


@pytest.mark.parametrize("stride", [16, 10])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_bright_patch_survives_where_it_is_low_frequencies_first(backbone: str, stride: int) -> None:
    model = small_model(
        backbone,
        criterion="intensity",
        keep_rate=1e-6,
        prune_at=[4],
        num_mel_bins=96,
        frequency_stride=stride,
        time_stride=stride,
    )
    frequency, time = model.config.grid
    assert frequency != time
    for f, t in ((0, 0), (0, time - 1), (frequency - 1, 0), (2, 5)):
        values = torch.zeros(1, 128, 96, dtype=torch.float64)
        values[0, t * stride : t * stride + 16, f * stride : f * stride + 16] = 1.0
        kept = model(values, output_token_trace=True).token_trace.kept
        assert kept[3].all()
        assert kept[4][0].nonzero().tolist() == kept[11][0].nonzero().tolist() == [[f, t]]


def test_forward_changes_nothing_that_lasts() -> None:
    for backbone in BACKBONES:
        model = small_model(backbone, dtype=torch.float32)
        values = clips(model.config, dtype=torch.float32)
        untouched = values.clone()
        for settings in ({}, {"keep_rate": 0.5}, {"criterion": "random"}, {"drop_padding": True}):
            model.set_pruning(**settings)
            config, state = model.config.to_dict(), copy.deepcopy(model.state_dict())
            attributes = {name: set(vars(module)) for name, module in model.named_modules()}
            torch_random = torch.get_rng_state()
            frames = torch.tensor([40, 128])
            for extra in ({}, {"output_token_trace": True}, {"output_hidden_states": True}, {"keep_rate": 0.3}):
                model(values, num_frames=frames, **extra)
            assert model.config.to_dict() == config
            assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
            assert all(torch.equal(state[name], weight) for name, weight in model.state_dict().items())
            assert torch.equal(torch.get_rng_state(), torch_random)
            assert torch.equal(values, untouched)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_scores_at_random_are_drawn_only_where_they_are_read(backbone: str) -> None:
    model = small_model(backbone, dtype=torch.float32, criterion="random").train()
    values = clips(model.config, dtype=torch.float32)
    before = torch.get_rng_state()
    plain = model(values, keep_rate=1.0).logits
    assert torch.equal(torch.get_rng_state(), before)
    traced = model(values, keep_rate=1.0, output_token_trace=True)
    drawn = torch.rand(values.shape[0], model.config.num_patches, generator=torch.Generator().set_state(before))
    torch.testing.assert_close(traced.token_trace.scores[0].flatten(1), drawn)
    torch.testing.assert_close(traced.logits, plain)
    torch.set_rng_state(before)
    model(values, keep_rate=[1.0, 0.5, 1.0])
    assert not torch.equal(torch.get_rng_state(), before)


def test_an_embedding_refuses_what_the_logits_refuse() -> None:
    model = small_model("ast")
    values = torch.zeros(1, model.config.max_length, model.config.num_mel_bins)
    for given in (0.7, Pruning(0.5, ())):
        with pytest.raises(InvalidSetting) as wanted:
            model(values, pruning=given)
        with pytest.raises(InvalidSetting) as found:
            model.embed(values, given)
        assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_embedding_is_what_the_head_reads(backbone: str) -> None:
    model = small_model(backbone=backbone, keep_rate=0.6)
    values = clips(model.config).requires_grad_()
    for pruning in (None, Pruning(keep_rate=1.0), Pruning(keep_rate=0.4, at=(2, 8), criterion="variation")):
        vectors = model.embed(values, pruning)
        assert vectors.shape == (2, model.config.hidden_size)
        torch.testing.assert_close(model.head(vectors), model(values, pruning=pruning).logits, **EXACT)
    [gradient] = torch.autograd.grad(vectors.sum(), values)
    assert gradient.abs().sum() > 0
    with pytest.raises(InputShapeError):
        model.embed(values[0])


def test_set_pruning_is_all_or_nothing() -> None:
    model = small_model("ast", keep_rate=0.5)
    before = model.config.to_dict()
    for wrong in (
        {"keep_rate": 0.3, "criterion": "loudest"},
        {"criterion": "intensity", "keep_rate": 0.0},
        {"prune_at": [1], "keep_rate": [0.5, 0.4]},
        {"drop_padding": True, "prune_at": [12]},
        {"drop_padding": True, "prune_at": 3},
        {"drop_padding": True, "prune_at": "3"},
        {"drop_padding": "yes"},
        {"random_seed": 1.5, "keep_rate": 0.4},
        {"reference_compat": True, "keep_rate": 0.4},
        {"reference_compat": True, "criterion": "intensity", "drop_padding": True},
    ):
        with pytest.raises(InvalidSetting) as error:
            model.set_pruning(**wrong)
        assert error.value.field in str(error.value) and repr(error.value.value) in str(error.value)
        assert model.config.to_dict() == before
    with pytest.raises(InvalidSetting, match="keep_rate"):
        model(clips(model.config), keep_rate=1.2)
    assert model.set_pruning(keep_rate=0.4) is model
    assert model.config.keep_rate == 0.4 and model.config.prune_at == [3, 6, 9]


def test_set_pruning_reaches_no_other_model_and_no_list_of_the_caller() -> None:
    config = small_model("ast").config
    first, second = AudioTransformer(config), AudioTransformer(config)
    rates, blocks = [0.5, 0.4], [2, 5]
    first.set_pruning(keep_rate=rates, prune_at=blocks, criterion="random")
    assert (second.config.keep_rate, second.config.prune_at, second.config.criterion) == (1.0, [3, 6, 9], "auto")
    assert config.keep_rate == 1.0
    rates[0], blocks[0] = 0.9, 1
    assert first.config.pruning.rates == {2: 0.5, 5: 0.4}
    copied = copy.deepcopy(first).set_pruning(keep_rate=1.0)
    assert copied.config.keep_rate == 1.0 and first.config.pruning.rates == {2: 0.5, 5: 0.4}
    first.set_pruning(keep_rate=0.5, prune_at=range(3, 5))
    assert SpectrimConfig.from_dict(first.config.to_dict()).pruning.rates == {3: 0.5, 4: 0.5}
    assert '"prune_at": [' in first.config.to_json_string()


def test_a_wrong_input_is_named() -> None:
    model = small_model("ast", keep_rate=0.5)
    right = clips(model.config)
    for wrong in (right[0], right[:, :127], right[:, :, :64], right.transpose(1, 2)[:, :, :64], right.unsqueeze(1)):
        with pytest.raises(InputShapeError, match="input_values") as error:
            model(wrong)
        assert str(tuple(wrong.shape)) in str(error.value)
    for wrong in (torch.arange(8), torch.arange(8).expand(3, 8), torch.zeros(2, 8)):
        with pytest.raises(InputShapeError, match="visible_patches"):
            model(right, visible_patches=wrong)
    for backbone in ("ast", "audiomae"):
        other = small_model(backbone)
        for wrong, words in (
            ([[0, 1, 2], [64, 3, 0]], "clip 1 holds 64; wanted: grid indices from 0 to 63"),
            ([[5, -1, 0], [0, 1, 2]], "clip 0 holds -1; wanted"),
            ([[0, 1, 2], [7, 3, 7]], "clip 1 holds 7 twice; wanted: .*each at most once a clip"),
        ):
            with pytest.raises(InputShapeError, match=f"visible_patches of {words}"):
                other(right, visible_patches=torch.tensor(wrong))
    for wrong in (torch.tensor(64), torch.tensor([64.0, 64.0]), [64, 64], "64"):
        with pytest.raises(InputShapeError, match="num_frames"):
            model(right, num_frames=wrong)
    model.set_pruning(drop_padding=True)
    for wrong in (None, torch.tensor(64), torch.tensor([64, 64, 64]), torch.tensor([[64, 64]])):
        with pytest.raises(InputShapeError, match="num_frames"):
            model(right, num_frames=wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 50, 3), (1, 127, 127)])
def test_one_value_that_is_not_finite_is_refused(value: float, dtype: torch.dtype, place: tuple[int, ...]) -> None:
    model = small_model("ast", dtype=dtype)
    values = clips(model.config, dtype=dtype)
    values[place] = value
    with pytest.raises(InputShapeError, match="NaN or infinite"):
        model(values)
    assert model(values[:0]).logits.shape == (0, 5)


@pytest.mark.parametrize(
    "fields",
    [{"attention_mass": 0.9}, *({"drop_padding": True, "reducer": name} for name in ("drop", "fuse", "merge"))],
)
def test_a_batch_of_no_clips_has_no_logits(fields: dict) -> None:
    model = small_model("audiomae", num_hidden_layers=3, prune_at=[0, 1], keep_rate=0.6, **fields)
    values, frames = clips(model.config)[:0], torch.zeros(0, dtype=torch.int64)
    out = model(values, num_frames=frames, output_token_trace=True)
    assert out.logits.shape == (0, 5) and out.token_trace.kept[-1].shape == (0, 8, 8)
