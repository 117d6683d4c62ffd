"""The model and its feature extractor among transformers' own: saving, Auto classes, pipelines, Trainer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from plain import BACKBONES, clips, randomise, small_config, small_model
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)
from transformers.utils.hub import PushToHubMixin

from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.audio.frontend import Frontend
from spectrim.checkpoints import from_pretrained
from spectrim.config import SpectrimConfig
from spectrim.errors import AudioError, InvalidSetting
from spectrim.network.positions import sincos_position_table
from spectrim.network.transformer import AudioTransformer

PRUNING = {
    "keep_rate": [0.8, 0.5],
    "prune_at": [2, 7],
    "criterion": "variation",
    "drop_padding": True,
    "random_seed": 3,
}
LABELS = {0: "dog", 1: "rain", 2: "siren", 3: "speech", 4: "silence"}


def saved(folder: Path, backbone: str, **fields: object) -> AudioTransformer:
    """A small float32 model on disk, with its feature extractor beside it."""
    model = small_model(backbone, dtype=torch.float32, id2label=LABELS, mean=-5.0, std=3.0, **fields)
    model.save_pretrained(folder)
    SpectrimFeatureExtractor.from_config(model.config).save_pretrained(folder)
    return model


def tone(seconds: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    time = np.arange(int(16000 * seconds)) / 16000
    noise = 0.05 * generator.standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (300 + 500 * seed) * time) * np.exp(-2 * time) + noise).astype(np.float32)


def test_what_is_saved_is_also_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = []

    def upload(self: object, folder: str, repo_id: str, known: dict[str, float], **options: object) -> None:
        uploaded.append((repo_id, sorted(path.name for path in Path(folder).iterdir() if path.name not in known)))

    monkeypatch.setattr(PushToHubMixin, "_upload_modified_files", upload)
    card = SimpleNamespace(save=lambda path: Path(path).touch())
    monkeypatch.setattr("transformers.modeling_utils.create_and_tag_model_card", lambda *_, **__: card)
    hub = SimpleNamespace(create_repo=lambda repo_id, **options: SimpleNamespace(repo_id=f"me/{repo_id}"))
    for module in ("modeling_utils", "feature_extraction_utils"):
        monkeypatch.setattr(f"transformers.{module}.hf_api", lambda: hub)
    small_model("ast", dtype=torch.float32).save_pretrained(tmp_path, push_to_hub=True, repo_id="sounds")
    assert uploaded == [
        ("me/sounds", ["README.md", "config.json", "model.safetensors"]),
        ("me/sounds", ["preprocessor_config.json"]),
    ]
    with pytest.raises(InvalidSetting, match=r"create_pr is True; allowed: model\.push_to_hub\(repo_id"):
        small_model("ast").save_pretrained(tmp_path / "pr", push_to_hub=True, repo_id="sounds", create_pr=True)
    assert len(uploaded) == 2 and not (tmp_path / "pr").exists()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_saved_and_loaded_is_the_same_model(backbone: str, tmp_path: Path) -> None:
    model = saved(tmp_path, backbone, **PRUNING)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    written = json.loads((tmp_path / "config.json").read_text())
    assert {name: written[name] for name in PRUNING} == PRUNING
    assert written["architectures"] == ["AudioTransformer"] and written["id2label"]["3"] == "speech"

    values, frames = clips(model.config, dtype=torch.float32), torch.tensor([128, 70])
    logits = model(values, num_frames=frames).logits
    for load in (AudioTransformer.from_pretrained, AutoModelForAudioClassification.from_pretrained):
        loaded, report = load(tmp_path, output_loading_info=True)
        assert type(loaded) is AudioTransformer and not loaded.training
        assert not any(report.values()), report
        assert torch.equal(loaded(values, num_frames=frames).logits, logits)
        assert {name: getattr(loaded.config, name) for name in PRUNING} == PRUNING
        assert loaded.config.id2label == LABELS
    assert type(AutoConfig.from_pretrained(tmp_path)) is SpectrimConfig
    loaded.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again == written


def test_settings_can_be_overridden_while_loading(tmp_path: Path) -> None:
    model = saved(tmp_path, "ast", keep_rate=0.8)
    values = clips(model.config, dtype=torch.float32)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path, keep_rate=0.4, prune_at=(1, 2))
    assert torch.equal(loaded(values).logits, model.set_pruning(keep_rate=0.4, prune_at=[1, 2])(values).logits)
    for wrong in ({"keep_rate": 7}, {"prune_at": [12]}, {"criterion": "best"}):
        with pytest.raises(InvalidSetting, match=next(iter(wrong))):
            AutoModelForAudioClassification.from_pretrained(tmp_path, **wrong)


def test_types_shards_and_other_heads(tmp_path: Path) -> None:
    model = saved(tmp_path / "one", "audiomae", keep_rate=0.6)
    values = clips(model.config, dtype=torch.float32)
    logits = model(values).logits
    half = AudioTransformer.from_pretrained(tmp_path / "one", dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    assert (half(values).logits.float() - logits).abs().max() < 0.5 * logits.abs().mean()
    half.save_pretrained(tmp_path / "half")
    assert AudioTransformer.from_pretrained(tmp_path / "half", dtype="auto").dtype == torch.bfloat16
    assert AudioTransformer.from_pretrained(tmp_path / "half", dtype=torch.float32).dtype == torch.float32

    model.save_pretrained(tmp_path / "many", max_shard_size="300KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert torch.equal(AudioTransformer.from_pretrained(tmp_path / "many")(values).logits, logits)

    other = AudioTransformer.from_pretrained(tmp_path / "one", num_labels=9, ignore_mismatched_sizes=True)
    assert other(values).logits.shape == (2, 9) and other.head.linear.weight.std() > 0
    assert torch.equal(other.blocks[3].mlp.up.weight, model.blocks[3].mlp.up.weight)


@pytest.mark.parametrize(
    "asked", [{"num_labels": 1}, {"id2label": {0: "dog"}, "label2id": {"dog": 0}}], ids=["num_labels", "id2label"]
)
def test_one_label_that_transformers_asks_for_is_a_sigmoid_everywhere(asked: dict, tmp_path: Path) -> None:
    saved(tmp_path, "ast", problem_type="single_label_classification", num_hidden_layers=2, prune_at=[1])
    load = AutoModelForAudioClassification.from_pretrained
    model = randomise(load(tmp_path, ignore_mismatched_sizes=True, **asked)).eval()
    assert (model.config.num_labels, model.config.multi_label) == (1, True)
    features = Frontend.from_config(model.config)([tone(1.0, 1)])
    with torch.no_grad():
        out = model(features.input_values, labels=torch.ones(1, 1))
    expected = float(out.logits.sigmoid())
    assert expected < 0.99 and float(out.loss) == pytest.approx(-math.log(expected), abs=1e-5)
    model.save_pretrained(tmp_path / "again")
    for again in (from_pretrained(tmp_path / "again"), load(tmp_path / "again")):
        assert again.config.problem_type == "multi_label_classification"
    row = pipeline("audio-classification", model=str(tmp_path / "again"), device="cpu")(tone(1.0, 1))[0]
    assert row["score"] == pytest.approx(expected, abs=1e-5)


def test_several_labels_of_a_model_of_one_are_sigmoids_until_something_else_is_said(tmp_path: Path) -> None:
    small_model("ast", dtype=torch.float32, num_labels=1, num_hidden_layers=2, prune_at=[1]).save_pretrained(tmp_path)
    one_softmax = {"problem_type": "single_label_classification"}
    for asked, multi_label in (({}, True), (one_softmax, False)):
        for given in ({"num_labels": 3, **asked}, {**asked, "num_labels": 3}):
            model = AudioTransformer.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **given)
            assert (model.config.num_labels, model.config.multi_label) == (3, multi_label)
    assert not from_pretrained(tmp_path, labels=["dog", "rain", "siren"]).config.multi_label


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_weight_that_a_file_lacks_is_initialised_and_not_left_as_memory(backbone: str, tmp_path: Path) -> None:
    saved(tmp_path, backbone)
    weights = load_file(tmp_path / "model.safetensors")
    gone = [name for name in weights if not name.startswith("blocks.3.")]
    save_file({name: weights[name] for name in weights if name not in gone}, tmp_path / "model.safetensors")
    loaded, report = AudioTransformer.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == set(gone)
    check_initialised(loaded, gone)


def check_initialised(model: AudioTransformer, names: list[str]) -> None:
    """Norms are one and zero, biases zero, the rest drawn with the configured spread."""
    state, config = model.state_dict(), model.config
    for name in names:
        weight, spread = state[name], config.initializer_range
        if name.endswith("bias"):
            assert (weight == 0).all(), name
        elif "norm" in name:
            assert (weight == 1).all(), name
        elif name == "embeddings.position_table" and not config.position_trainable:
            assert torch.equal(weight, sincos_position_table(config)), name
        else:
            spread = config.head_init_std if name == "head.linear.weight" else spread
            assert weight.std().item() == pytest.approx(spread, rel=0.35), name
            assert abs(weight.mean().item()) < 5 * spread / math.sqrt(weight.numel()), name
            assert len(weight.unique()) > 0.9 * weight.numel(), name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_is_initialised_and_by_the_seed(backbone: str) -> None:
    config = small_config(backbone)
    set_seed(4)
    model = AudioTransformer(config)
    check_initialised(model, list(model.state_dict()))
    set_seed(4)
    again = AudioTransformer(config)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_gets_a_gradient(backbone: str) -> None:
    model = small_model(backbone, keep_rate=0.5, num_hidden_layers=4, prune_at=[1, 3]).train()
    model(clips(model.config), labels=torch.tensor([1, 3])).loss.backward()
    for name, weight in model.named_parameters():
        if name != "embeddings.position_table" or model.config.position_trainable:
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name
        else:
            assert weight.grad is None


@pytest.mark.parametrize("backbone", BACKBONES)
def test_one_batch_is_learnt(backbone: str) -> None:
    set_seed(0)
    model = AudioTransformer(
        small_config(backbone, keep_rate=0.7, drop_path_rate=0.1, num_hidden_layers=6, prune_at=[2])
    )
    values = clips(model.config, batch=5, dtype=torch.float32)
    labels = torch.arange(5)
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        loss = model(values, labels=labels).loss
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[0] == pytest.approx(math.log(5), abs=0.2)
    assert losses[-1] < 0.3 * losses[0]
    assert (model.eval()(values).logits.argmax(dim=1) == labels).all()


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_pipeline_gives_the_models_own_scores(backbone: str, problem: str, tmp_path: Path) -> None:
    model = saved(tmp_path, backbone, keep_rate=0.6, drop_padding=True, problem_type=problem, padding="minimum")
    sounds = [tone(1.3, 0), tone(0.4, 1), tone(5.0, 2)]
    with torch.no_grad():
        features = Frontend.from_config(model.config)(sounds)
        logits = model(features.input_values, num_frames=features.num_frames).logits
    expected = logits.sigmoid() if problem.startswith("multi") else logits.softmax(dim=1)
    classify = pipeline("audio-classification", model=str(tmp_path), device="cpu")
    assert isinstance(classify.feature_extractor, SpectrimFeatureExtractor)
    assert classify.feature_extractor.padding == "minimum"
    for number, sound in enumerate(sounds):
        for given in (sound, sound.astype(np.float64), {"raw": sound, "sampling_rate": 16000}):
            rows = classify(given, top_k=None)
            assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
            found = {row["label"]: row["score"] for row in rows}
            assert found == pytest.approx(dict(zip(LABELS.values(), expected[number].tolist(), strict=True)), abs=1e-5)
    together = classify(sounds, batch_size=2, top_k=1)
    assert [row[0]["label"] for row in together] == [LABELS[int(best)] for best in expected.argmax(dim=1)]


def test_the_feature_extractor_travels(tmp_path: Path) -> None:
    model = saved(tmp_path, "ast", max_length=256)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(extractor) is SpectrimFeatureExtractor
    assert (extractor.max_length, extractor.mean, extractor.std) == (256, -5.0, 3.0)
    found = extractor([tone(1.0, 0), tone(2.0, 1)], sampling_rate=16000, return_tensors="pt")
    wanted = Frontend.from_config(model.config)([tone(1.0, 0), tone(2.0, 1)])
    assert torch.equal(found["input_values"], wanted.input_values)
    assert torch.equal(found["num_frames"], wanted.num_frames)
    assert model(**found).logits.shape == (2, 5)


class Clips(Dataset):
    """Four labelled spectrograms as a Trainer wants them."""

    def __init__(self, config: SpectrimConfig) -> None:
        self.values = clips(config, batch=4, dtype=torch.float32)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"input_values": self.values[index], "labels": index, "num_frames": 128 - 16 * index}


def test_the_trainer_trains_evaluates_and_saves(tmp_path: Path) -> None:
    model = randomise(AudioTransformer(small_config("ast", keep_rate=0.5, drop_padding=True, id2label=LABELS)))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=3,
        learning_rate=1e-3,
        use_cpu=True,
        report_to=[],
        save_steps=2,
        logging_steps=1,
        disable_tqdm=True,
        gradient_checkpointing=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Clips(model.config), eval_dataset=Clips(model.config))
    result = trainer.train()
    assert result.global_step == 2 and math.isfinite(result.training_loss)
    assert any(not torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    predicted = trainer.predict(Clips(model.config))
    assert predicted.predictions.shape == (4, 5) and math.isfinite(trainer.evaluate()["eval_loss"])
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path / "checkpoint-2")
    with torch.no_grad():
        logits = loaded(Clips(model.config).values, num_frames=torch.tensor([128, 112, 96, 80])).logits
    np.testing.assert_allclose(predicted.predictions, logits.numpy(), atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_same_call_gives_the_same_bits(backbone: str) -> None:
    model = small_model(backbone, dtype=torch.float32, keep_rate=0.5)
    values = clips(model.config, dtype=torch.float32)
    first, second = (model(values, output_hidden_states=True, output_attentions=True) for _ in range(2))
    assert torch.equal(first.logits, second.logits)
    for name in ("hidden_states", "attentions"):
        for one, other in zip(first[name], second[name], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_is_its_clips_in_everything_that_is_returned(backbone: str) -> None:
    model = small_model(backbone, keep_rate=0.5)
    values = clips(model.config, batch=3)
    ask = {"output_hidden_states": True, "output_attentions": True, "output_token_trace": True}
    batch = model(values, **ask)
    for item in range(3):
        alone = model(values[item : item + 1], **ask)
        for name in ("hidden_states", "attentions"):
            for one, many in zip(alone[name], batch[name], strict=True):
                torch.testing.assert_close(one[0], many[item], rtol=1e-9, atol=1e-9)
        for one, many in zip(alone.token_trace.scores, batch.token_trace.scores, strict=True):
            torch.testing.assert_close(one[0], many[item], rtol=1e-6, atol=1e-9, equal_nan=True)


def test_a_model_saved_alone_works_in_a_pipeline(tmp_path: Path) -> None:
    from_pretrained("spectrim-mini").save_pretrained(tmp_path)
    tag = pipeline("audio-classification", model=str(tmp_path))
    waveform = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    found = tag({"raw": waveform, "sampling_rate": 16000}, top_k=1)[0]
    wanted = from_pretrained("spectrim-mini")
    features = SpectrimFeatureExtractor.from_config(wanted.config)(waveform, 16000, return_tensors="pt")
    with torch.no_grad():
        scores = wanted(features.input_values).logits.softmax(-1)[0]
    assert found["label"] == wanted.config.id2label[int(scores.argmax())]
    assert found["score"] == pytest.approx(float(scores.max()), abs=1e-5)


def test_the_arguments_of_asts_feature_extractor_are_taken() -> None:
    ours, theirs = SpectrimFeatureExtractor(max_length=128), ASTFeatureExtractor(max_length=64)
    waveform = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    options = {"sampling_rate": 16000, "return_tensors": "np", "padding": "max_length"}
    wanted = theirs(waveform, **options).input_values
    np.testing.assert_allclose(
        ours(waveform, **options, max_length=64, truncation=True).input_values, wanted, atol=2e-3
    )
    assert ours(waveform, **options).input_values.shape == (1, 128, 128)
    with pytest.raises(AudioError, match="98 frames, and 64"):
        ours(waveform, **options, max_length=64, truncation=False)
    for wrong in ({"padding": "longest"}, {"truncation": "yes"}, {"max_length": 0}):
        with pytest.raises(InvalidSetting, match=next(iter(wrong))):
            ours(waveform, **{**options, **wrong})
