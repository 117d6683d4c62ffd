"""What becomes of the patches that a block does not keep. A reducer is one file here and one entry in `REDUCERS`.

A reducer replaces the tokens of a block by fewer. `Drop` needs no attention output of what it drops, so it goes first;
others attend first, with every token, and then reduce; `DynamicViT` asks weights of its own before it attends at all.
Which order a block takes is the reducer's to say.
"""

from __future__ import annotations

from spectrim.pruning.plan import Reducer
from spectrim.pruning.reducers.cluster import Cluster
from spectrim.pruning.reducers.drop import Drop, Keep, ReferenceDrop
from spectrim.pruning.reducers.dynamicvit import DynamicViT
from spectrim.pruning.reducers.fuse import Fuse
from spectrim.pruning.reducers.merge import Merge
from spectrim.pruning.reducers.pitome import Pitome

REDUCERS: dict[str, Reducer] = {
    "drop": Drop(),
    "fuse": Fuse(),
    "merge": Merge(),
    "pitome": Pitome(),
    "cluster": Cluster(),
    "dynamicvit": DynamicViT(),
}
"""The reducers, by the name that `spectrim.Pruning` calls them."""

__all__ = ["REDUCERS", "Cluster", "Drop", "DynamicViT", "Fuse", "Keep", "Merge", "Pitome", "Reducer", "ReferenceDrop"]
