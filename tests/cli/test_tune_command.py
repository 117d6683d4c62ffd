"""``spectrim tune``: what it finds and writes, how it goes on, and how it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import torch
from command_line import rows_of
from PIL import Image
from sklearn.metrics import accuracy_score
from tone_table import small_model, write_tones
from torch.nn import functional

from spectrim.audio.frontend import Frontend
from spectrim.checkpoints import from_pretrained
from spectrim.comparison import measuring
from spectrim.data import DATA_SETS
from spectrim.data.splits import halves
from spectrim.files import sole_writer
from spectrim.inference.torch_model import TorchModel
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning
from spectrim.tuning.hearing import Hearing
from spectrim.tuning.run import tune

run = partial(command_line.run, "tune")
CLIPS = 72


def in_turn(cases: dict[Any, Any], *, repeats: int, **_: Any) -> dict[Any, list[float]]:
    """Every case is a little faster than the one before it: what is chosen must not hang on this machine's load."""
    return {name: [1.0 - number / 100] * repeats for number, name in enumerate(cases)}


@pytest.fixture(scope="module", autouse=True)
def known_times() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "interleaved", in_turn)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "set", per_fold=CLIPS, folds=1)


def clips_of(root: Path) -> Any:
    return DATA_SETS["csv"].open(root, "test", fold=1)


@pytest.fixture(scope="module")
def model(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that has learnt to tell the tones, so that there is something to lose."""
    network, part = small_model(1), clips_of(root)
    clips = [part[place] for place in range(len(part))]
    values = Frontend.from_config(network.config)([clip.waveform for clip in clips]).input_values
    targets = torch.from_numpy(np.stack([clip.target for clip in clips]))
    dense = network.config.pruning.changed({"keep_rate": 1.0})
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(30):
        loss = functional.cross_entropy(network(values, pruning=dense).logits, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("models") / "dense"
    network.set_pruning(keep_rate=1.0).save_pretrained(folder)
    return folder


def options(model: Path, root: Path, *further: object) -> list[object]:
    data = ["--dataset", "csv", "--data", root, "--set", "fold=1", "--part", "test", "--device", "cpu", "--workers", 0]
    quick = ["--draws", 2, "--repeats", 2, "--clips-at-once", 2, "--finalists", 1, "--methods", "attention,variation"]
    return ["--model", model, *data, *quick, *further]


@pytest.fixture(scope="module")
def made(model: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out") / "new" / "tuned"
    code, printed, err = run(*options(model, root, "--max-drop", 90, out))
    assert (code, err) == (0, "")
    return out, printed


def test_it_writes_model_front_and_report(made: tuple[Path, str]) -> None:
    out, printed = made
    found = {path.name for path in out.iterdir()}
    assert found == {"figures", "front.csv", "measured", "model", "report.html", "report.md", "results.json"}
    assert printed.splitlines()[-1] == str(out / "report.md")
    content = json.loads((out / "results.json").read_text())
    rows = content["rows"]
    assert rows_of((out / "front.csv").read_text())[0]["name"] == rows[0]["name"] == "dense"
    (chosen,) = (row for row in rows if row["chosen"])
    assert content["chosen"] == chosen["name"]
    assert content["facts"]["search_groups"] == content["facts"]["held_groups"] == {"clips": CLIPS // 2, "groups": None}
    report = (out / "report.md").read_text()
    for words in ("Chosen: ", "held-out clips accuracy is", "With 95 % confidence no more than", "at random"):
        assert words in report
    assert "attention: " in report and "variation: " in report
    with Image.open(out / "figures" / "front.png") as picture:
        assert picture.size[0] > picture.size[1] > 800


def test_the_model_is_at_the_chosen_point_and_the_held_out_half_says_what_it_loses(
    made: tuple[Path, str], model: Path, root: Path
) -> None:
    out, _ = made
    content = json.loads((out / "results.json").read_text())
    (chosen,) = (row for row in content["rows"] if row["chosen"])
    tuned = from_pretrained(out / "model")
    assert list(tuned.config.prune_at) == chosen["prune_at"]
    assert list(tuned.config.pruning.rates.values()) == chosen["keep_rate"]
    search, held = halves(clips_of(root))
    truth = {}
    for name, network in (("dense", from_pretrained(model)), ("chosen", tuned)):
        for half, part in (("search", search), ("held", held)):
            truth[name, half] = accuracy_score(*answered(network, part))
    assert chosen["metric"] == pytest.approx(truth["chosen", "search"])
    assert chosen["held_metric"] == pytest.approx(truth["chosen", "held"])
    assert content["bound"]["drop"] == pytest.approx(truth["dense", "held"] - truth["chosen", "held"])
    lost, gained = content["bound"]["lost"], content["bound"]["gained"]
    assert (lost - gained) / content["bound"]["clips"] == pytest.approx(content["bound"]["drop"])
    assert content["bound"]["most"] >= content["bound"]["drop"]


def answered(network: AudioTransformer, part: Any) -> tuple[list[str], list[str]]:
    """True and best labels."""
    frontend = Frontend.from_config(network.config)
    clips = [part[place] for place in range(len(part))]
    with torch.inference_mode():
        logits = network.eval()(frontend([clip.waveform for clip in clips]).input_values).logits
    best = [network.config.id2label[int(number)] for number in logits.argmax(dim=1)]
    return [part.labels[int(clip.target.argmax())] for clip in clips], best


def test_nothing_is_asked_twice_and_another_target_costs_no_search(
    made: tuple[Path, str], model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Hearing, "_ask", lambda self, point: asked.append(point))
    code, printed, _ = run(*options(model, root, "--max-drop", 90, "--format", "json", made[0]))
    assert code == 0 and not asked
    before = json.loads((made[0] / "results.json").read_text())
    again = json.loads(printed)
    assert again["rows"] == before["rows"] and again["chosen"] == before["chosen"]


def test_a_model_in_memory_is_tuned_as_its_file(
    made: tuple[Path, str], model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "score_part", lambda *_, **__: pytest.fail("measured again"))
    loaded = from_pretrained(model).train()
    found = tune(
        *(loaded, made[0]),
        **{"max_drop": 90, "data_set": "csv", "root": root, "part": "test", "options": {"fold": 1}, "device": "cpu"},
        **{"workers": 0, "draws": 2, "repeats": 2, "clips_at_once": 2, "finalists": 1},
        methods=("attention", "variation"),
    )
    content = json.loads((made[0] / "results.json").read_text())
    assert (found.chosen, found.facts["model"]) == (content["chosen"], "the model")
    assert found.network is not None and found.network is not loaded and found.network.config.pruning.prunes
    assert loaded.training and not loaded.config.pruning.prunes
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name], weight, atol=0, rtol=0)


def test_a_backend_is_tuned_from_its_own_pruning_blocks(model: Path, root: Path, tmp_path: Path) -> None:
    backend = TorchModel(from_pretrained(model), Pruning(0.7, (2,), "variation"))
    found = tune(
        *(backend, tmp_path / "out"),
        **{"max_drop": 90, "data_set": "csv", "root": root, "part": "test", "options": {"fold": 1}, "device": "cpu"},
        **{"workers": 0, "draws": 2, "repeats": 2, "clips_at_once": 2, "finalists": 1},
        methods=("attention",),
    )
    uniform = [row for row in found.rows if row["kind"] == "uniform"]
    assert found.facts["own_blocks"] == [2] and uniform
    assert all(row["prune_at"] == [2] for row in uniform)


def test_a_run_that_is_broken_off_goes_on(
    model: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    whole = Hearing._ask

    def broken_off(self: Hearing, point: Any) -> Any:
        if len(answers) == 2:
            raise KeyboardInterrupt
        answers.append(point)
        return whole(self, point)

    given = options(model, root, "--max-drop", 90, "--format", "csv", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(Hearing, "_ask", broken_off)
        code, printed, err = run(*given)
    assert (code, printed, err.splitlines()[-1]) == (130, "", "spectrim: interrupted")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["measured"]
    later: list[Any] = []

    def watched(self: Hearing, point: Any) -> Any:
        later.append(point)
        return whole(self, point)

    monkeypatch.setattr(Hearing, "_ask", watched)
    code, printed, _ = run(*given)
    assert code == 0 and not set(later) & set(answers)
    assert rows_of(printed)[0]["name"] == "dense"


def test_a_target_out_of_reach_says_the_nearest_and_leaves_no_model(
    made: tuple[Path, str], model: Path, root: Path
) -> None:
    out = made[0]
    code, _, err = run(*options(model, root, "--min-speedup", 1000, out))
    assert code == 1
    assert "no point meets the target, at least 1000× as fast" in err and len(err.splitlines()) == 1
    assert not (out / "model").exists()
    assert "no point meets the target" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--max-drop", 1, "--min-speedup", 2], "one of them is the target"),
        (["--max-drop", -1], "max_drop is -1.0"),
        (["--min-speedup", 1], "min_speedup is 1.0"),
        (["--methods", "nothing"], "methods is 'nothing'"),
        (["--speed-of", "tensorrt"], "speed_of is 'tensorrt'"),
        (["--searched", 0], "searched is 0"),
        (["--finalists", 0], "finalists is 0"),
        (["--limit", 40], "60 clips or more"),
        (["--draws", 1], "draws is 1"),
        (["--format", "xml"], "format is 'xml'"),
    ],
)
def test_wrong_use_is_refused_before_any_work(
    model: Path, root: Path, tmp_path: Path, given: list[object], message: str
) -> None:
    code, printed, err = run(*options(model, root, *given, tmp_path / "out"))
    assert (code, printed) == (2, "")
    assert message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_model_near_chance_is_refused(root: Path, tmp_path: Path) -> None:
    small_model(3).save_pretrained(tmp_path / "untrained")
    code, _, err = run(*options(tmp_path / "untrained", root, tmp_path / "out"))
    assert code == 1 and "nothing can be tuned on these clips: the dense model" in err and "near chance" in err


def damaged(root: Path, to: Path, search: int, held: int) -> tuple[Path, list[str]]:
    """A copy of the clips in which so many of each half cannot be read, and their names."""
    shutil.copytree(root, to)
    halved = zip(halves(clips_of(to)), (search, held), strict=True)
    bad = [recording for half, number in halved for recording in half.recordings[:number]]
    for recording in bad:
        recording.path.write_bytes(b"no sound" * 20)
    return to, [recording.id for recording in bad]


def test_unreadable_clips_of_both_halves_are_told(model: Path, root: Path, tmp_path: Path) -> None:
    clips, bad = damaged(root, tmp_path / "clips", 3, 2)
    code, _, err = run(*options(model, clips, "--set", "bad_share=0.2", "--max-drop", 90, tmp_path / "out"))
    assert (code, err) == (0, "")
    facts = json.loads((tmp_path / "out" / "results.json").read_text())["facts"]
    assert facts["unreadable"] == bad and facts["held_clips"] == CLIPS // 2 - 2
    assert "5 could not be read." in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("number", [0, 1])
def test_a_half_of_which_too_few_can_be_read_is_refused(
    model: Path, root: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hearing, "_ask", lambda *_: pytest.fail("searched"))
    clips, bad = damaged(root, tmp_path / "clips", *((7, 0), (0, 7))[number])
    code, _, err = run(*options(model, clips, "--set", "bad_share=0.2", tmp_path / "out"))
    what = ("choose", "promise")[number]
    assert code == 1 and f"test: of the 36 clips to {what} on 29 can be read, and it takes 30" in err and bad[0] in err


def test_foreign_folders_second_runs_and_exported_files_are_refused(model: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    code, _, err = run(*options(model, root, tmp_path / "mine"))
    assert code == 2 and "a new folder, or one in which spectrim tune has run" in err
    with sole_writer(tmp_path / "out"):
        code, _, err = run(*options(model, root, tmp_path / "out"))
    assert code == 2 and "no other run is writing" in err
