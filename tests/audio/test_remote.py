from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFileSystem

from spectrim.audio.files import Window, windows_and_notes
from spectrim.audio.finding import select_files
from spectrim.audio.remote import FOREIGN, is_url, local_copy
from spectrim.errors import AudioError, InvalidSetting


@pytest.fixture
def bucket() -> Iterator[MemoryFileSystem]:
    store = fsspec.filesystem("memory")
    for name in ("b.wav", "a.FLAC", "notes.txt", ".hidden.wav", "sub/c.mp3", "sub/.git/e.wav"):
        store.pipe(f"/bucket/{name}", b"x")
    yield store
    store.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("name", "url"),
    [("s3://b/a.wav", True), ("file:///a.wav", True), ("C://a.wav", False), ("/a://b", False), ("a.wav", False)],
)
def test_what_is_a_url(name: str, url: bool) -> None:
    assert is_url(name) == url


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("memory://bucket", ["a.FLAC", "b.wav", "sub/c.mp3"]),
        ("memory://bucket/sub/", ["sub/c.mp3"]),
        ("memory://bucket/*.wav", [".hidden.wav", "b.wav"]),
        ("memory://bucket/*.txt", ["notes.txt"]),
        ("memory://bucket/**", ["a.FLAC", "b.wav", "sub/.git/e.wav", "sub/c.mp3", ".hidden.wav"]),
        ("memory://bucket/notes.txt", ["notes.txt"]),
    ],
)
def test_folders_and_patterns_in_a_store(bucket: MemoryFileSystem, name: str, found: list[str]) -> None:
    assert sorted(select_files([name]).files) == sorted(f"memory:///bucket/{file}" for file in found)


def test_a_named_url_with_an_audio_ending_is_not_asked_for() -> None:
    assert select_files(["nosuch://bucket/a.wav"]).files == ["nosuch://bucket/a.wav"]


def test_what_cannot_be_reached_is_said_with_its_reason(bucket: MemoryFileSystem) -> None:
    with pytest.raises(InvalidSetting, match="memory://none/: no audio file in this folder"):
        select_files(["memory://none/"])
    with pytest.raises(InvalidSetting, match="nothing here reads nosuch://: Protocol not known: nosuch"):
        select_files(["nosuch://bucket/"])
    fsspec.register_implementation("lacking", "no_such_package.Store", True, "Install no-such-package")
    with pytest.raises(InvalidSetting, match="nothing here reads lacking://: Install no-such-package"):
        select_files(["lacking://bucket/"])
    with pytest.raises(AudioError, match=r"memory://bucket/none\.wav: no such file"):
        list(windows_and_notes("memory://bucket/none.wav", window_seconds=1.0))
    with pytest.raises(AudioError, match=r"memory://bucket/b\.wav: .*not"):
        list(windows_and_notes("memory://bucket/b.wav", window_seconds=1.0))


class ClientError(Exception):
    """As aiohttp raises it for a server's 403: no OSError."""


class RefusingStore(MemoryFileSystem):
    """Of a server that does not let us in."""

    protocol = "refusing"

    def get_file(self, *_: object, **__: object) -> None:
        raise ClientError("403, Forbidden")

    def find(self, *_: object, **__: object) -> list[str]:
        raise ClientError("no credentials")

    glob = find


@pytest.mark.parametrize("module", ["aiohttp", "botocore.exceptions"])
def test_a_store_that_refuses_is_said_though_it_raises_no_os_error(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**dict.fromkeys(FOREIGN[module], ClientError)))
    fsspec.register_implementation("refusing", RefusingStore, True)
    with pytest.raises(AudioError, match="cannot be fetched: 403, Forbidden"), local_copy("refusing://bucket/a.wav"):
        pass
    for name in ("refusing://bucket/", "refusing://bucket/*.wav"):
        with pytest.raises(InvalidSetting, match="cannot be listed: no credentials"):
            select_files([name])


def test_sound_in_a_store_is_that_of_the_file(bucket: MemoryFileSystem, tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(40000), 22050)
    bucket.put_file(str(path), "/bucket/tone.wav")

    def heard(name: str) -> list[bytes]:
        events = windows_and_notes(name, window_seconds=1.0)
        return [event.samples.tobytes() for event in events if isinstance(event, Window)]

    assert heard("memory://bucket/tone.wav") == heard(f"file://{path}") == heard(str(path))
    with local_copy("memory://bucket/tone.wav") as copy:
        assert copy.read_bytes() == path.read_bytes()
    assert not copy.parent.exists()
    with local_copy(path) as same:
        assert same == path
