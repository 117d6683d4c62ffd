"""Decoded audio on disk: what is read is what was decoded, whatever happens to files, disk, bound and processes."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from torch.utils.data import DataLoader

from spectrim.audio import files as audio
from spectrim.data import cache as caching
from spectrim.data import find_data_set
from spectrim.data.cache import ENDING, HEADER, AudioCache
from spectrim.errors import AudioError, InvalidSetting
from spectrim.machine import cache_folder

SECOND = HEADER.size + 4 * 16000
"""Bytes of a second that is kept."""


def write_sound(path: Path, seed: int = 0, rate: int = 44100, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate)), rate)
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    return [write_sound(tmp_path / "sounds" / f"{number % 2}" / f"{number}.flac", number) for number in range(4)]


def begun(root: Path, folder: Path, most: int = 10**9) -> AudioCache:
    cache = AudioCache(root, folder, most)
    cache.begin()
    return cache


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*" + ENDING))


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded from now on."""
    read, names = audio.read, []

    def note(path: Path, rate: int = 16000) -> Any:
        names.append(Path(path).name)
        return read(path, rate)

    monkeypatch.setattr(caching.audio, "read", note)
    return names


def test_a_second_epoch_decodes_nothing_and_hears_the_same(
    sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = find_data_set("folder").open(tmp_path / "sounds", "test", folds=2)
    part.cache = begun(tmp_path / "sounds", tmp_path / "kept")
    names = decoded(monkeypatch)
    first = [part[number].waveform for number in range(len(part))]
    assert sorted(names) == sorted(clip.path.name for clip in part.recordings)
    names.clear()
    second = [part[number].waveform for number in range(len(part))]
    assert names == []
    for clip, one, other in zip(part.recordings, first, second, strict=True):
        assert np.array_equal(one, audio.read(clip.path).samples)
        assert np.array_equal(one, other)
        assert other.flags.writeable
    assert len(kept(tmp_path / "kept")) == len(part)


def test_what_changes_is_decoded_anew(sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, path = begun(tmp_path / "sounds", tmp_path / "kept"), sounds[0]
    before, times = cache.read(path), path.stat()
    write_sound(tmp_path / "other.flac", 9)
    os.utime(tmp_path / "other.flac", ns=(times.st_atime_ns, times.st_mtime_ns))
    content = (tmp_path / "other.flac").read_bytes()
    (tmp_path / "other.flac").replace(path)
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    after = cache.read(path)
    assert np.array_equal(after, audio.read(path).samples)
    assert not np.array_equal(after, before)
    assert len(kept(tmp_path / "kept")) == 1
    path.write_bytes(content[:1000])
    with pytest.raises(AudioError, match=r"0\.flac"):
        cache.read(path)
    path.unlink()
    with pytest.raises(AudioError, match=r"0\.flac"):
        cache.read(path)
    monkeypatch.setattr(caching, "version_of", lambda name: "another")
    names = decoded(monkeypatch)
    AudioCache(tmp_path / "sounds", tmp_path / "kept").read(sounds[1])
    AudioCache(tmp_path / "sounds", tmp_path / "kept").read(sounds[1])
    assert names == ["1.flac"]


def test_each_rate_is_another(sounds: list[Path], tmp_path: Path) -> None:
    cache = begun(tmp_path / "sounds", tmp_path / "kept")
    for rate in (16000, 32000, 32000, 16000):
        assert np.array_equal(cache.read(sounds[0], rate), audio.read(sounds[0], rate).samples)


def test_a_file_that_is_replaced_while_it_is_decoded_is_not_kept(
    sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, read = begun(tmp_path / "sounds", tmp_path / "kept"), audio.read

    def meanwhile(path: Path, rate: int) -> Any:
        found = read(path, rate)
        write_sound(path, 7)
        return found

    monkeypatch.setattr(caching.audio, "read", meanwhile)
    cache.read(sounds[0])
    assert kept(tmp_path / "kept") == []


@pytest.mark.parametrize("damage", ["cut", "zeroed", "flipped", "empty"])
def test_what_is_damaged_is_decoded_anew(damage: str, sounds: list[Path], tmp_path: Path) -> None:
    cache = begun(tmp_path / "sounds", tmp_path / "kept")
    expected = cache.read(sounds[0])
    (file,) = kept(tmp_path / "kept")
    content = bytearray(file.read_bytes())
    content[-4000] ^= damage == "flipped"
    damaged = {"cut": content[:-4], "zeroed": bytes(len(content)), "flipped": bytes(content), "empty": b""}
    file.write_bytes(damaged[damage])
    assert np.array_equal(cache.read(sounds[0]), expected)
    assert file.stat().st_size == len(content)
    assert np.array_equal(cache.read(sounds[0]), expected)


def test_plain_files_are_not_kept(tmp_path: Path) -> None:
    cache = begun(tmp_path, tmp_path / "kept")
    path = write_sound(tmp_path / "plain.wav", rate=16000)
    assert np.array_equal(cache.read(path), audio.read(path).samples)
    assert not cache.covers(path)
    assert cache.covers(path, 32000)
    assert np.array_equal(cache.read(path, 8000), audio.read(path, 8000).samples)
    assert cache.covers(write_sound(tmp_path / "44.wav")) and cache.covers(write_sound(tmp_path / "a.flac", rate=16000))
    cache.read(path)
    assert kept(tmp_path / "kept") == []


def test_a_name_that_is_not_utf8_is_kept_too(tmp_path: Path) -> None:
    cache = begun(tmp_path, tmp_path / "kept")
    path = write_sound(tmp_path / "dog.flac").rename(tmp_path / os.fsdecode(b"dog\xe9.flac"))
    assert np.array_equal(cache.read(path), audio.read(path).samples)
    assert len(kept(tmp_path / "kept")) == 1


def test_a_bound_that_is_reached_is_kept_and_said_once(
    sounds: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caches = [begun(tmp_path / "sounds", tmp_path / "kept", 2 * SECOND + 100)]
    caches.append(AudioCache(tmp_path / "sounds", tmp_path / "kept", 2 * SECOND + 100))
    for path in sounds:
        for cache in caches:
            assert np.array_equal(cache.read(path), audio.read(path).samples)
    assert len(kept(tmp_path / "kept")) == 2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "it has reached its bound of 128,228 bytes; further files are decoded each time" in said[0]
    smaller = begun(tmp_path / "sounds", tmp_path / "kept", SECOND)
    assert kept(tmp_path / "kept") == []
    smaller.read(sounds[3])
    assert len(kept(tmp_path / "kept")) == 1


def test_data_sets_that_nobody_reads_make_room(sounds: list[Path], tmp_path: Path) -> None:
    mine = tmp_path / "kept" / "mine.txt"
    old = begun(tmp_path / "old", tmp_path / "kept", 2 * SECOND)
    mine.write_text("mine")
    old.read(sounds[0])
    old.read(sounds[1])
    begun(tmp_path / "new", tmp_path / "kept", 2 * SECOND).read(sounds[2])
    assert len(kept(old.place)) == 2
    long_ago = time.time() - 2 * caching.IDLE
    os.utime(old.place / caching.STAMP, (long_ago, long_ago))
    new = begun(tmp_path / "new", tmp_path / "kept", 2 * SECOND)
    new.read(sounds[2])
    assert not old.place.exists()
    assert (len(kept(new.place)), mine.read_text()) == (1, "mine")
    assert len(old.read(sounds[0])) == 16000
    assert len(kept(old.place)) == 1


def test_a_full_disk_is_said_once_and_training_goes_on(
    sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = begun(tmp_path / "sounds", tmp_path / "kept")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.Path, "replace", full)
    for path in sounds:
        assert len(cache.read(path)) == 16000
    assert [record.getMessage().count("No space left on device") for record in caplog.records] == [1]
    assert [path for path in (tmp_path / "kept").rglob("*") if path.suffix in (ENDING, ".partial")] == []


def test_a_folder_that_is_gone_or_cannot_be_made(sounds: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        begun(tmp_path / "sounds", tmp_path / "file" / "in")
    assert len(AudioCache(tmp_path / "sounds", tmp_path / "file" / "in").read(sounds[0])) == 16000
    with pytest.raises(InvalidSetting, match=r"cache_dir is .*file.*; allowed: a folder, or what is to become one"):
        AudioCache(tmp_path, tmp_path / "file")
    with pytest.raises(InvalidSetting, match="cache is 0; allowed: a number of bytes"):
        AudioCache(tmp_path, tmp_path, 0)


def read_all(cache: AudioCache, paths: list[Path], times: int) -> None:
    for _ in range(times):
        for path in paths:
            if not np.array_equal(cache.read(path), audio.read(path).samples):
                os._exit(3)


def test_processes_and_workers_share_it_and_a_writer_that_is_killed_leaves_nothing_half(
    sounds: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = begun(tmp_path / "sounds", tmp_path / "kept", 3 * SECOND)
    fork = multiprocessing.get_context("fork")
    readers = [fork.Process(target=read_all, args=(cache, sounds[turn:] + sounds[:turn], 4)) for turn in range(3)]
    for one in readers:
        one.start()
    readers[0].kill()
    for one in readers:
        one.join()
    assert [one.exitcode for one in readers[1:]] == [0, 0]
    assert 2 <= len(kept(tmp_path / "kept")) <= 3
    part = find_data_set("folder").open(tmp_path / "sounds", "test", test_share=1)
    part.cache = cache
    waveforms = [clip.waveform for batch in DataLoader(part, num_workers=2, collate_fn=list) for clip in batch]
    for clip, ours in zip(part.recordings, waveforms, strict=True):
        assert np.array_equal(ours, audio.read(clip.path).samples)
    (kept(tmp_path / "kept")[0].parent / "half.f32.partial").write_bytes(b"half")
    begun(tmp_path / "sounds", tmp_path / "kept")
    assert not list((tmp_path / "kept").rglob("*.partial"))
    assert int((tmp_path / "kept" / "bytes").read_text()) == sum(one.stat().st_size for one in kept(tmp_path / "kept"))


def test_where_it_is_unless_somebody_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPECTRIM_CACHE", str(tmp_path))
    assert AudioCache("sounds").place.parent == tmp_path / "audio"
    monkeypatch.delenv("SPECTRIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("audio") == tmp_path / "spectrim" / "audio"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("audio") == tmp_path / ".cache" / "spectrim" / "audio"


def test_the_log_is_quiet_where_all_goes_well(
    sounds: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "spectrim"):
        begun(tmp_path / "sounds", tmp_path / "kept").read(sounds[0])
    assert caplog.records == []
