"""AudioSet (Gemmeke et al., 2017): 10-second clips, each with some of 527 labels, as AST lists them.

On disk: ``train.json``, ``eval.json`` and ``class_labels_indices.csv`` (columns index, mid, display_name). A manifest
is ``{"data": [{"wav": path, "labels": "/m/09x0r,/m/05zppz"}, …]}``; labels are mids, and a relative path starts at the
folder of its manifest. `spectrim.data.manifests` makes manifests from Google's lists of segments.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from spectrim.data.dataset import BAD_SHARE, AudioDataset, Recording
from spectrim.data.layout import check_layout, check_part, is_file, open_listed
from spectrim.errors import DataError, InvalidSetting, brief, shown
from spectrim.tables import read_class_labels, refuse_twice

TRAIN, EVAL, LABELS = "train.json", "eval.json", "class_labels_indices.csv"


def open_audioset(
    root: str | Path,
    part: str,
    *,
    train: str = TRAIN,
    evaluation: str = EVAL,
    validation: str | None = None,
    labels: str = LABELS,
    clips: str | None = None,
    bad_share: float = BAD_SHARE,
) -> AudioDataset:
    """Open a part of AudioSet, or of a miniature in its layout.

    Args:
        root: the folder that holds the manifests and the table of labels.
        part: ``"train"``; ``"test"``, the evaluation segments; or ``"validation"``, the same ones again, since
            AudioSet has no more parts, and AST and the paper choose the epoch on the clips that they report.
        train: manifest of the training part, in ``root`` or as an absolute path.
        evaluation: likewise of the evaluation segments.
        validation: likewise of clips to choose the epoch on instead.
        labels: likewise the table of labels.
        clips: folder of the clips, in ``root`` or absolute, for manifests whose paths are those of another machine, as
            the published ones are: of each path the longest end counts that is there.
        bad_share: share of the clips that may be missing or unreadable.

    Raises:
        InvalidSetting: unknown part.
        DataError: the folder is not in this layout, a manifest or the table of labels is wrong somewhere (an unknown
            mid, a clip twice), or too many clips are missing.
    """
    check_part(part)
    root = Path(root)
    manifests = {"train": train, "validation": validation or evaluation, "test": evaluation}
    check_layout(root, "AudioSet with AST's manifests", files=[manifests[part], labels])
    known = read_class_labels(root / labels)
    numbers = {mid: number for number, mid in enumerate(known)}
    recordings = _read_manifest(root / manifests[part], numbers)
    if clips is not None:
        folder = root / clips
        if not folder.is_dir():
            raise InvalidSetting("clips", clips, f"a folder that is there; {folder} is not")
        recordings = [replace(recording, path=_moved(Path(recording.id), folder)) for recording in recordings]
    return open_listed(recordings, list(known.values()), multi_label=True, bad_share=bad_share)


def _moved(listed: Path, folder: Path) -> Path:
    """Where the file of a manifest is below another folder: at the longest end of its path that is there.

    Where none is, the place that its bare name would have, which is then reported as missing.
    """
    names = listed.parts[1:] if listed.is_absolute() else listed.parts
    ends = (folder.joinpath(*names[start:]) for start in range(len(names)) if ".." not in names[start:])
    return next((path for path in ends if is_file(path)), folder / listed.name)


def _read_manifest(path: Path, numbers: dict[str, int]) -> list[Recording]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    entries = content.get("data") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f'{path} is no manifest: it must be {{"data": [{{"wav": path, "labels": mids}}, …]}}')
    recordings, seen = [], dict[str, tuple[Path, int]]()
    for place, entry in enumerate(entries, start=1):
        wav, mids = (entry.get("wav"), entry.get("labels")) if isinstance(entry, dict) else (None, None)
        if not isinstance(wav, str) or not isinstance(mids, str) or not wav:
            raise DataError(f'{path}, entry {place}: {brief(entry)} is not {{"wav": path, "labels": mids}}')
        named = [mid.strip() for mid in mids.split(",")]
        unknown = [mid for mid in named if mid not in numbers]
        if unknown:
            raise DataError(
                f"{path}, entry {place} ({shown(wav)}): {brief(unknown[0])} is no mid of the {len(numbers)} in the "
                "table of labels"
            )
        refuse_twice(path, place, wav, seen, called="entry")
        recordings.append(Recording(path.parent / wav, tuple(sorted({numbers[mid] for mid in named})), wav))
    return recordings
