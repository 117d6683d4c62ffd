"""Data sets of a few tones in the layouts of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

from tones import write_tone

MIDS = {"/m/09x0r": "Speech", "/m/04rlf": "Music", "/m/0k4j": "Car, passing by"}


def make_esc50(root: Path, classes: int = 3, per_fold: int = 2) -> Path:
    """Classes c0, c1, … whose targets count backwards, so that nothing is in order by chance."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for number in range(classes):
            for take in range(per_fold):
                name = f"{fold}-{1000 + number}-{'AB'[take]}-{classes - 1 - number}.wav"
                write_tone(root / "audio" / name, 100 + 50 * number + fold)
                rows.append(f"{name},{fold},{classes - 1 - number},c{number},False,{1000 + number},{'AB'[take]}")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root


def make_voxceleb1(root: Path) -> Path:
    """Three speakers, four training clips, one validation and one test clip each."""
    lines = []
    for speaker in ("id10003", "id10001", "id10270"):
        for number, part in enumerate((1, 1, 1, 1, 2, 3), start=1):
            name = f"{speaker}/1zcIwhmdeo{part}/{number:05d}.wav"
            write_tone(root / "wav" / name, 100 + number)
            lines.append(f"{part} {name}")
    (root / "iden_split.txt").write_text("\n".join(lines) + "\n")
    return root


def write_class_labels(path: Path) -> Path:
    rows = [f'{index},{mid},"{name}"' for index, (mid, name) in enumerate(MIDS.items())]
    path.write_text("index,mid,display_name\n" + "\n".join(rows) + "\n")
    return path


def write_manifest(path: Path, entries: dict[str, str]) -> Path:
    path.write_text(json.dumps({"data": [{"wav": wav, "labels": mids} for wav, mids in entries.items()]}))
    return path


def make_audioset(root: Path) -> Path:
    """Four training and two evaluation clips."""
    labels = ["/m/09x0r", "/m/0k4j,/m/09x0r", "/m/04rlf", "/m/09x0r, /m/04rlf", "/m/04rlf", "/m/0k4j"]
    entries = {f"clips/{number}.wav": mids for number, mids in enumerate(labels)}
    for number, name in enumerate(entries):
        write_tone(root / name, 200 + 100 * number)
    write_manifest(root / "train.json", dict(list(entries.items())[:4]))
    write_manifest(root / "eval.json", dict(list(entries.items())[4:]))
    write_class_labels(root / "class_labels_indices.csv")
    return root


def make_folder(root: Path, sizes: dict[str, int]) -> Path:
    """A folder per class with as many tones as are asked for."""
    for number, (name, count) in enumerate(sizes.items()):
        for take in range(count):
            write_tone(root / name / f"{take}.wav", 100 + 50 * number + take, seconds=0.05)
    return root
