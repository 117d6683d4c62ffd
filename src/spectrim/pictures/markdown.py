"""Text that others wrote, in Markdown: shown as it is, never taken for markup."""

from __future__ import annotations

import re

from spectrim.errors import printable

_MARKUP = re.compile(r"[\\`*_\[\]<>|&]")


def plain_markdown(text: str) -> str:
    """One line of text, with all that Markdown or HTML would act on escaped."""
    return _MARKUP.sub(r"\\\g<0>", _one_line(text))


def without_html(text: str) -> str:
    """One line of text in which nothing begins a tag, an entity or a link; what is emphasis in Markdown stays."""
    text = _one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("](", "]\\(")


def code_span(text: str) -> str:
    """Text as code in a line, between more backticks than it holds."""
    line = _one_line(text) or " "
    ticks = "`" * (_longest_run(line) + 1)
    blank = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{blank}{line}{blank}{ticks}"


def code_block(text: str, language: str = "") -> str:
    """Lines as a block of code, fenced by more backticks than they hold."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{printable(text)}\n{fence}"


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
