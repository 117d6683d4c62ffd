"""Criteria and reducers in words for people who do not know the field's."""

from __future__ import annotations

import re

from spectrim.pruning.criteria import CRITERIA
from spectrim.pruning.reducers import REDUCERS

CRITERION_WORDS = {
    "cls_attention": "how much the answer looks at a patch",
    "cls_weighted_norm": "how much the answer takes from a patch",
    "cls_head_median": "how much most parts of the model look at a patch",
    "cls_without_sinks": "how much the answer looks at a patch that has something to say",
    "cls_attention_so_far": "how much the answer has looked at a patch so far",
    "value_norm": "how much a patch has to say",
    "mean_attention": "how much the other patches look at a patch",
    "mean_attention_so_far": "how much the other patches have looked at a patch so far",
    "intensity": "loudness",
    "variation": "how much the sound changes inside a patch",
    "random": "chance (a fixed draw)",
    "regular": "an even pattern, whatever the sound",
}
"""Criterion → what ranks a patch high. One without an entry is called by its `Criterion.help`."""

REDUCER_WORDS = {
    "drop": "leave the others out",
    "fuse": "melt the others into one",
    "merge": "join patches that are alike",
    "pitome": "join patches of which there are many alike",
    "cluster": "put patches into groups",
    "dynamicvit": "leave out what trained predictors say",
}
"""Reducer → what becomes of the patches that are not kept. One without an entry is called by its `Reducer.help`."""


OTHER_WORDS = {
    "attention": "the paper's ranking: how much attention a patch gets",
    "dense": "the model as it is, with every patch",
}
"""Names beside these in tables, and what they stand for."""

NAMES = {**CRITERION_WORDS, **REDUCER_WORDS, **OTHER_WORDS}
"""All of them."""


def criterion_words(name: str) -> str:
    """What a criterion ranks by, with its name in brackets."""
    return f"{CRITERION_WORDS.get(name, CRITERIA[name].help)} ({name})"


def reducer_words(name: str) -> str:
    """What a reducer does, with its name in brackets."""
    return f"{REDUCER_WORDS.get(name, REDUCERS[name].help)} ({name})"


def names_in_cell(text: str) -> list[str]:
    """Names of methods in a cell of a table such as ``value_norm/8+merge``; none where it says something else too."""
    parts = [part for part in re.split(r"[\s,;:/+]+", text) if part]
    names = [part for part in parts if part in NAMES]
    return names if all(part in NAMES or part.isdecimal() for part in parts) else []


def names_in_text(text: str) -> list[str]:
    """Names of methods in a sentence; only those that are no words of the language."""
    return [part for part in re.findall(r"[a-z]+(?:_[a-z]+)+", text) if part in NAMES]
