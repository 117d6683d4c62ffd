"""What this installation holds, and how it was made."""

from __future__ import annotations

import json
from typing import Any

from spectrim import __version__
from spectrim.checkpoints import describe
from spectrim.explain.demo import DEMO_CLIPS, packaged_clips
from spectrim.machine import environment

MODEL = DEMO_CLIPS.parent / "spectrim-mini"
RECORDS = {"training of spectrim-mini": MODEL / "training.json", "making of the clips": DEMO_CLIPS / "synthesis.json"}
"""What was written down when the things in the package were made."""


def about_package() -> dict[str, dict[str, Any]]:
    """Versions, the model in the package and the clips, and how both were made; title → facts."""
    facts: dict[str, dict[str, Any]] = {"installation": {"spectrim": __version__, **environment()}}
    if MODEL.is_dir():
        facts["spectrim-mini"] = describe("spectrim-mini")
    if DEMO_CLIPS.is_dir():
        clips = packaged_clips()
        labels = sorted({str(label) for _, label in clips})
        facts["clips"] = {"folder": str(DEMO_CLIPS), "clips": len(clips), "labels": labels}
    for title, record in RECORDS.items():
        if record.is_file():
            facts[title] = json.loads(record.read_text())
    return facts
