from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spectrim import machine


@pytest.mark.parametrize(("cores", "workers"), [(None, 1), (1, 1), (2, 1), (3, 2), (5, 4), (64, 4)])
def test_a_few_processes_decode_and_leave_the_model_a_core(
    cores: int | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert machine.core_count() == (cores or 1)
    assert machine.default_workers() == workers


def test_processes_are_counted_as_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (machine.is_main_process(), machine.process_count()) == (True, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (machine.is_main_process(), machine.process_count()) == (False, 2)


def test_the_environment_names_machine_and_versions() -> None:
    found = machine.environment()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["device"] == "cpu"
    assert machine.environment("cpu", "no-such-package")["versions"] == {**found["versions"], "no-such-package": None}


def test_the_processor_is_named_without_a_proc_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setattr(machine, "platform", SimpleNamespace(processor=lambda: "", machine=lambda: "arm64"))
    assert machine._processor() == "arm64"
