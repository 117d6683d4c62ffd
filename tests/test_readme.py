from __future__ import annotations

import contextlib
import importlib
import io
import re
from pathlib import Path

import pytest
import yaml

README = Path(__file__).parents[1] / "README.md"
PAGES = [README, README.with_name("CONTRIBUTING.md"), *sorted((README.parent / "docs").glob("*.md"))]


def test_the_python_example_runs_as_it_stands() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(blocks[0], str(README), "exec"), {})
    lines = printed.getvalue().splitlines()
    assert re.search(r"\(1\.00 s\): backward 0\.\d+, ", lines[0])
    assert lines[1] == "backward"
    assert "23" in lines[2]
    assert re.fullmatch(r"[\d.]+ M MACs as the paper counts, [\d.]+ M executed", lines[3])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(README.parent).as_posix())
def test_every_file_that_a_page_links_to_or_shows_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def exists(name: str) -> bool:
    """Whether a dotted name is a module of ours or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(README.parent).as_posix())
def test_every_name_in_python_that_a_page_gives_is_there(page: Path) -> None:
    text = re.sub("<!-- table: .*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = set(re.findall(r"(?<![\w/.])spectrim(?:\.[A-Za-z_]\w*)+", text))
    assert sorted(name for name in names if not exists(name)) == []


def pages_of(entries: list[object]) -> list[str]:
    """The pages of a part of mkdocs.yml's nav."""
    found = []
    for entry in entries:
        assert isinstance(entry, dict)
        for value in entry.values():
            found += pages_of(value) if isinstance(value, list) else [value]
    return found


def test_the_site_lists_every_page_once() -> None:
    docs = README.parent / "docs"
    site = yaml.safe_load((README.parent / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [page.relative_to(docs).as_posix() for page in docs.rglob("*.md")]
    from_the_root = ["start.md", "contributing.md"]  # README and CONTRIBUTING: docs_site.py
    assert sorted(pages_of(site["nav"])) == sorted(pages + from_the_root)
