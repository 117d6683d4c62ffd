"""``spectrim app``."""

from __future__ import annotations

from typing import Annotated

import typer

from spectrim.cli.common import FramesOption, ModelOption, StrideOption, ended_like_ctrl_c, named_model, plainly


@plainly
def app(
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    frames: FramesOption = None,
    keep_rate: Annotated[float | None, typer.Option(help="Share of patches to keep at first, in (0, 1].")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default is for this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any that is free.")] = 7860,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Open a page to try a model: drop a sound or speak, move the keep rate, see and hear what is kept.

    Needs Gradio: pip install 'spectrim\\[app]'. Sends nothing to anyone; sounds are deleted when it ends.
    """
    source = named_model(model, stride, frames)
    from importlib.util import find_spec

    from spectrim.errors import MissingExtra

    if find_spec("gradio") is None:
        raise MissingExtra("gradio", "app", "spectrim app")
    from spectrim.app.page import serve
    from spectrim.cli.tagging import warn_of_embedded
    from spectrim.cli.terminal import complain, error_console
    from spectrim.inference.torch_model import TorchModel

    console = error_console()
    network = TorchModel.load(source, keep_rate=keep_rate, device=device)
    warn_of_embedded(console, model)
    with ended_like_ctrl_c():
        serve(network, model, network.pruning, host, port, lambda line: complain(console, line))
