"""Plans of the paper's experiments: which commands are run, in which order.

There are two studies here, of keep rates and of what the patches are ranked by. They may live in one folder, and share
what both need. The study on real recordings has its plan in `spectrim.studies.recordings`. A plan is a list of
`spectrim.studies.runner`: command lines of Spectrim, to be run in the folder of the study. The miniature plan makes its
data and starts from random weights; the full one takes the real data and published weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrim.analysis.ablations import ATTENTION
from spectrim.errors import InvalidSetting, one_of
from spectrim.files import write_json
from spectrim.miniatures.scenes import scene_labels
from spectrim.miniatures.writing import RECORD
from spectrim.studies.branches import Branch, FineTuning, set_words, training_free, training_macs
from spectrim.studies.keep_rates import CONTROL
from spectrim.studies.report import KEEP_RATES_STUDY, STUDIES
from spectrim.studies.runner import Cell, Step
from spectrim.training.recipe_files import load_recipe

STUDY = "study.json"
"""What a folder is the study of: scale and quick."""

KEEP_RATES = (1.0, CONTROL, 0.9, 0.7, 0.5, 0.3)
"""Keep rates of the miniature study; 1 is the dense model."""

FULL_KEEP_RATES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Those of the paper."""

SEEDS = (12, 34, 56, 78, 90)
"""The paper's seeds for ESC-50."""

RANKINGS_BESIDE_ATTENTION = ("intensity", "variation", "random", "intensity, public gather")
"""Of the study of rankings, at its first keep rate."""

FURTHER_RANKINGS = ("intensity", "random")
"""At further ones."""


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
        ranking_rates: keep rates of the study of rankings.
        changes: recipe → ``field=value`` over it.
    """

    audioset_clips: int = 3000
    esc50_clips: int = 1000
    words: int = 14000
    test_words: int = 2100
    esc50_runs: tuple[tuple[int, int], ...] = ((1, 12), (2, 34), (3, 56))
    words_seeds: tuple[int, ...] = (12,)
    keep_rates: tuple[float, ...] = KEEP_RATES
    ranking_rates: tuple[float, ...] = (0.7,)
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


MINI = Miniature()
QUICK_CHANGES = (
    "optimiser.epochs=2",
    "schedule.warmup_epochs=0",
    "pruning.shrink_start=1",
    "pruning.shrink_epochs=0.5",
    "evaluation.first_epoch=2",
    "evaluation.every_epochs=1",
)
QUICK = Miniature(
    audioset_clips=80,
    esc50_clips=250,
    words=350,
    test_words=70,
    esc50_runs=((1, 12),),
    words_seeds=(12,),
    keep_rates=(1.0, CONTROL, 0.7),
    changes={
        "ast-as20k-mini": (
            "optimiser.epochs=1",
            "schedule.warmup_steps=0",
            "evaluation.first_epoch=1",
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
    steps = [*_syntheses(out, size).values(), *_pretraining(out, size)]
    places: list[tuple[str, int | None, int]] = [("esc50", fold, seed) for fold, seed in size.esc50_runs]
    places += [("spc2", None, seed) for seed in size.words_seeds]
    branches = [Branch(rate) for rate in size.keep_rates]
    for short, fold, seed in places:
        for backbone in BACKBONES:
            steps += _miniature_tuning(out, size, backbone, short, fold, seed, branches)
    return steps


def miniature_rankings_plan(out: Path, size: Miniature) -> list[Step]:
    """The study of rankings on data that the project makes, one backbone after the other; arguments as above.

    Of each, the pruned models come first: the question hangs on them, and the dense one and the control only say more.
    """
    data = _syntheses(out, size)
    steps = [data["audioset"], data["esc50"], *_pretraining(out, size)]
    branches = ranking_branches(size.ranking_rates)
    for backbone in BACKBONES:
        own = []
        for fold, seed in size.esc50_runs:
            own += _miniature_tuning(out, size, backbone, "esc50", fold, seed, branches)
        steps += sorted(own, key=_keeps_all)
    return [*steps, *_training_free(steps, Path("data", "esc50"), size.ranking_rates)]


def _keeps_all(step: Step) -> bool:
    """Whether a step trains a model that keeps all patches, the dense one or the control."""
    return step.cell is not None and step.cell.keep_rate >= CONTROL


def _training_free(steps: Sequence[Step], root: Path, keep_rates: Sequence[float]) -> list[Step]:
    """Steps that prune the dense ESC-50 models of a plan at test time; they come last."""
    dense = [step for step in steps if step.cell and step.cell.data == "esc50" and step.cell.keep_rate == 1.0]
    return [training_free(step, root, keep_rates) for step in dense]


def ranking_branches(keep_rates: Sequence[float]) -> list[Branch]:
    """Dense, control, and every ranking at the first keep rate; fewer of them at the others."""
    branches = [Branch(1.0), Branch(CONTROL)]
    for number, rate in enumerate(keep_rates):
        rankings = FURTHER_RANKINGS if number else RANKINGS_BESIDE_ATTENTION
        branches += [Branch(rate, ranking) for ranking in (ATTENTION, *rankings)]
    return branches


def _syntheses(out: Path, size: Miniature) -> dict[str, Step]:
    held_out = ("--validation-clips", str(size.test_words // 2), "--test-clips", str(size.test_words))
    return {
        "audioset": _synthesis("audioset", out, "--clips", str(size.audioset_clips)),
        "esc50": _synthesis("esc50", out, "--clips", str(size.esc50_clips)),
        "spoken-commands": _synthesis("spoken-commands", out, "--clips", str(size.words), *held_out),
    }


def _miniature_tuning(
    out: Path,
    size: Miniature,
    backbone: str,
    short: str,
    fold: int | None,
    seed: int,
    branches: Sequence[Branch],
) -> list[Step]:
    """The runs of a backbone on a miniature, ESC-50 or the spoken commands, by its short name."""
    folder, clips, labels = {
        "esc50": ("esc50", size.esc50_clips * 4 // 5, 50),
        "spc2": ("spoken-commands", size.words, 35),
    }[short]
    recipe = f"{backbone}-{short}-mini"
    runs = FineTuning(
        backbone,
        folder,
        recipe,
        root=Path("data", folder),
        out=out,
        init=Path("pretrained", backbone, "model"),
        seed=seed,
        fold=fold,
        tested=size.keep_rates,
        changes=size.changes.get(recipe, ()),
        needs=(f"data {folder}", f"pretrain {backbone}"),
        size=(clips, labels),
    )
    return runs.steps(branches)


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
        run = (command, recipe, "--data", data, "--output", str(at), "--resume", *set_words(changes))
        name, needs = f"pretrain {backbone}", ("data audioset",)
        if command == "pretrain":
            steps.append(Step(name, run, out / at / "model" / "config.json", needs))
            continue
        settings = load_recipe(recipe, changes)
        cost = training_macs(settings, (size.audioset_clips, len(scene_labels())), 0.0, settings.optimiser.epochs)
        cell = Cell(backbone, "audioset", recipe, settings.seed, None, 1.0, out / at)
        steps.append(Step(name, run, out / at / "results.json", needs, macs=cost, cell=cell))
    return steps


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
    branches = [Branch(rate) for rate in keep_rates]
    steps = []
    for backbone in FULL_WEIGHTS:
        for short in FULL:
            if (backbone, short) != ("ast", "vox1"):
                steps += _full_tuning(out, data_root, weights, backbone, short, branches, keep_rates)
    return steps


def full_rankings_plan(
    out: Path, data_root: Path, weights: Path, keep_rates: Sequence[float] = MINI.ranking_rates
) -> list[Step]:
    """The study of rankings by the paper's ESC-50 recipes, on five folds with five seeds; arguments as `full_plan`."""
    branches = ranking_branches(keep_rates)
    steps = []
    for backbone in FULL_WEIGHTS:
        own = _full_tuning(out, data_root, weights, backbone, "esc50", branches, FULL_KEEP_RATES)
        steps += sorted(own, key=_keeps_all)
    return [*steps, *_training_free(steps, data_root.absolute() / FULL["esc50"][1], keep_rates)]


def _full_tuning(
    out: Path,
    data_root: Path,
    weights: Path,
    backbone: str,
    short: str,
    branches: Sequence[Branch],
    tested: Sequence[float],
) -> list[Step]:
    """The paper's runs of a backbone on a data set, by its short name."""
    name, folder, clips, labels = FULL[short]
    root, init = data_root.absolute() / folder, weights.absolute() / FULL_WEIGHTS[backbone]
    runs = [(fold, seed) for fold in range(1, 6) for seed in SEEDS] if name == "esc50" else [(None, SEEDS[0])]
    steps = []
    for fold, seed in runs:
        fine_tuning = FineTuning(
            backbone,
            name,
            f"{backbone}-{short}",
            root=root,
            out=out,
            init=init,
            seed=seed,
            fold=fold,
            tested=tested,
            size=(clips, labels),
            inputs=(root, init),
        )
        steps += fine_tuning.steps(branches)
    return steps


def study_plan(
    study: str, out: Path, *, quick: bool = False, data_root: Path | None = None, weights: Path | None = None
) -> list[Step]:
    """The plan of a study: the full one where data and weights are given, else the miniature one.

    Raises:
        InvalidSetting: there is no such study.
    """
    if study not in STUDIES:
        raise InvalidSetting("study", study, one_of(STUDIES))
    if data_root is not None and weights is not None:
        return (full_plan if study == KEEP_RATES_STUDY else full_rankings_plan)(out, data_root, weights)
    return (miniature_plan if study == KEEP_RATES_STUDY else miniature_rankings_plan)(out, QUICK if quick else MINI)


def claim_folder(out: Path, *, scale: str, quick: bool, data: Path | None = None) -> None:
    """Write down what a folder is the study of; errors as `check_folder`."""
    check_folder(out, scale=scale, quick=quick, data=data)
    write_json(out / STUDY, _claim(scale, quick, data))


def check_folder(out: Path, *, scale: str, quick: bool, data: Path | None = None) -> None:
    """Raise `InvalidSetting` where a folder holds a study of another scale, or of other data."""
    if not (out / STUDY).is_file():
        return
    there = json.loads((out / STUDY).read_text(encoding="utf-8"))
    if there != _claim(scale, quick, data):
        of = f" --data {there['data']}" if "data" in there else ""
        options = f"--scale {there['scale']}{' --quick' if there['quick'] else ''}{of}"
        raise InvalidSetting("out", str(out), f"another folder: this one holds what {options} made")


def _claim(scale: str, quick: bool, data: Path | None) -> dict[str, Any]:
    claim: dict[str, Any] = {"scale": scale, "quick": quick}
    return claim if data is None else {**claim, "data": str(data.absolute())}
