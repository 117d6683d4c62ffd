from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spectrim.audio.decoding import Event
from spectrim.audio.files import Note, Window
from spectrim.errors import AudioError, SpectrimError
from spectrim.inference.opening import open_model
from spectrim.inference.passes import Assembly, Pass, passes, silence
from spectrim.inference.predict import decoded_windows, predict_files
from spectrim.inference.results import FilePrediction

RATE = 16000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Ten sounds of one to four windows; one is cut in its third window, one holds no sound at all."""
    folder, generator = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    names = []
    for number in range(10):
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * generator.standard_normal(int(RATE * (0.5 + 0.45 * number))), RATE)
        names.append(str(path))
    whole = Path(names[7]).read_bytes()
    Path(names[7]).write_bytes(whole[: int(0.8 * len(whole))])
    Path(names[4]).write_text("no sound")
    return names


def told(one: FilePrediction) -> tuple[object, ...]:
    """All of a prediction, for comparison to the bit."""
    timeline = [(window.start, window.end, window.scores.tobytes()) for window in one.timeline]
    return one.path, one.seconds, timeline, None if one.scores is None else one.scores.tobytes(), one.error, one.note


@pytest.mark.parametrize("batch_size", [3, 16])
def test_scores_are_those_of_the_engine_in_one_process(files: list[str], batch_size: int) -> None:
    model = open_model("spectrim-mini", keep_rate=0.7)
    wanted = [told(one) for one in predict_files(files, model, batch_size=batch_size, workers=1)]
    made = list(passes(decoded_windows(files, model, workers=1), batch_size))
    assert [len(one.samples) for one in made[:-1]] == [batch_size] * (len(made) - 1)
    scored = [(one, model.scores(one.samples) if one.samples else np.zeros((0, 35), np.float32)) for one in made]
    again = [*scored, *scored[:2]]
    random.Random(batch_size).shuffle(again)
    assembly = Assembly(files, model.labels, "mean", RATE)
    found = [told(one) for pair in again for one in assembly.take(*pair)]
    assert found == wanted
    assert assembly.complete
    assert sum(one[4] is not None for one in found) == 2


def windows(*starts: float) -> list[Window]:
    return [Window(start, np.full(RATE, start, np.float32)) for start in starts]


def events(length: float = 1.0) -> Iterator[tuple[int, Event]]:
    yield from ((0, window) for window in windows(0.0, 1.0))
    yield 0, Note("odd")
    yield 0, None
    yield 1, AudioError("b", "broken")
    yield 2, Window(0.0, np.zeros(int(RATE * length), np.float32))
    yield 2, None


def score(one: Pass) -> np.ndarray:
    return np.array([[samples.mean(), len(samples)] for samples in one.samples], np.float32).reshape(-1, 2)


def test_ends_come_with_the_last_windows_of_files_or_after_them() -> None:
    first, last = passes(events(), batch_size=2)
    assert (first.number, first.files, first.starts, first.ends) == (0, [0, 0], [0.0, 1.0], [])
    assert (last.number, last.files, last.ends) == (1, [2], [(0, None, ["odd"]), (1, "broken", []), (2, None, [])])
    assert (first.before, first.after) == (0, last.before)


def test_nothing_is_given_before_the_passes_that_come_first() -> None:
    first, last = passes(events(), batch_size=2)
    assembly = Assembly(["a", "b", "c"], ["mean", "length"], "max", RATE)
    assert list(assembly.take(last, score(last))) == []
    assert not assembly.complete
    a, b, c = assembly.take(first, score(first))
    assert (a.path, a.seconds, a.note, b.error, c.seconds) == ("a", 2.0, "odd", "broken", 1.0)
    assert a.scores is not None and a.scores.tolist() == [1.0, RATE]
    assert assembly.complete
    assert list(assembly.take(last, score(last))) == []


def test_passes_of_a_file_that_changed_in_between_are_not_mixed() -> None:
    (first, _), (_, last) = passes(events(), batch_size=2), passes(events(length=0.5), batch_size=2)
    assembly = Assembly(["a", "b", "c"], ["mean", "length"], "mean", RATE)
    assert list(assembly.take(first, score(first))) == []
    other = Pass(1, last.before + 1, last.after, last.files, last.starts, last.samples, last.ends)
    with pytest.raises(SpectrimError, match="a file between a and c has changed while they were decoded twice"):
        list(assembly.take(other, score(other)))


def test_a_checksum_hears_every_sample_and_end() -> None:
    def sums(length: float, value: float, reason: str) -> int:
        samples = np.full(int(RATE * length), value, np.float32)
        *_, last = passes([(0, Window(0.0, samples)), (0, None), (1, AudioError("b", reason))], batch_size=4)
        return last.after

    assert sums(1.0, 0.1, "broken") == sums(1.0, 0.1, "broken")
    assert len({sums(1.0, 0.1, "broken"), sums(0.5, 0.1, "broken"), sums(1.0, 0.2, "broken"), sums(1, 0.1, "x")}) == 4


def test_silence_takes_no_memory() -> None:
    assert len(silence(10**12)) == 10**12
    assert Window(1.0, silence(RATE // 2)).end == 1.5
