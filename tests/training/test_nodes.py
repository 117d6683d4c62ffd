"""Whether processes see the same; that two which do go on is in test_training_processes.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectrim.data import Recording
from spectrim.data.dataset import clips_digest
from spectrim.errors import DataError, InvalidSetting
from spectrim.training.nodes import refuse_apart


def test_processes_must_see_the_run_and_the_same_clips() -> None:
    clips = [Recording(Path("a.wav"), (0,), "a"), Recording(Path("b.wav"), (1,), "b")]
    digests = [clips_digest(some) for some in (clips, clips[::-1], [Recording(Path("x/a.wav"), (0,), "a"), clips[1]])]
    refuse_apart(Path("run"), [(True, digests[0]), (True, digests[2])])
    with pytest.raises(DataError, match="process 1 has other clips than process 0: --data must hold the same on every"):
        refuse_apart(Path("run"), [(True, digests[0]), (True, digests[1])])
    with pytest.raises(InvalidSetting, match="a folder that all nodes share; process 2 does not see what process 0"):
        refuse_apart(Path("run"), [(True, "a"), (True, "a"), (False, "a")])
