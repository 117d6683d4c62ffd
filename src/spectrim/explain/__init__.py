"""One clip explained: what a model keeps of it, stage by stage, to see and to hear."""

from spectrim.explain.clip import Explanation, explain_clip
from spectrim.explain.folder import explain, write_explanation

__all__ = ["Explanation", "explain", "explain_clip", "write_explanation"]
