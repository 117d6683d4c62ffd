from __future__ import annotations

import os

import torch
from hypothesis import settings

# The same examples every time, and no deadline: tests must not fail because a machine is slow.
settings.register_profile("spectrim", deadline=None, derandomize=True)
settings.load_profile("spectrim")

# Where there is no GPU, Triton's interpreter runs its kernels on the CPU; Triton reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
