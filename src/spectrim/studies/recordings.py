"""Plan of the study on real recordings: the arms, stages and steps of docs/study/protocol.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectrim.analysis.analyse import STATISTICS_FILE
from spectrim.errors import InvalidSetting
from spectrim.miniatures.writing import RECORD
from spectrim.studies.branches import TRUNK, Branch, FineTuning, set_words
from spectrim.studies.keep_rates import CONTROL
from spectrim.studies.runner import Step
from spectrim.studies.speakers import FOLDS, validation_fold

DATA = Path("data")
"""Folder of the table with the folds, from the folder of the study."""

CONTROL_ARM = Branch(CONTROL)
POSITIVE_ARM = Branch(0.3, "random")
FIRST_ARMS = (CONTROL_ARM, Branch(0.7), Branch(0.5), POSITIVE_ARM)
ANSWERING = (CONTROL_ARM, Branch(0.7), POSITIVE_ARM)
"""What the primary question rests on: trained in all folds before the others of their stage."""

RANKED = ("random", "intensity", "variation")
RANKINGS_ARMS = tuple(Branch(0.5, ranking) for ranking in RANKED)
FURTHER_ARMS = (
    *(Branch(0.3), Branch(0.3, "intensity"), Branch(0.3, "variation")),
    *(Branch(0.5, "intensity, public gather"), Branch(0.5, reducer="fuse")),
)
VALUE_NORM = "value_norm"
VALUE_NORM_ARMS = (Branch(0.7, VALUE_NORM), Branch(0.5, VALUE_NORM))
CLUSTER = "cluster"
CLUSTER_ARMS = (Branch(0.7, reducer=CLUSTER), Branch(0.7, "random"), VALUE_NORM_ARMS[0])
FREE_RATES = (0.9, 0.7, 0.5, 0.3)
FREE_METHODS = ("attention", *RANKED)
"""Rankings by which the control's weights are pruned without training, at these rates."""

REMEDIES = {
    "ast": (
        "mean_attention",
        "cls_weighted_norm",
        "cls_head_median",
        "cls_without_sinks",
        "cls_attention_so_far",
        "value_norm",
        "regular",
        "fuse",
        "merge",
        "cluster",
    ),
    "audiomae": ("mean_attention_so_far", "value_norm", "regular", "fuse", "merge", "cluster"),
}
"""What the control's weights are also pruned by without training, at these rates: scores other than the backbone's own,
and ways to have fewer tokens that drop no patch."""

REMEDY_RATES = (0.7, 0.5)

LATER_BLOCKS, LATER_RATES = (6, 8, 10), (0.4,)
"""The control's weights are also pruned at these blocks alone: at this keep rate they execute as many MACs (0.674 of
the dense ones) as this one does at 3, 6 and 9 (0.676):"""

SAME_MACS = 0.7

LATER_METHODS = ("attention", *RANKED, "value_norm", "cluster")

TRAINED = "trained"
"""What an arm at its own operating point is called in its answers."""

ANSWERS = "clips.csv"

BLOCKS = tuple(range(12))
ALONE_RATE = 0.7
ALONE_CLIPS = 400
"""Models are also pruned at one block alone, to this keep rate, on so many test clips."""

PROFILED = (CONTROL_ARM, Branch(0.7))
"""The arms of which that is done, and the paper's analysis."""

ANALYSED_CLIPS = 400
ANALYSED_RATE = 0.7
DROPPED_AT = 3
"""Of the paper's analysis: on so many test clips, of what is kept at this rate, clusters dropped at this block."""

PADDINGS = {"without": "analysis", "with": "analysis-with-padding"}
"""How patches that hold only padding count in it → the end of its folder's name."""

SEEDS = (0, 1)


@dataclass(frozen=True)
class Stage:
    """A part of the study that is reported as a whole.

    Attributes:
        number: as in the protocol.
        title: for the report.
        backbones: that it is about.
        arms: branches of every trunk.
        seed: of its runs.
    """

    number: int
    title: str
    backbones: tuple[str, ...]
    arms: tuple[Branch, ...]
    seed: int = SEEDS[0]


BOTH = ("ast", "audiomae")
STAGES = (
    Stage(1, "AST: control, attention 0.7 and 0.5, random 0.3", ("ast",), FIRST_ARMS),
    Stage(2, "AudioMAE: the same", ("audiomae",), FIRST_ARMS),
    Stage(3, "both: random, intensity and variation at 0.5", BOTH, RANKINGS_ARMS),
    Stage(4, "both: the rest", BOTH, FURTHER_ARMS),
    Stage(5, "a further seed of stages 1 and 2", BOTH, FIRST_ARMS, SEEDS[1]),
    Stage(7, "AST: the norm of the values at 0.7 and 0.5", ("ast",), VALUE_NORM_ARMS),
    Stage(8, "AST, the further seed: clusters, random, norm of the values at 0.7", ("ast",), CLUSTER_ARMS, SEEDS[1]),
)
"""Of the recordings; 6 is ESC-10, see `spectrim.studies.sounds`."""

NUMBERS = tuple(one.number for one in STAGES)

RECIPES = {"ast": "asc-ast", "audiomae": "asc-audiomae"}

STARTS = {"ast": "spectrim-words"}
"""Backbone → the model that it starts from; AudioMAE starts from its own pre-training on the fold."""

PRETRAINING = "asc-audiomae-pretrain"
OF_PRETRAINING = ("optimiser.epochs", "optimiser.precision", "tensorboard")
"""Settings that both kinds of recipes have."""

WORDS, WORD_CLIPS = Path("words"), 3600
"""Folder of the synthesised English words that AudioMAE is pre-trained on besides, and how many (a fifth more are held
out by their data set, which says nothing here)."""


@dataclass(frozen=True)
class Arm:
    """An arm of a fold.

    Attributes:
        stage: its number.
        backbone: of the model.
        fold: whose speakers are unheard.
        seed: of the run.
        branch: what it differs in.
        folder: of the run, from the folder of the study.
    """

    stage: int
    backbone: str
    fold: int
    seed: int
    branch: Branch
    folder: Path

    def alone(self, block: int) -> Path:
        """Results of pruning it at one block alone, from the folder of the study."""
        return self.folder.with_name(f"{self.folder.name}-block{block}") / "results.json"

    @property
    def remedies(self) -> Path:
        """What it answers to every test clip when it is pruned by `REMEDIES`, from the folder of the study."""
        return self.folder.with_name(f"{self.folder.name}-remedies") / ANSWERS

    @property
    def later(self) -> Path:
        """The same when it is pruned at `LATER_BLOCKS`."""
        return self.folder.with_name(f"{self.folder.name}-later") / ANSWERS

    @property
    def trunk(self) -> Path:
        """The run that it is a branch of, from the folder of the study."""
        return self.folder.with_name(TRUNK)

    def analysis(self, padding: str) -> Path:
        """Folder of the paper's analysis of it, from the folder of the study."""
        return self.folder.with_name(f"{self.folder.name}-{PADDINGS[padding]}")

    @property
    def answers(self) -> Path:
        """What it answers to every test clip, from the folder of the study."""
        return self.folder.with_name(f"{self.folder.name}-test") / ANSWERS


@dataclass(frozen=True)
class RecordingsPlan:
    """What is to be run, of what there is.

    Attributes:
        arms: every arm of the protocol, run or not; in its order.
        steps: stage → its steps, with those before that it needs; of the chosen folds, stages and backbones.
    """

    arms: tuple[Arm, ...]
    steps: dict[int, list[Step]]

    @property
    def up_to_each_stage(self) -> list[list[Step]]:
        """For each chosen stage, its steps and those of the stages before, each once."""
        found: dict[str, Step] = {}
        ends = []
        for steps in self.steps.values():
            found |= {step.name: step for step in steps}
            ends.append(list(found.values()))
        return ends


def recordings_plan(
    out: Path,
    *,
    folds: Sequence[int] = tuple(range(FOLDS)),
    stages: Sequence[int] = NUMBERS,
    backbones: Sequence[str] = BOTH,
    changes: Sequence[str] = (),
) -> RecordingsPlan:
    """The study of docs/study/protocol.md, or a part of it.

    Args:
        out: where runs and report go.
        folds: to run.
        stages: to run, with what they need of those before.
        backbones: to run.
        changes: ``field=value`` over every recipe; those but the precision are for trials, whose accuracies are not
            the study's.

    Raises:
        InvalidSetting: there is no such fold, stage or backbone.
    """
    known = {"folds": range(FOLDS), "stages": NUMBERS, "backbones": BOTH}
    for field, chosen in (("folds", folds), ("stages", stages), ("backbones", backbones)):
        for value in chosen:
            if value not in known[field]:
                raise InvalidSetting(field, value, f"some of {', '.join(map(str, known[field]))}")
    arms: list[Arm] = []
    steps: dict[int, list[Step]] = {}
    every: dict[str, Step] = {}
    for stage in STAGES:
        own: list[Step] = []
        others: list[Step] = []
        described: list[Step] = []
        for backbone in stage.backbones:
            for fold in range(FOLDS):
                runs = _tuning(out, backbone, fold, stage.seed, changes)
                arms += [
                    Arm(stage.number, backbone, fold, stage.seed, branch, runs.folder_of(branch))
                    for branch in stage.arms
                ]
                if fold not in folds or backbone not in backbones:
                    continue
                first = [arm for arm in stage.arms if arm in ANSWERING] or stage.arms
                own += [*_pretraining(out, fold, backbone, changes), *tested_steps(runs, first)]
                others += tested_steps(runs, [arm for arm in stage.arms if arm not in first])
                if CONTROL_ARM in stage.arms:
                    described += _descriptive(runs)
        # What the answers rest on comes first, in all folds.
        own += [*others, *described]
        every |= {step.name: step for step in own}
        if stage.number in stages:
            steps[stage.number] = _with_needs(own, every)
    return RecordingsPlan(tuple(arms), steps)


def _tuning(out: Path, backbone: str, fold: int, seed: int, changes: Sequence[str]) -> FineTuning:
    """The runs of a fold and seed."""
    before = _pretraining(out, fold, backbone, ())
    return FineTuning(
        backbone,
        "csv",
        RECIPES[backbone],
        root=DATA,
        out=out,
        init=Path(STARTS[backbone]) if not before else pretrained(fold) / "model",
        needs=tuple(step.name for step in before),
        seed=seed,
        fold=fold,
        tested=(),
        changes=(*changes, f"data.options.validation_fold={validation_fold(fold)}"),
    )


def pretrained(fold: int) -> Path:
    """The run in which a fold's AudioMAE is pre-trained, from the folder of the study."""
    return Path("runs", PRETRAINING, f"fold{fold}")


def _pretraining(out: Path, fold: int, backbone: str, changes: Sequence[str]) -> list[Step]:
    """The words, and the masked pre-training of a fold's AudioMAE, which all its seeds start from; none for AST."""
    if backbone in STARTS:
        return []
    words, run = DATA / WORDS, pretrained(fold)
    made = ("data", "synthesize", "spoken-commands", str(words), "--clips", str(WORD_CLIPS), "--seed", "0")
    options = f"data.options.fold={fold}", f"data.options.validation_fold={validation_fold(fold)}"
    learns = ("pretrain", PRETRAINING, "--data", str(DATA), "--extra-audio", str(words), "--output", str(run))
    return [
        Step("words", made, out / words / RECORD, leftovers=f"{DATA}/.{WORDS}.partial-*"),
        Step(
            f"{PRETRAINING} fold {fold}",
            (*learns, "--resume", *set_words((*_of_pretraining(changes), *options))),
            out / run / "model" / "config.json",
            ("words",),
        ),
    ]


def _of_pretraining(changes: Sequence[str]) -> list[str]:
    """Those of the changes over every recipe that pre-training knows."""
    return [change for change in changes if change.split("=")[0] in OF_PRETRAINING]


def tested_steps(runs: FineTuning, arms: Sequence[Branch]) -> list[Step]:
    """The trunk, and each arm with the test of what it has learnt."""
    trunk, *branches = runs.steps(arms)
    steps = [trunk]
    for branch, step in zip(arms, branches, strict=True):
        steps += [step, _test(runs, branch)]
    return steps


def _test(runs: FineTuning, branch: Branch) -> Step:
    """The step that asks an arm about every test clip, at its own operating point and without training."""
    run = runs.folder_of(branch)
    control = branch == CONTROL_ARM
    methods = FREE_METHODS if control else ("random",)
    rates = FREE_RATES if control else (branch.keep_rate,)
    return _compare(runs, branch, "test", methods, rates, "--runs", f"{TRAINED}={run}")


def _alone(runs: FineTuning, arm: Branch, block: int) -> Step:
    """The step that prunes an arm's weights at one block alone, without training."""
    further = ("--prune-at", str(block), "--limit", str(ALONE_CLIPS))
    return _compare(runs, arm, f"block {block}", FREE_METHODS, (ALONE_RATE,), *further)


def _descriptive(runs: FineTuning) -> list[Step]:
    """The steps that prune a fold's models without training in other ways, beside which there is no test."""
    later = ("--prune-at", ",".join(map(str, LATER_BLOCKS)))
    return [
        _compare(runs, CONTROL_ARM, "remedies", REMEDIES[runs.backbone], REMEDY_RATES),
        _compare(runs, CONTROL_ARM, "later", LATER_METHODS, LATER_RATES, *later),
        *(_analysis(runs, arm, padding) for arm in PROFILED for padding in PADDINGS),
        *(_alone(runs, arm, block) for arm in PROFILED for block in BLOCKS),
    ]


def _analysis(runs: FineTuning, arm: Branch, padding: str) -> Step:
    """The paper's analysis of an arm."""
    run, name = runs.folder_of(arm), f"{runs.name} {arm.name}"
    at = run.with_name(f"{run.name}-{PADDINGS[padding]}")
    arguments = (
        *("analyze", "--model", str(run / "model"), "--name", arm.name, *_data_words(runs)),
        *("--limit", str(ANALYSED_CLIPS), "--keep-rates", f"{ANALYSED_RATE:g}"),
        *("--drop-at", str(DROPPED_AT), "--padding", padding, "--output", str(at), "--resume"),
    )
    return Step(f"{name} {PADDINGS[padding].replace('-', ' ')}", arguments, runs.out / at / STATISTICS_FILE, (name,))


def _data_words(runs: FineTuning) -> tuple[str, ...]:
    """The clips that runs are tested on, for commands that open a data set themselves."""
    options = (change.split(".", 2)[2] for change in sorted(runs.all_changes) if change.startswith("data.options."))
    return ("--dataset", runs.data, "--data", str(runs.root), *set_words(tuple(options)))


def _compare(
    runs: FineTuning, arm: Branch, what: str, methods: Sequence[str], rates: Sequence[float], *further: str
) -> Step:
    """A step that asks the model of an arm about test clips of its fold, pruned by several methods."""
    run, name = runs.folder_of(arm), f"{runs.name} {arm.name}"
    at = run.with_name(f"{run.name}-{what.replace(' ', '')}")
    arguments = (
        *("compare", str(at), "--model", str(run / "model"), *_data_words(runs)),
        *("--methods", ",".join(methods), "--keep-rates", ",".join(f"{rate:g}" for rate in rates)),
        *(*further, "--traced", "2", "--batch-sizes", "8", "--repeats", "3", "--workers", "0"),
    )
    return Step(f"{name} {what}", arguments, runs.out / at / "report.html", (name,))


def _with_needs(steps: Sequence[Step], every: dict[str, Step]) -> list[Step]:
    """Steps with all that they need, what is needed first."""
    found: dict[str, Step] = {}

    def add(step: Step) -> None:
        for name in step.needs:
            add(every[name])
        found.setdefault(step.name, step)

    for step in steps:
        add(step)
    return list(found.values())
