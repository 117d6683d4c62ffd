"""The data of spectrim-mini, the model in the package that knows human voices, and what it reaches on unheard ones.

    spectrim data synthesize spoken-commands WORDS --clips 8750 --validation-clips 350 --test-clips 3500 --seed 0
    python benchmarks/voices.py prepare OUT --voices ARABIC --sounds ESC10 --words WORDS
    spectrim train voices --data OUT --init CONTROL --output RUN
    python benchmarks/voices.py package RUN/model MODEL
    python benchmarks/voices.py choose OUT --model MODEL --criteria cls_attention value_norm variation
    python benchmarks/voices.py package RUN/model MODEL --criterion value_norm
    python benchmarks/voices.py test OUT --model MODEL --json benchmarks/results/voices.json

ARABIC is Arabic Speech Commands as a table (labels.csv: path, label, split, speaker), ESC10 is ESC-10 as one
(labels.csv: path, label, fold), CONTROL the control of the study's fold 0 (docs/study/protocol.md), MODEL what is
packaged: the same weights, saved dense, with the English words called as Speech Commands calls them, and the ranking
that loses least on the validation recordings.

How it hears English digits by human voices, on FSDD, a clone of the Free Spoken Digit Dataset:

    python benchmarks/voices.py digits OUT --recordings FSDD/recordings
    spectrim evaluate --model spectrim-mini --dataset csv --data OUT --keep-rates 1.0 --draws 0 --format json

Nothing is chosen on test recordings: they are the six official test speakers, the synthesised test voices, and the
fifth fold of ESC-10.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from showing import write_and_show

import spectrim
from spectrim.audio import files as audio
from spectrim.data.speech_commands import open_speech_commands
from spectrim.inference.opening import open_model
from spectrim.inference.predict import predict_files
from spectrim.machine import environment
from spectrim.stats.speakers import SpeakerMean, mean_over_speakers
from spectrim.tables import read_rows

RATE = 16_000
VALIDATION_SPEAKERS = ("00000002", "00000007")
"""Of the six official validation speakers, those by whom the run is watched; the other four are for training."""

TEST_FOLD = 5
EXCERPT, HOP = 20_480, 10_240
"""Samples of an excerpt of a sound, 1.28 s, and from one's start to the next."""

QUIET = 0.03
"""An excerpt is left out where its RMS is below this share of the loudest of its recording: it holds silence."""

ENGLISH, ARABIC, SOUND = "English: ", "Arabic: ", "sound: "
"""What labels begin with in the table; in the packaged model English words begin with nothing."""

SILENCES = 240
SILENCE = f"{SOUND}silence"
BUT = ", but silence"
"""Behind a keep rate: the best label beside that of silence, for recordings most of which is silent."""

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
"""Exponent of the falling power spectrum."""

Row = tuple[str, str, str, str]
"""Path, label, part, speaker or recording."""


def voices(root: Path) -> Iterator[Row]:
    """Arabic words: all official training speakers and four of the validation ones, two to watch, six to test."""
    for _, row in read_rows(root / "labels.csv", ("path", "label", "split", "speaker")):
        part = row["split"]
        if part == "validation" and row["speaker"] not in VALIDATION_SPEAKERS:
            part = "train"
        yield str((root / row["path"]).resolve()), f"{ARABIC}{row['label']}", part, row["speaker"]


def words(root: Path) -> Iterator[Row]:
    """English words spoken by eSpeak NG, in the parts that their data set has."""
    for part in ("train", "validation", "test"):
        opened = open_speech_commands(root, part)
        for recording in opened.recordings:
            path = Path(recording.path)
            [label] = recording.labels
            yield str(path.resolve()), f"{ENGLISH}{opened.labels[label]}", part, path.stem.split("_")[0]


def sounds(root: Path, out: Path) -> Iterator[Row]:
    """Excerpts of the recordings for training, written as FLAC; whole recordings for the test."""
    for _, row in read_rows(root / "labels.csv", ("path", "label", "fold")):
        path, label = root / row["path"], f"{SOUND}{row['label'].replace('_', ' ')}"
        if int(row["fold"]) == TEST_FOLD:
            yield str(path.resolve()), label, "test", path.stem
            continue
        for index, excerpt in enumerate(loud_excerpts(audio.read(path, RATE).samples)):
            file = out / f"{path.stem}-{index}.flac"
            soundfile.write(file, excerpt, RATE, subtype="PCM_16")
            yield str(file.resolve()), label, "train", path.stem


def loud_excerpts(samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Excerpts of a recording but those of silence."""
    starts = range(0, max(len(samples) - EXCERPT, 0) + 1, HOP)
    excerpts = [samples[start : start + EXCERPT] for start in starts]
    levels = [float(np.sqrt(np.mean(np.square(excerpt)))) for excerpt in excerpts]
    return [excerpt for excerpt, level in zip(excerpts, levels, strict=True) if level >= QUIET * max(levels)]


def silences(out: Path) -> Iterator[Row]:
    """Nothing and steady noise of three colours at -90 to -25 dB of full scale, for training and, others, for test."""
    for index in range(SILENCES + SILENCES // 4):
        random = np.random.default_rng([7, index])
        spectrum = np.fft.rfft(random.standard_normal(EXCERPT))
        colour = list(COLOURS.values())[index % len(COLOURS)]
        noise = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 20) ** (colour / 2), EXCERPT)
        level = 0.0 if index % 12 == 0 else 10 ** (random.uniform(-90, -25) / 20)
        file = out / f"silence-{index}.flac"
        soundfile.write(file, (level * noise / np.sqrt(np.mean(np.square(noise)))).clip(-1, 1), RATE, subtype="PCM_16")
        yield str(file.resolve()), SILENCE, "train" if index < SILENCES else "test", f"silence-{index}"


def prepare(out: Path, arabic: Path, esc10: Path, english: Path) -> Path:
    """Write the table of all recordings, and the excerpts that it names."""
    excerpts = out / "excerpts"
    excerpts.mkdir(parents=True, exist_ok=True)
    rows = [*voices(arabic), *words(english), *sounds(esc10, excerpts), *silences(excerpts)]
    return write_table(out, sorted(rows, key=lambda row: (zlib.crc32(row[0].encode()), row)))


def digits(out: Path, recordings: Path) -> Path:
    """Write the table of the Free Spoken Digit Dataset, whose files are called DIGIT_SPEAKER_TAKE.wav, all for test."""
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    rows = []
    for path in sorted(recordings.glob("*.wav")):
        digit, speaker, _ = path.stem.split("_")
        rows.append((str(path.resolve()), names[int(digit)], "test", speaker))
    return write_table(out, rows)


def write_table(out: Path, rows: Iterable[Row]) -> Path:
    """Write ``labels.csv`` into a folder that is made."""
    out.mkdir(parents=True, exist_ok=True)
    table = out / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "speaker"])
        writer.writerows(rows)
    return table


def package(run: Path, out: Path, criterion: str | None = None) -> Path:
    """Save a trained model dense, its English words without what they begin with; see `tested` for the criterion."""
    ranked = {} if criterion is None else {"criterion": criterion}
    model = spectrim.from_pretrained(run, keep_rate=1.0, **ranked)
    labels = {number: label.removeprefix(ENGLISH) for number, label in model.config.id2label.items()}
    model.config.id2label, model.config.label2id = labels, {label: number for number, label in labels.items()}
    model.save_pretrained(out)
    return out


def tested(
    table: Path,
    model: Path,
    keep_rates: Sequence[float],
    part: str = "test",
    criterion: str | None = None,
    drop_padding: bool = False,
    reducer: str | None = None,
) -> list[dict[str, Any]]:
    """Of every recording its group, speaker and label, and at each keep rate the best label, also but silence.

    Args:
        table: of the recordings.
        model: packaged.
        keep_rates: of each pruning block.
        part: of the recordings.
        criterion: to rank patches by; None: the model's own.
        drop_padding: leave out patches that hold only padding, so that no ranking gains by dropping them.
        reducer: what becomes of those that are not kept; None: they are dropped.
    """
    rows: list[dict[str, Any]] = []
    for _, row in read_rows(table, ("path", "label", "split", "speaker")):
        if row["split"] == part:
            label = row["label"].removeprefix(ENGLISH)
            rows.append({"path": row["path"], "speaker": row["speaker"], "label": label, "group": group_of(label)})
    settings = {"criterion": criterion, "drop_padding": drop_padding or None, "reducer": reducer}
    for keep_rate in keep_rates:
        backend = open_model(spectrim.from_pretrained(model, keep_rate=keep_rate, **settings), device="cpu")
        found = predict_files([row["path"] for row in rows], backend, batch_size=32)
        for row, prediction in zip(rows, found, strict=True):
            first, second = (label for label, _ in prediction.top(2))
            row[f"{keep_rate:g}"], row[f"{keep_rate:g}{BUT}"] = first, second if first == SILENCE else first
    return rows


def group_of(label: str) -> str:
    """Of a packaged model's label: whose words, a sound, or silence."""
    if label == SILENCE:
        return "silence"
    return next((name.removesuffix(": ") for name in (ARABIC, SOUND) if label.startswith(name)), "English")


def accuracies(rows: Sequence[dict[str, Any]], rate: str) -> dict[str, float]:
    """Speaker → share of the recordings named right, in percent."""
    right: dict[str, list[bool]] = {}
    for row in rows:
        right.setdefault(row["speaker"], []).append(row[rate] == row["label"])
    return {speaker: 100.0 * sum(answers) / len(answers) for speaker, answers in right.items()}


def triple(mean: SpeakerMean | None) -> list[float]:
    """Mean and ends of its interval."""
    if mean is None:
        raise SystemExit("no recordings to test")
    return [mean.mean, mean.low, mean.high]


def summary(rows: Sequence[dict[str, Any]], keep_rates: Sequence[float]) -> list[dict[str, Any]]:
    """Per group and keep rate: mean over speakers with its interval, and the loss to the first rate, by speaker."""
    found = []
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        dense = accuracies(own, f"{keep_rates[0]:g}")
        for keep_rate in keep_rates:
            here = accuracies(own, f"{keep_rate:g}")
            lost = mean_over_speakers({0: {speaker: dense[speaker] - here[speaker] for speaker in here}})
            reached = mean_over_speakers({0: here})
            heard_as = [group_of(row[f"{keep_rate:g}"]) for row in own]
            loud = triple(mean_over_speakers({0: accuracies(own, f"{keep_rate:g}{BUT}")}))
            found.append(
                {
                    "group": group,
                    "keep_rate": keep_rate,
                    "recordings": len(own),
                    "speakers": len(here),
                    "accuracy": triple(reached),
                    **({"accuracy_but_silence": loud} if group == SOUND.removesuffix(": ") else {}),
                    "lost": triple(lost),
                    "taken_for": {name: 100.0 * heard_as.count(name) / len(own) for name in sorted(set(heard_as))},
                    "by_speaker": here if len(here) < 20 else None,
                }
            )
    return found


def redraw(groups: list[dict[str, Any]]) -> None:
    """Draw the intervals of a `summary` anew, of groups whose speakers it holds; nothing else changes."""
    dense: dict[str, dict[str, float]] = {}
    for row in groups:
        if (here := row["by_speaker"]) is not None:
            first = dense.setdefault(row["group"], here)
            row["accuracy"] = triple(mean_over_speakers({0: here}))
            row.pop("accuracy_but_silence", None)
            row["lost"] = triple(mean_over_speakers({0: {name: first[name] - here[name] for name in here}}))


def main() -> None:
    """Prepare data, choose by what a model ranks patches, package it, or test it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("prepare")
    making.add_argument("out", type=Path)
    for name in ("voices", "sounds", "words"):
        making.add_argument(f"--{name}", type=Path, required=True)
    counting = commands.add_parser("digits")
    counting.add_argument("out", type=Path)
    counting.add_argument("--recordings", type=Path, required=True)
    packaging = commands.add_parser("package")
    packaging.add_argument("run", type=Path)
    packaging.add_argument("out", type=Path)
    packaging.add_argument("--criterion")
    testing = commands.add_parser("test")
    testing.add_argument("out", type=Path)
    testing.add_argument("--model", type=Path, required=True)
    testing.add_argument("--keep-rates", type=float, nargs="+", default=[1.0, 0.9, 0.7, 0.5, 0.3])
    testing.add_argument("--criterion")
    testing.add_argument("--reducer")
    testing.add_argument("--json", type=Path)
    choosing = commands.add_parser("choose")
    choosing.add_argument("out", type=Path)
    choosing.add_argument("--model", type=Path, required=True)
    choosing.add_argument("--criteria", nargs="+", required=True)
    choosing.add_argument("--keep-rates", type=float, nargs="+", default=[1.0, 0.7, 0.5])
    choosing.add_argument("--drop-padding", action="store_true")
    choosing.add_argument("--json", type=Path)
    drawing = commands.add_parser("redraw", help="intervals of written results, after a change of how they are drawn")
    drawing.add_argument("results", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "redraw":
        for path in given.results:
            content = json.loads(path.read_text(encoding="utf-8"))
            for groups in content["criteria"].values() if "criteria" in content else [content["groups"]]:
                redraw(groups)
            write_and_show(content, path)
        return
    if given.command == "prepare":
        sys.stdout.write(f"{prepare(given.out, given.voices, given.sounds, given.words)}\n")
        return
    if given.command == "digits":
        sys.stdout.write(f"{digits(given.out, given.recordings)}\n")
        return
    if given.command == "package":
        sys.stdout.write(f"{package(given.run, given.out, given.criterion)}\n")
        return
    if given.command == "choose":
        found = {}
        for name in given.criteria:
            rows = tested(
                given.out / "labels.csv", given.model, given.keep_rates, "validation", name, given.drop_padding
            )
            found[name] = summary(rows, given.keep_rates)
        said = {"drop_padding": given.drop_padding, "criteria": found}
        write_and_show({"environment": environment(), **said}, given.json)
        return
    ways = {"criterion": given.criterion, "reducer": given.reducer}
    rows = tested(given.out / "labels.csv", given.model, given.keep_rates, **ways)
    pruning = spectrim.from_pretrained(given.model, **ways).config.pruning
    said = {"criterion": pruning.criterion, "reducer": pruning.reducer, "groups": summary(rows, given.keep_rates)}
    write_and_show({"environment": environment(), **said}, given.json)


if __name__ == "__main__":
    main()
