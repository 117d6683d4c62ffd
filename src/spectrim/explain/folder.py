"""Write an explanation into a folder: pictures, sounds, page, arrays and numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spectrim.errors import InvalidSetting, utf8_text
from spectrim.explain.clip import ExplainedWindow, Explanation, Rate, check_clip, explain_clip
from spectrim.explain.page import change_rows, stages_page
from spectrim.explain.sound import SOUNDS, sounds_beside, stage_sounds
from spectrim.files import file_beside, refuse_input, write_json, write_text
from spectrim.inference.results import Scores
from spectrim.inference.torch_model import TorchModel
from spectrim.machine import resolve_device
from spectrim.network.transformer import AudioTransformer
from spectrim.pictures.kept_patches import LABELS_SHOWN, explain_picture
from spectrim.pictures.score_maps import score_maps_picture
from spectrim.pruning.criteria import AUTO
from spectrim.pruning.reducers import REDUCERS

NUMBERS = "explain.json"
"""The file by which a folder of an earlier run is known: no sound gets its name before it is there."""

Progress = Callable[[str, int, int], object]
"""Called with the name of the stage, how much of it is done, and how much there is, as far as is known."""


def explain(
    clip: str | os.PathLike[str],
    model: AudioTransformer | str | os.PathLike[str] = "spectrim-mini",
    *,
    keep_rate: Rate | None = None,
    output: str | Path = "spectrim-explain",
    windows: int = 8,
    device: str = "auto",
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Explain what a model keeps of one clip, as pictures, sound, a page and numbers; ``docs/explain.md`` lists them.

    Every file appears whole or not at all; those of an earlier run are replaced. Nothing is written before the clip has
    been decoded to its end.

    Args:
        clip: any audio file, of any length. Windows are cut as `spectrim.predict` does by default.
        model: a model in memory, or what `spectrim.from_pretrained` takes.
        keep_rate: share of the patches kept at each pruning block, in (0, 1]: one number or one a block; None as the
            model says.
        output: folder; made if needed.
        windows: how many windows are drawn and run through each stage apart, the first ones. Labels and sound are for
            all.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        on_progress: called with ``"windows"`` or ``"write"``, how much is done, how much there is.

    Returns:
        What is in ``explain.json``.

    Raises:
        InvalidSetting: a setting is out of range, the clip is no file, or ``output`` is one, or holds sounds by the
            names of `SOUNDS` that are the clip, or that no earlier run made; before any work.
        CheckpointError: the model cannot be loaded; likewise.
        AudioError: the clip cannot be used; nothing is written.
        OSError: a file cannot be written.
    """
    check_clip(clip)
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise InvalidSetting("output", str(folder), "a folder, or a name that is still free")
    _check_sounds(folder, clip)
    target = resolve_device(device)
    report_progress = on_progress or _no_progress
    if isinstance(model, AudioTransformer):
        backend, name = TorchModel(model, device=target), ""
    else:
        backend, name = TorchModel.load(model, device=device), utf8_text(str(model))
    explanation = explain_clip(
        clip,
        backend,
        keep_rate=keep_rate,
        windows=windows,
        name=name,
        on_window=lambda done: report_progress("windows", done, done + 1),
    )
    report_progress("windows", len(explanation.windows), len(explanation.windows))
    return write_explanation(explanation, folder, report_progress)


def write_explanation(
    explanation: Explanation, folder: Path, report_progress: Progress | None = None
) -> dict[str, Any]:
    """Write everything; see `explain`.

    Returns:
        What is in ``explain.json``.

    Raises:
        AudioError: the clip cannot be decoded any more.
        OSError: a file cannot be written.
    """
    report_progress = report_progress or _no_progress
    folder.mkdir(parents=True, exist_ok=True)
    total = len(explanation.detailed) + 2
    pictures, maps = [], []
    for done, window in enumerate(explanation.detailed):
        report_progress("write", done, total)
        overview, scores = _draw(explanation, window, folder)
        pictures.append(overview)
        maps.append(scores)
    report_progress("write", total - 2, total)
    files = [*(path.name for pair in zip(pictures, maps, strict=True) for path in pair), "stages.html", *SOUNDS]
    content = numbers(explanation)
    with sounds_beside(explanation, folder) as energy:
        sounds = stage_sounds(explanation)
        report_progress("write", total - 1, total)
        write_text(folder / "stages.html", stages_page(explanation, sounds, energy, maps))
        _write_arrays(explanation, folder / "arrays.npz")
        content["sound"] = {
            "sampling_rate": explanation.config.sampling_rate,
            "kept_energy": energy,
            "kept_energy_of_stages": [sound.kept_energy for sound in sounds[1:]] or None,
        }
        content["files"] = [*files, "arrays.npz", NUMBERS]
        write_json(folder / NUMBERS, content)
    report_progress("write", total, total)
    return content


def _check_sounds(folder: Path, clip: str | os.PathLike[str]) -> None:
    """Refuse a folder in which the sounds would replace the clip, or sounds of somebody else."""
    for name in SOUNDS:
        refuse_input(folder / name, [clip])
        if (folder / name).exists() and not (folder / NUMBERS).exists():
            allowed = f"a folder without {name}, which would be replaced; beside that of an earlier run lies {NUMBERS}"
            raise InvalidSetting("output", str(folder), allowed)


def numbers(explanation: Explanation) -> dict[str, Any]:
    """What is known of the clip, for JSON; ``docs/explain.md`` says what each number is."""
    config, reducer = explanation.config, explanation.config.reducer
    return {
        "clip": utf8_text(explanation.clip),
        "seconds": explanation.seconds,
        "note": explanation.note,
        "model": explanation.model,
        "backbone": config.backbone,
        "criterion": config.resolved_criterion if REDUCERS[reducer].reads == "scores" else AUTO,
        "reducer": reducer,
        "grid": list(config.grid),
        "stages": [
            {
                "name": stage.name,
                "block": stage.block,
                "keep_rate": stage.keep_rate,
                "patches_in": sum(int(window.kept[number].sum()) for window in explanation.windows),
                "patches_kept": sum(int(window.kept[number + 1].sum()) for window in explanation.windows),
                "tokens": sum(window.tokens[number + 1] for window in explanation.windows),
            }
            for number, stage in enumerate(explanation.stages)
        ],
        "labels": _label_rows(explanation, explanation.dense, explanation.pruned),
        "windows": [
            {
                "start": window.start,
                "end": window.end,
                "frames": window.num_frames,
                "patches": [int(state.sum()) for state in window.kept],
                "tokens": window.tokens,
                "labels": _label_rows(explanation, window.dense, window.pruned),
                "changes": None if window.detail is None else change_rows(explanation, window),
            }
            for window in explanation.windows
        ],
    }


def _label_rows(explanation: Explanation, dense: Scores, pruned: Scores) -> list[dict[str, Any]]:
    """The best labels of the dense and of the pruned model, with both scores."""
    return [
        {"label": explanation.labels[label], "dense": float(dense[label]), "pruned": float(pruned[label])}
        for label in explanation.shown_labels(dense, pruned, LABELS_SHOWN)
    ]


def _draw(explanation: Explanation, window: ExplainedWindow, folder: Path) -> tuple[Path, Path]:
    """The two pictures of a window: ``overview.png`` and ``scores.png``, with the second it starts at if not 0."""
    detail = window.detail
    if detail is None:
        raise ValueError("this window has no detail")
    config = explanation.config
    place = f".at-{window.start:08.2f}s" if window.start else ""
    title = f"{utf8_text(Path(explanation.clip).name)}  {window.start:.2f}–{window.end:.2f} s"
    order = np.argsort(-window.pruned, kind="stable")[:LABELS_SHOWN]
    best = [(explanation.labels[int(label)], float(window.pruned[label])) for label in order]
    overview = explain_picture(
        detail.log_mel, detail.pictured, config, best, title, window.num_frames, folder / f"overview{place}.png"
    )
    scores = score_maps_picture(detail.scores, config, title, window.num_frames, folder / f"scores{place}.png")
    return overview, scores


def _write_arrays(explanation: Explanation, path: Path) -> None:
    """Write the kept patches of every window and the scores of those that are drawn; whole or not at all."""
    shape = (0, explanation.config.num_hidden_layers, *explanation.config.grid)
    scores = [window.detail.scores for window in explanation.windows if window.detail is not None]
    with file_beside(path) as beside, beside.open("wb") as file:
        np.savez_compressed(
            file,
            kept=np.stack([window.kept for window in explanation.windows]),
            scores=np.stack(scores) if scores else np.zeros(shape, dtype=np.float32),
        )


def _no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress."""
