"""``spectrim info``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from spectrim import __version__
from spectrim.cli.common import FramesOption, StrideOption, named_model, plainly, put
from spectrim.errors import InvalidSetting, one_of


@plainly
def info(
    source: Annotated[str | None, typer.Argument(help="A checkpoint; none: this installation.")] = None,
    stride: StrideOption = None,
    frames: FramesOption = None,
    form: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Describe a checkpoint, or what the package holds and how it was made."""
    if form not in ("table", "json"):
        raise InvalidSetting("format", form, one_of(("table", "json")))
    from spectrim.cli.terminal import as_json, facts_table, out_console

    if source is not None:
        from spectrim.checkpoints import describe

        facts = {source: describe(named_model(source, stride, frames))}
    else:
        facts = about_package()
    if form == "json":
        put(as_json(facts if source is None else facts[source]), end="")
        return
    out = out_console()
    for title, content in facts.items():
        out.print(title, style="bold underline", markup=False)
        out.print(facts_table(content))


def about_package() -> dict[str, dict[str, Any]]:
    """Versions, the embedded models and the clips in the package, and how both were made; title → facts."""
    from spectrim.assets import DEMO_CLIPS, EMBEDDED_MODELS, KNOWS, RECORDS, packaged_clips
    from spectrim.checkpoints import describe
    from spectrim.machine import environment

    facts: dict[str, dict[str, Any]] = {"installation": {"spectrim": __version__, **environment()}}
    for name, folder in EMBEDDED_MODELS.items():
        if folder.is_dir():
            facts[name] = {"knows": KNOWS[name], **describe(name)}
    if DEMO_CLIPS.is_dir():
        clips = packaged_clips()
        labels = sorted({str(label) for _, label in clips})
        facts["clips"] = {"folder": str(DEMO_CLIPS), "clips": len(clips), "labels": labels}
    for title, record in RECORDS.items():
        if record.is_file():
            facts[title] = json.loads(record.read_text(encoding="utf-8"))
    return facts
