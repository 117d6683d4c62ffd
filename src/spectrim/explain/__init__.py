"""Explain one clip: the patches that a model keeps after each stage, as pictures and as sound."""

from spectrim.explain.clip import Explanation, explain_clip
from spectrim.explain.folder import explain, write_explanation

__all__ = ["Explanation", "explain", "explain_clip", "write_explanation"]
