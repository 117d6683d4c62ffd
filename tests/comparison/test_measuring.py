"""What the store keeps of scores, and what is read from the data set each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tone_table import small_model, write_tones

from spectrim import machine
from spectrim.comparison.measuring import Answers, Measuring, identity
from spectrim.comparison.methods import Case
from spectrim.comparison.store import Store
from spectrim.data import DATA_SETS, AudioDataset
from spectrim.inference.opening import open_model
from spectrim.pruning.pruning import Pruning


def test_scores_answers_and_times_are_of_the_versions_that_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = DATA_SETS["csv"].open(write_tones(tmp_path / "tones"), "test", fold=2)
    backend, now = open_model(small_model(), device="cpu"), machine.version_of
    plain = identity(backend, part)
    monkeypatch.setattr(type(backend), "packages", ("onnxruntime",))
    before = identity(backend, part)
    assert plain != before == identity(backend, part)
    for package in ("onnxruntime", "av", "soxr", "spectrim"):
        other = {package: "99.0"}
        monkeypatch.setattr(machine, "version_of", lambda name, other=other: other.get(name) or now(name))
        assert identity(backend, part) != before


def test_groups_are_those_of_the_data_set_though_scores_are_kept(tmp_path: Path) -> None:
    part = DATA_SETS["csv"].open(write_tones(tmp_path / "tones"), "test", fold=2)
    case = Case("dense", 1.0, (Pruning(1.0, (1,)),))
    backend, told = open_model(small_model(), device="cpu"), []

    def answers(clips: AudioDataset) -> Answers:
        store = Store(tmp_path / "out")
        measuring = Measuring({case.title: backend}, clips, store, lambda *one: told.append(one))
        return measuring.answers([case], 8, 0)

    first, scored = answers(part), len(told)
    assert first.groups is None and scored > 0
    named = [replace(one, group=f"s{place % 3}") for place, one in enumerate(part.recordings)]
    grouped = answers(replace(part, recordings=named))
    assert len(told) == scored, "scores were measured anew"
    assert grouped.groups is not None
    np.testing.assert_array_equal(grouped.groups.numbers, np.arange(len(part)) % 3)
    np.testing.assert_array_equal(grouped.scores[case.title, case.points[0]], first.scores[case.title, case.points[0]])
