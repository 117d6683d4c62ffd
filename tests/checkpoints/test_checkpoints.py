from __future__ import annotations

import argparse
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoint_files import SMALL, audiomae, check_same_logits, eat, hf_model, official_ast, save, ssast
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from spectrim.backbones import ast_tiny, audiomae_tiny
from spectrim.checkpoints import LicenceNotice, UntrainedPruning, describe, from_pretrained
from spectrim.checkpoints.labels import SPEECH_COMMANDS, audioset_labels
from spectrim.errors import CheckpointError, InvalidSetting
from spectrim.network.positions import adapt_position_table, audiomae_position_table
from spectrim.network.transformer import AudioTransformer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
# Hugging Face's AST


@pytest.mark.parametrize("stride", [10, 12, 14, 16])
def test_hugging_face_ast_gives_transformers_logits(tmp_path: Path, stride: int) -> None:
    oracle = hf_model(stride, frames=250)
    oracle.save_pretrained(tmp_path)
    model = from_pretrained(tmp_path)
    assert not model.training
    assert model.config.keep_rate == 1.0
    assert model.config.layer_norm_eps == model.config.head_norm_eps == 1e-12
    check_same_logits(model, oracle)


def test_hugging_face_ast_of_real_depth_gives_transformers_logits(tmp_path: Path) -> None:
    sizes = {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 192, "num_hidden_layers": 12}
    oracle = hf_model(10, frames=1024, **sizes)
    oracle.save_pretrained(tmp_path)
    model = from_pretrained(tmp_path)
    assert model.config.num_patches == 1212
    assert model.config.prune_at == [3, 6, 9]
    check_same_logits(model, oracle)


def test_both_namings_of_transformers_are_read(tmp_path: Path) -> None:
    oracle = hf_model()
    oracle.save_pretrained(tmp_path / "saved")
    saved = safetensors.torch.load_file(tmp_path / "saved" / "model.safetensors")
    assert any(".encoder.layer.0." in name for name in saved)
    assert any(".layers.0.attention.q_proj" in name for name in oracle.state_dict())
    (tmp_path / "named").mkdir()
    shutil.copy(tmp_path / "saved" / "config.json", tmp_path / "named")
    save(tmp_path / "named", oracle.state_dict(), "pytorch_model.bin")
    for folder in ("saved", "named"):
        check_same_logits(from_pretrained(tmp_path / folder), oracle)


@pytest.mark.parametrize(("stride", "frames"), [(10, 128), (12, 512), (14, 256), (16, 1024)])
def test_a_lone_hugging_face_file_does_not_tell_its_stride(tmp_path: Path, stride: int, frames: int) -> None:
    oracle = hf_model(stride, frames, num_attention_heads=1)
    file = tmp_path / "anything.dat"
    safetensors.torch.save_file(dict(oracle.state_dict()), file)
    if (stride, frames) != (16, 1024):
        with pytest.raises(CheckpointError, match=rf"stride={stride} with .*Give stride="):
            from_pretrained(file)
    model = from_pretrained(file, stride=stride, frames=frames)
    assert (model.config.time_stride, model.config.max_length) == (stride, frames)
    check_same_logits(model, oracle)


def test_sharded_weights_of_either_kind_are_put_together(tmp_path: Path) -> None:
    oracle = hf_model()
    oracle.save_pretrained(tmp_path / "safe", max_shard_size="100KB")
    assert len(list((tmp_path / "safe").glob("*.safetensors"))) > 1
    check_same_logits(from_pretrained(tmp_path / "safe"), oracle)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(tmp_path / "safe" / "config.json", pickled)
    names = sorted(oracle.state_dict())
    table = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for shard in set(table.values()):
        save(pickled, {n: v for n, v in oracle.state_dict().items() if table[n] == shard}, shard)
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    check_same_logits(from_pretrained(pickled), oracle)


def test_front_end_and_labels_come_along(tmp_path: Path) -> None:
    names = {0: "zero", 1: "one", 2: "two"}
    hf_model(num_labels=3, id2label=names, label2id={v: k for k, v in names.items()}).save_pretrained(tmp_path)
    ASTFeatureExtractor(mean=-6.8, std=5.5, max_length=128).save_pretrained(tmp_path)
    config = from_pretrained(tmp_path).config
    assert (config.mean, config.std, config.padding) == (-6.8, 5.5, "zero")
    assert config.id2label == names
    assert config.label2id == {"zero": 0, "one": 1, "two": 2}
    assert config.problem_type == "single_label_classification"
    ASTFeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    config = from_pretrained(tmp_path).config
    assert (-1.25 - config.mean) / (2 * config.std) == -1.25
    assert config.sampling_rate == 16000


@pytest.mark.parametrize("normalises", [True, False])
def test_the_sampling_rate_comes_along(tmp_path: Path, normalises: bool) -> None:
    hf_model().save_pretrained(tmp_path)
    ASTFeatureExtractor(sampling_rate=8000, do_normalize=normalises).save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).config.sampling_rate == 8000


def test_a_hugging_face_encoder_without_head_needs_labels(tmp_path: Path) -> None:
    ASTModel(ASTConfig(max_length=128, **SMALL)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="without a head"):
        from_pretrained(tmp_path)
    assert from_pretrained(tmp_path, labels=["a", "b"]).config.id2label == {0: "a", 1: "b"}


def test_another_activation_is_refused(tmp_path: Path) -> None:
    hf_model(hidden_act="relu").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="relu"):
        from_pretrained(tmp_path)


def test_config_and_weights_that_disagree_are_refused(tmp_path: Path) -> None:
    hf_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, said in (
        ({"num_hidden_layers": 3}, "Missing: .*layer.2"),
        ({"num_hidden_layers": 1}, "Unexpected: .*layer.1"),
        ({"intermediate_size": 100}, "shapes do not fit"),
        ({"max_length": 512}, "embeddings.position_table"),
        ({"hidden_size": "wide"}, "make no model"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"id2label": {"0": "dog"}}, "1 labels, but the head has 5"),
        ({"id2label": {"0": "dog", "7": "cat"}}, "without gaps"),
        ({"id2label": {"dog": 0}}, "numbers as keys"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=said):
            from_pretrained(tmp_path)


# Official AST


def test_official_ast_puts_every_weight_in_its_place(tmp_path: Path) -> None:
    weights = official_ast(prefix="")
    model = from_pretrained(save(tmp_path, official_ast()))
    ours = model.state_dict()
    assert torch.equal(ours["embeddings.cls_token"], weights["v.cls_token"])
    assert torch.equal(ours["embeddings.dist_token"], weights["v.dist_token"])
    assert torch.equal(ours["embeddings.position_table"], weights["v.pos_embed"])
    assert torch.equal(ours["embeddings.projection.weight"], weights["v.patch_embed.proj.weight"])
    assert torch.equal(ours["blocks.1.attention.query.weight"], weights["v.blocks.1.attn.qkv.weight"][:64])
    assert torch.equal(ours["blocks.1.attention.key_value.bias"], weights["v.blocks.1.attn.qkv.bias"][64:])
    assert torch.equal(ours["blocks.0.mlp.down.weight"], weights["v.blocks.0.mlp.fc2.weight"])
    assert torch.equal(ours["norm.bias"], weights["v.norm.bias"])
    assert torch.equal(ours["head.norm.weight"], weights["mlp_head.0.weight"])
    assert torch.equal(ours["head.linear.weight"], weights["mlp_head.1.weight"])
    assert (model.config.layer_norm_eps, model.config.head_norm_eps) == (1e-6, 1e-5)
    assert model.config.num_attention_heads == 1
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_prefix_and_the_unused_heads_may_be_there_or_not(tmp_path: Path) -> None:
    full = from_pretrained(save(tmp_path, official_ast())).state_dict()
    bare = {name: value for name, value in official_ast(prefix="").items() if not name.startswith("v.head")}
    plain = from_pretrained(save(tmp_path, bare)).state_dict()
    assert all(torch.equal(full[name], plain[name]) for name in full)


def test_a_number_of_patches_that_no_stride_gives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="997 patches"):
        from_pretrained(save(tmp_path, official_ast(patches=997)))


def test_a_width_that_no_published_head_divides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="multiple of 64"):
        from_pretrained(save(tmp_path, official_ast(width=96)))


@pytest.mark.parametrize(
    ("state", "prefix", "layout"),
    [
        (official_ast(prefix=""), "v.patch_embed.", "official-ast"),
        (audiomae(labels=0, norm=False, decoder=True), "patch_embed.", "audiomae-pretrained"),
        (eat(form="pretrained"), "modality_encoders.IMAGE.local_encoder.", "eat"),
        (ssast(pretrained=True), "v.patch_embed.", "ssast-pretrained"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("sides", [(256, 256), (0, 0)])
def test_patches_that_no_spectrogram_has_are_refused_in_every_layout(
    tmp_path: Path, state: dict[str, torch.Tensor], prefix: str, layout: str, sides: tuple[int, int]
) -> None:
    path = save(tmp_path, state | {f"{prefix}proj.weight": torch.zeros(64, 1, *sides)})
    said = rf"{path.name} \(layout {layout}\): .*patch_size is \[{sides[0]}, {sides[1]}\]; allowed: from 1 to 128 mel"
    for load in (from_pretrained, describe):
        with pytest.raises(CheckpointError, match=said):
            load(path)


# AudioMAE


def test_fine_tuned_audiomae_puts_every_weight_in_its_place(tmp_path: Path) -> None:
    weights = audiomae(patches=128)
    model = from_pretrained(save(tmp_path, {"model": weights, "epoch": 3}))
    ours = model.state_dict()
    config = model.config
    assert torch.equal(ours["embeddings.projection.weight"], weights["patch_embed.proj.weight"].transpose(2, 3))
    assert torch.equal(ours["embeddings.position_table"], weights["pos_embed"])
    assert torch.equal(ours["norm.weight"], weights["fc_norm.weight"])
    assert torch.equal(ours["head.linear.bias"], weights["head.bias"])
    assert (config.max_length, config.patch_order, config.pooling) == (256, "time_major", "mean_patches")
    assert not model.embeddings.position_table.requires_grad


def test_pre_trained_audiomae_needs_labels_and_then_only_its_head_is_new(tmp_path: Path) -> None:
    weights = audiomae(norm=False, labels=0, decoder=True)
    path = save(tmp_path, {"model": weights})
    with pytest.raises(CheckpointError, match=r"audiomae-pretrained.*without a head; give labels"):
        from_pretrained(path)
    torch.manual_seed(0)
    one = from_pretrained(path, labels=["a", "b", "c"]).state_dict()
    two = from_pretrained(path, labels=["a", "b", "c"]).state_dict()
    differing = {name for name in one if not torch.equal(one[name], two[name])}
    assert differing == {"head.linear.weight"}
    assert one["head.linear.weight"].std() == pytest.approx(2e-5, rel=0.3)
    assert torch.equal(one["norm.weight"], torch.ones(64))
    assert not one["norm.bias"].any() and not one["head.linear.bias"].any()


def test_timm_copies_of_audiomae(tmp_path: Path) -> None:
    finetuned = audiomae()
    safetensors.torch.save_file(finetuned, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch16_1024_128", "num_classes": 5}')
    full = from_pretrained(tmp_path).state_dict()
    encoder = {name: value for name, value in finetuned.items() if not name.startswith("head.")}
    safetensors.torch.save_file(encoder, tmp_path / "model.safetensors")
    assert describe(tmp_path)["layout"] == "audiomae-timm"
    with pytest.raises(CheckpointError, match="give labels"):
        from_pretrained(tmp_path)
    part = from_pretrained(tmp_path, labels=list("abcde")).state_dict()
    assert {name for name in full if not torch.equal(full[name], part[name])} == {
        "head.linear.weight",
        "head.linear.bias",
    }


def test_the_paper_s_audiomae_brings_its_arguments_along(tmp_path: Path) -> None:
    arguments = argparse.Namespace(dataset="spc2", base_keep_rate=0.5, drop_loc="(3, 6)", lr=1e-3, dist_eval=True)
    content = {
        "model": audiomae(labels=35, depth=8),
        "optimizer": {"state": {0: {"step": 7}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 89,
        "scaler": {"scale": 65536.0},
        "args": arguments,
    }
    model = from_pretrained(save(tmp_path, content))
    config = model.config
    assert (config.mean, config.std, config.padding) == (-6.845978, 5.5654526, "minimum")
    assert (config.keep_rate, config.prune_at) == (0.5, [3, 6])
    assert config.id2label == dict(enumerate(SPEECH_COMMANDS))
    assert from_pretrained(save(tmp_path, content), keep_rate=0.9).config.keep_rate == 0.9
    for drop_loc in ("os.getcwd()", "7", "(99,)"):
        content["args"] = argparse.Namespace(base_keep_rate=0.5, drop_loc=drop_loc)
        with pytest.raises(CheckpointError, match=r"drop_loc|prune_at"):
            from_pretrained(save(tmp_path, content))


def test_audiomae_s_licence_is_mentioned_and_ast_s_is_not(tmp_path: Path) -> None:
    with pytest.warns(LicenceNotice, match="CC BY-NC"):
        from_pretrained(save(tmp_path, {"model": audiomae(labels=527)}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", LicenceNotice)
        from_pretrained(save(tmp_path, official_ast(labels=527)))


def test_pruning_that_nothing_was_trained_with_is_warned_of(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast(labels=527))
    with pytest.warns(UntrainedPruning, match=r"by attention \(cls_attention\) can be worse.*'cluster' cost least"):
        model = from_pretrained(path, keep_rate=0.5, prune_at=[1])
    for name in ("cls_attention_so_far", "cls_without_sinks"):
        with pytest.warns(UntrainedPruning, match=f"dropping patches by {name} costs is not known"):
            from_pretrained(path, keep_rate=0.5, prune_at=[1], criterion=name)
    with pytest.warns(UntrainedPruning, match="dropping patches by value_norm costs is not known"):
        from_pretrained(path, keep_rate=0.5, prune_at=[1], criterion="value_norm")
    with pytest.warns(UntrainedPruning, match="reducer='merge' costs is not known"):
        from_pretrained(path, keep_rate=0.5, prune_at=[1], reducer="merge")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UntrainedPruning)
        from_pretrained(path)
        from_pretrained(path, keep_rate=0.5, prune_at=[1], criterion="random")
        from_pretrained(path, keep_rate=0.5, prune_at=[1], criterion="regular")
        from_pretrained(path, keep_rate=0.5, prune_at=[1], labels=["a", "b"])
        model.save_pretrained(tmp_path / "pruned")
        from_pretrained(tmp_path / "pruned", keep_rate=0.3)
        from_pretrained("spectrim-mini", keep_rate=0.5)


def test_statistics_that_nothing_says_are_warned_of(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast(labels=50))
    with pytest.warns(UserWarning, match=r"give mean= and std= to spectrim\.from_pretrained; commands take the folder"):
        from_pretrained(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = from_pretrained(path, mean=-6.6, std=5.4, padding="minimum", pooling="extra_tokens").config
    assert (config.mean, config.std, config.padding) == (-6.6, 5.4, "minimum")


# Spectrim's own


@pytest.mark.parametrize("builder", [ast_tiny, audiomae_tiny])
def test_own_checkpoints_come_back_with_their_settings(tmp_path: Path, builder: Callable[..., Any]) -> None:
    config = builder(max_length=128, num_hidden_layers=4, prune_at=[1, 2], keep_rate=[0.5, 0.9], criterion="variation")
    model = AudioTransformer(config)
    model.save_pretrained(tmp_path, max_shard_size="2MB")
    loaded = from_pretrained(tmp_path)
    assert (loaded.config.keep_rate, loaded.config.prune_at) == ([0.5, 0.9], [1, 2])
    assert loaded.config.criterion == "variation"
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    again = from_pretrained(tmp_path, keep_rate=0.3, criterion="random", random_seed=5).config
    assert (again.keep_rate, again.prune_at, again.criterion, again.random_seed) == (0.3, [1, 2], "random", 5)


def test_own_weights_need_their_config(tmp_path: Path) -> None:
    AudioTransformer(ast_tiny(max_length=128, num_hidden_layers=1, prune_at=[])).save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        from_pretrained(tmp_path)


# Labels, input length, settings


def test_labels_beside_the_weights(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast(labels=3))
    table = tmp_path / "class_labels_indices.csv"
    table.write_text('index,mid,display_name\n1,/m/b,"Growl, low"\n0,/m/a,Bark\n2,/m/c,Hiss\n')
    assert describe(path)["label_names"] == ["Bark", "Growl, low", "Hiss"]
    table.write_text("index,mid,display_name\n0,/m/a,Bark\n")
    with pytest.warns(UserWarning, match="names 1 labels, but the head has 3"):
        assert describe(path)["label_names"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    for broken, said in (
        ("0,1\n2,3\n", "the header lacks index, mid, display_name"),
        ("index,mid,display_name\n1,/m/a,Bark\n", "without gaps"),
    ):
        table.write_text(broken)
        with pytest.raises(CheckpointError, match=said):
            from_pretrained(path)


def test_labels_that_nothing_says_are_audioset_s_or_speech_commands(tmp_path: Path) -> None:
    names = audioset_labels()
    assert (len(names), len(set(names))) == (527, 527)
    assert [names[i] for i in (0, 1, 137, 526)] == ["Speech", "Male speech, man speaking", "Music", "Field recording"]
    path = save(tmp_path, official_ast(labels=527))
    config = from_pretrained(path).config
    assert config.id2label == dict(enumerate(names))
    assert config.problem_type == "multi_label_classification"
    assert not from_pretrained(path, problem_type="single_label_classification").config.multi_label
    assert len(set(SPEECH_COMMANDS)) == 35
    assert describe(save(tmp_path, official_ast(labels=35)))["label_names"] == list(SPEECH_COMMANDS)
    assert describe(save(tmp_path, audiomae(labels=35)))["label_names"][0] == "LABEL_0"


@pytest.mark.parametrize("layout", ["official", "hugging-face", "audiomae", "fresh head", "own"])
def test_one_output_is_a_sigmoid_in_every_layout_and_is_saved(tmp_path: Path, layout: str) -> None:
    if layout == "hugging-face":
        hf_model(num_labels=1, problem_type="regression").save_pretrained(tmp_path / "hf")
        model = from_pretrained(tmp_path / "hf")
    elif layout == "own":
        model = AudioTransformer(ast_tiny(num_labels=1, max_length=128, num_hidden_layers=1, prune_at=[]))
    else:
        weights = {"model": audiomae(labels=1)} if layout == "audiomae" else official_ast(labels=1)
        model = from_pretrained(save(tmp_path, weights), labels=["bird"] if layout == "fresh head" else None)
    assert (model.config.num_labels, model.config.multi_label) == (1, True)
    model.save_pretrained(tmp_path / "saved")
    again = from_pretrained(tmp_path / "saved")
    assert (again.config.multi_label, again.config.id2label) == (True, model.config.id2label)
    with pytest.raises(InvalidSetting, match="allowed: 'multi_label_classification' with a single label"):
        from_pretrained(tmp_path / "saved", problem_type="single_label_classification")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["problem_type"] = "single_label_classification"  # as earlier versions wrote it
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    assert from_pretrained(tmp_path / "saved").config.multi_label


def test_new_labels_replace_only_the_head(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast())
    old, new = from_pretrained(path).state_dict(), from_pretrained(path, labels=["yes", "no"])
    assert new.config.id2label == {0: "yes", 1: "no"}
    changed = {name for name, value in new.state_dict().items() if not torch.equal(value, old[name])}
    assert changed and all(name.startswith("head.") for name in changed)
    assert torch.equal(new.state_dict()["head.norm.weight"], torch.ones(64))
    for labels in ("yes", [], ["a", "a"], [""], [1, 2]):
        with pytest.raises(InvalidSetting, match="labels"):
            from_pretrained(path, labels=labels)


def test_another_input_length_fits_the_position_table(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast(patches=512))
    long, short = from_pretrained(path), from_pretrained(path, frames=128)
    assert short.config.max_length == 128
    whole, cut = long.state_dict()["embeddings.position_table"], short.state_dict()["embeddings.position_table"]
    assert torch.equal(cut, adapt_position_table(whole, long.config, short.config, "middle"))
    with torch.no_grad():
        assert short(torch.randn(1, 128, 128)).logits.shape == (1, 5)
    first = from_pretrained(path, frames=128, positions="first").state_dict()["embeddings.position_table"]
    assert torch.equal(first, adapt_position_table(whole, long.config, short.config, "first"))


def test_a_released_audiomae_keeps_the_positions_that_it_was_trained_with(tmp_path: Path) -> None:
    config = audiomae_tiny(hidden_size=64, num_attention_heads=1)
    weights = audiomae(patches=512) | {"pos_embed": audiomae_position_table(config)}
    path = save(tmp_path, {"model": weights})
    table = from_pretrained(path, frames=128).state_dict()["embeddings.position_table"]
    assert torch.equal(table, weights["pos_embed"][:, :65])
    table = from_pretrained(path, frames=2048).state_dict()["embeddings.position_table"]
    assert torch.equal(table[:, :513], weights["pos_embed"])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"keep_rate": 0.0}, "keep_rate"),
        ({"keep_rate": [0.5, 2.0]}, "keep_rate"),
        ({"keep_rate": "half"}, "keep_rate"),
        ({"keep_rate": [0.5], "prune_at": [3, 6]}, "keep_rate"),
        ({"prune_at": [-1]}, "prune_at"),
        ({"prune_at": 3}, "prune_at"),
        ({"prune_at": [3, 3]}, "prune_at"),
        ({"criterion": "loudness"}, "criterion"),
        ({"reference_compat": True, "criterion": "random"}, "reference_compat"),
        ({"padding": "noise"}, "padding"),
        ({"frames": 8}, "frames"),
        ({"frames": 12.5}, "frames"),
        ({"positions": "stretch"}, "positions"),
        ({"hidden_size": 3}, "hidden_size"),
    ],
)
def test_wrong_settings_are_named_before_any_file_is_touched(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSetting, match=field):
        from_pretrained("nowhere/at/all", **wrong)


def test_settings_that_only_this_checkpoint_makes_wrong_are_named_too(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast(depth=5))
    for wrong in ({"prune_at": [5]}, {"keep_rate": [0.5, 0.5]}, {"reference_compat": True}):
        with pytest.raises(InvalidSetting, match=next(iter(wrong))):
            from_pretrained(path, **wrong)
    assert from_pretrained(path, keep_rate=[0.5]).config.prune_at == [3]


def test_describe_says_what_a_checkpoint_holds(tmp_path: Path) -> None:
    said = describe(save(tmp_path, {"model": audiomae(labels=0, norm=False, decoder=True)}))
    assert said["layout"] == "audiomae-pretrained"
    assert (said["backbone"], said["labels"], said["label_names"]) == ("audiomae", 0, [])
    assert (said["hidden_size"], said["num_hidden_layers"], said["grid"]) == (64, 2, (8, 8))
    assert "CC BY-NC" in said["licence"]
    said = describe(save(tmp_path, official_ast()))
    model = from_pretrained(tmp_path / "weights.pth")
    assert said["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert said["licence"] is None
    json.dumps(said)
