from __future__ import annotations

import inspect
import signal
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import soundfile
from command_line import rows_of, run

from spectrim.cli.app import COMMANDS, DATA_COMMANDS
from spectrim.cli.common import INPUTS, OUTPUTS, ended_like_ctrl_c

FOLDERS_MADE = {"cache_dir", "events", "explain"}
WORDS = {
    *("address", "aggregate", "backbones", "backend", "batch_sizes", "cache", "change", "clusters", "criterion"),
    *("dataset", "device", "drop_at", "engine", "events_as", "folds", "form", "host", "keep_rates", "label", "methods"),
    *("name", "padding", "part", "precision", "prune_at", "reducer", "run", "scale", "seeds", "shard_size"),
    *("speed_of", "stages", "stride", "study", "threshold"),
}


def test_every_option_with_text_is_a_word_or_an_input_or_an_output() -> None:
    found = set()
    for command in (*COMMANDS, *DATA_COMMANDS):
        for name, kind in get_type_hints(inspect.unwrap(command)).items():
            text, path = ("str" in str(kind), "Path" in str(kind))
            found |= {name} if text or path else set()
            assert not path or name not in WORDS, name
    assert sorted(found) == sorted([*INPUTS, *OUTPUTS, *FOLDERS_MADE, *WORDS])


def test_a_word_that_a_file_is_called_by_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", 0.3 * np.sin(np.arange(16000)), 16000)
    for word, options in {"csv": [], "cpu": ["--device", "cpu"], "mean": ["--aggregate", "mean"]}.items():
        Path(word).write_text("")
        code, _, said = run("predict", "a.wav", "--workers", 1, "--format", "csv", *options, "-o", word)
        assert code == 0, said
        assert {row["file"] for row in rows_of(Path(word).read_text())} == {"a.wav"}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_request_to_end_interrupts_as_ctrl_c_does(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), ended_like_ctrl_c():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)
        with ended_like_ctrl_c():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)
