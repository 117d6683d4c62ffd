from __future__ import annotations

from hypothesis import settings

# The same examples every time, and no deadline: tests must not fail because a machine is slow.
settings.register_profile("spectrim", deadline=None, derandomize=True)
settings.load_profile("spectrim")
