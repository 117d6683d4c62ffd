"""The paper's experiments as one program: what is to be run, in which order, and running it so that it resumes.

A plan is a list of `spectrim.steps`: command lines of Spectrim, to be run in the folder of the study. The miniature
plan makes its data and starts from random weights; the full one takes the real data and published weights.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrim.analysis.study import CONTROL, write_study
from spectrim.benchmark import environment
from spectrim.config import BUILDERS, SpectrimConfig
from spectrim.counting import macs
from spectrim.data import DATA_SETS
from spectrim.data.miniature import RECORD
from spectrim.data.scenes import scene_labels
from spectrim.errors import InvalidSetting
from spectrim.recipe import Recipe, load_recipe
from spectrim.steps import Cell, Step
from spectrim.training import annealed_keep_rate
from spectrim.whole import write_json

STUDY = "study.json"
"""What a folder is the study of: scale and quick."""

KEEP_RATES = (1.0, CONTROL, 0.9, 0.7, 0.5, 0.3)
"""Keep rates of the miniature study; 1 is the dense model."""

FULL_KEEP_RATES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Those of the paper."""

SEEDS = (12, 34, 56, 78, 90)
"""The paper's seeds for ESC-50."""

INTRODUCTIONS = {
    "mini": (
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
    "full": (
        "The paper's recipes (Lee & Lee, ECAI 2025) on its data sets, from the published weights: fine-tuned dense and "
        "with the keep rate annealed to each of those below. Training-free means: the dense fine-tuned model itself, "
        "pruned at test time.",
    ),
}


@dataclass(frozen=True)
class Miniature:
    """How large the miniature study is.

    Attributes:
        audioset_clips: training clips of the AudioSet miniature.
        esc50_clips: clips of the ESC-50 miniature, over all folds.
        words: training clips of the spoken-commands miniature.
        test_words: test clips of it; half as many validate.
        esc50_runs: (fold, seed) of each run.
        words_seeds: seed of each run.
        keep_rates: to train for.
        changes: recipe → ``field=value`` over it.
    """

    audioset_clips: int = 3000
    esc50_clips: int = 1000
    words: int = 14000
    test_words: int = 2100
    esc50_runs: tuple[tuple[int, int], ...] = ((1, 12), (2, 34), (3, 56))
    words_seeds: tuple[int, ...] = (12,)
    keep_rates: tuple[float, ...] = KEEP_RATES
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


MINI = Miniature()
QUICK_CHANGES = (
    *("optimiser.epochs=2", "schedule.warmup_epochs=0", "pruning.shrink_start=1", "pruning.shrink_epochs=0.5"),
    *("evaluation.first_epoch=2", "evaluation.every_epochs=1"),
)
QUICK = Miniature(
    audioset_clips=80,
    esc50_clips=250,
    words=350,
    test_words=70,
    esc50_runs=((1, 12),),
    words_seeds=(12,),
    keep_rates=(1.0, 0.7),
    changes={
        "ast-as20k-mini": (
            *("optimiser.epochs=1", "schedule.warmup_steps=0", "evaluation.first_epoch=1"),
            "evaluation.test_keep_rates=[1.0, 0.7]",
        ),
        "audiomae-pretrain-mini": ("optimiser.epochs=1", "schedule.warmup_epochs=0"),
        **{f"{b}-{d}-mini": QUICK_CHANGES for b in ("ast", "audiomae") for d in ("esc50", "spc2")},
    },
)
"""Minutes: shows that everything runs; its accuracies mean nothing."""


def miniature_plan(out: Path, size: Miniature) -> list[Step]:
    """The study on data that the project makes: synthesis, two pre-trainings, fine-tuning dense and pruned.

    Args:
        out: where everything goes.
        size: how much of it.
    """
    steps = [
        _synthesis("audioset", out, "--clips", str(size.audioset_clips)),
        _synthesis("esc50", out, "--clips", str(size.esc50_clips)),
        _synthesis(
            "spoken-commands", out, "--clips", str(size.words),
            "--validation-clips", str(size.test_words // 2), "--test-clips", str(size.test_words),
        ),
        *_pretraining(out, size),
    ]  # fmt: skip
    places: list[tuple[str, str, int | None, int]]
    places = [("esc50", "esc50", fold, seed) for fold, seed in size.esc50_runs]
    places += [("spc2", "spoken-commands", None, seed) for seed in size.words_seeds]
    sizes = {"esc50": (size.esc50_clips * 4 // 5, 50), "spoken-commands": (size.words, 35)}
    for short, folder, fold, seed in places:
        for backbone in BACKBONES:
            recipe = f"{backbone}-{short}-mini"
            steps += fine_tuning(
                backbone, folder, recipe, Path("data", folder), out, Path("pretrained", backbone, "model"),
                seed=seed, fold=fold, keep_rates=size.keep_rates, changes=size.changes.get(recipe, ()),
                needs=(f"data {folder}", f"pretrain {backbone}"), size=sizes[folder],
            )  # fmt: skip
    return steps


def _synthesis(name: str, out: Path, *options: str) -> Step:
    folder = Path("data", name)
    arguments = ("data", "synthesize", name, str(folder), *options, "--seed", "0")
    return Step(f"data {name}", arguments, out / folder / RECORD, leftovers=f"data/.{name}.partial-*")


def _pretraining(out: Path, size: Miniature) -> list[Step]:
    """Of AST by labels, whose model is a cell of the study too, and of AudioMAE by masking, whose cost is not known."""
    steps = []
    for backbone, command, recipe, data in (
        ("ast", "train", "ast-as20k-mini", "data/audioset"),
        ("audiomae", "pretrain", "audiomae-pretrain-mini", "data/audioset/audio"),
    ):
        changes, at = size.changes.get(recipe, ()), Path("pretrained", backbone)
        run = (command, recipe, "--data", data, "--output", str(at), "--resume", *_set(changes))
        name, needs = f"pretrain {backbone}", ("data audioset",)
        if command == "pretrain":
            steps.append(Step(name, run, out / at / "model" / "config.json", needs))
            continue
        settings = load_recipe(recipe, changes)
        cost = training_macs(settings, (size.audioset_clips, len(scene_labels())), 0.0, settings.optimiser.epochs)
        cell = Cell(backbone, "audioset", recipe, settings.seed, None, 1.0, out / at)
        steps.append(Step(name, run, out / at / "results.json", needs, macs=cost, cell=cell))
    return steps


def _set(changes: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for change in changes for word in ("--set", change))


BACKBONES = ("ast", "audiomae")
FULL = {
    "esc50": ("esc50", "ESC-50-master", 1600, 50),
    "spc2": ("speech-commands", "speech_commands_v0.02", 84_843, 35),
    "as20k": ("audioset", "audioset", 22_160, 527),
    "vox1": ("voxceleb1", "voxceleb1", 138_361, 1251),
}
"""Short name in recipes → data set, its folder below the data root, training clips and labels of the published set."""

FULL_WEIGHTS = {"ast": "audioset_16_16_0.4422.pth", "audiomae": "pretrained.pth"}
"""Files below the folder of weights: AST's AudioSet checkpoint, AudioMAE's pre-trained one."""


def full_plan(out: Path, data_root: Path, weights: Path, keep_rates: Sequence[float] = FULL_KEEP_RATES) -> list[Step]:
    """The paper's study: its seven recipes at every keep rate; ESC-50 on five folds with five seeds.

    Args:
        out: where runs and report go.
        data_root: holds the data sets, in folders named as in `FULL`.
        weights: holds the checkpoints, named as in `FULL_WEIGHTS`.
        keep_rates: to train for.
    """
    steps = []
    data_root, weights = data_root.absolute(), weights.absolute()
    for backbone, file in FULL_WEIGHTS.items():
        for short, (name, folder, clips, labels) in FULL.items():
            recipe = f"{backbone}-{short}"
            if recipe == "ast-vox1":
                continue
            runs = [(fold, seed) for fold in range(1, 6) for seed in SEEDS] if name == "esc50" else [(None, SEEDS[0])]
            for fold, seed in runs:
                steps += fine_tuning(
                    backbone, name, recipe, data_root / folder, out, weights / file,
                    seed=seed, fold=fold, keep_rates=keep_rates, size=(clips, labels),
                    inputs=(data_root / folder, weights / file),
                )  # fmt: skip
    return steps


def fine_tuning(
    backbone: str,
    data: str,
    recipe: str,
    root: Path,
    out: Path,
    init: Path,
    *,
    seed: int,
    fold: int | None,
    keep_rates: Sequence[float],
    changes: Sequence[str] = (),
    needs: tuple[str, ...] = (),
    inputs: tuple[Path, ...] = (),
    size: tuple[int, int] | None = None,
) -> list[Step]:
    """The runs of one recipe, fold and seed at several keep rates.

    Up to the epoch where the keep rate begins to fall, all are the same run. It is trained once, and the others are
    branches of it: they end as if each had run from its beginning.

    Args:
        backbone: for the report.
        data: for the report.
        recipe: name of the recipe.
        root: of the data set.
        out: of the study; the runs go to ``out/runs``.
        init: checkpoint to start from.
        seed: of the runs.
        fold: of the data set, or None.
        keep_rates: to train for.
        changes: ``field=value`` over the recipe.
        needs: steps before.
        inputs: what must be there.
        size: clips in the training part and labels, for the cost; None where they are not known.
    """
    given = [*changes, f"seed={seed}", *(() if fold is None else (f"data.options.fold={fold}",))]
    settings = load_recipe(recipe, given)
    name = f"{recipe} {'' if fold is None else f'fold {fold} '}seed {seed}"
    folder = Path("runs", recipe) / (f"seed{seed}" if fold is None else f"fold{fold}-seed{seed}")
    base = ("train", recipe, "--data", str(root), "--init", str(init), "--resume", *_set(given))
    start = settings.pruning.shrink_start
    trunk = folder / "trunk"
    stop = _set((f"optimiser.stop_after_epochs={start:g}", "evaluation.test_keep_rates=[]"))
    steps = [
        Step(
            f"{name} trunk", (*base, *stop, "--output", str(trunk)), out / trunk / "results.json", needs, inputs,
            training_macs(settings, size, 0.0, start),
        )
    ]  # fmt: skip
    for rate in keep_rates:
        at = folder / f"r{rate:g}"
        own = load_recipe(recipe, [*given, f"pruning.keep_rate={rate:g}"])
        tested = list(keep_rates) if rate == 1.0 else [rate]
        rest = _set((f"pruning.keep_rate={rate:g}", f"evaluation.test_keep_rates={json.dumps(tested)}"))
        steps.append(
            Step(
                f"{name} r={rate:g}", (*base, *rest, "--branch-of", str(trunk), "--output", str(at)),
                out / at / "results.json", (f"{name} trunk",), inputs,
                training_macs(own, size, start, settings.optimiser.epochs),
                Cell(backbone, data, recipe, seed, fold, rate, out / at),
            )
        )  # fmt: skip
    return steps


def training_macs(recipe: Recipe, size: tuple[int, int] | None, begin: float, end: float) -> float | None:
    """Multiply-accumulates of training between two epochs: three forward passes a clip, at the keep rate of the moment.

    Masked patches are counted as if they were there, so it is an upper bound where there is masking.
    """
    if size is None:
        return None
    clips, labels = size
    entry = DATA_SETS[recipe.data.name]
    fields = {"max_length": entry.max_length, **recipe.model.fields, "num_labels": labels}
    config = BUILDERS[recipe.model.builder](**fields, prune_at=recipe.pruning.prune_at)
    points = 20
    middles = [begin + (end - begin) * (point + 0.5) / points for point in range(points)]
    counts = [macs(config, keep_rate=annealed_keep_rate(recipe.pruning, epoch)).executed for epoch in middles]
    return 3.0 * clips * (end - begin) * sum(counts) / points


def claim_folder(out: Path, *, scale: str, quick: bool) -> None:
    """Write down what a folder is the study of; errors as `check_folder`."""
    check_folder(out, scale=scale, quick=quick)
    write_json(out / STUDY, {"scale": scale, "quick": quick})


def check_folder(out: Path, *, scale: str, quick: bool) -> None:
    """Raise `InvalidSetting` where a folder holds a study of another scale."""
    if not (out / STUDY).is_file():
        return
    there = json.loads((out / STUDY).read_text(encoding="utf-8"))
    if there != {"scale": scale, "quick": quick}:
        options = f"--scale {there['scale']}{' --quick' if there['quick'] else ''}"
        raise InvalidSetting("out", str(out), f"another folder: this one holds what {options} made")


def collect(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """What the finished cells came to.

    Returns:
        One row a cell and tested keep rate: backbone, data, recipe, seed, fold, trained_keep_rate, keep_rate, metric,
        value, training_clips, test_clips, paper_macs, executed_macs, and base_fewer_macs, the share of the MACs that
        the keep rate saves in a model of the recipe's builder as it stands (ViT-B). The dense model's rows below 1
        are training-free pruning.
    """
    rows = []
    for step in steps:
        if step.cell is None or not step.done.exists():
            continue
        cell, results = step.cell, json.loads(step.done.read_text(encoding="utf-8"))
        written = json.loads((cell.folder / "model" / "config.json").read_text(encoding="utf-8"))
        config = SpectrimConfig.from_dict(written)
        base = BUILDERS[f"{cell.backbone}-base"](
            max_length=config.max_length, num_labels=config.num_labels, prune_at=config.prune_at
        )
        for rate, value in results["test"].items():
            count = macs(config, keep_rate=float(rate))
            saved = 1.0 - macs(base, keep_rate=float(rate)).paper / macs(base, keep_rate=1.0).paper
            rows.append(
                {
                    **{name: getattr(cell, name) for name in ("backbone", "data", "recipe", "seed", "fold")},
                    "trained_keep_rate": cell.keep_rate,
                    "keep_rate": float(rate),
                    **{name: results[name] for name in ("metric", "training_clips", "test_clips")},
                    "value": value,
                    "paper_macs": count.paper,
                    "executed_macs": count.executed,
                    "base_fewer_macs": saved,
                }
            )
    return rows


def plan_rows(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """A row for each step of a plan: step, done, macs, command, and missing, the inputs that are not there."""
    return [
        {
            **{"step": step.name, "done": step.done.exists(), "macs": step.macs, "command": step.command},
            "missing": [str(path) for path in step.missing],
        }
        for step in steps
    ]


def masked_pretraining(out: Path) -> dict[str, Any] | None:
    """What AudioMAE's pre-training in a miniature study came to, None before it is done."""
    results = out / "pretrained" / "audiomae" / "results.json"
    return json.loads(results.read_text(encoding="utf-8")) if results.is_file() else None


def write_report(
    steps: Sequence[Step], out: Path, *, scale: str, quick: bool = False, study: Path | None = None
) -> Path:
    """Write ``rows.json``, ``report.html``, ``report.md`` and ``figures/`` of what is done so far.

    Args:
        steps: the plan.
        out: where they go.
        scale: ``"mini"`` or ``"full"``.
        quick: the miniature study is the quick one.
        study: folder of the study, where it is not ``out``.

    Returns:
        Path of the HTML.
    """
    rows, plan = collect(steps), plan_rows(steps)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "rows.json", {"rows": rows, "steps": plan})
    machine = environment()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    introduction = [
        *INTRODUCTIONS[scale],
        f"Report written on {machine['processor']}; {versions}. Each run's environment.json says where it ran.",
    ]
    if quick:
        introduction.insert(0, "This is the quick form: it shows that everything runs. Its accuracies mean nothing.")
    further = {"mini": (), "full": ("--data-root", "DIR", "--weights", "DIR")}[scale]
    words = ["spectrim", "reproduce", "--scale", scale, *(["--quick"] if quick else []), *further, "OUT"]
    return write_study(
        rows,
        out,
        title=f"Token pruning in audio transformers, {'in miniature' if scale == 'mini' else 'the paper'}",
        introduction=introduction,
        command=shlex.join(words),
        masked=masked_pretraining(study or out) if scale == "mini" else None,
        missing=[row["step"] for row in plan if not row["done"]],
        steps=len(plan),
    )
