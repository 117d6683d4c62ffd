"""Models that are in memory: transformers' own AST is the oracle, and goes on working."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import official_ast
from torch import nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel, ViTConfig, ViTModel

import spectrim
from spectrim.errors import CheckpointError, InvalidSetting
from spectrim.inference.torch_model import TorchModel

SMALL = {
    "num_hidden_layers": 6,
    "hidden_size": 96,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "max_length": 128,
}


def ast(dtype: torch.dtype = torch.float32, **fields: Any) -> ASTForAudioClassification:
    torch.manual_seed(0)
    config = ASTConfig(**{**SMALL, **fields}, id2label={0: "dog", 1: "cat", 2: "rain"})
    return ASTForAudioClassification(config).to(dtype).eval()


def inputs(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 128, 128, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
def test_a_model_in_memory_gives_its_own_logits_and_then_prunes() -> None:
    theirs = ast()
    expected = theirs(inputs()).logits
    model = spectrim.prune(theirs, keep_rate=0.5, prune_at=[1, 3])
    assert model.config.pruning == spectrim.Pruning(keep_rate=0.5, at=(1, 3), criterion=model.config.pruning.criterion)
    assert list(model.config.id2label.values()) == ["dog", "cat", "rain"] and not model.training
    torch.testing.assert_close(model(inputs(), keep_rate=1.0).logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs(inputs()).logits, expected, atol=0, rtol=0)
    trace = model(inputs(), output_token_trace=True).token_trace
    assert [int(trace.kept[block][0].sum()) for block in (0, 1, 3)] == [144, 72, 36]


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_both_models_have_the_same_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = ast(dtype)
    with torch.no_grad():
        for value in theirs.parameters():
            value.div_(1.5)
    model = spectrim.prune(theirs, prune_at=[1, 3])
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    ours = {value.untyped_storage().data_ptr() for value in model.parameters()}
    assert {value.untyped_storage().data_ptr() for value in theirs.parameters()} == ours
    with torch.no_grad():
        for value in theirs.parameters():
            value.mul_(1.25)
    assert not torch.equal(spectrim.prune(ast(dtype)).head.linear.weight, model.head.linear.weight)
    dense = model(inputs().to(dtype), keep_rate=1.0).logits
    close = {"atol": 2e-2 if dtype.itemsize == 2 else 1e-5, "rtol": 0}
    torch.testing.assert_close(dense, theirs(inputs().to(dtype)).logits, **close)
    theirs.save_pretrained(tmp_path / "theirs")
    again = ASTForAudioClassification.from_pretrained(tmp_path / "theirs", dtype=dtype).eval()
    torch.testing.assert_close(again(inputs().to(dtype)).logits, theirs(inputs().to(dtype)).logits)
    model.save_pretrained(tmp_path / "ours")
    read = spectrim.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(read(inputs()).logits, model.float()(inputs()).logits)


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_models_pruned_from_one_share_its_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = ast(dtype)
    pruned = [spectrim.prune(theirs, rate, prune_at=[1, 3]) for rate in (0.7, 0.5, 0.3)]
    places = {value.untyped_storage().data_ptr() for value in theirs.parameters()}
    for model in pruned:
        assert {value.untyped_storage().data_ptr() for value in model.parameters()} == places
        assert all(value.is_contiguous() for value in model.parameters())
    before = theirs(inputs().to(dtype), labels=torch.tensor([0, 1]))
    before.loss.backward()
    torch.optim.SGD(theirs.parameters(), lr=0.1).step()
    expected = theirs(inputs().to(dtype)).logits
    assert (expected - before.logits).abs().max() > 0.1
    close = {"atol": 2e-2 if dtype.itemsize == 2 else 1e-5, "rtol": 0}
    for model in pruned:
        torch.testing.assert_close(model(inputs().to(dtype), keep_rate=1.0).logits, expected, **close)
    pruned[0].save_pretrained(tmp_path)
    again = spectrim.from_pretrained(tmp_path)(inputs(), keep_rate=1.0).logits
    torch.testing.assert_close(again, expected.float(), **close)


def compiled_inside(model: ASTForAudioClassification) -> nn.Module:
    layers = model.audio_spectrogram_transformer.layers
    layers[0] = torch.compile(layers[0], backend="eager")
    return model


class Task(nn.Module):
    """As Lightning's modules are: a model beside what has no weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, nn.CrossEntropyLoss()


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        nn.DataParallel,
        lambda model: Task(nn.DataParallel(torch.compile(model, backend="eager"))),
        compiled_inside,
    ],
)
def test_a_model_inside_another_shares_its_weights_too(wrap: Callable[[nn.Module], nn.Module]) -> None:
    expected = ast()(inputs()).logits
    theirs = wrap(ast())
    theirs.requires_grad_(False)
    model = spectrim.prune(theirs, prune_at=[1, 3])
    assert list(model.config.id2label.values()) == ["dog", "cat", "rain"] and trained(model) == set()
    ours = {value.untyped_storage().data_ptr() for value in model.parameters()}
    assert {value.untyped_storage().data_ptr() for value in theirs.parameters()} == ours
    torch.testing.assert_close(model(inputs(), keep_rate=1.0).logits, expected, atol=1e-5, rtol=0)
    if not isinstance(theirs, Task):
        torch.testing.assert_close(theirs(inputs()).logits, expected, atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match="AudioTransformer prunes already"):
        spectrim.prune(nn.DataParallel(model))


def test_adapters_are_to_be_merged_first() -> None:
    theirs = ast()
    projection = theirs.audio_spectrogram_transformer.layers[0].attention.q_proj
    adapted = nn.Module()  # as PEFT's: the layer, and two of low rank beside it
    adapted.base_layer, adapted.lora_A, adapted.lora_B = projection, nn.Linear(96, 2), nn.Linear(2, 96)
    theirs.audio_spectrogram_transformer.layers[0].attention.q_proj = adapted
    with pytest.raises(CheckpointError, match=r"ASTForAudioClassification has adapters .*merge_and_unload\(\)"):
        spectrim.prune(theirs)


def test_the_front_end_comes_with_the_feature_extractor() -> None:
    extractor = ASTFeatureExtractor(mean=-6.0, std=3.5, max_length=128)
    config = spectrim.prune(ast(), feature_extractor=extractor, prune_at=[1]).config
    assert (config.mean, config.std, config.keep_rate) == (-6.0, 3.5, 0.7)
    with pytest.warns(UserWarning, match="does not say with which mean and std"):
        spectrim.prune(ast(), prune_at=[1])
    for wrong in ("MIT/ast-finetuned-audioset-10-10-0.4593", ASTFeatureExtractor):
        with pytest.raises(InvalidSetting, match=r"feature_extractor is .*ASTFeatureExtractor\.from_pretrained\(…\)"):
            spectrim.prune(ast(), feature_extractor=wrong, prune_at=[1])


def trained(model: nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
def test_what_is_frozen_stays_so() -> None:
    theirs = ast()
    for name, value in theirs.named_parameters():
        value.requires_grad_("classifier" in name or "layers.2." in name)
    model = spectrim.prune(theirs, prune_at=[1, 3])
    everything = {name for name, _ in model.named_parameters()}
    assert trained(model) == {name for name in everything if name.startswith(("head.", "blocks.2."))}
    assert trained(spectrim.prune(ast(), prune_at=[1])) == everything


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
def test_a_weight_of_which_a_part_is_frozen_is_named() -> None:
    theirs = ast(num_hidden_layers=1)
    theirs.audio_spectrogram_transformer.layers[0].attention.k_proj.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"blocks\.0\.attention\.key_value\.weight .* a part frozen"):
        model = spectrim.prune(theirs, prune_at=[0])
    assert trained(model) == {name for name, _ in model.named_parameters()}


def module_of(weights: dict[str, torch.Tensor]) -> nn.Module:
    """A module with these parameters."""
    root = nn.Module()
    for name, value in weights.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            if part not in dict(place.named_children()):
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.register_parameter(last, nn.Parameter(value))
    return root


@pytest.mark.filterwarnings("ignore:.*does not say with which mean", "ignore:.*fine-tuned SSAST")
def test_weights_that_are_joined_elsewhere_stay_frozen() -> None:
    official = module_of(official_ast(prefix=""))
    for name, value in official.named_parameters():
        value.requires_grad_(".qkv." not in name)
    model = spectrim.prune(official, prune_at=[0])
    everything = {name for name, _ in model.named_parameters()}
    assert trained(model) == {name for name in everything if ".query." not in name and ".key_value." not in name}


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
def test_several_labels_a_clip_are_asked_for_by_the_problem_type() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    with pytest.raises(InvalidSetting, match=r'problem_type="multi_label_classification"'):
        spectrim.prune(ast(), prune_at=[1])(inputs(), labels=labels)
    model = spectrim.prune(ast(), prune_at=[1], problem_type="multi_label_classification")
    assert model.config.multi_label
    expected = nn.functional.binary_cross_entropy_with_logits(model(inputs()).logits, labels)
    torch.testing.assert_close(model(inputs(), labels=labels).loss, expected)
    with pytest.raises(InvalidSetting, match=r"problem_type is 'regression'; allowed: None, or one of multi_label"):
        spectrim.prune(ast(), problem_type="regression")


def test_dropout_that_is_left_out_is_named(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    spectrim.prune(ast(), prune_at=[1])
    assert not any("dropout" in str(warning.message) for warning in recwarn)
    theirs = ast(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.25)
    theirs.save_pretrained(tmp_path)
    said = r"ropout \(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.25\) is left out .* drop_path_rate="
    with pytest.warns(UserWarning, match=said):
        spectrim.prune(theirs, prune_at=[1])
    with pytest.warns(UserWarning, match=said):
        spectrim.from_pretrained(tmp_path)


def test_an_encoder_gets_a_fresh_head() -> None:
    torch.manual_seed(0)
    encoder = ASTModel(ASTConfig(**SMALL)).eval()
    with pytest.raises(CheckpointError, match="without a head; give labels"):
        spectrim.prune(encoder, prune_at=[1])
    model = spectrim.prune(encoder, labels=["a", "b"], prune_at=[1])
    assert model(inputs()).logits.shape == (2, 2)
    torch.testing.assert_close(
        model.embed(inputs(), spectrim.Pruning(keep_rate=1.0, at=(1,))),
        encoder(inputs()).pooler_output,
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Linear(3, 3), "Linear cannot be pruned: .*known layouts.*ASTForAudioClassification"),
        (ViTModel(ViTConfig(num_hidden_layers=1, hidden_size=48, num_attention_heads=2)), "ViTModel cannot be pruned"),
        ("spectrim-mini", "str is no model in memory; spectrim.from_pretrained"),
        (None, "NoneType is no model in memory"),
    ],
)
def test_other_models_are_refused_with_what_is_known(model: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        spectrim.prune(model)


def test_what_cannot_be_is_refused_before_anything_changes() -> None:
    theirs = ast()
    theirs.classifier.half()
    with pytest.raises(CheckpointError, match=r"has weights of torch.float16, torch.float32; bring it to one type"):
        spectrim.prune(theirs)
    theirs.float()
    before = {name: value.data_ptr() for name, value in theirs.state_dict().items()}
    for settings in ({"keep_rate": 0.0}, {"prune_at": [9]}, {"criterion": "louder"}, {"colour": "red"}, {"stride": 0}):
        with pytest.raises(InvalidSetting, match=next(iter(settings))):
            spectrim.prune(theirs, **settings)
    with pytest.raises(CheckpointError, match="set_pruning"):
        spectrim.prune(spectrim.from_pretrained("spectrim-mini"))
    theirs.classifier.dense.weight.data[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="NaN"):
        spectrim.prune(theirs)
    assert before == {name: value.data_ptr() for name, value in theirs.state_dict().items()}


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_shallow_model_is_told_where_to_prune(depth: int) -> None:
    theirs = ast(num_hidden_layers=depth)
    wanted = r"prune_at is \[\]; allowed: one block or more, e\.g\. \[1\]"
    for given in ({"keep_rate": 0.5}, {}, {"keep_rate": 0.5, "prune_at": []}, {"keep_rate": [0.7, 0.5]}):
        with pytest.raises(InvalidSetting, match=wanted):
            spectrim.prune(theirs, **given)
    with pytest.raises(InvalidSetting, match=wanted):
        spectrim.prune(theirs, pruning=spectrim.Pruning(0.5, at=()))
    model = spectrim.prune(theirs, keep_rate=1.0)
    assert model.config.pruning.at == () and not model.config.pruning.prunes
    for refused in (
        lambda: model(inputs(), keep_rate=0.5),
        lambda: model(inputs(), pruning=spectrim.Pruning(0.5, at=())),
        lambda: model.set_pruning(keep_rate=0.5),
        lambda: spectrim.macs(model, keep_rate=0.5),
    ):
        with pytest.raises(InvalidSetting, match=wanted):
            refused()
    assert spectrim.prune(theirs, keep_rate=0.5, prune_at=[0]).config.pruning.rates == {0: 0.5}


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
def test_the_last_block_prunes_only_where_it_is_named() -> None:
    for depth, blocks in ((5, (3,)), (7, (3,)), (8, (3, 6))):
        assert spectrim.prune(ast(num_hidden_layers=depth), keep_rate=0.5).config.pruning.at == blocks
    assert spectrim.prune(ast(num_hidden_layers=4), keep_rate=0.5, prune_at=[3]).config.pruning.at == (3,)


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
def test_what_is_saved_without_a_block_still_loads_and_runs(tmp_path: Path) -> None:
    ast(num_hidden_layers=2).save_pretrained(tmp_path / "theirs")
    assert spectrim.from_pretrained(tmp_path / "theirs").config.pruning.at == ()
    model = spectrim.prune(ast(num_hidden_layers=2), keep_rate=1.0)
    expected = model(inputs()).logits
    model.config.keep_rate = 0.5
    model.save_pretrained(tmp_path / "ours")
    read = TorchModel.load(tmp_path / "ours", device="cpu")
    assert (read.pruning.keep_rate, read.pruning.at, read.pruning.prunes) == (0.5, (), False)
    torch.testing.assert_close(read.logits(inputs()), expected, atol=1e-5, rtol=0)
    with pytest.raises(InvalidSetting, match=r"prune_at is \[\]"):
        spectrim.from_pretrained(tmp_path / "ours", keep_rate=0.7)
