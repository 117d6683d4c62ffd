"""Throughput of AST-B and AudioMAE-B: eager, as CUDA graphs, compiled; and from waveforms on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpu_sections.common import BACKBONES, Setting, add_ratios, captured, error_of, passing, row
from spectrim.audio.frontend import Frontend
from spectrim.audio.normalisation import NORMALISATIONS
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer

COMPILED_BATCH = 32
"""Each shape is compiled on its own, which takes minutes: so one batch size."""
END_TO_END_BATCHES = (1, 32)


def eager(setting: Setting) -> dict[str, Any]:
    """Every backbone, batch and keep rate, operation by operation."""
    return _over_batches(setting, setting.batches, _as_it_is)


def graphs(setting: Setting) -> dict[str, Any]:
    """The same as CUDA graphs."""
    setting.needs_cuda()
    return _over_batches(setting, setting.batches, captured)


def compiled(setting: Setting) -> dict[str, Any]:
    """`torch.compile`, one graph a keep rate, and on a GPU captured as a CUDA graph after that.

    A keep rate that does not begin in time is left out.
    """
    options: dict[str, Any] = {"mode": setting.compile_mode} if setting.compile_mode else {"backend": "eager"}
    batch = COMPILED_BATCH if COMPILED_BATCH in setting.batches else setting.batches[-1]

    def prepare(model: AudioTransformer) -> Callable[..., Any]:
        return torch.compile(model, fullgraph=True, dynamic=False, **options)

    torch.compiler.reset()
    found = _over_batches(setting, (batch,), captured if setting.is_cuda else _as_it_is, prepare)
    torch.compiler.reset()
    return {"options": options, **found}


def _as_it_is(call: Callable[[Tensor], Tensor], values: Tensor) -> Callable[[Tensor], Tensor]:
    return call


def _over_batches(
    setting: Setting,
    batches: tuple[int, ...],
    way: Callable[[Callable[[Tensor], Tensor], Tensor], Callable[[Tensor], Tensor]],
    prepare: Callable[[AudioTransformer], Callable[..., Any]] | None = None,
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    skipped = []
    for batch in batches:
        for backbone in BACKBONES:
            if setting.late():
                skipped.append(f"{backbone}, batch {batch}")
            else:
                rows += _interleaved(setting, backbone, batch, way, prepare)
    return {"rows": add_ratios(rows, ("backbone", "batch_size")), "skipped_for_time": skipped}


def _interleaved(
    setting: Setting,
    backbone: str,
    batch: int,
    way: Callable[[Callable[[Tensor], Tensor], Tensor], Callable[[Tensor], Tensor]],
    prepare: Callable[[AudioTransformer], Callable[..., Any]] | None,
) -> list[dict[str, Any]]:
    """Rows of one backbone and batch: all keep rates in turn, AudioMAE's also without the fused kernel.

    ``difference_from_eager``, where a way is not eager, is that of its logits from the eager ones;
    ``difference_from_plain``, where the kernel makes the scores, from the eager ones without it. In half precision that
    is more than rounding: patches whose scores nearly tie change places.
    """
    model = setting.model(backbone)
    values, fresh = (setting.spectrograms(model, batch, seed) for seed in (0, 1))
    runs: dict[tuple[float, bool], Callable[[Tensor], Tensor]] = {}
    differences: dict[tuple[float, bool], dict[str, float]] = {}
    for rate in setting.rates:
        scored = backbone == "audiomae" and rate < 1.0
        for plain in (False, True) if scored else (False,):
            if setting.late():
                continue
            runs[rate, plain] = way(passing(prepare(model) if prepare else model, rate, plain), values)
            others = {"difference_from_eager": plain} if prepare or way is not _as_it_is else {}
            others |= {"difference_from_plain": True} if scored and not plain else {}
            logits = runs[rate, plain](fresh)
            differences[rate, plain] = {
                name: error_of(logits, passing(model, rate, without)(fresh)) for name, without in others.items()
            }
    seconds = setting.clock({case: partial(run, fresh) for case, run in runs.items()})
    return [
        {
            "backbone": backbone,
            "batch_size": batch,
            "keep_rate": rate,
            "plain": plain,
            **differences[rate, plain],
            **row(setting, times, batch, macs(model, keep_rate=rate).executed),
        }
        for (rate, plain), times in seconds.items()
    ]


def end_to_end(setting: Setting) -> dict[str, Any]:
    """Waveforms → logits with the front end on the device, and its part alone."""
    rows: list[dict[str, Any]] = []
    skipped = []
    for backbone in BACKBONES:
        for batch in [size for size in END_TO_END_BATCHES if size in setting.batches] or setting.batches[:1]:
            if setting.late():
                skipped.append(f"{backbone}, batch {batch}")
                continue
            rows += _from_waveforms(setting, setting.model(backbone), batch)
    return {
        "what": "waveforms on the device that fill every frame → logits; 'front end, samples checked' is "
        "Frontend.forward, which reads the extremes of every clip back and so cannot be captured",
        "front_end_difference_from_cpu": _front_end_difference(setting),
        "rows": rows,
        "skipped_for_time": skipped,
    }


def _waveforms(frontend: Frontend, batch: int) -> Tensor:
    """Noise as long as the frames reach, (batch, samples)."""
    samples = frontend.samples
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))


def _spectrograms_of(frontend: Frontend, frames: Tensor, waveforms: Tensor) -> Tensor:
    with torch.inference_mode():
        return frontend.normalise(frontend.log_mel(waveforms), frames).input_values


def _front_end_difference(setting: Setting) -> float:
    frontend = Frontend(max_length=setting.frames, **NORMALISATIONS["audioset"]._asdict())
    waveforms = _waveforms(frontend, 2)
    here = frontend(waveforms).input_values
    return float((frontend.to(setting.device)(waveforms.to(setting.device)).input_values.cpu() - here).abs().max())


def _from_waveforms(setting: Setting, model: AudioTransformer, batch: int) -> list[dict[str, Any]]:
    frontend = Frontend.from_config(model.config).to(setting.device)
    waveforms = _waveforms(frontend, batch).to(setting.device)
    frames = torch.full((batch,), setting.frames, dtype=torch.int64, device=setting.device)
    spectrograms = partial(_spectrograms_of, frontend, frames)
    values = spectrograms(waveforms)
    cases: dict[tuple[str, float | None, str], Callable[[], object]] = {
        ("front end, samples checked", None, "eager"): partial(frontend, waveforms),
        ("front end", None, "eager"): partial(spectrograms, waveforms),
    }
    if setting.is_cuda:
        cases["front end", None, "graph"] = partial(captured(spectrograms, waveforms), waveforms)
    for rate in setting.rates:
        model_alone = passing(model, rate)

        def both(samples: Tensor, to_logits: Callable[[Tensor], Tensor] = model_alone) -> Tensor:
            return to_logits(spectrograms(samples))

        for what, call, given in (("model", model_alone, values), ("waveforms to logits", both, waveforms)):
            cases[what, rate, "eager"] = partial(call, given)
            if setting.is_cuda:
                cases[what, rate, "graph"] = partial(captured(call, given), given)
    counts = {rate: macs(model, keep_rate=rate).executed for rate in setting.rates}
    return [
        {
            "backbone": "ast" if model.config.extra_tokens == 2 else "audiomae",
            "batch_size": batch,
            "what": what,
            "keep_rate": rate,
            "way": way,
            **row(setting, times, batch, counts.get(rate, 0)),
        }
        for (what, rate, way), times in setting.clock(cases).items()
    ]
