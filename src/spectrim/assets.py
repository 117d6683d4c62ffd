"""What the package carries: two models, demonstration clips, AudioSet's label table, the template of a page."""

from __future__ import annotations

from pathlib import Path

from spectrim.errors import DataError
from spectrim.tables import read_class_labels, read_rows

ASSETS = Path(__file__).with_name("assets")
EMBEDDED = "spectrim-mini"
"""Name by which `spectrim.from_pretrained` loads the embedded model; commands take it unless another is named."""

WORDS_ONLY = "spectrim-words"
"""That of a model that knows synthesised voices only: the start of the study on real recordings, whose test speakers it
may not have heard."""

EMBEDDED_MODELS = {name: ASSETS / name for name in (EMBEDDED, WORDS_ONLY)}
"""Name → folder, as ``save_pretrained`` writes it, with ``training.json``, the record of its training."""

KNOWS = {
    EMBEDDED: "40 Arabic words of human voices, 35 English words of synthesised ones, ten kinds of sound and silence",
    WORDS_ONLY: "35 English words of synthesised voices",
}
"""What an embedded model can name; it takes all else for one of these."""

DEMO_CLIPS = ASSETS / "demo"
"""Held-out clips, ``labels.csv`` with the columns path, label, voice, and ``synthesis.json``, how they were made."""

AUDIOSET_LABELS = ASSETS / "audioset_labels.csv"
STAGES_PAGE = ASSETS / "explain" / "stages.html"
"""Jinja template of the page that ``spectrim explain`` writes."""

RECORDS = {
    **{f"training of {name}": folder / "training.json" for name, folder in EMBEDDED_MODELS.items()},
    "making of the clips": DEMO_CLIPS / "synthesis.json",
}
"""How the embedded models and the clips were made, as JSON."""


def packaged_clips() -> list[tuple[Path, str | None]]:
    """Demonstration clips, by voices that no embedded model was trained on, and their labels.

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
