"""``spectrim reproduce``, with a stand-in for the commands that it runs: it writes at once what they leave."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spectrim.backbones import ast_base
from spectrim.cli.app import app
from spectrim.studies.plans import FULL_WEIGHTS, QUICK

STAND_IN = """
import json, os, shutil, signal, sys
from pathlib import Path

words = sys.argv[1:]
with open("calls", "a") as calls:
    calls.write(" ".join(words) + "\\n")
if os.environ.get("STAND_IN_FAILS") in words:
    raise SystemExit("spectrim: no sound")
if os.environ.get("STAND_IN_INTERRUPTS") in words:
    os.kill(os.getppid(), signal.SIGINT)
    signal.pause()
if words[0] == "data":
    Path(words[3]).mkdir(parents=True)
    Path(words[3], "synthesis.json").write_text("{}")
    raise SystemExit
output = Path(words[words.index("--output") + 1])
if words[0] == "analyze":
    output.mkdir()
    rankings = ("attention", "intensity")
    rows = [{"ablation": "criterion", "criterion": name, "keep_rate": 0.7, "value": 0.5} for name in rankings]
    (output / "statistics.json").write_text(json.dumps({"ablations": rows}))
    raise SystemExit
(output / "model").mkdir(parents=True)
shutil.copy(CONFIG, output / "model")
rates = [word.split("=")[1] for word in words if word.startswith("evaluation.test_keep_rates=")]
tested = {str(rate): 0.5 + rate / 10 for rate in json.loads(rates[0] if rates else "[1.0, 0.7]")}
masked = {"training_files": 90, "held_out_files": 10, "epoch": 1.0, "held_out_loss": 0.9}
results = {"metric": "accuracy", "test_clips": 50, "training_clips": 200, "test": tested}
(output / "results.json").write_text(json.dumps(masked if words[0] == "pretrain" else results))
"""


@pytest.fixture(scope="module", autouse=True)
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("stand-in")
    ast_base(
        max_length=512, num_labels=50, hidden_size=64, num_attention_heads=4, intermediate_size=256
    ).save_pretrained(folder)
    program = folder / "program.py"
    program.write_text(STAND_IN.replace("CONFIG", repr(str(folder / "config.json"))))
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} -S {program} "$@"\n')
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spectrim.studies.runner.sys.executable", str(script))
        yield


@pytest.fixture
def heard() -> Iterator[None]:
    """Let Ctrl-C reach this process, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["reproduce", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def calls(out: Path) -> list[str]:
    return (out / "calls").read_text().splitlines()


@pytest.fixture(scope="module")
def finished(stand_in: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, str, str]]:
    """The folder of a finished run in the quick form, and what the command said."""
    out = tmp_path_factory.mktemp("finished") / "out"
    return out, run(out, "--quick", "--jobs", 2)


def test_all_steps_run_and_the_report_has_every_pair(finished: tuple[Path, tuple[int, str, str]]) -> None:
    out, (code, said, told) = finished
    assert (code, said.strip()) == (0, str(out / "report.html"))
    runs = len(QUICK.esc50_runs) + len(QUICK.words_seeds)
    assert len(calls(out)) == 5 + 2 * runs * (1 + len(QUICK.keep_rates))
    assert f"[{len(calls(out))}/{len(calls(out))}] done: " in told
    text = (out / "report.md").read_text()
    assert "the quick form" in text
    assert "| AudioMAE on spoken commands | fine-tuned with pruning | 60.0 | 0.7 | 38% | 3.0 | 1 |" in text
    assert "Nothing: every step of the plan is done." in text
    before = calls(out)
    assert run(out, "--quick")[0] == 0
    assert calls(out) == before


def test_the_study_of_rankings_shares_the_folder_and_what_is_done_in_it(
    finished: tuple[Path, tuple[int, str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    before = calls(out)
    code, said, _ = run(out, "--quick", "--study", "rankings")
    assert (code, said.strip()) == (0, str(out / "rankings" / "report.html"))
    new = calls(out)[len(before) :]
    assert len(new) == 2 * len(QUICK.esc50_runs) * 5
    assert sorted({Path(call.split("--output ")[1].split()[0]).name for call in new}) == [
        *("r0.7-intensity", "r0.7-intensity-public-gather", "r0.7-random", "r0.7-variation"),
        "r1-training-free",
    ]
    text = (out / "rankings" / "report.md").read_text()
    assert "the quick form" in text
    assert "spectrim reproduce --study rankings --scale mini --quick OUT" in text
    assert "* AudioMAE on ESC-50, keep rate 0.7, at random: cannot say (" in text
    assert "Nothing: every step of the plan is done." in text
    kept = (out / "report.md").read_bytes()
    assert run(out, "--quick", "--study", "rankings", "--report-only")[1].strip() == said.strip()
    assert (out / "report.md").read_bytes() == kept


def test_a_failing_step_is_named_and_the_report_says_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("STAND_IN_FAILS", "audiomae-pretrain-mini")
    code, said, told = run(out, "--quick")
    assert (code, said) == (1, "")
    assert "pretrain audiomae ended with 1: spectrim: no sound; its log: " in told
    assert str(out / "logs" / "pretrain-audiomae.log") in told
    assert f"the report says what is done: {out / 'report.html'}" in told
    code, said, _ = run(out, "--quick", "--report-only")
    assert (code, said.strip()) == (0, str(out / "report.html"))
    assert "* pretrain audiomae\n" in (out / "report.md").read_text()
    monkeypatch.delenv("STAND_IN_FAILS")
    assert run(out, "--quick")[0] == 0
    once = [call for call in calls(out) if "audiomae-pretrain-mini" not in call]
    assert len(once) == len(set(once))


@pytest.mark.usefixtures("heard")
@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_ends_what_runs_and_exits_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("STAND_IN_INTERRUPTS", "audiomae-pretrain-mini")
    code, said, told = run(out, "--quick")
    assert (code, said) == (130, "")
    assert told.endswith("spectrim: interrupted\n")
    monkeypatch.delenv("STAND_IN_INTERRUPTS")
    assert run(out, "--quick")[0] == 0


def test_the_plan_can_be_had_as_table_csv_and_json(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "data" / "esc50").mkdir(parents=True)
    (out / "data" / "esc50" / "synthesis.json").touch()
    _, table, _ = run(out, "--quick", "--dry-run")
    assert next(line for line in table.splitlines() if line.startswith("done")).split()[1:3] == ["data", "esc50"]
    rows = json.loads(run(out, "--quick", "--dry-run", "--format", "json")[1])
    assert f"{len(rows) - 1} of {len(rows)} left" in table
    read = list(csv.DictReader(io.StringIO(run(out, "--quick", "--dry-run", "--format", "csv")[1])))
    assert [row["command"] for row in read] == [row["command"] for row in rows]
    assert [row["step"] for row in rows if row["done"]] == ["data esc50"]
    assert not (out / "calls").exists()


def test_the_full_plan_says_what_lacks_data(tmp_path: Path) -> None:
    arguments = (tmp_path / "out", "--scale", "full", "--data-root", tmp_path / "data", "--weights", tmp_path / "w")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / FULL_WEIGHTS["ast"]).touch()
    (tmp_path / "data" / "ESC-50-master").mkdir(parents=True)
    code, table, _ = run(*arguments, "--dry-run")
    lines = table.splitlines()
    assert code == 0
    assert next(line for line in lines if "ast-esc50 fold 1 seed 12 r=0.5 " in line).split()[0] == "ast-esc50"
    assert next(line for line in lines if "audiomae-esc50 fold 1 seed 12 r=0.5 " in line).startswith("lacks data")
    assert f"missing: {tmp_path / 'w' / FULL_WEIGHTS['audiomae']}" in lines
    assert f"missing: {tmp_path / 'data' / 'ESC-50-master'}" not in lines
    rows = json.loads(run(*arguments, "--study", "rankings", "--dry-run", "--format", "json")[1])
    assert len(rows) == 2 * 5 * 5 * (8 + 1)
    (row,) = [row for row in rows if row["step"] == "ast-esc50 fold 1 seed 12 r=0.7-intensity-public-gather"]
    assert "--set pruning.criterion=intensity --set pruning.reference_compat=true" in row["command"]
    assert row["missing"] == []
    code, said, told = run(*arguments)
    assert (code, said) == (1, "")
    assert "spectrim: not there: " in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--jobs", "0"], "jobs is 0; allowed: 1 or more"),
        (["--scale", "huge"], "scale is 'huge'; allowed: one of"),
        (["--study", "ranks"], "study is 'ranks'; allowed: one of keep-rates, rankings"),
        (["--scale", "full"], "data-root is None; allowed: a folder, for --scale full"),
        (["--scale", "full", "--data-root", "d"], "weights is None; allowed: a folder"),
        (["--scale", "full", "--data-root", "d", "--weights", "w", "--quick"], "quick is True; allowed: only with"),
        (["--weights", "w"], "weights is 'w'; allowed: only with --scale full"),
        (["--dry-run", "--report-only"], "report-only is True; allowed: only without --dry-run"),
        (["--report-only"], "a folder in which spectrim reproduce has run"),
        (["--dry-run", "--format", "xml"], "format is 'xml'; allowed:"),
    ],
)
def test_wrong_use_is_named_before_any_work(arguments: list[str], said: str, tmp_path: Path) -> None:
    code, out, told = run(tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert said in told
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_study_and_a_file_are_refused(
    finished: tuple[Path, tuple[int, str, str]], tmp_path: Path
) -> None:
    for further in ([], ["--report-only"], ["--dry-run"]):
        code, _, told = run(finished[0], *further)
        assert code == 2
        assert "this one holds what --scale mini --quick made" in told
    (tmp_path / "file").touch()
    code, _, told = run(tmp_path / "file", "--quick")
    assert code == 2
    assert "allowed: a folder, or the name of one to make" in told
