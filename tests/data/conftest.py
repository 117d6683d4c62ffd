from __future__ import annotations

from pathlib import Path

import pytest
from tones import write_tone

from spectrim.data.speech_commands import WORDS


@pytest.fixture
def speech_commands(tmp_path: Path) -> Path:
    """Two training clips of each word, one validation and one test clip of "yes" and "no", and what is no class."""
    root = tmp_path / "speech_commands"
    for number, word in enumerate(WORDS):
        for k in range(2):
            write_tone(root / word / f"aaaaaaaa_nohash_{k}.wav", 200 + 10 * number + k)
    for word in ("yes", "no"):
        write_tone(root / word / "bbbbbbbb_nohash_0.wav", 300)
        write_tone(root / word / "cccccccc_nohash_0.wav", 400)
    (root / "validation_list.txt").write_text("yes/bbbbbbbb_nohash_0.wav\nno/bbbbbbbb_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("yes/cccccccc_nohash_0.wav\nno/cccccccc_nohash_0.wav\n")
    write_tone(root / "_background_noise_" / "pink_noise.wav")
    (root / "README.md").write_text("x")
    (root / "yes" / ".DS_Store").write_text("x")
    return root
