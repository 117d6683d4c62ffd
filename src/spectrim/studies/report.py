"""Results of a study: rows of its trained models, and the report of the steps finished so far."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectrim.analysis.ablations import RANKINGS
from spectrim.backbones import BUILDERS
from spectrim.config import SpectrimConfig
from spectrim.files import write_json
from spectrim.machine import environment
from spectrim.network.macs import macs
from spectrim.pictures.report import Frame
from spectrim.studies.keep_rates import write_study
from spectrim.studies.rankings import write_rankings
from spectrim.studies.runner import Step

KEEP_RATES_STUDY, RANKINGS_STUDY = "keep-rates", "rankings"
STUDIES = (KEEP_RATES_STUDY, RANKINGS_STUDY)
TITLES = {KEEP_RATES_STUDY: "Token pruning in audio transformers", RANKINGS_STUDY: "What to rank patches by"}

INTRODUCTIONS = {
    (KEEP_RATES_STUDY, "mini"): (
        "Token pruning (Lee & Lee, ECAI 2025) drops the spectrogram patches with the lowest attention scores after "
        "blocks 3, 6 and 9. The paper claims that AST and AudioMAE, fine-tuned so, need 30 to 40 % fewer "
        "multiply-accumulates (MACs) and lose less than one point.",
        "This is the experiment in miniature: models of 12 blocks and width 64, on data sets of synthesised sounds and "
        "speech. It shows how the method behaves, not what it does to published models on real recordings. AST was "
        "pre-trained with labels and AudioMAE by masking, both on the AudioSet miniature; each was then fine-tuned, "
        "dense and with its keep rate annealed to each of those below. Training-free means: the dense fine-tuned model "
        "itself, pruned at test time.",
        "Runs of one recipe, fold and seed are one run up to the epoch where the keep rate begins to fall. From there "
        "on the pruned ones see all patches that their keep rate leaves, while the dense one keeps its masking and "
        "augmentations to the end, as in the paper: a pruned model can gain from that alone. Keep rate 0.999 is the "
        "control: it keeps every patch here, and ends masking and augmentations as the pruned runs do.",
    ),
    (KEEP_RATES_STUDY, "full"): (
        "The paper's recipes (Lee & Lee, ECAI 2025) on its data sets, from the published weights: fine-tuned dense and "
        "with the keep rate annealed to each of those below. Training-free means: the dense fine-tuned model itself, "
        "pruned at test time.",
    ),
    (RANKINGS_STUDY, "mini"): (
        "Token pruning (Lee & Lee, ECAI 2025) keeps the spectrogram patches with the highest attention scores. The "
        "paper says that models fine-tuned with patches ranked by intensity or by variation instead, the mean and the "
        "standard deviation of a patch, lose noticeably. Its public code gathers wrongly for these two: it keeps "
        "patches beside the chosen ones and loses the class tokens. So: is the drop there when the gather is right?",
        "This is the experiment in miniature, with models of 12 blocks and width 64 on the ESC-50 miniature, from the "
        "same pre-trained weights as the study of keep rates. Runs of one backbone, fold and seed are one run up to "
        "the epoch where the keep rate begins to fall; from there on they differ in what ranks the patches, and in "
        "nothing else. At random means: anew for each clip in training, one fixed order for all clips in the test. "
        "Keep rate 0.999 is the control: it keeps every patch, and ends masking and augmentations as the pruned runs "
        "do. Training-free means: the dense fine-tuned model itself, pruned at test time.",
    ),
    (RANKINGS_STUDY, "full"): (
        "The paper's ESC-50 recipes (Lee & Lee, ECAI 2025) from the published weights, with patches ranked by "
        "attention, by intensity, by variation, at random, and by intensity with the wrong gather of the paper's "
        "public code. Keep rate 0.999 is the control: it keeps every patch, and ends masking and augmentations as the "
        "pruned runs do. Training-free means: the dense fine-tuned model itself, pruned at test time.",
    ),
}


def collect(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Results of the finished cells.

    Returns:
        One row a cell and tested keep rate: backbone, data, recipe, seed, fold, ranking, trained_keep_rate, keep_rate,
        metric, value, training_clips, test_clips, paper_macs, executed_macs, base_fewer_macs, the share of the
        MACs that the keep rate saves in a model of the recipe's builder as it stands (ViT-B), and chance, the accuracy
        of guessing (None for mAP). The dense model's rows
        below 1 are training-free pruning.
    """
    rows = []
    for step in steps:
        if step.cell is None or not step.done.exists():
            continue
        cell = step.cell
        results = json.loads((cell.folder / "results.json").read_text(encoding="utf-8"))
        written = json.loads((cell.folder / "model" / "config.json").read_text(encoding="utf-8"))
        config = SpectrimConfig.from_dict(written)
        base = BUILDERS[f"{cell.backbone}-base"](
            max_length=config.max_length, num_labels=config.num_labels, prune_at=config.prune_at
        )
        for ranking, rate, value in _tested(step, results):
            count = macs(SpectrimConfig.from_dict({**written, **RANKINGS[ranking]}), keep_rate=rate)
            saved = 1.0 - macs(base, keep_rate=rate).paper / macs(base, keep_rate=1.0).paper
            rows.append(
                {
                    **{name: getattr(cell, name) for name in ("backbone", "data", "recipe", "seed", "fold")},
                    "ranking": ranking,
                    "trained_keep_rate": cell.keep_rate,
                    "keep_rate": rate,
                    **{name: results[name] for name in ("metric", "training_clips", "test_clips")},
                    "value": value,
                    "paper_macs": count.paper,
                    "executed_macs": count.executed,
                    "base_fewer_macs": saved,
                    "chance": 1.0 / config.num_labels if results["metric"] == "accuracy" else None,
                }
            )
    return rows


def _tested(step: Step, results: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Ranking, keep rate and metric of every test of a step's model."""
    cell = step.cell
    if cell is None:
        return []
    if not cell.training_free:
        return [(cell.ranking, float(rate), value) for rate, value in results["test"].items()]
    ablations = json.loads(step.done.read_text(encoding="utf-8"))["ablations"]
    return [(row["criterion"], row["keep_rate"], row["value"]) for row in ablations if row["ablation"] == "criterion"]


def plan_rows(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """A row for each step of a plan: step, done, macs, command, and missing, the inputs that are not there."""
    return [
        {
            "step": step.name,
            "done": step.done.exists(),
            "macs": step.macs,
            "command": step.command,
            "missing": [str(path) for path in step.missing],
        }
        for step in steps
    ]


def masked_pretraining(out: Path) -> dict[str, Any] | None:
    """Results of AudioMAE's pre-training in a miniature study, None before it is finished."""
    results = out / "pretrained" / "audiomae" / "results.json"
    return json.loads(results.read_text(encoding="utf-8")) if results.is_file() else None


def report_folder(out: Path, study: str) -> Path:
    """Where the report of a study goes that is run in ``out``."""
    return out if study == KEEP_RATES_STUDY else out / study


def write_report(
    steps: Sequence[Step],
    out: Path,
    *,
    scale: str,
    quick: bool = False,
    study: str = KEEP_RATES_STUDY,
    runs: Path | None = None,
) -> Path:
    """Write ``rows.json``, ``report.html``, ``report.md`` and ``figures/`` of what is done so far.

    Args:
        steps: the plan.
        out: where they go.
        scale: ``"mini"`` or ``"full"``.
        quick: the miniature study is the quick one.
        study: one of `STUDIES`.
        runs: folder in which the plan is run, where it is not ``out``.

    Returns:
        Path of the HTML.
    """
    rows, plan = collect(steps), plan_rows(steps)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "rows.json", {"rows": rows, "steps": plan})
    machine = environment()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    introduction = [
        *INTRODUCTIONS[study, scale],
        f"Report written on {machine['processor']}; {versions}. Each run's environment.json says where it ran.",
    ]
    if quick:
        introduction.insert(0, "This is the quick form: it shows that everything runs. Its accuracies mean nothing.")
    further = {"mini": (), "full": ("--data-root", "DIR", "--weights", "DIR")}[scale]
    chosen = ("--study", study) if study != KEEP_RATES_STUDY else ()
    words = ["spectrim", "reproduce", *chosen, "--scale", scale, *(["--quick"] if quick else []), *further, "OUT"]
    frame = Frame(
        title=f"{TITLES[study]}, {'in miniature' if scale == 'mini' else 'the paper'}",
        introduction=introduction,
        command=shlex.join(words),
        missing=[row["step"] for row in plan if not row["done"]],
        steps=len(plan),
    )
    if study == RANKINGS_STUDY:
        return write_rankings(rows, out, frame)
    masked = masked_pretraining(runs or out) if scale == "mini" else None
    return write_study(rows, out, frame, masked=masked)
