from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrim.audio.finding import Selection
from spectrim.errors import AudioError, InvalidSetting, MissingExtra
from spectrim.inference.output_file import OutputFile
from spectrim.inference.prediction_rows import (
    CSV_COLUMNS,
    FORMATS,
    csv_header,
    csv_rows,
    finished_rows,
    json_line,
)
from spectrim.inference.results import FilePrediction, WindowScores

FORMS = ["csv", "jsonl"] + (["parquet"] if importlib.util.find_spec("pyarrow") else [])
LABELS = ["yes", "no", 'an, odd "one"', "naïve"]
ODD_NAMES = ["plain.wav", 'quo"te.wav', "com,ma.wav", "new\nline.wav", "return\r.wav", "caf\udce9.wav", "日本.wav"]


def made(path: str, windows: int = 1, seed: int = 0, *, whole: bool = True) -> FilePrediction:
    random = np.random.default_rng(seed)
    timeline = [WindowScores(1.28 * k, 1.28 * (k + 1), random.random(4, np.float32)) for k in range(windows)]
    scores = np.mean([window.scores for window in timeline], axis=0) if whole else None
    return FilePrediction(path, LABELS, 1.28 * windows, timeline, scores)


def failed(path: str) -> FilePrediction:
    return FilePrediction(path, LABELS, error="truncated: the header promises 1.00 s, 0.50 s decode")


def test_csv_rows_by_hand() -> None:
    scores = np.array([0.25, 0.5, 0.125, 0.125], np.float32)
    one = FilePrediction("a.wav", LABELS, 1.0, [WindowScores(0.0, 1.0, scores)], scores)
    assert csv_rows(one, 3) == (
        "a.wav,file,0.0,1.0,1,no,0.5,,\na.wav,file,0.0,1.0,2,yes,0.25,,\n"
        'a.wav,file,0.0,1.0,3,"an, odd ""one""",0.125,,\n'
    )
    two = FilePrediction("b.wav", LABELS, 2.0, [WindowScores(0.0, 1.0, scores), WindowScores(1.0, 2.0, scores)], scores)
    assert [row.split(",")[1:5] for row in csv_rows(two, 1).splitlines()] == [
        ["file", "0.0", "2.0", "1"],
        ["window", "0.0", "1.0", "1"],
        ["window", "1.0", "2.0", "1"],
    ]
    assert csv_rows(failed("c.wav"), 3) == 'c.wav,,,,,,,"truncated: the header promises 1.00 s, 0.50 s decode",\n'
    noted = FilePrediction("d.wav", LABELS, 1.0, two.timeline, note="its header names no length: read to the end")
    assert {row.split(",")[-1] for row in csv_rows(noted, 2).splitlines()} == {noted.note}
    assert json.loads(json_line(noted, 2))["note"] == noted.note


@pytest.mark.parametrize("name", ODD_NAMES)
def test_csv_and_json_hold_any_name_csv_with_what_is_no_utf8_written_out(name: str) -> None:
    prediction = made(name, windows=2)
    rows = list(csv.DictReader(io.StringIO(csv_header() + csv_rows(prediction, 4), newline="")))
    assert {row["file"] for row in rows} == {name.replace("\udce9", "\\xe9")}
    best = [(row["label"], float(row["score"])) for row in rows if row["part"] == "file"]
    assert [label for label, _ in best] == [LABELS[index] for index in np.argsort(-prediction.scores)]
    np.testing.assert_allclose([score for _, score in best], np.sort(prediction.scores)[::-1], rtol=1e-5)
    row = json.loads(json_line(prediction, 4))
    assert row["file"] == name
    assert [(entry["label"], entry["score"]) for entry in row["scores"]] == best
    assert [(window["start"], window["end"]) for window in row["windows"]] == [(0.0, 1.28), (1.28, 2.56)]
    (csv_rows(prediction, 4) + json_line(prediction, 4)).encode()


def test_json_of_a_failed_file_and_of_no_aggregate() -> None:
    row = json.loads(json_line(failed("a.wav"), 5))
    nothing = {"file": "a.wav", "seconds": 0.0, "scores": None, "windows": [], "note": None}
    assert row == {**nothing, "error": failed("a.wav").error}
    assert json.loads(json_line(made("a.wav", 2, whole=False), 1))["scores"] is None
    assert "file," not in csv_rows(made("a.wav", 2, whole=False), 1)


PREDICTIONS = [
    *(made(name, windows=1 + index % 3, seed=index) for index, name in enumerate(ODD_NAMES)),
    failed("bad.wav"),
    made("last.wav", seed=99),
]
SELECTION = Selection([prediction.path for prediction in PREDICTIONS])


def write_all(path: Path, form: str) -> bytes:
    file = OutputFile(path, form, {"window": 1.0}, top=3)
    for prediction in PREDICTIONS:
        file.write(prediction)
    file.finish()
    return path.read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_nothing_has_the_files_name_until_all_is_done(tmp_path: Path, form: str) -> None:
    path = tmp_path / "out"
    path.write_text("of an earlier run")
    file = OutputFile(path, form, {}, top=3)
    assert sorted(tmp_path.iterdir()) == [tmp_path / ".out.lock", path]
    for prediction in PREDICTIONS:
        file.write(prediction)
        assert path.read_text() == "of an earlier run"
        assert file.partial.read_bytes().endswith(b"\n")
    file.finish()
    assert sorted(tmp_path.iterdir()) == [path]
    assert path.read_bytes() != b"of an earlier run"


@given(data=st.data(), form=st.sampled_from(FORMS))
def test_resuming_after_a_cut_anywhere_gives_the_unbroken_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, form: str
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    unbroken = write_all(folder / "whole", form)
    file = OutputFile(folder / "out", form, {"window": 1.0}, top=3)
    for prediction in PREDICTIONS:
        file.write(prediction)
    file.close()
    rows = file.partial.read_bytes()
    assert form == "parquet" or rows == unbroken
    file.partial.write_bytes(rows[: data.draw(st.integers(0, len(rows)))])
    journal = file.partial.with_name("out.partial.journal").read_bytes()
    first = journal.index(b"\n") + 1
    file.partial.with_name("out.partial.journal").write_bytes(journal[: data.draw(st.integers(first, len(journal)))])
    again = OutputFile(folder / "out", form, {"window": 1.0}, top=3, resume=True)
    left = again.remaining(SELECTION).files
    assert left == SELECTION.files[len(SELECTION.files) - len(left) :]
    for prediction in PREDICTIONS:
        if prediction.path in left:
            again.write(prediction)
    again.finish()
    assert (folder / "out").read_bytes() == unbroken


def test_parquet_has_the_cells_of_csv_with_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("spectrim.inference.prediction_rows.ROW_GROUP", 7)
    write_all(tmp_path / "out.csv", "csv")
    write_all(tmp_path / "out.parquet", "parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    kinds = {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)}
    numbers = {"start": "double", "end": "double", "rank": "int32", "score": "float"}
    assert kinds == {name: numbers.get(name, "string") for name in CSV_COLUMNS}
    assert json.loads(table.schema.metadata[b"spectrim"])["window"] == 1.0
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))
    assert table.num_rows == len(wanted) > 14
    for row, other in zip(table.to_pylist(), wanted, strict=True):
        assert row["file"] == other["file"]
        score, text = row.pop("score"), other.pop("score")
        assert (score is None) == (text == "")
        assert score is None or score == np.float32(text)
        assert {name: "" if cell is None else str(cell) for name, cell in row.items()} == other


def test_a_finished_parquet_is_that_of_its_settings_alone(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    write_all(tmp_path / "out.parquet", "parquet")
    made = finished_rows(tmp_path / "out.parquet", "parquet")[1]
    assert made is not None
    same = {name: value for name, value in made.items() if name not in ("format", "top")}
    again = OutputFile(tmp_path / "out.parquet", "parquet", same, top=made["top"], resume=True)
    assert again.complete and again.says_settings
    again.close()
    with pytest.raises(InvalidSetting, match=r"keep_rate is 0\.3; allowed: "):
        OutputFile(tmp_path / "out.parquet", "parquet", {**same, "keep_rate": 0.3}, top=made["top"], resume=True)


def test_parquet_without_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'spectrim\[parquet\]'"):
        OutputFile(tmp_path / "out", "parquet", {})
    assert list(tmp_path.iterdir()) == []


def test_no_parquet_where_another_file_has_the_name(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "out").write_text("something else")
    with pytest.raises(InvalidSetting, match="an output in the format parquet"):
        OutputFile(tmp_path / "out", "parquet", {}, resume=True)


def test_scores_of_files_that_are_done_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrim.inference.journal.WASTE", 1000)
    file = OutputFile(tmp_path / "out", "csv", {})
    journal = tmp_path / "out.partial.journal"
    for number in range(50):
        clip = tmp_path / f"{number}.wav"
        clip.write_bytes(b"x")
        assert file.known(str(clip)) == []
        found = made(str(clip), windows=4, seed=number)
        file.keep([(str(clip), window) for window in found.timeline])
        if number < 49:
            file.write(found)
    assert journal.read_bytes().count(b'"scores"') < 20
    file.close()
    again = OutputFile(tmp_path / "out", "csv", {}, resume=True)
    assert len(again.done) == 49
    known = again.known(str(clip))
    assert [(window.start, window.end) for window in known] == [(w.start, w.end) for w in found.timeline]
    np.testing.assert_array_equal([w.scores for w in known], [w.scores for w in found.timeline])


def test_a_growing_file_has_its_rows_at_once_and_is_continued(tmp_path: Path) -> None:
    path, settings = tmp_path / "out.csv", {"window": 1.0}
    file = OutputFile(path, "csv", settings, growing=True)
    file.found = {"a": (5, 6)}
    file.known("a")
    for name in ("a", "b"):
        file.write(made(name))
    assert path.read_text() == csv_header() + csv_rows(made("a"), 5) + csv_rows(made("b"), 5)
    file.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    again = OutputFile(path, "csv", settings, growing=True)
    assert again.versions() == {"a": (5, 6)}
    again.write(made("b"))
    again.write(made("a", seed=1))
    again.finish()
    assert path.read_bytes() == whole + csv_rows(made("a", seed=1), 5).encode()
    assert sorted(there.name for there in tmp_path.iterdir()) == ["out.csv", "out.csv.journal"]
    with pytest.raises(InvalidSetting, match=r"^window is 2\.0; .*was begun"):
        OutputFile(path, "csv", {"window": 2.0}, growing=True)
    path.write_bytes(path.read_bytes().replace(b"yes", b"Yes", 1))
    with pytest.raises(InvalidSetting, match="which is damaged"):
        OutputFile(path, "csv", settings, growing=True)


def test_windows_that_were_heard_twice_are_those_of_the_second_time(tmp_path: Path) -> None:
    path, times = tmp_path / "out.csv", []
    file = OutputFile(path, "csv", {}, growing=True)
    for windows, seed in ((3, 0), (2, 1)):
        file.found = {"a": (5, 6)}
        assert file.known("a") == []
        times.append(made("a", windows, seed).timeline)
        file.keep(("a", window) for window in times[-1])
    file.close()
    again = OutputFile(path, "csv", {}, growing=True)
    again.found = {"a": (5, 6)}
    known = again.known("a")
    assert [window.start for window in known] == [window.start for window in times[1]]
    np.testing.assert_array_equal([window.scores for window in known], [window.scores for window in times[1]])


def test_what_cannot_grow_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("somebody's own")
    with pytest.raises(InvalidSetting, match="which says what was done, is missing"):
        OutputFile(tmp_path / "mine.csv", "csv", {}, growing=True)
    assert (tmp_path / "mine.csv").read_text() == "somebody's own"
    if "parquet" in FORMS:
        with pytest.raises(InvalidSetting, match="csv or jsonl: this one cannot grow"):
            OutputFile(tmp_path / "out", "parquet", {}, growing=True)


def test_json_lines_lose_only_a_torn_line(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "out", "jsonl", {})
    for name in ("a", "b", "c"):
        file.write(made(name))
    file.close()
    whole = file.partial.read_bytes()
    file.partial.write_bytes(whole[:-5])
    again = OutputFile(tmp_path / "out", "jsonl", {}, resume=True)
    assert list(again.done) == ["a", "b"]
    assert whole.startswith(file.partial.read_bytes())


def test_errors_count_as_done(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "out", "jsonl", {})
    file.write(failed("a"))
    file.close()
    again = OutputFile(tmp_path / "out", "jsonl", {}, resume=True)
    assert again.done == {"a": failed("a").error}
    left = again.remaining(Selection(["a", "b"], [AudioError("a", "empty"), AudioError("c", "empty")]))
    assert (left.files, [error.source for error in left.errors]) == (["b"], ["c"])


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "out", "jsonl", {"window": 1.0, "hop": None}, top=3)
    file.write(made("a"))
    file.close()
    for settings, top, form, name in (
        ({"window": 2.0, "hop": None}, 3, "jsonl", "window"),
        ({"window": 1.0, "hop": None}, 5, "jsonl", "top"),
        ({"window": 1.0, "hop": None}, 3, "csv", "format"),
        ({"window": 1.0}, 3, "jsonl", None),
    ):
        if name is None:
            assert OutputFile(tmp_path / "out", form, settings, top=top, resume=True).done == {"a": None}
            continue
        with pytest.raises(InvalidSetting, match=f"^{name} is .*was begun"):
            OutputFile(tmp_path / "out", form, settings, top=top, resume=True)


def test_an_interrupted_run_is_not_overwritten(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "out", "csv", {})
    file.write(made("a"))
    file.close()
    with pytest.raises(InvalidSetting, match=r"--resume.*out\.partial"):
        OutputFile(tmp_path / "out", "csv", {})


def test_a_damaged_partial_or_record_is_refused(tmp_path: Path) -> None:
    for form, old, new in (("csv", b"file,", b"film,"), ("csv", b"a,file", b"b,file"), ("jsonl", b'"a"', b'"b"')):
        path = tmp_path / f"{form}{new[0]}"
        file = OutputFile(path, form, {})
        file.write(made("a"))
        file.close()
        file.partial.write_bytes(file.partial.read_bytes().replace(old, new, 1))
        with pytest.raises(InvalidSetting, match="which is damaged"):
            OutputFile(path, form, {}, resume=True)
        journal = path.with_name(path.name + ".partial.journal")
        for content in (b"", b"no json\n", b"[1]\n", b'{"top": 5}\n{"file": "a"}\n', None):
            journal.unlink() if content is None else journal.write_bytes(content)
            with pytest.raises(InvalidSetting, match="missing or damaged"):
                OutputFile(path, form, {}, resume=True)


@pytest.mark.parametrize("form", FORMS)
def test_resuming_a_complete_file_knows_what_is_in_it(tmp_path: Path, form: str) -> None:
    write_all(tmp_path / "out", form)
    file = OutputFile(tmp_path / "out", form, {"window": 1.0}, top=3, resume=True)
    assert file.complete
    assert list(file.done) == [FORMATS[form].name(path) for path in SELECTION.files]
    assert [path for path, error in file.done.items() if error] == ["bad.wav"]
    assert file.remaining(Selection([*SELECTION.files, "more"])).files == ["more"]


def test_resuming_nothing_begins(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "out", "csv", {}, resume=True)
    assert (file.done, file.complete) == ({}, False)
    file.finish()
    assert (tmp_path / "out").read_text() == csv_header()


@pytest.mark.parametrize("path", ["none/out.csv", ".", "/dev/null"])
def test_places_that_cannot_be_written(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidSetting, match="a regular file in a folder that exists"):
        OutputFile(tmp_path / path, "csv", {})


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="csv, jsonl"):
        OutputFile(tmp_path / "out", "xml", {})


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there" / "real")
    write_all(tmp_path / "out", "csv")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "there" / "real").is_file()


def test_csv_written_before_there_were_notes_is_known(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text(
        "file,part,start,end,rank,label,score,error\na.wav,file,0.0,1.0,1,no,0.5,\nb.wav,,,,,,,empty file (0 bytes)\n"
    )
    assert finished_rows(path, "csv") == ({"a.wav": None, "b.wav": "empty file (0 bytes)"}, None)


def test_csv_with_names_byte_for_byte_is_known(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"file,part,start,end,rank,label,score,error,note\ncaf\xe9.wav,file,0.0,1.0,1,no,0.5,,\n")
    again = OutputFile(path, "csv", {}, resume=True)
    assert again.complete and again.remaining(Selection([os.fsdecode(b"caf\xe9.wav")])).files == []
    again.close()


def test_a_second_run_on_one_output_is_refused_at_once(tmp_path: Path) -> None:
    first = OutputFile(tmp_path / "out.csv", "csv", {})
    for resume in (False, True):
        with pytest.raises(InvalidSetting, match=r"output is .*a name that no other run is writing now"):
            OutputFile(tmp_path / "out.csv", "csv", {}, resume=resume)
    first.write(PREDICTIONS[0])
    first.close()
    OutputFile(tmp_path / "out.csv", "csv", {}, resume=True).finish()
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("name", ["out.csv.partial", "out.csv.partial.journal", ".out.csv.lock"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_planted_link_is_not_followed(tmp_path: Path, name: str, resume: bool) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / name).symlink_to(precious)
    with pytest.raises((InvalidSetting, OSError)):
        OutputFile(tmp_path / "out.csv", "csv", {}, resume=resume)
    assert precious.read_text() == "mine"


def test_names_like_formulas_come_back_from_an_output(tmp_path: Path) -> None:
    names = ["=1+1.wav", "-x.wav", "@a.wav", "'=b.wav"]
    file = OutputFile(tmp_path / "out.csv", "csv", {})
    for name in names:
        file.write(replace(PREDICTIONS[0], path=name))
    file.finish()
    assert "\n'=1+1.wav," in (tmp_path / "out.csv").read_text()
    assert list(OutputFile(tmp_path / "out.csv", "csv", {}, resume=True).done) == names
