from __future__ import annotations

import pytest

from spectrim.data import DATA_SETS, find_data_set, frontend_fields
from spectrim.errors import InvalidSetting
from spectrim.measure.metrics import METRICS


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_entry_is_whole(name: str) -> None:
    entry = DATA_SETS[name]
    assert entry.metric is None or entry.metric in METRICS
    assert (entry.metric is None) == (entry.multi_label is None)
    assert (entry.mean is None) == (entry.std is None) == (entry.max_length is None)
    assert entry.std is None or entry.std > 0
    assert entry.max_length is None or entry.max_length % 16 == 0
    assert "bad_share" in entry.options
    if entry.labels is not None:
        assert len(set(entry.labels)) == len(entry.labels)


def test_speech_commands_has_the_published_statistics() -> None:
    entry = DATA_SETS["speech-commands"]
    assert entry.labels is not None
    assert (len(entry.labels), entry.max_length, entry.mean, entry.std) == (35, 128, -6.845978, 5.5654526)
    assert (entry.metric, entry.multi_label) == ("accuracy", False)


def test_the_names() -> None:
    names = "speech-commands spoken-commands esc50 voxceleb1 audioset folder csv"
    assert list(DATA_SETS) == names.split()
    assert find_data_set("esc50") is DATA_SETS["esc50"]
    with pytest.raises(InvalidSetting, match=r"data\.name is 'esc'; allowed: 'esc50', perhaps; one of audioset, csv"):
        find_data_set("esc", "data.name")


def test_the_front_end_is_the_recipes_before_it_is_the_data_sets() -> None:
    own = {"mean": -6.6268077, "std": 5.358466, "max_length": 512}
    assert frontend_fields("esc50", {"hidden_size": 3}) == own
    assert frontend_fields("esc50", {"mean": -1.0, "max_length": 256}) == {**own, "mean": -1.0, "max_length": 256}
    said = {"mean": -5.0, "std": 4.0, "max_length": 128}
    assert frontend_fields("csv", said) == said


@pytest.mark.parametrize("field", ["mean", "std", "max_length"])
@pytest.mark.parametrize("name", ["folder", "csv"])
def test_what_nobody_says_is_asked_for(name: str, field: str) -> None:
    given = {"mean": -5.0, "std": 4.0, "max_length": 128}
    del given[field]
    with pytest.raises(InvalidSetting, match=rf"model\.fields\.{field} is None; .*spectrim data check {name} DIR"):
        frontend_fields(name, given)
