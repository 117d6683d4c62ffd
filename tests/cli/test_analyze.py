"""``spectrim analyze``: what it writes, what it prints, and how it refuses."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from functools import partial
from pathlib import Path

import command_line
import pytest
from shared import made_once
from tone_table import small_model, write_tones

from spectrim.checkpoints import from_pretrained
from spectrim.data import DATA_SETS
from spectrim.data.dataset import evenly
from spectrim.errors import InvalidSetting

run = partial(command_line.run, "analyze")

FILES = {
    *("ablations.csv", "claims.csv", "figures", "findings", "overlap.csv", "report.html", "report.md"),
    *("statistics.csv", "statistics.json"),
}


@pytest.fixture(scope="module")
def shared() -> Path:
    """A data set, two models, and in ``out`` the analysis that `done` gives."""

    def make(folder: Path) -> None:
        folder.mkdir()
        write_tones(folder / "set", per_fold=4)
        for seed in (1, 2):
            small_model(seed).save_pretrained(folder / f"model{seed}")
        code, printed, err = run(*of_both(folder))
        assert (code, err) == (0, "")
        (folder / "printed").write_text(printed)

    return made_once("analysis", make)


@pytest.fixture(scope="module")
def root(shared: Path) -> Path:
    return shared / "set"


@pytest.fixture(scope="module")
def models(shared: Path) -> Path:
    return shared


def on(models: Path, root: Path, *further: object) -> list[object]:
    return ["--model", models / "model1", "--dataset", "csv", "--data", root, "--device", "cpu", *further]


def of_both(folder: Path) -> list[object]:
    further = ("--keep-rates", "0.7,0.4", "--set", "fold=1", "-o", folder / "out")
    return on(folder, folder / "set", "--model", folder / "model2", *further)


@pytest.fixture(scope="module")
def done(shared: Path) -> tuple[Path, list[object], str]:
    """The folder of an analysis, the options that made it, and what was printed."""
    return shared / "out", of_both(shared), (shared / "printed").read_text()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_written_and_agrees(done: tuple[Path, list[object], str]) -> None:
    out, _, printed = done
    assert {path.name for path in out.iterdir()} == FILES
    content = json.loads((out / "statistics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["facts"]["clips"] == 4
    assert list(content["facts"]["models"]) == ["model1", "model2"]
    for name in ("statistics", "ablations", "overlap", "claims"):
        table = rows_of(out / f"{name}.csv")
        assert len(table) == len(content[name]) > 0
    shown = rows_of(out / "ablations.csv")
    assert [row["change"] for row in shown] == [str(row["change"]) for row in content["ablations"]]
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    for claim in content["claims"]:
        assert claim["question"] in text
    assert 'src="http' not in page and "<script" not in page
    named = {path.stem for path in (out / "figures").iterdir()}
    assert {f"{kind}-model1" for kind in ("clusters", "density", "kept", "mosaic", "ranking")} <= named
    assert all(f"figures/{name}.png" in text for name in named)
    assert page.count('<img alt="') == page.count('src="data:image/') == len(named)
    assert printed.splitlines()[0] == "Can 30-40 % of the MACs be saved for less than one point?"
    assert printed.splitlines()[-1] == str(out / "report.html")


def test_the_command_in_the_report_is_the_one_that_was_run(done: tuple[Path, list[object], str]) -> None:
    out, options, _ = done
    command = json.loads((out / "statistics.json").read_text())["facts"]["command"].split()
    assert command[:2] == ["spectrim", "analyze"]
    for word in ("--model", "--dataset", "--keep-rates", "--set", "0.7,0.4", "fold=1", str(options[1]), str(out)):
        assert word in command
    assert not {"--limit", "--name", "--record", "--seed"} & set(command)


def test_resuming_reads_what_is_there(
    done: tuple[Path, list[object], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "out", [*done[1][:-1], tmp_path / "out"]
    shutil.copytree(done[0], out)
    before = (out / "ablations.csv").read_bytes()
    assert run(*options)[0] == 2

    def never(*_: object, **__: object) -> None:
        pytest.fail("a model is run again")

    monkeypatch.setattr("spectrim.analysis.analyse.experiment", never)
    monkeypatch.setattr("spectrim.analysis.analyse.write_report", lambda *_, **__: None)
    (out / "ablations.csv").unlink()
    assert run(*options, "--resume")[0] == 0
    assert (out / "ablations.csv").read_bytes() == before


def test_other_forms_and_a_record_and_the_command_for_it(
    models: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = on(models, root, "--keep-rates", "0.5432167", "--limit", 3, "--name", "three tones", "--record")
    options += ["-o", tmp_path / "out", "--drop-at", "0,2", "--padding", "with", "--seed", 5]
    code, out, _ = run(*options, "--progress", "--format", "json")
    claims = json.loads(out)
    assert code == 0
    assert claims[0]["verdicts"].keys() == {"three tones"}
    content = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert content["facts"]["clips"] == 3
    assert {row["block"] for row in content["ablations"] if row["ablation"] == "clusters"} == {0, 2}
    assert {row["padding"] for row in content["statistics"]} == {"with"}
    assert (tmp_path / "out" / "records" / "three-tones" / "index.json").exists()
    command = shlex.split(content["facts"]["command"])
    assert {str(option) for option in options} - {"-o", "--device", "cpu"} <= set(command)

    def never(*_: object, **__: object) -> None:
        pytest.fail("a model is run again")

    monkeypatch.setattr("spectrim.analysis.analyse.experiment", never)
    monkeypatch.setattr("spectrim.analysis.analyse.write_report", lambda *_, **__: None)
    assert run(*command[2:], "--device", "cpu", "--resume")[0] == 0


def test_a_reducer_of_the_model_itself_takes_no_part_and_is_named(
    done: tuple[Path, list[object], str], root: Path, tmp_path: Path
) -> None:
    out, options, _ = done
    point = {"reducer": "fuse", "time_segments": 2, "drop_padding": True}
    from_pretrained(options[1], **point).save_pretrained(tmp_path / "model1")
    here = ["--model", tmp_path / "model1", *on(tmp_path, root)[2:], "--keep-rates", "0.7,0.4", "--set", "fold=1"]
    assert run(*here, "-o", tmp_path / "out")[0] == 0
    before, after = (json.loads((folder / "statistics.json").read_text()) for folder in (out, tmp_path / "out"))
    assert after["facts"]["other_reductions"] == {"model1": {"reducer": "fuse", "time_segments": 2}}
    assert before["facts"]["other_reductions"] == {}
    said = "model1 itself prunes with reducer fuse and time_segments 2; here its patches that rank low are dropped"
    assert said in (tmp_path / "out" / "report.md").read_text()
    code, _, err = run(*here, "-o", tmp_path / "other", "--padding", "with")
    assert code == 2
    assert err.startswith("spectrim: padding is 'with'; allowed: 'without' for a model with drop_padding")


def test_a_record_that_is_there_is_refused_before_any_work(
    models: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectrim.analysis.analyse.experiment", lambda *_, **__: pytest.fail("work was done"))
    begun = tmp_path / "out" / "records" / "model1"
    begun.mkdir(parents=True)
    (begun / "index.json").write_text("{}")
    code, _, err = run(*on(models, root, "-o", tmp_path / "out", "--record"))
    assert code == 2 and f"output is '{begun}'; allowed: a folder without a record in it, or resume" in err


def test_a_limit_spreads_over_the_data(root: Path) -> None:
    part = DATA_SETS["csv"].open(root, "test")
    ids = [recording.id for recording in part.recordings]
    assert len(ids) == 4
    for limit, places in ((2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])):
        assert [one.id for one in evenly(part, limit).recordings] == [ids[place] for place in places]
    assert evenly(part, None) is part
    assert len(evenly(part, 999)) == len(part)
    with pytest.raises(InvalidSetting, match="limit is 1"):
        evenly(part, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-rates", "0.7,fast"], "keep-rates is '0.7,fast'"),
        (["--keep-rates", "1"], "keep_rates is 1.0"),
        (["--keep-rates", "2"], "keep_rate is 2.0"),
        (
            ["--keep-rates", "0.7,0.5,0.7"],
            "keep_rates is [0.7, 0.5, 0.7]; allowed: each number once; 0.7 is there twice",
        ),
        (["--padding", "some"], "padding is 'some'"),
        (["--clusters", "published"], "clusters is 'published'"),
        (["--drop-at", "7"], "blocks is 7"),
        (["--limit", "1"], "limit is 1"),
        (["--fold", "9"], "fold is 9"),
        (["--format", "xml"], "format is 'xml'"),
        (["--dataset", "birds"], "data set is 'birds'"),
        (["--model", "spectrim-mini"], "labels of the model is '86 labels such as Arabic: backward"),
        (["--model", "LONGER"], "grid of longer is (8, 4)"),
        (["--name", "a", "--name", "b"], "name is ['a', 'b']"),
        (["--output", "FILE"], "output is "),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(
    models: Path, root: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    longer = models / "longer"
    if "LONGER" in options:
        model = small_model(3)
        model.config.max_length = 64
        type(model)(model.config).save_pretrained(longer)
    swapped = {"FILE": str(tmp_path / "file"), "LONGER": str(longer)}
    options = [swapped.get(option, option) for option in options]
    output = [] if "--output" in options else ["--output", tmp_path / "out"]
    code, out, err = run(*on(models, root), *output, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"spectrim: {message}")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_interrupted_is_told(models: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spectrim.analysis.analyse.experiment", stop)
    code, _, err = run(*on(models, root, "-o", tmp_path / "out"))
    assert (code, err) == (130, "spectrim: interrupted\n")
    assert not (tmp_path / "out" / "report.html").exists()
