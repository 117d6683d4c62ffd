from __future__ import annotations

import contextlib
import importlib
import io
import re
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

from spectrim.cli.app import app
from spectrim.training.recipes import Recipe

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RECORDED = ROOT / "tests/reference/README.md"
"""Names files of other people's code, too."""

FURTHER = [RECORDED, *(folder / "README.md" for folder in (ROOT / "src/spectrim/assets").iterdir())]
PAGES = [
    README,
    README.with_name("CONTRIBUTING.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(page for page in FURTHER if page.exists()),
]
of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())

PYTHON = [
    path.relative_to(ROOT).as_posix()
    for folder in ("src", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
]
RECIPES = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = COMMANDS | {f"data {name}": command for name, command in COMMANDS["data"].commands.items()}


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


@of_every_page
def test_every_file_that_a_page_links_to_or_shows_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub("```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@of_every_page
def test_every_anchor_that_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if link[1] not in anchors_of(page.parent / link[0] if link[0] else page)] == []


@of_every_page
def test_every_source_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    python = set(re.findall(r"`(?:python )?([\w/]+\.py)\b", text)) if page != RECORDED else set()
    assert [name for name in python if not any(f"/{path}".endswith(f"/{name}") for path in PYTHON)] == []
    others = set(re.findall(r"(?<![\w/.])(?:docs|recipes|examples|tests|src/spectrim)/[\w/-]+\.\w+", text))
    assert [name for name in others if not (ROOT / name).exists()] == []


def test_every_file_that_the_sources_name_is_there() -> None:
    sources = [*(ROOT / path for path in PYTHON if not path.startswith("tests/")), *(ROOT / "recipes").rglob("*.yaml")]
    named = r"(?<![\w/.])(?:docs/[\w/-]+\.md|(?:tests|benchmarks)/[\w/]+\.py|recipes/[\w/-]+\.yaml)"
    missing = {
        f"{path.name}: {name}"
        for path in sources
        for name in re.findall(named, path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    }
    assert missing == set()


def commands_of(text: str) -> list[str]:
    """The command lines of a page, each from ``spectrim`` on: in blocks, and between backquotes in running text."""
    text = re.sub(r"\\\n|\n +(?=\[--)", " ", text)
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    running = re.sub("```.*?```", "", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall("^    .*", running, flags=re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall("`([^`]+)`", running)]
    found = [re.search(r"(?:^|^\$ |-m )spectrim ([a-z].*)", line.split("  #")[0].strip()) for line in lines + spans]
    return [match[1] for match in found if match]


@of_every_page
def test_every_command_and_option_that_a_page_gives_is_there(page: Path) -> None:
    wrong = []
    for line in commands_of(page.read_text(encoding="utf-8")):
        first, *rest = line.split()
        pair = f"data {rest[0].split('|')[0]}" if first == "data" and rest else first
        name = pair if pair in COMMANDS else first
        if name not in COMMANDS:
            wrong.append(line)
            continue
        known = {option for each in COMMANDS[name].params for option in (*each.opts, *each.secondary_opts)}
        wrong += [f"{name} {option}" for option in re.findall(r"(?<!\S)\[?(--[a-z-]+)", line) if option not in known]
        recipe = re.match("(?:pre)?train ([a-z][a-z0-9-]+)(?= |$)", line)
        wrong += [line] if recipe and recipe[1] not in RECIPES else []
    assert wrong == []


def test_the_rules_name_every_package() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    parts = (ROOT / "src/spectrim").glob("[a-z]*")
    names = [f"`{path.name}/`" if path.is_dir() else f"`{path.name}`" for path in parts if path.suffix != ".typed"]
    assert [name for name in names if name not in table] == []


def test_the_page_on_training_names_every_field_of_a_recipe() -> None:
    named = set()
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    for cell in re.findall(r"^\| (`[^|]*) \|", page, flags=re.MULTILINE):
        first, *others = re.findall("`([^`]+)`", cell)
        section = first.rpartition(".")[0]
        named |= {first, *(f"{section}.{other}" if section else other for other in others)}
    for name, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        missing = {f"{name}.{each}" for each in inner} - named if inner else {name} - named
        assert missing == set()


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


@of_every_page
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


def test_the_citation_is_of_this_version_and_licence() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {name: cited[name] for name in ("version", "license")} == {
        name: project[name] for name in ("version", "license")
    }
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in project["authors"]]
