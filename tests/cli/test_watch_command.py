from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from command_line import run

from spectrim.cli import watching
from spectrim.inference.watch import Arrivals


def sound(path: Path, hertz: float) -> None:
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(16000) / 16000), 16000)


def between_looks(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], Any]) -> None:
    """Do something instead of each wait for new files; Ctrl-C after the last."""
    left = list(steps)

    def sleep(_: float) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=sleep))


def rows(path: Path) -> list[tuple[str, str | None, str | None]]:
    found = map(json.loads, path.read_text().splitlines())
    return [(Path(row["file"]).name, row["error"], row["note"]) for row in found]


def test_watching_tags_what_arrives_and_a_restart_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    out = folder / "tags.jsonl"
    options = ["predict", "--watch", folder, "--settle", 0, "--workers", 1, "--output", out]
    sound(folder / "a.wav", 200)
    between_looks(monkeypatch, lambda: (sound(folder / "b.wav", 300), (folder / "bad.wav").write_bytes(b"no sound")))
    code, _, said = run(*options)
    assert code == 130
    assert said.splitlines()[1:] == [
        f"spectrim: watching {folder}, in which 0 files are done; Ctrl-C ends it",
        f"spectrim: {folder}/bad.wav: cannot be read as audio: format not recognised",
        "spectrim: ended after 3 files",
    ]
    first = out.read_bytes()
    assert [(name, bool(error), note) for name, error, note in rows(out)] == [
        ("a.wav", False, None),
        ("b.wav", False, None),
        ("bad.wav", True, None),
    ]
    out.write_bytes(first + b'{"file": "torn')
    between_looks(monkeypatch, lambda: (sound(folder / "bad.wav", 400), sound(folder / "a.wav", 500)))
    code, _, said = run(*options)
    assert code == 130
    assert "in which 3 files are done" in said and "ended after 2 files" in said
    assert out.read_bytes().startswith(first)
    again = "it has changed since it was heard before"
    assert rows(out)[3:] == [("a.wav", None, again), ("bad.wav", None, again)]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("a.wav", "b.wav", "bad.wav", "tags.jsonl", "tags.jsonl.journal"),
    ]


def test_what_vanishes_before_it_is_heard_is_heard_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, away, out = tmp_path / "in", tmp_path / "away", tmp_path / "tags.jsonl"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        sound(folder / name, 200)
    look, looked = Arrivals.look, 0

    def look_and_lose(arrivals: Arrivals) -> Any:
        nonlocal looked
        looked += 1
        found = look(arrivals)
        if looked == 1:
            folder.rename(away)
        return found

    monkeypatch.setattr(Arrivals, "look", look_and_lose)
    between_looks(monkeypatch, lambda: away.rename(folder))
    code, _, said = run("predict", "--watch", folder, "--settle", 0, "--workers", 1, "--output", out)
    assert code == 130
    assert said.splitlines()[2:] == [
        f"spectrim: {folder} is not there now; waiting for it",
        f"spectrim: {folder} is there again",
        "spectrim: ended after 2 files",
    ]
    assert rows(out) == [(name, None, None) for name in ("a.wav", "b.wav")]


def test_a_file_in_the_place_of_a_track_stays_and_watching_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tracks, out = tmp_path / "in", tmp_path / "tracks", tmp_path / "tags.jsonl"
    for path in (folder, tracks):
        path.mkdir()
    for name in ("a.wav", "b.wav"):
        sound(folder / name, 200)
    foreign = tracks / "a.wav.txt"
    foreign.write_text("my notes")
    options = ["--settle", 0, "--workers", 1, "--events", tracks, "--output", out]
    between_looks(monkeypatch, lambda: sound(folder / "c.wav", 300))
    code, _, said = run("predict", "--watch", folder, *options)
    assert code == 130
    assert said.splitlines()[2:] == [
        f"spectrim: {folder}/a.wav: no track is written: events is '{tracks}'; allowed: a folder without {foreign}, "
        "which is no track of this kind, and in the place of one",
        "spectrim: ended after 3 files",
    ]
    assert rows(out) == [(name, None, None) for name in ("a.wav", "b.wav", "c.wav")]
    assert sorted(path.name for path in tracks.iterdir()) == ["a.wav.txt", "b.wav.txt", "c.wav.txt"]
    assert foreign.read_text() == "my notes"
    between_looks(monkeypatch)
    assert "in which 3 files are done" in run("predict", "--watch", folder, *options)[2]
    assert run("predict", folder, *options[4:], "--workers", 1)[0] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing is named to be heard: files, folders, patterns or -"),
        (["a.wav", "--watch", "."], "watch is '.'; allowed: no files beside it"),
        (["--watch", ".", "--output", "here.csv"], "which says what was done, is missing or damaged"),
    ],
)
def test_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[Any], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.csv").write_text("somebody's own")
    code, _, said = run("predict", *options)
    assert (code, words in said) == (2, True), said
    assert (tmp_path / "here.csv").read_text() == "somebody's own"
