"""What the package carries: the embedded model, demonstration clips, AudioSet's label table, the template of a page."""

from __future__ import annotations

from pathlib import Path

from spectrim.errors import DataError
from spectrim.tables import read_class_labels, read_rows

ASSETS = Path(__file__).with_name("assets")
EMBEDDED = "spectrim-mini"
"""The name by which `spectrim.from_pretrained` loads the embedded model."""

EMBEDDED_MODEL = ASSETS / EMBEDDED
"""Its folder, as ``save_pretrained`` writes it, with ``training.json``, the record of its training."""

DEMO_CLIPS = ASSETS / "demo"
"""Held-out clips, ``labels.csv`` with the columns path, label, voice, and ``synthesis.json``, how they were made."""

AUDIOSET_LABELS = ASSETS / "audioset_labels.csv"
STAGES_PAGE = ASSETS / "explain" / "stages.html"
"""Jinja template of the page that ``spectrim explain`` writes."""

RECORDS = {
    "training of spectrim-mini": EMBEDDED_MODEL / "training.json",
    "making of the clips": DEMO_CLIPS / "synthesis.json",
}
"""How the embedded model and the clips were made, as JSON."""


def packaged_clips() -> list[tuple[Path, str | None]]:
    """Demonstration clips, by voices that "spectrim-mini" was not trained on, and their labels.

    Raises:
        DataError: the installation has none.
    """
    table = DEMO_CLIPS / "labels.csv"
    if not table.is_file():
        raise DataError(f"{DEMO_CLIPS}: this installation holds no demonstration clips; name audio files instead")
    return [(DEMO_CLIPS / row["path"], row["label"]) for _, row in read_rows(table, ("path", "label"))]


def audioset_classes() -> dict[str, str]:
    """Mid → display name of AudioSet's 527 labels (Gemmeke et al., 2017), in the order of their index."""
    return read_class_labels(AUDIOSET_LABELS)
