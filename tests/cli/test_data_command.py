from __future__ import annotations

import csv
import errno
import io
import json
from functools import partial
from pathlib import Path

import command_line
import pytest
from layouts import make_audioset, make_esc50, make_folder, write_class_labels
from tones import write_tone

from spectrim.data.check import check

run = partial(command_line.run, "data")


@pytest.fixture
def esc50(tmp_path: Path) -> Path:
    """Six clips a fold; one of fold 1 is missing and one damaged, of fold 2 two are damaged."""
    root = make_esc50(tmp_path / "ESC-50")
    (root / "audio" / "1-1000-A-2.wav").unlink()
    for name in ("1-1001-A-1.wav", "2-1000-A-2.wav", "2-1000-B-2.wav"):
        (root / "audio" / name).write_bytes(b"RIFF")
    return root


def test_check_prints_what_is_there(esc50: Path, caplog: pytest.LogCaptureFixture) -> None:
    code, out, err = run("check", "esc50", esc50, "--set", "bad_share=0.4")
    assert (code, err, caplog.text) == (0, "", "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[1][:4] == ["train", "22", "0", "2"]
    assert lines[3] == ["test", "4", "1", "1", "0.00", "0.10", "0.10", "0.10", "16000:4"]
    assert lines[7] == ["test", "3", "0", "1", "1", "2"]
    assert "  1-1000-A-2.wav\n" in out
    assert "  1-1001-A-1.wav: cannot be read as audio" in out
    report = check("esc50", esc50)
    fields = f"{{mean: {report.mean:.6g}, std: {report.std:.6g}, max_length: 512}}"
    assert lines[-1] == f"in a recipe model: {{fields: {fields}}}".split()


def test_check_exits_with_1_when_too_much_is_broken(esc50: Path) -> None:
    code, out, err = run("check", "esc50", esc50, "--set", "fold=2", "--format", "json")
    assert code == 1
    assert err.splitlines()[-1] == "spectrim: test: 2 of 6 files are unreadable, more than bad_share=0.05"
    assert json.loads(out)["failures"] == [
        f"{part}: 2 of 6 files are unreadable, more than bad_share=0.05" for part in ("validation", "test")
    ]


def test_json_holds_everything(esc50: Path) -> None:
    code, out, _ = run("check", "esc50", esc50, "--set", "fold=1", "--set", "bad_share=0.4", "--format", "json")
    content = json.loads(out)
    report = check("esc50", esc50)
    assert code == 0
    assert {name: content[name] for name in ("data_set", "mean", "std", "max_length", "failures")} == {
        "data_set": "esc50",
        "mean": report.mean,
        "std": report.std,
        "max_length": 512,
        "failures": [],
    }
    assert content["parts"]["train"]["per_label"] == {"c2": 8, "c1": 8, "c0": 6}
    assert list(content["parts"]["train"]["broken"]) == ["2-1000-A-2.wav", "2-1000-B-2.wav"]
    assert content["parts"]["test"]["missing"] == ["1-1000-A-2.wav"]
    assert content["parts"]["test"]["sampling_rates"] == {"16000": 4}


def test_csv_has_a_row_a_part(esc50: Path) -> None:
    _, out, _ = run("check", "esc50", esc50, "--set", "validation_fold=3", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["part"], row["clips"], row["missing"], row["unreadable"]) for row in rows] == [
        ("train", "16", "0", "2"),
        ("validation", "6", "0", "0"),
        ("test", "4", "1", "1"),
    ]
    assert float(rows[0]["mean"]) == check("esc50", esc50, validation_fold=3).mean
    assert [rows[2][name] for name in ("labels", "fewest_clips", "median_clips", "most_clips")] == ["3", "1", "1", "2"]


def test_a_sound_outside_class_folders_is_said_once(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "sounds", {"a": 4, "b": 4})
    write_tone(root / "stray.wav")
    code, _, err = run("check", "folder", root, "--set", "validation_share=0.25", "--set", "test_share=0.25")
    assert code == 0
    assert err.count("1 sound file outside class folders, left out: stray.wav") == 1


@pytest.mark.parametrize(("most", "listed"), [(0, 0), (2, 2), (10, 3)])
def test_long_lists_are_cut(tmp_path: Path, most: int, listed: int) -> None:
    root = make_folder(tmp_path / "sounds", {"a": 12, "b": 12})
    for take in range(3):
        (root / "a" / f"{take}.wav").write_bytes(b"")
    shares = ["--set", "validation_share=0.1", "--set", "test_share=0.1", "--set", "bad_share=1"]
    code, out, _ = run("check", "folder", root, *shares, "--max-listed", most)
    names = [line for line in out.splitlines() if "empty file" in line]
    more = sum(int(line.split()[1]) for line in out.splitlines() if line.startswith("  and "))
    assert code == 0
    assert len(names) + more == 3
    if most in (0, 10):
        assert len(names) == listed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "esc", "."], "one of audioset, csv, esc50"),
        (["check", "esc50", ".", "--format", "xml"], "format is 'xml'"),
        (["check", "esc50", ".", "--set", "fold"], "--set is 'fold'; allowed: option=value"),
        (["check", "esc50", ".", "--set", "fold=[1"], "allowed: option=value with a value in YAML"),
        (["check", "esc50", ".", "--set", "fold=9"], "fold is 9; allowed: one of 1, 2, 3, 4, 5"),
        (["check", "esc50", ".", "--set", "split=9"], "option split is 9; allowed: one of bad_share"),
        (["check", "csv", ".", "--set", "delimiter=;;"], "delimiter is ';;'; allowed: one character"),
        (["check", "esc50", ".", "--max-length", "100"], "max_length is 100"),
        (["check", "esc50", ".", "--max-listed", "-1"], "max_listed"),
        (["check", "esc50", ".", "--init", "a.pth"], "init is 'a.pth'; allowed: together with --write-recipe"),
        (["check", "esc50", ".", "--stride", "10"], "stride is '10'; allowed: together with --write-recipe"),
        (["check", "esc50", ".", "--frames", "512"], "frames is 512; allowed: together with --write-recipe"),
    ],
)
def test_wrong_use_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_another_layout_exits_with_1(tmp_path: Path) -> None:
    code, out, err = run("check", "esc50", tmp_path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "is not ESC-50: it lacks audio" in err


@pytest.mark.parametrize("delimiter", [";", "|", "\t", ":"])
def test_punctuation_needs_no_yaml(tmp_path: Path, delimiter: str) -> None:
    make_folder(tmp_path, {"a": 2})
    (tmp_path / "labels.csv").write_text(
        f"path{delimiter}label{delimiter}fold\n"
        + "".join(delimiter.join([f"a/{take}.wav", "a", str(take)]) + "\n" for take in range(2))
    )
    code, out, _ = run("check", "csv", tmp_path, "--set", f"delimiter={delimiter}", "--format", "json")
    assert (code, json.loads(out)["parts"]["train"]["clips"]) == (0, 1)


def test_what_is_no_file_is_told_of_what_is_missing(tmp_path: Path) -> None:
    sounds = make_folder(tmp_path / "sounds", {"cat": 4, "dog": 4})
    rows = [f"{name}/{take}.wav,{name},{'train' if take else 'test'}" for name in ("cat", "dog") for take in range(4)]
    rows += ["cat,cat,test", "https://x.y/z.wav,dog,test", "no.wav,dog,test", f"{'x' * 300}.wav,dog,test"]
    (sounds / "labels.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    out = run("check", "csv", sounds, "--set", "bad_share=0.9", "--set", "validation_share=0.34")[1]
    assert "test: 4 missing\n  cat: a folder\n  https://x.y/z.wav: a URL, and only files are read here" in out
    assert f"\n  no.wav\n  {'x' * 300}.wav\n" in out


def test_a_manifest_is_made_and_checked(tmp_path: Path) -> None:
    root = make_audioset(tmp_path / "audioset")
    segments = tmp_path / "eval_segments.csv"
    lines = [f'{number}, 0.000, 10.000, "/m/09x0r,/m/0k4j"' for number in range(4, 9)]
    segments.write_text("# a\n# b\n# c\n" + "\n".join(lines) + "\n")
    (root / "clips" / "8.ape").touch()
    labels = write_class_labels(tmp_path / "class_labels_indices.csv")
    code, out, err = run(
        "manifest", segments, root / "clips", root / "mine.json", "--labels", labels, "--max-listed", 1
    )
    assert (code, err) == (0, "")
    printed = out.splitlines()
    assert printed[:3] == ["2 segments have no clip", "  6 (0–10 s)", "  and 1 more"]
    assert printed[3].startswith("1 are left out: convert them from .ape")
    assert printed[-1] == f"{root / 'mine.json'}: 2 of 5 segments"
    code, out, _ = run("check", "audioset", root, "--set", "evaluation=mine.json", "--format", "json")
    assert (code, json.loads(out)["parts"]["test"]["per_label"]) == (
        0,
        {"Speech": 2, "Music": 0, "Car, passing by": 2},
    )


def test_a_manifest_of_nothing_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "segments.csv").write_text('abc, 0.000, 10.000, "/m/09x0r"\n')
    labels = write_class_labels(tmp_path / "labels.csv")
    code, out, err = run("manifest", tmp_path / "segments.csv", tmp_path, tmp_path / "x.json", "--labels", labels)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert not (tmp_path / "x.json").exists()


def test_a_data_set_is_packed_and_checked(esc50: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    code, out, err = run("pack", "esc50", esc50, "--output", packed, "--set", "bad_share=0.4", "--max-listed", 2)
    assert (code, err) == (0, "")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[:3] == ["1 missing", "1-1000-A-2.wav", "3 unreadable"]
    assert lines[5] == "and 1 more"
    facts = dict(line.rsplit(maxsplit=1) for line in lines[6:-1])
    assert (facts["clips"], facts["archives"], facts["rounded clips"]) == ("26", "5", "26")
    assert lines[-1] == f"{packed}: use it in place of {esc50}"
    before, after = (
        json.loads(run("check", "esc50", root, "--set", "bad_share=0.4", "--fold", 2, "--format", "json")[1])
        for root in (esc50, packed)
    )
    assert after.pop("mean") == pytest.approx(before.pop("mean"), abs=0.1)
    assert after.pop("std") == pytest.approx(before.pop("std"), abs=0.1)
    assert after == before
    code, out, err = run("pack", "esc50", esc50, "--output", tmp_path / "again")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "files are unreadable, more than bad_share=0.05: " in err
    assert not (tmp_path / "again").exists()


def test_a_packing_that_is_complete_stays_as_it_is(tmp_path: Path) -> None:
    sounds, packed = make_folder(tmp_path / "sounds", {"cat": 4, "dog": 4}), tmp_path / "packed"
    shares = ["--set", "test_share=0.25", "--set", "validation_share=0.25"]
    command = ["pack", "folder", sounds, "--output", packed, *shares]
    assert run(*command)[0] == 0
    before = {path.name: path.stat().st_mtime_ns for path in packed.iterdir()}
    said = f"spectrim: {packed} is complete already; it does not say what {sounds} held then\n"
    assert run(*command, "--resume") == (0, "", said)
    assert {path.name: path.stat().st_mtime_ns for path in packed.iterdir()} == before
    for other, words in (
        ("--rate=8000", "sampling_rate is 8000; allowed: 16000"),
        ("--set=seed=1", "options.seed is 1"),
    ):
        code, out, err = run(*command, other, "--resume")
        assert (code, out) == (2, "") and words in err


def test_a_packing_that_was_damaged_is_not_called_complete(tmp_path: Path) -> None:
    sounds, packed = make_folder(tmp_path / "sounds", {"cat": 4, "dog": 4}), tmp_path / "packed"
    shares = ["--set", "test_share=0.25", "--set", "validation_share=0.25"]
    command = ["pack", "folder", sounds, "--output", packed, *shares, "--resume"]
    assert run(*command)[0] == 0
    archive, description = packed / "test-000000.tar", packed / "spectrim-pack.json"
    archive.rename(tmp_path / "away")
    whole = description.read_text()
    for text, words in (
        (whole, f"{archive} is missing: the packed data set is not whole"),
        (whole[:100], f"{description} does not describe a packed data set"),
        ("[]", f"{description} does not describe a packed data set"),
    ):
        description.write_text(text)
        code, out, err = run(*command)
        assert (code, out, err.count("\n")) == (1, "", 1) and words in err


def test_a_full_disk_while_packing_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("spectrim.data.packing._conclude", full)
    packed = tmp_path / "packed"
    shares = ["--set", "test_share=0.25", "--set", "validation_share=0.25"]
    sounds = make_folder(tmp_path / "sounds", {"cat": 4, "dog": 4})
    code, out, err = run("pack", "folder", sounds, "--output", packed, *shares)
    assert (code, out) == (1, "")
    assert err.splitlines()[-2:] == [
        "spectrim: the same command with --resume goes on behind the last whole archive",
        f"spectrim: {packed}.partial: No space left on device; make room, or write elsewhere",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "original", "--rate", "8000"], "rate is 8000; allowed: none with --format original"),
        (["--shard-size", "big"], "shard_size is 'big'; allowed: a size such as 500MB or 20GB"),
        (["--set", "fold=2"], "option fold is 2; allowed: none: every fold is packed"),
    ],
)
def test_wrong_use_of_pack_exits_with_2(esc50: Path, tmp_path: Path, options: list[str], words: str) -> None:
    code, out, err = run("pack", "esc50", esc50, "--output", tmp_path / "packed", *options)
    assert (code, out) == (2, "")
    assert words in err
