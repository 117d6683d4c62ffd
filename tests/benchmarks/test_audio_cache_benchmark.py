"""`benchmarks/audio_cache.py` on two clips: what is kept, and figures that fit each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from benchmark_scripts import run_script


def test_what_is_compressed_is_kept(tmp_path: Path) -> None:
    for number in range(2):
        noise = 0.1 * np.random.default_rng(number).standard_normal(22050)
        soundfile.write(tmp_path / f"{number}.ogg", noise, 22050)
    code, out, _ = run_script("audio_cache.py", tmp_path, "--repeats", 2, "--json", tmp_path / "out.json")
    found = json.loads(out)
    assert (code, found["clips"]) == (0, 2)
    for ending in ("mp3", "flac"):
        assert found[ending]["cache_megabytes"] > 2 * 16000 * 4 / 1e6
        assert (
            found[ending]["kept_ms"]["least"] <= found[ending]["kept_ms"]["median"] <= found[ending]["kept_ms"]["most"]
        )
    assert found["wav"]["cache_megabytes"] == 0
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert run_script("audio_cache.py", tmp_path / "nothing")[0] == 1
