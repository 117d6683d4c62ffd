"""Reports: headings, text, tables, figures and commands, written as one HTML page that stands alone and as Markdown.

The page is made from the parts and not from the Markdown: with markdown-it-py it takes ten times as long, and a name
such as ``*ast*`` turns into markup (benchmarks/hand_written.py).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment
from matplotlib.figure import Figure

from spectrim.errors import printable
from spectrim.files import write_text
from spectrim.pictures.figures import save_figure
from spectrim.pictures.markdown import code_block, without_html
from spectrim.pruning.words import NAMES, names_in_cell, names_in_text

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1a1a1a; --ground: #fff; --quiet: #555; --line: #ddd; --edge: #888;
  --code: #f4f4f4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ec; --ground: #17171b; --quiet: #adadb8; --line: #3b3b44; --edge: #80808c; --code: #232329; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--ground); overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
th { border-bottom: 2px solid var(--edge); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--ground); }
figure { margin: 1.5rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--quiet); font-size: 0.9rem; margin-top: 0.4rem; }
pre { background: var(--code); padding: 0.7rem; overflow-x: auto; font-size: 0.85rem; border-radius: 6px; }
.wide { overflow-x: auto; }
.names { color: var(--quiet); font-size: 0.9rem; }
.names b { color: var(--ink); }
@media (max-width: 40rem) {
  h1 { font-size: 1.5rem; }
  ul { padding-left: 1.2rem; }
  th, td { padding: 0.25rem 0.5rem; }
  td.words { white-space: normal; min-width: 8rem; }
  th:first-child, td:first-child { max-width: 40vw; }
  figure img { max-width: max(100%, 40rem); }
}
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for block in blocks %}
{%- if block.kind == "heading" %}<h{{ block.level }}>{{ block.text }}</h{{ block.level }}>
{%- elif block.kind == "text" %}<p>{{ block.text }}</p>
{%- elif block.kind == "names" %}<p class="names">{% for name, words in block.rows %}<b>{{ name }}</b>: {{ words }}
{%- if not loop.last %}; {% endif %}{% endfor %}.</p>
{%- elif block.kind == "list" %}<ul>{% for item in block.rows %}<li>{{ item }}</li>{% endfor %}</ul>
{%- elif block.kind == "command" %}<pre>{{ block.text }}</pre>
{%- elif block.kind == "table" %}<div class="wide"><table><thead><tr>{% for cell in block.columns %}<th>{{ cell }}</th>
{%- endfor %}</tr></thead><tbody>
{%- for row in block.rows %}<tr>{% for cell in row %}<td{% if cell|length > 24 %} class="words"{% endif %}>
{{- cell }}</td>{% endfor %}</tr>
{%- endfor %}</tbody></table></div>
{%- elif block.kind == "figure" %}<figure><div class="wide">
<img alt="{{ block.text }}" width="{{ block.width }}" src="{{ block.data }}"></div>
<figcaption>{{ block.text }}</figcaption></figure>
{%- endif %}
{% endfor %}
</body>
</html>
"""


@dataclass(frozen=True)
class _Block:
    kind: str
    text: str = ""
    level: int = 2
    columns: Sequence[str] = ()
    rows: Sequence[Any] = ()
    name: str = ""
    data: str = ""
    width: int = 0


@dataclass
class Report:
    """A report that is put together from top to bottom and then written.

    Args:
        title: of the page.
        folder: where it goes: ``report.html``, ``report.md`` and ``figures/``.
    """

    title: str
    folder: Path
    _blocks: list[_Block] = field(default_factory=list, init=False)

    def heading(self, text: str, level: int = 2) -> None:
        """Add a heading; the title has level 1."""
        self._blocks.append(_Block("heading", text, level))

    def text(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._blocks.append(_Block("text", text))

    def items(self, items: Sequence[str]) -> None:
        """Add a list of points."""
        self._blocks.append(_Block("list", rows=list(items)))

    def command(self, text: str) -> None:
        """Add command lines."""
        self._blocks.append(_Block("command", text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table; cells are written as they print."""
        self._blocks.append(_Block("table", columns=list(columns), rows=[[str(cell) for cell in row] for row in rows]))

    def figure(self, name: str, figure: Figure, caption: str) -> None:
        """Add a figure, and write it as ``figures/name.svg`` and ``.png``; the page holds the smaller of the two."""
        place = self.folder / "figures"
        place.mkdir(parents=True, exist_ok=True)
        written = [place / f"{name}.{ending}" for ending in ("svg", "png")]
        for path in written:
            save_figure(figure, path)
        smaller = min(written, key=lambda path: path.stat().st_size)
        kind = {".svg": "svg+xml", ".png": "png"}[smaller.suffix]
        data = f"data:image/{kind};base64,{base64.b64encode(smaller.read_bytes()).decode()}"
        self._blocks.append(_Block("figure", caption, name=name, data=data, width=round(96 * figure.get_figwidth())))

    def write(self) -> Path:
        """Write both forms; returns the path of the HTML."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "report.md", self.markdown())
        write_text(self.folder / "report.html", self.html())
        return self.folder / "report.html"

    def html(self) -> str:
        """The report as one HTML page that stands alone; figures as data."""
        template = Environment(autoescape=True, finalize=_shown).from_string(PAGE)
        return template.render(title=self.title, blocks=self._named())

    def _named(self) -> list[_Block]:
        """The blocks, with what the names of methods in them mean above the first heading."""
        names: dict[str, str] = {}
        for block in self._blocks:
            cells = [cell for row in block.rows for cell in row] if block.kind == "table" else []
            texts = [*(block.rows if block.kind == "list" else ()), block.text if block.kind != "command" else ""]
            found = [*(names_in_cell(cell) for cell in cells), *(names_in_text(text) for text in texts)]
            names |= {name: NAMES[name] for part in found for name in part}
        if not names:
            return self._blocks
        place = next((at for at, block in enumerate(self._blocks) if block.kind == "heading"), len(self._blocks))
        return [*self._blocks[:place], _Block("names", rows=list(names.items())), *self._blocks[place:]]

    def markdown(self) -> str:
        """The report as Markdown; figures by their files."""
        parts = [f"# {without_html(self.title)}"]
        for block in self._named():
            if block.kind == "heading":
                parts.append(f"{'#' * block.level} {without_html(block.text)}")
            elif block.kind == "text":
                parts.append(without_html(block.text))
            elif block.kind == "names":
                parts.append("; ".join(f"**{name}**: {words}" for name, words in block.rows) + ".")
            elif block.kind == "list":
                parts.append("\n".join(f"* {without_html(item)}" for item in block.rows))
            elif block.kind == "command":
                parts.append(code_block(block.text))
            elif block.kind == "table":
                lines = [block.columns, ["---", *("--:" for _ in block.columns[1:])], *block.rows]
                parts.append("\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines))
            else:
                caption = without_html(block.text)
                parts.append(f"![{caption}](figures/{block.name}.png)\n\n{caption}")
        return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class Frame:
    """What stands around the results of a study in its report.

    Attributes:
        title: of the report.
        introduction: what was done, a paragraph each.
        command: the command line that made it.
        missing: names of steps that are not done.
        steps: how many there are in all.
    """

    title: str
    introduction: Sequence[str]
    command: str
    missing: Sequence[str]
    steps: int

    def begin(self, folder: Path) -> Report:
        """A report in a folder, with all that stands above the results."""
        report = Report(self.title, folder)
        if self.missing:
            done = self.steps - len(self.missing)
            report.text(f"Not finished: {done} of {self.steps} steps are done. What is missing stands below.")
        for paragraph in self.introduction:
            report.text(paragraph)
        report.command(self.command)
        return report

    def end(self, report: Report) -> Path:
        """Add what is missing, and write the report; returns the path of the HTML."""
        report.heading("What is missing")
        if self.missing:
            report.text(f"{len(self.missing)} steps of the plan are not done:")
            report.items(self.missing)
        else:
            report.text("Nothing: every step of the plan is done.")
        return report.write()


def _shown(value: object) -> object:
    """A value for the page: text without control characters; pictures are left alone."""
    return printable(value) if isinstance(value, str) and not value.startswith("data:") else value


def _cell(text: str) -> str:
    return without_html(text).replace("|", "\\|")
