from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure

from spectrim.pictures.report import Report
from spectrim.pruning.words import NAMES


def test_names_of_methods_are_explained_above_the_first_heading(tmp_path: Path) -> None:
    report = Report("Methods", tmp_path)
    report.text("Ranked by cls_attention.")
    report.heading("Results")
    report.table(["method", "accuracy"], [["value_norm/8+merge", "50.0"], ["dense", "51.0"]])
    report.command("spectrim compare --methods mean_attention")
    for page, name in ((report.markdown(), "**{}**"), (report.html(), "<b>{}</b>")):
        before, _, after = page.partition("Results")
        for method in ("cls_attention", "value_norm", "merge", "dense"):
            assert before.count(name.format(method)) == 1
            assert NAMES[method].replace("'", "&#39;" if "<b>" in name else "'") in before
        assert name.format("mean_attention") not in page
        assert "<b>" not in after
    plain = Report("Nothing to explain", tmp_path)
    plain.text("A drop at random.")
    assert plain.markdown() == "# Nothing to explain\n\nA drop at random.\n"


def test_the_page_has_a_dark_form_and_scrolls_what_is_wide(tmp_path: Path) -> None:
    report = Report("Wide", tmp_path)
    report.figure("one", Figure(figsize=(8.0, 2.0)), "A figure.")
    report.table(["a"], [["1"]])
    page = report.html()
    style = page.partition("<style>")[2].partition("</style>")[0]
    dark = style.partition("prefers-color-scheme: dark")[2]
    assert set(re.findall(r"var\((--\w+)\)", style)) <= set(re.findall(r"(--\w+):", dark))
    body = page.partition("<body>")[2]
    assert len(re.findall(r'<div class="wide">\s*<(img|table)', body)) == len(re.findall("<(img|table)", body)) == 2
    assert 'width="768"' in body
