from __future__ import annotations

import pytest

from spectrim.data import DATA_SETS
from spectrim.metrics import METRICS


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
