"""The page itself, in Gradio, and the server behind it. Nothing is fetched from elsewhere and nothing is reported."""

from __future__ import annotations

import dataclasses
import html
import ipaddress
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spectrim.app.showing import Shown, Stretch, show, take_stretch
from spectrim.errors import AudioError, InvalidSetting, MissingExtra, SpectrimError, printable
from spectrim.inference.torch_model import TorchModel
from spectrim.pruning.criteria import CRITERIA
from spectrim.pruning.pruning import Pruning, criterion_with
from spectrim.pruning.reducers import REDUCERS
from spectrim.pruning.words import CRITERION_WORDS, REDUCER_WORDS

NO_REPORTS = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'none'"
)
"""The browser fetches nothing from elsewhere, whatever the page says."""

LOWEST_RATE = 0.05

STYLE = """
.gradio-container {max-width: 72rem !important; margin: 0 auto !important;}
.spectrim-table {width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums;}
.spectrim-table th, .spectrim-table td {padding: .25rem .5rem; text-align: right; border: 0;
  border-bottom: 1px solid var(--border-color-primary);}
.spectrim-table th:first-child, .spectrim-table td:first-child {text-align: left; overflow-wrap: anywhere;}
.spectrim-table {border: 0 !important;}
.spectrim-table div {height: .5rem; border-radius: 2px; background: #8a4fc0; margin-left: auto;}
.spectrim-page {width: 100%; height: 40rem; border: 0; display: block;}
.spectrim-error {color: #c0143c; font-weight: 600;}
.dark .spectrim-error {color: #ff8fa3;}
"""

FIT = (
    "const frame = this, fit = () => { frame.style.height = frame.contentDocument.body.offsetHeight + 90 + 'px'; }; "
    "fit(); new ResizeObserver(fit).observe(frame.contentDocument.body);"
)
"""Makes the frame as high as the page in it."""

INTRODUCTION = """# What does the model listen to?
Drop a sound, or speak. The model cuts its picture of the sound into patches, keeps those that seem to matter and leaves
out the others, so that it answers faster. Move the slider, and see and hear what is kept."""


def serve(
    model: TorchModel,
    name: str,
    pruning: Pruning,
    host: str = "127.0.0.1",
    port: int = 7860,
    tell: Callable[[str], object] = lambda line: None,
) -> None:
    """Serve the page until Ctrl-C. Sounds that are given to it are gone afterwards.

    Args:
        model: what listens.
        name: what it is called.
        pruning: the operating point at first.
        host: address to listen at.
        port: to listen at; 0 for any that is free.
        tell: called with lines for the user.

    Raises:
        MissingExtra: Gradio is not installed.
        InvalidSetting: the operating point does not go with the model, or the address cannot be had.
        KeyboardInterrupt: after Ctrl-C, once the server has stopped.
    """
    model.config.check_pruning(pruning)
    os.environ.update(NO_REPORTS)
    try:
        import gradio
        import uvicorn
    except ImportError as error:
        raise MissingExtra("gradio", "app", "spectrim app") from error
    import socket

    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    with listener, tempfile.TemporaryDirectory(prefix="spectrim-app-") as folder:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidSetting(
                "host and port", f"{host}:{port}", f"a free address of this machine ({reason})"
            ) from error
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(gradio, model, name, pruning, Path(folder))
        address = f"[{host}]" if ":" in host else host
        tell(f"http://{address}:{listener.getsockname()[1]}/ (Ctrl-C ends it)")
        if not is_loopback(host):
            tell(
                f"warning: {host} can be reached from other machines: whoever reaches it can use this page, without a "
                "password, and what they send is not encrypted"
            )
        options = {"log_level": "critical", "timeout_graceful_shutdown": 1}
        uvicorn.Server(uvicorn.Config(_application(gradio, page), **options)).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _application(gradio: Any, page: Any) -> Any:
    """What the server runs: the page, with `POLICY` on every answer."""
    from fastapi import FastAPI

    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    application.add_middleware(_Guard)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gradio.mount_gradio_app(
        application,
        page,
        path="/",
        footer_links=[],
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        show_error=False,
        theme=gradio.themes.Default(primary_hue="purple", **fonts),
        css=STYLE,
    )


class _Guard:
    """Puts `POLICY` on every answer of an ASGI application."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                said = ((b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer"))
                message = {**message, "headers": [*message.get("headers", ()), *said]}
            await send(message)

        await self.app(scope, receive, guarded)


def choices(model: TorchModel) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Criteria and reducers that the model has: what each does, in words, and its name; its own criterion first."""
    own = model.config.resolved_criterion
    classless = model.config.extra_tokens == 0
    there = [name for name, criterion in CRITERIA.items() if not (classless and criterion.reads == "class")]
    names = [own, *(name for name in there if name != own)]
    criteria = [(CRITERION_WORDS.get(name, CRITERIA[name].help), name) for name in names]
    encoder = model.config.encoder
    reducers = [
        (REDUCER_WORDS.get(name, reducer.help), name)
        for name, reducer in REDUCERS.items()
        if (encoder.predictors or reducer.reads != "predictor") and not (encoder.placed and reducer.blends)
    ]
    return criteria, reducers


def build(gradio: Any, model: TorchModel, name: str, pruning: Pruning, folder: Path) -> Any:
    """The page as Gradio's blocks."""
    update = Updater(model, name, pruning, folder)
    criteria, reducers = choices(model)
    rates = set(pruning.rates.values()) or {1.0}
    with gradio.Blocks(analytics_enabled=False, title="Spectrim", delete_cache=(600, 3600)) as page:
        gradio.Markdown(INTRODUCTION)
        stretch = gradio.State(None)
        with gradio.Row():
            with gradio.Column(min_width=280):
                sound = gradio.Audio(
                    sources=["upload", "microphone"], type="filepath", label="Sound", buttons=[], editable=False
                )
                start = gradio.Number(
                    0, minimum=0, label="From second", info="Of a sound that is longer than the model hears."
                )
                rate = gradio.Slider(
                    LOWEST_RATE,
                    1.0,
                    value=max(LOWEST_RATE, min(rates)),
                    step=0.05,
                    label="Share of the patches kept",
                    info=f"At each stage: blocks {', '.join(map(str, pruning.at)) or '(none)'} of the model.",
                )
                criterion = gradio.Dropdown(
                    criteria, value=model.config.criterion_of(pruning), label="Keep first, ranked by"
                )
                reducer = gradio.Dropdown(reducers, value=pruning.reducer, label="And the others")
            with gradio.Column(min_width=280):
                notes = gradio.HTML(said(()))
                numbers = gradio.HTML("")
        picture = gradio.HTML("")
        inputs, outputs = [stretch, sound, start, rate, criterion, reducer], [stretch, notes, numbers, picture]
        events = [sound.change, start.change, rate.change, criterion.change, reducer.change]
        gradio.on(
            events,
            update,
            inputs,
            outputs,
            trigger_mode="always_last",
            show_progress="minimal",
            api_visibility="private",
        )
    return page


class Updater:
    """Answers every change of the page.

    Args:
        model: what listens.
        name: what it is called.
        pruning: what the page does not ask for.
        folder: for sounds while they are shown; afterwards nothing is left there.
    """

    def __init__(self, model: TorchModel, name: str, pruning: Pruning, folder: Path) -> None:
        self.model, self.name, self.pruning, self.folder = model, name, pruning, folder

    def __call__(
        self,
        known: tuple[str, float, Stretch] | None,
        sound: str | None,
        start: float | None,
        rate: float,
        criterion: str,
        reducer: str,
    ) -> tuple[tuple[str, float, Stretch] | None, str, str, str]:
        """The stretch to remember, and three pieces of HTML: notes, numbers, and the page of `spectrim.explain`.

        Args:
            known: what this gave before: sound, start and stretch.
            sound: a file; None for none.
            start: second at which the stretch begins, about.
            rate: share of the patches kept at each stage.
            criterion: what ranks them.
            reducer: what becomes of the others.
        """
        if sound is None:
            return None, said(()), "", ""
        start = start or 0.0
        try:
            if known is None or known[:2] != (sound, start):
                known = sound, start, take_stretch(sound, self.model, start)
            pruning, left_out = chosen_pruning(self.pruning, rate, criterion, reducer)
            shown = show(known[2], self.model, pruning, self.name, self.folder)
        except AudioError as error:
            return None, said([f"{printable(Path(sound).name)} {error.reason}"], wrong=True), "", ""
        except (SpectrimError, OSError) as error:
            return known, said([str(error)], wrong=True), "", ""
        notes = [*known[2].notes, *(left_out if rate < 1.0 else ())]
        return known, said(notes), numbers_table(shown), framed(shown.page)


def chosen_pruning(base: Pruning, rate: float, criterion: str, reducer: str) -> tuple[Pruning, list[str]]:
    """The operating point that is chosen on the page, and a note on each choice or setting that it leaves out.

    Args:
        base: what the page does not ask for; what of it cannot go with the choices gives way to them.
        rate: share of the patches kept at each stage.
        criterion: what ranks them, unless the reducer ranks otherwise.
        reducer: what becomes of the others.
    """
    ranking = criterion_with(criterion, reducer)
    notes = []
    if REDUCERS[reducer].reads != "scores":
        notes.append("The ranking is not used: this goes by other things.")
    elif ranking != criterion:
        notes.append("The ranking is by attention: so are the others weighed.")
    forbidden = {
        "time_segments": REDUCERS[reducer].reads != "scores",
        "attention_mass": reducer != "drop" or criterion_with(ranking, reducer, base.attention_mass) != ranking,
        "reference_compat": reducer != "drop" or not (ranking in CRITERIA and CRITERIA[ranking].wrong_gather),
    }
    usual = Pruning()
    given_up = [name for name, wrong in forbidden.items() if wrong and getattr(base, name) != getattr(usual, name)]
    notes += [
        f"The model's own {name} ({getattr(base, name)}) does not go with this and is left out." for name in given_up
    ]
    changes = {name: getattr(usual, name) for name in given_up}
    return dataclasses.replace(base, keep_rate=rate, criterion=ranking, reducer=reducer, **changes), notes


def said(lines: tuple[str, ...] | list[str], wrong: bool = False) -> str:
    """Lines for the user as HTML."""
    kind = ' class="spectrim-error" role="alert"' if wrong else ""
    return "".join(f"<p{kind}>{html.escape(line)}</p>" for line in lines) or "<p>No sound yet.</p>"


def framed(page: str) -> str:
    """A page within the page."""
    return (
        f'<iframe class="spectrim-page" title="What is kept, stage by stage" onload="{html.escape(FIT)}" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )


def numbers_table(shown: Shown) -> str:
    """Labels, MACs and milliseconds, dense and pruned side by side, as HTML."""
    cells = []
    for row in shown.labels:
        bars = "".join(
            f'<td>{row[kind]:.3f}<div style="width: {100 * min(max(row[kind], 0.0), 1.0):.1f}%"></div></td>'
            for kind in ("dense", "pruned")
        )
        cells.append(f"<tr><td>{html.escape(printable(row['label']))}</td>{bars}</tr>")
    dense, pruned = (shown.macs[kind] for kind in ("dense", "pruned"))
    unit, name = (1e9, "G") if dense >= 1e9 else (1e6, "M")
    cells.append(f"<tr><td>Work ({name} MACs)</td><td>{dense / unit:.2f}</td><td>{pruned / unit:.2f}</td></tr>")
    times = "".join(f"<td>{shown.milliseconds[kind]:.1f}</td>" for kind in ("dense", "pruned"))
    cells.append(f"<tr><td>Time (ms, model alone, median of {shown.repeats})</td>{times}</tr>")
    head = "<tr><th>Label</th><th>all patches (dense)</th><th>kept ones (pruned)</th></tr>"
    return f'<table class="spectrim-table"><thead>{head}</thead><tbody>{"".join(cells)}</tbody></table>'
