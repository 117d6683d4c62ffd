"""Every public name has an example, and it gives what it says."""

from __future__ import annotations

import doctest
import inspect

import numpy as np
import pytest
import torch

import spectrim
from spectrim.assets import packaged_clips

KNOWN = {"spectrim": spectrim, "np": np, "torch": torch, "packaged_clips": packaged_clips}


@pytest.mark.filterwarnings("ignore:.*does not say with which mean")
@pytest.mark.parametrize("name", spectrim.__all__)
def test_the_examples_of_a_public_name_run(name: str) -> None:
    public = getattr(spectrim, name)
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=inspect.isclass(public))
    found = [test for test in finder.find(public, name, globs=dict(KNOWN)) if test.examples]
    assert any(test.name == name for test in found), f"{name} has no example"
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in found:
        said: list[str] = []
        runner.run(test, out=said.append)
        assert said == []
