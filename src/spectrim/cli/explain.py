"""``spectrim explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrim.cli.common import (
    CriterionOption,
    FormatOption,
    FramesOption,
    ModelOption,
    ProgressOption,
    ReducerOption,
    StrideOption,
    check_form,
    named_model,
    plainly,
    put,
)
from spectrim.errors import InvalidSetting, shown_name


@plainly
def explain(
    clips: Annotated[list[str], typer.Argument(metavar="CLIP", help="One audio file, of any format and length.")],
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    frames: FramesOption = None,
    keep_rate: Annotated[float | None, typer.Option(help="Share of patches to keep, in (0, 1].")] = None,
    criterion: CriterionOption = None,
    reducer: ReducerOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all of it.")] = Path("spectrim-explain"),
    windows: Annotated[int, typer.Option(min=0, help="Windows to draw, of a clip that has more.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    form: FormatOption = "table",
    progress: ProgressOption = None,
) -> None:
    """Show, and make audible, what a model keeps of one clip, stage by stage.

    Writes pictures, the sound of what is kept and of what is dropped, a page that steps through the stages, numbers.
    """
    check_form(form)
    source = named_model(model, stride, frames, criterion, reducer)
    if len(clips) != 1:
        raise InvalidSetting("CLIP", " ".join(clips), "one file; call it once for each")
    from spectrim.cli.terminal import (
        as_json,
        complain,
        error_console,
        out_console,
        rows_csv,
        rows_table,
        stage_progress,
    )
    from spectrim.explain import explain as explain_file
    from spectrim.files import sole_writer
    from spectrim.pruning.reducers import REDUCERS

    console = error_console(progress)
    with sole_writer(output), stage_progress(console, progress) as tell:
        content = explain_file(
            clips[0],
            source,
            keep_rate=keep_rate,
            output=output,
            windows=windows,
            device=device,
            on_progress=tell,
        )
    if content["note"] is not None:
        complain(console, f"{shown_name(clips[0])}: {content['note']}")
    facts = {name: content[name] for name in ("clip", "model", "seconds", "criterion", "reducer")}
    if form == "json":
        put(as_json(content), end="")
    elif form == "csv":
        put(rows_csv(content["labels"], facts), end="")
    else:
        out = out_console()
        out.print(rows_table(content["labels"], label=str, dense="{:.3f}".format, pruned="{:.3f}".format))
        for stage in content["stages"]:
            out.print("{name}: {patches_kept} of {patches_in} patches kept".format(**stage), markup=False)
        out.print(f"energy kept: {content['sound']['kept_energy']:.1%}")
        if REDUCERS[content["reducer"]].blends:
            tokens = ", ".join(str(stage["tokens"]) for stage in content["stages"])
            out.print(f"patches that are not kept go on in other tokens: reducer {content['reducer']}, {tokens} tokens")
        for file in content["files"]:
            out.print(str(output / file), markup=False)
