"""What `make full-size` runs and `make test` does not: the same question once more, at a price."""

from __future__ import annotations

import os

import pytest
from plain import BACKBONES

full_size = pytest.mark.skipif(
    "SPECTRIM_FULL_SIZE" not in os.environ, reason="takes long; run it with SPECTRIM_FULL_SIZE=1"
)

ONE_BACKBONE = (BACKBONES[0], *(pytest.param(name, marks=full_size) for name in BACKBONES[1:]))
"""For what compiles or exports a model, where the other backbone adds little: `network/test_transformer_compile.py` and
`inference/test_onnx_export.py` ask both."""
