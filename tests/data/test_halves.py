"""Two halves of a data set: as large, labels shared out, and no speaker on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from spectrim.data import AudioDataset
from spectrim.data.dataset import Recording
from spectrim.data.splits import halves
from spectrim.errors import DataError


def part(groups: list[str | None], *, labels: int = 3, several: bool = False) -> AudioDataset:
    recordings = [
        Recording(Path(f"{number}.wav"), (number % labels,), str(number), group) for number, group in enumerate(groups)
    ]
    return AudioDataset(recordings, [f"label {number}" for number in range(labels)], multi_label=several)


@pytest.mark.parametrize("several", [False, True])
def test_a_group_is_on_one_side_only(several: bool) -> None:
    whole = part([f"speaker {number // 6}" for number in range(60)], several=several)
    first, second = halves(whole)
    groups = [{recording.group for recording in half.recordings} for half in (first, second)]
    assert not groups[0] & groups[1]
    assert (len(first), len(second)) == (30, 30)
    assert sorted(recording.id for half in (first, second) for recording in half.recordings) == sorted(
        recording.id for recording in whole.recordings
    )


def test_labels_are_shared_out_where_nothing_is_grouped() -> None:
    first, second = halves(part([None] * 60))
    counts = [Counter(recording.labels for recording in half.recordings) for half in (first, second)]
    assert counts[0] == counts[1] == {(label,): 10 for label in range(3)}


def test_the_same_seed_gives_the_same_halves_and_another_one_others() -> None:
    ids = [[recording.id for recording in halves(part([None] * 60), seed)[0].recordings] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_what_cannot_be_halved_is_refused() -> None:
    with pytest.raises(DataError, match="all of its 6 clips are of one group me"):
        halves(part(["me"] * 6))
    with pytest.raises(DataError, match="one clip"):
        halves(part([None]))
