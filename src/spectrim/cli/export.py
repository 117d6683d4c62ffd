"""``spectrim export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrim.cli.common import ModelOption, ProgressOption, StrideOption, named_model, numbers, plainly, put
from spectrim.errors import InvalidSetting, one_of
from spectrim.pruning.criteria import AUTO, CRITERIA
from spectrim.pruning.reducers import REDUCERS


@plainly
def export(
    output: Annotated[Path, typer.Argument(help="File to write, ending in .onnx.")],
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    keep_rate: Annotated[float | None, typer.Option(help="Share of patches to keep, in (0, 1].")] = None,
    criterion: Annotated[
        str | None, typer.Option(help=f"What ranks the patches: {', '.join((AUTO, *CRITERIA))}.")
    ] = None,
    prune_at: Annotated[str | None, typer.Option(help="Blocks, from 0, separated by commas.")] = None,
    reducer: Annotated[str | None, typer.Option(help=f"What becomes of the others: {', '.join(REDUCERS)}.")] = None,
    time_segments: Annotated[
        int | None, typer.Option(help="Equal parts of a clip along time, of which each keeps its share.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of 10 ms that the graph takes.")] = None,
    front_end: Annotated[bool, typer.Option("--front-end", help="Take waveforms, not log-mel spectrograms.")] = False,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    form: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    progress: ProgressOption = None,
) -> None:
    """Write a model at one keep rate as an ONNX file, and compare it with PyTorch on real clips.

    Any batch size, pruning inside the graph, labels and settings in the metadata.
    """
    if form not in ("table", "json"):
        raise InvalidSetting("format", form, one_of(("table", "json")))
    from dataclasses import asdict

    from spectrim.checkpoints import from_pretrained
    from spectrim.cli.terminal import as_json, error_console, facts_table, out_console, stage_progress
    from spectrim.files import sole_writer
    from spectrim.inference.onnx_export import check_settings
    from spectrim.inference.onnx_export import export as write

    check_settings(output, precision)
    blocks = None if prune_at is None else numbers("prune-at", prune_at, int)
    network = from_pretrained(
        named_model(model, stride, None),
        keep_rate=keep_rate,
        criterion=criterion,
        prune_at=blocks,
        reducer=reducer,
        time_segments=time_segments,
        frames=frames,
    )
    with sole_writer(output), stage_progress(error_console(progress), progress) as tell:
        exported = write(network, output, front_end=front_end, precision=precision, on_step=tell)
    facts = asdict(exported)
    parity = facts.pop("parity")
    if form == "json":
        put(as_json({**facts, "parity": parity}), end="")
        return
    ties = parity.pop("ties")
    named = [f"clip {tie['clip']}, block {tie['block']}, patches {tie['patches']}" for tie in ties]
    out_console().print(facts_table({**facts, **parity, "ties": "; ".join(named) or "none"}))
