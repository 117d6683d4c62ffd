from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from full_size import full_size
from pydantic import ValidationError
from small_runs import SIZE, over
from typer.testing import CliRunner
from unreadable import lock

from spectrim.audio.frontend import Frontend
from spectrim.checkpoints import from_pretrained, load_autoencoder
from spectrim.cli.app import app
from spectrim.data.packing import pack
from spectrim.errors import CheckpointError, DataError, InvalidSetting, TrainingDiverged
from spectrim.network.masked import MaskedAutoencoder
from spectrim.tables import csv_text
from spectrim.training.pretrain import (
    MaskingCollator,
    PretrainingClips,
    PretrainingTrainer,
    build_trainer,
    prepare,
    pretrain,
)
from spectrim.training.pretrain_recipes import PretrainRecipe, load_pretrain_recipe
from spectrim.training.progress import RunProgress
from spectrim.training.recipes import AugmentSettings
from spectrim.training.run_log import RunLog

FILES, HELD_OUT, STEPS_PER_EPOCH = 23, 2, 3
SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*-pretrain-*.yaml"))

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chirps of half a second to three, in folders, one of them no audio."""
    root = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    for number in range(FILES - 1):
        time = np.arange(int(16_000 * random.uniform(0.5, 3.0))) / 16_000
        chirp = 0.3 * np.sin(2 * np.pi * random.uniform(200, 2_000) * time * (1 + 0.3 * time))
        (root / f"{number % 3}").mkdir(exist_ok=True)
        soundfile.write(root / f"{number % 3}/{number}.wav", chirp + 0.01 * random.normal(size=len(time)), 16_000)
    (root / "broken.wav").write_bytes(b"RIFF")
    return root


def recipe(**changes: Any) -> PretrainRecipe:
    return PretrainRecipe(**fields(**changes))


def fields(**changes: Any) -> dict[str, Any]:
    """Two epochs of three steps; a change that is a dictionary goes over what stands here, field by field."""
    tree: dict[str, Any] = {
        "name": "chirps",
        "model": {"builder": "audiomae-base", "fields": {**SIZE, "max_length": 128}},
        "decoder": {"width": 24, "layers": 2, "heads": 2},
        "data": {"held_out": HELD_OUT},
        "optimiser": {"batch_size": 8, "epochs": 2, "learning_rate": 2e-3},
        "roll_and_gain": True,
        "tensorboard": False,
    }
    return over(tree, changes)


@pytest.fixture(scope="module")
def finished(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "run"
    pretrain(recipe(), sounds, output)
    return output


def test_a_run_leaves_results_models_pictures_and_logs(sounds: Path, finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert (results["step"], results["epoch"]) == (2 * STEPS_PER_EPOCH, 2.0)
    assert (results["training_files"], results["held_out_files"]) == (FILES - HELD_OUT, HELD_OUT)
    assert [list(part) for part in results["replaced_files"].values()] == [["broken.wav"]]
    assert {path.name for path in (finished / "pictures").iterdir()} == {
        *("step-000003.png", "step-000006.png", "final.png")
    }
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    evaluated = [row["eval_loss"] for row in rows if "eval_loss" in row]
    assert len(evaluated) == 2 and evaluated[1] < evaluated[0]
    assert results["held_out_loss"] == pytest.approx(evaluated[1])
    run = json.loads((finished / "run.json").read_text())
    assert run == {"recipe": recipe().model_dump(mode="json"), "data": str(sounds), "init": None}
    assert not list(finished.glob("*.partial"))


def test_the_encoder_goes_on_into_fine_tuning(finished: Path) -> None:
    with pytest.raises(CheckpointError, match=r"give labels=\[…\] for a fresh one"):
        from_pretrained(finished / "model")
    model = from_pretrained(finished / "model", labels=["a", "b"], keep_rate=0.5, prune_at=[1, 2])
    trained = load_autoencoder(finished / "autoencoder").encoder.state_dict()
    for name, weight in model.state_dict().items():
        if not name.startswith(("norm.", "head.")):
            assert torch.equal(weight, trained[name]), name
    assert model.config.max_length == 128
    assert model(torch.zeros(1, 128, 128)).logits.shape == (1, 2)


def test_the_loss_of_an_evaluation_is_the_mean_of_the_files(sounds: Path, finished: Path) -> None:
    job = prepare(recipe(), sounds, finished)
    model = load_autoencoder(finished / "autoencoder")
    collate = MaskingCollator(Frontend.from_config(model.config), recipe().masking, model.config.grid)
    losses = []
    for number in range(HELD_OUT):
        clip = job.held_out[number]
        if clip.stand_in:
            continue
        batch = collate([clip])
        assert batch["visible_patches"].shape == (1, int(64 * 0.2))
        with torch.no_grad():
            losses.append(model(batch["input_values"], batch["visible_patches"]).loss.item())
    results = json.loads((finished / "results.json").read_text())
    assert results["held_out_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param(
            {
                "masking": {"kind": "structured", "time": 0.5, "frequency": 0.4},
                "model": {"fields": {"drop_path_rate": 0.2}},
                "decoder": {"attention": "global", "ignore_padding": True, "normalise_patches": False},
                "optimiser": {"accumulate": 2, "drop_last": True},
            },
            marks=full_size,
        ),
    ],
    ids=["random-local", "structured-global"],
)
def test_a_killed_run_resumes_to_the_same_weights(
    sounds: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    unbroken = finished
    if changes:
        unbroken = tmp_path / "unbroken"
        pretrain(recipe(**changes), sounds, unbroken)
    calls = []
    step = PretrainingTrainer.training_step

    def dies_in_the_second_epoch(self: PretrainingTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 4:
            calls.append(1)
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    output, changed = tmp_path / "run", recipe(**changes)
    if changes:
        assert json.loads((unbroken / "results.json").read_text())["step"] == 4
        monkeypatch.setattr("spectrim.training.pretrain.save_encoder", None)
        with pytest.raises(TypeError):
            pretrain(changed, sounds, output)
    else:
        monkeypatch.setattr(PretrainingTrainer, "training_step", dies_in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            pretrain(changed, sounds, output)
        assert calls
    assert not (output / "model").exists()
    monkeypatch.undo()
    newest = max((output / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    if changes:
        (newest / "model.safetensors").write_bytes(b"half")
    pretrain(changed, sounds, output, resume=True)
    first = load_autoencoder(unbroken / "autoencoder").state_dict()
    for name, weight in load_autoencoder(output / "autoencoder").state_dict().items():
        assert torch.equal(weight, first[name]), name


def test_results_are_written_last_and_the_time_left_is_to_where_the_run_stops(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = recipe(optimiser={"stop_after_epochs": 1}, evaluation={"picture_every": 0})

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spectrim.training.pretrain.save_encoder", dies)
    with pytest.raises(KeyboardInterrupt):
        pretrain(changed, sounds, tmp_path / "run")
    assert (tmp_path / "run" / "autoencoder").is_dir() and not (tmp_path / "run" / "results.json").exists()
    job = prepare(changed, sounds, tmp_path / "other")
    collator = MaskingCollator(Frontend.from_config(job.model.config), changed.masking, job.model.config.grid)
    callbacks = build_trainer(job, collator, progress=True).callback_handler.callbacks
    told = [each.stop_after_epochs for each in callbacks if isinstance(each, RunLog | RunProgress)]
    assert told == [1, 1]


def test_two_processes_end_as_one(sounds: Path, tmp_path: Path) -> None:
    changes = ["optimiser.drop_last=true", "optimiser.max_grad_norm=0", "decoder.bias_dropout=0"]
    path = tmp_path / "recipe.json"
    path.write_text(recipe(evaluation={"picture_every": 0}).model_dump_json())
    alone, together = tmp_path / "alone", tmp_path / "together"
    pretrain(load_pretrain_recipe(path, changes), sounds, alone)
    options = [part for change in changes for part in ("--set", change)]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "spectrim"),
        *("pretrain", str(path), "--data", str(sounds), "--output", str(together), "--no-progress", *options),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    losses = [json.loads((folder / "results.json").read_text())["held_out_loss"] for folder in (alone, together)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    first = load_autoencoder(alone / "autoencoder").state_dict()
    for name, weight in load_autoencoder(together / "autoencoder").state_dict().items():
        torch.testing.assert_close(weight, first[name], rtol=1e-3, atol=1e-4)


def test_masks_and_excerpts_are_drawn_anew_in_every_epoch_and_always_the_same(sounds: Path, tmp_path: Path) -> None:
    def batches(epoch: int, seed: int = 0) -> dict[str, torch.Tensor]:
        changed = recipe(seed=seed)
        job = prepare(changed, sounds, tmp_path)
        clips = PretrainingClips(job.training, AugmentSettings(), seed)
        clips.set_epoch(epoch)
        collate = MaskingCollator(Frontend.from_config(job.model.config), changed.masking, job.model.config.grid)
        return collate([clips[index] for index in range(6)])

    first, again, second = batches(0), batches(0), batches(1)
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
    assert not torch.equal(first["visible_patches"], second["visible_patches"])
    assert not torch.equal(first["input_values"], second["input_values"])
    assert len({tuple(row) for row in first["visible_patches"].tolist()}) == 6


def test_structured_masks_hide_columns_and_rows() -> None:
    masking = recipe(masking={"kind": "structured", "time": 0.5, "frequency": 0.25}).masking
    visible = MaskingCollator(None, masking, (8, 8)).visible(np.random.default_rng(0))  # type: ignore[arg-type]
    seen = torch.zeros(64, dtype=torch.bool).index_fill(0, visible, True).reshape(8, 8)
    assert (seen.any(dim=1).sum(), seen.any(dim=0).sum(), seen.sum()) == (6, 4, 24)


def test_a_run_starts_from_another_autoencoder(sounds: Path, finished: Path, tmp_path: Path) -> None:
    start = load_autoencoder(finished / "autoencoder").state_dict()
    changed = recipe(model={"fields": {"mean": -6.0}}, decoder={"bias_dropout": 0.0})
    model = prepare(changed, sounds, tmp_path, str(finished / "autoencoder")).model
    assert (model.config.mean, model.config.decoder_bias_dropout) == (-6.0, 0.0)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, start[name]), name
    for other, words in (
        (recipe(decoder={"width": 28}), r"decoder_width is 28; allowed: 24, as in"),
        (recipe(model={"fields": {"num_hidden_layers": 3}}), "num_hidden_layers is 3; allowed: 4"),
    ):
        with pytest.raises(InvalidSetting, match=words):
            prepare(other, sounds, tmp_path, str(finished / "autoencoder"))
    with pytest.raises(CheckpointError, match="no masked autoencoder"):
        prepare(recipe(), sounds, tmp_path, str(finished / "model"))


def test_a_start_may_be_a_path(sounds: Path, finished: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"init is '.*autoencoder'; allowed: None, with which the run in"):
        pretrain(recipe(), sounds, finished, init=finished / "autoencoder", resume=True)


def test_a_loss_that_is_no_number_ends_the_run(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = MaskedAutoencoder.forward

    def breaks_down(self: MaskedAutoencoder, *args: Any, **kwargs: Any) -> Any:
        outputs = forward(self, *args, **kwargs)
        outputs.loss = outputs.loss * math.nan
        return outputs

    monkeypatch.setattr(MaskedAutoencoder, "forward", breaks_down)
    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step 1 .*optimiser\.learning_rate"):
        pretrain(recipe(), sounds, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_a_second_run_and_another_recipe_are_refused(sounds: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="--resume"):
        pretrain(recipe(), sounds, finished)
    with pytest.raises(InvalidSetting, match=r"recipe\.masking\.ratio is 0\.5; allowed: 0\.8, with which"):
        pretrain(recipe(masking={"ratio": 0.5}), sounds, finished, resume=True)
    with pytest.raises(DataError, match="no such folder"):
        pretrain(recipe(), sounds / "nowhere", tmp_path / "run")
    (tmp_path / "silence").mkdir()
    with pytest.raises(InvalidSetting, match="no audio file in this folder"):
        pretrain(recipe(), tmp_path / "silence", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"optimiser": {"layer_decay": 0.75}}, "optimiser.layer_decay"),
        ({"optimiser": {"accumulate": 3}}, "optimiser.accumulate"),
        ({"schedule": {"warmup_epochs": 3}}, "schedule.warmup_epochs"),
        ({"model": {"builder": "resnet"}}, "model.builder"),
        ({"model": {"fields": {"wide": 1}}}, "model.fields.wide"),
        ({"model": {"fresh_head": True}}, "model.fresh_head"),
        ({"model": {"head_init": "linear"}}, "model.head_init"),
        ({"model": {"positions": "middle"}}, "model.positions"),
        ({"model": {"stride": 10}}, "model.stride"),
        ({"model": {"frames": 64}}, "model.frames"),
        ({"model": {"fields": {"max_length": 130}}}, "max_length"),
        ({"model": {"fields": {"max_length": 96}}}, "decoder_window"),
        ({"decoder": {"width": 26}}, "decoder_width"),
        ({"masking": {"kind": "structured", "time": 0.0, "frequency": 0.0}}, "masking.time"),
    ],
)
def test_wrong_recipes_are_named_before_any_work(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields(**changes)))
    with pytest.raises(InvalidSetting) as caught:
        load_pretrain_recipe(path)
    assert caught.value.field == f"{path}: {field}"
    with pytest.raises(ValidationError, match=field.rpartition(".")[2]):
        recipe(**changes)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    shipped = load_pretrain_recipe(path)
    assert shipped.name == path.stem
    config = shipped.configuration()
    assert config.grid == (8, 64) and config.num_hidden_layers == 12
    assert (shipped.masking.kind, shipped.masking.ratio) == ("random", 0.8)


def test_the_published_recipe_has_the_published_numbers() -> None:
    published = load_pretrain_recipe("audiomae-pretrain-as2m")
    config = published.configuration()
    assert published.optimiser.peak == pytest.approx(2e-4 * 512 / 256)
    assert (config.decoder_width, config.decoder_layers, config.decoder_heads, config.window) == (512, 16, 16, (4, 4))
    assert [config.shift(layer) for layer in range(4)] == [0, 2, 0, 2]
    with torch.device("meta"):
        assert sum(weight.numel() for weight in MaskedAutoencoder(config).encoder.parameters()) > 85_000_000


@pytest.fixture(scope="module")
def table(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chirps as a table with folds: eight for training, six to validate, seven that are not to be heard."""
    root = tmp_path_factory.mktemp("table")
    files = sorted(sounds.glob("*/*.wav"))[:21]
    rows = [(str(path), "no" if place % 2 else "yes", place % 3) for place, path in enumerate(files)]
    (root / "labels.csv").write_text(csv_text([("path", "label", "fold"), *rows]))
    return root


def test_a_data_set_is_heard_by_its_parts_and_without_labels(sounds: Path, table: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(next(sounds.glob("2/*.wav")), more / "other.wav")
    named = recipe(data={"name": "csv", "options": {"fold": 0, "validation_fold": 1}, "held_out": 3})
    job = prepare(named, table, tmp_path / "run", extra_audio=[more])
    folds = {
        path: int(fold)
        for path, _, fold in (line.split(",") for line in (table / "labels.csv").read_text().splitlines()[1:])
    }
    assert [recording.id for recording in job.training.recordings][-1] == "more/other.wav"
    assert {folds[str(recording.path)] for recording in job.training.recordings[:-1]} == {2}
    assert [folds[str(recording.path)] for recording in job.held_out.recordings] == [1, 1, 1]
    assert job.training[0].target.shape == job.held_out[0].target.shape == (0,)
    again = prepare(named, table, tmp_path / "run", extra_audio=[more])
    assert [one.id for one in again.held_out.recordings] == [one.id for one in job.held_out.recordings]


def test_an_encoder_of_another_rate_hears_it(sounds: Path, table: Path, tmp_path: Path) -> None:
    fields = {"sampling_rate": 32_000}
    job = prepare(recipe(model={"fields": fields}), sounds, tmp_path / "run")
    assert (job.training.sampling_rate, job.held_out.sampling_rate) == (32_000, 32_000)
    for place, recording in enumerate(job.held_out.recordings):
        whole = soundfile.info(recording.path).frames * 2
        assert len(job.held_out[place].waveform) == min(whole, 127 * 320 + 800)
    named = recipe(model={"fields": fields}, data={"name": "csv", "options": {"fold": 0}})
    pack("csv", table, tmp_path / "packed", sampling_rate=16_000)
    with pytest.raises(InvalidSetting, match="sampling_rate is 32000; allowed: up to 16000, at which these clips are"):
        prepare(named, tmp_path / "packed", tmp_path / "run")


def test_audio_that_is_held_out_is_not_trained_on_by_another_way(sounds: Path, table: Path, tmp_path: Path) -> None:
    named = recipe(data={"name": "csv", "options": {"fold": 0, "validation_fold": 1}, "held_out": 3})
    with pytest.raises(InvalidSetting, match=r"extra_audio is .* not held out: 14 of its files are"):
        prepare(named, table, tmp_path / "run", extra_audio=[sounds])
    with pytest.raises(InvalidSetting, match=r"extra_audio is .* not held out: 2 of its files are"):
        prepare(recipe(), sounds, tmp_path / "run", extra_audio=[sounds])
    with pytest.raises(InvalidSetting, match="no audio file in this folder"):
        prepare(recipe(), sounds, tmp_path / "run", extra_audio=[table])
    with pytest.raises(ValidationError, match=r"data\.options"):
        recipe(data={"options": {"fold": 0}})
    with pytest.raises(ValidationError, match=r"data\.name is 'cvs'.*csv"):
        recipe(data={"name": "cvs"})


def test_a_folder_that_cannot_be_read_is_not_trained_without(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(sounds, tmp_path / "sounds"))
    (copied / "locked").mkdir()
    lock(monkeypatch, copied / "locked")
    with pytest.raises(DataError, match="locked: this folder cannot be read: Permission denied"):
        prepare(recipe(), copied, tmp_path / "run")


def test_the_command_runs_a_recipe(sounds: Path, tmp_path: Path) -> None:
    sizes = [f"model.fields.{name}={value}" for name, value in {**SIZE, "max_length": 128}.items()]
    changes = [
        *("decoder.width=24", "decoder.heads=2", "decoder.layers=1", "optimiser.epochs=1", "optimiser.batch_size=16"),
        *("schedule.warmup_epochs=0", "evaluation.picture_clips=1", "optimiser.accumulate=1", "data.held_out=2"),
    ]
    options = [part for change in (*sizes, *changes) for part in ("--set", change)]
    arguments = ["pretrain", "audiomae-pretrain-mini", "--data", str(sounds), "-o", str(tmp_path / "run"), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"model: {tmp_path / 'run' / 'model'}" in result.stdout
    assert "held out loss" in result.stdout
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert CliRunner().invoke(app, [*arguments, "--set", "masking.ratio=1.5", "--resume"]).exit_code == 2


def test_ctrl_c_says_how_to_go_on(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(PretrainingTrainer, "training_step", interrupted)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(fields()))
    result = CliRunner().invoke(
        app, ["pretrain", str(tmp_path / "small.yaml"), "--data", str(sounds), "--output", str(tmp_path / "run")]
    )
    assert result.exit_code == 130
    assert "the same command with --resume goes on from the newest checkpoint" in " ".join(result.stderr.split())
