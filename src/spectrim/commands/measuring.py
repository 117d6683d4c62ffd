"""``spectrim benchmark`` and ``spectrim info``."""

from __future__ import annotations

from typing import Annotated

import typer

from spectrim.commands.common import FormatOption, ModelOption, ProgressOption, check_form, numbers, plainly
from spectrim.errors import InvalidSetting, one_of


@plainly
def benchmark(
    model: ModelOption = "spectrim-mini",
    keep_rates: Annotated[str, typer.Option(help="Separated by commas; each in (0, 1].")] = "1.0,0.7,0.5",
    batch_sizes: Annotated[str, typer.Option(help="Separated by commas.")] = "1,8",
    repeats: Annotated[int, typer.Option(help="Timed passes of each case.")] = 20,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    form: FormatOption = "table",
    progress: ProgressOption = None,
) -> None:
    """Count MACs, and time the model at several keep rates side by side."""
    check_form(form)
    rates, sizes = numbers("keep-rates", keep_rates, float), numbers("batch-sizes", batch_sizes, int)
    from spectrim.benchmark import run
    from spectrim.checkpoints import from_pretrained
    from spectrim.terminal import as_json, error_console, facts_table, out_console, rows_csv, rows_table, stage_progress

    with stage_progress(error_console(progress), progress) as tell:
        result = run(
            from_pretrained(model), rates, sizes, repeats=repeats, device=device,
            on_round=lambda done, total: tell("time", done, total),
        )  # fmt: skip
    if form == "csv":
        facts = {"model": model, **{name: value for name, value in result.items() if name != "rows"}}
        print(rows_csv(result["rows"], facts), end="")
    elif form == "json":
        print(as_json({"model": model, **result}), end="")
    else:
        out = out_console()
        out.print(rows_table(result["rows"]))
        out.print(facts_table({"model": model, "repeats": repeats, **result["environment"]}))


@plainly
def info(
    source: Annotated[str | None, typer.Argument(help="A checkpoint; none: this installation.")] = None,
    form: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Describe a checkpoint, or what the package holds and how it was made."""
    if form not in ("table", "json"):
        raise InvalidSetting("format", form, one_of(("table", "json")))
    from spectrim.terminal import as_json, facts_table, out_console

    if source is not None:
        from spectrim.checkpoints import describe

        facts = {source: describe(source)}
    else:
        from spectrim.about import about_package

        facts = about_package()
    if form == "json":
        print(as_json(facts if source is None else facts[source]), end="")
        return
    out = out_console()
    for title, content in facts.items():
        out.print(title, style="bold underline", markup=False)
        out.print(facts_table(content))
