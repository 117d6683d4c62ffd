"""Names and descriptions of others in cards and reports, as markdown-it-py reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from spectrim.pictures.markdown import code_block, code_span, plain_markdown, without_html
from spectrim.pictures.report import Report

EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[dog](javascript:alert(1))",
    "![x](http://x/y.png)",
    "*ast* _b_ **c**",
    "a `b` ``c``",
    "a\n# b",
    "a | b",
    "&lt;b&gt;",
    "```\n<b>",
    "\x1b[31m",
    "<javascript:x>",
]


def html(markdown: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(markdown)


@given(st.text(st.sampled_from(list("ab`*_[]()<>|&;#!\\\\ /:")), min_size=1, max_size=12))
def test_any_name_is_shown_as_it_is(text: str) -> None:
    name = " ".join(f"x{text}x".split())
    for markdown, tag in ((plain_markdown(name), None), (code_span(name), "code"), (code_block(name), "code")):
        (block,) = [token for token in MarkdownIt("commonmark").parse(markdown) if token.content]
        children = block.children if block.children is not None else [block]
        assert "".join(child.content for child in children).rstrip("\n") == name
        assert all(child.type in ("text", "text_special", "code_inline", "fence") for child in children), tag


@pytest.mark.parametrize("text", EVIL)
def test_no_name_makes_tags_or_links_in_a_report(tmp_path: Path, text: str) -> None:
    report = Report(text, tmp_path)
    report.heading(text)
    report.text(text)
    report.items([text])
    report.table(["a", "b"], [[text, "1"]])
    report.command(text)
    for page in (html(report.markdown()), report.html().partition("<body>")[2]):
        assert not any(raw in page for raw in ("<script", "<img", "<a ", "<b>", "\x1b"))
    assert "<a " not in html(without_html(text))
