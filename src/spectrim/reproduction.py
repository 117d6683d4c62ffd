"""The paper's experiments as one program: what is to be run, in which order, and running it so that it resumes.

A plan is a list of steps; each is a command line of Spectrim with a file that exists when it is done. The miniature
plan makes its data and starts from random weights; the full one takes the real data and published weights.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from spectrim.analysis.study import write_study
from spectrim.benchmark import environment
from spectrim.config import BUILDERS, SpectrimConfig
from spectrim.counting import macs
from spectrim.data import DATA_SETS
from spectrim.errors import InvalidSetting, SpectrimError
from spectrim.recipe import Recipe, load_recipe
from spectrim.training import annealed_keep_rate
from spectrim.whole import write_json

KEEP_RATES = (1.0, 0.9, 0.7, 0.5, 0.3)
"""Keep rates of the miniature study; 1 is the dense model."""

FULL_KEEP_RATES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Those of the paper."""

SEEDS = (12, 34, 56, 78, 90)
"""The paper's seeds for ESC-50."""

INTRODUCTIONS = {
    "mini": "Every number here is about miniatures: models of width 64 on sounds that the project makes itself. They "
    "show how the method behaves, not what it does to published models on real recordings. AST was pre-trained with "
    "labels and AudioMAE by masking, both on the AudioSet miniature; each was then fine-tuned dense and with its keep "
    "rate annealed to every rate below, by the recipes that the plan names.",
    "full": "The paper's recipes on its data sets, from the published weights.",
}

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Cell:
    """One trained model of the study.

    Attributes:
        backbone: ``"ast"`` or ``"audiomae"``.
        data: name of the data set in the report.
        recipe: name of the recipe.
        seed: of the run.
        fold: of the data set, None where it has none.
        keep_rate: that it is trained for.
        folder: of the run.
    """

    backbone: str
    data: str
    recipe: str
    seed: int
    fold: int | None
    keep_rate: float
    folder: Path


@dataclass(frozen=True)
class Step:
    """A command, and the file that says that it is done.

    Attributes:
        name: unique in the plan.
        arguments: of ``spectrim``.
        done: exists afterwards.
        needs: names of the steps before it.
        inputs: what must be there already: files or folders that no step makes.
        macs: multiply-accumulates of the whole step, estimated; None where that says nothing.
        cell: the trained model it gives, if it is one of the study.
    """

    name: str
    arguments: tuple[str, ...]
    done: Path
    needs: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    macs: float | None = None
    cell: Cell | None = None

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(("spectrim", *self.arguments))


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
    audioset_clips=64,
    esc50_clips=100,
    words=700,
    test_words=140,
    esc50_runs=((1, 12), (2, 34)),
    words_seeds=(12,),
    keep_rates=(1.0, 0.7),
    changes={
        "ast-as20k-mini": ("optimiser.epochs=1", "schedule.warmup_steps=0", "evaluation.first_epoch=1"),
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
    data = out / "data"
    steps = [
        _synthesis("audioset", data / "audioset", "--clips", str(size.audioset_clips)),
        _synthesis("esc50", data / "esc50", "--clips", str(size.esc50_clips)),
        _synthesis(
            "spoken-commands", data / "spoken-commands", "--clips", str(size.words),
            "--validation-clips", str(size.test_words // 2), "--test-clips", str(size.test_words),
        ),
    ]  # fmt: skip
    pretrained = {"ast": out / "pretrained" / "ast", "audiomae": out / "pretrained" / "audiomae"}
    for backbone, command, recipe in (
        ("ast", "train", "ast-as20k-mini"),
        ("audiomae", "pretrain", "audiomae-pretrain-mini"),
    ):
        source = data / "audioset" / ("audio" if command == "pretrain" else "")
        run = (command, recipe, "--data", str(source), "--output", str(pretrained[backbone]), "--resume")
        changes = _set(size.changes.get(recipe, ()))
        done = pretrained[backbone] / ("results.json" if command == "train" else "model/config.json")
        steps.append(Step(f"pretrain {backbone}", (*run, *changes), done, ("data audioset",)))
    places: list[tuple[str, str, int | None, int]]
    places = [("esc50", "esc50", fold, seed) for fold, seed in size.esc50_runs]
    places += [("spc2", "spoken-commands", None, seed) for seed in size.words_seeds]
    for short, folder, fold, seed in places:
        for backbone in pretrained:
            recipe = f"{backbone}-{short}-mini"
            steps += fine_tuning(
                backbone, folder, recipe, data / folder, out / "runs", pretrained[backbone] / "model",
                seed=seed, fold=fold, keep_rates=size.keep_rates, changes=size.changes.get(recipe, ()),
                needs=(f"data {folder}", f"pretrain {backbone}"),
            )  # fmt: skip
    return steps


def _synthesis(name: str, folder: Path, *options: str) -> Step:
    return Step(f"data {name}", ("data", "synthesize", name, str(folder), *options, "--seed", "0"), folder)


def _set(changes: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for change in changes for word in ("--set", change))


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
    for backbone, file in FULL_WEIGHTS.items():
        for short, (name, folder, clips, labels) in FULL.items():
            recipe = f"{backbone}-{short}"
            if recipe == "ast-vox1":
                continue
            runs = [(fold, seed) for fold in range(1, 6) for seed in SEEDS] if name == "esc50" else [(None, SEEDS[0])]
            for fold, seed in runs:
                steps += fine_tuning(
                    backbone, name, recipe, data_root / folder, out / "runs", weights / file,
                    seed=seed, fold=fold, keep_rates=keep_rates, size=(clips, labels),
                    inputs=(data_root / folder, weights / file),
                )  # fmt: skip
    return steps


def fine_tuning(
    backbone: str,
    data: str,
    recipe: str,
    root: Path,
    runs: Path,
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
        runs: folder of all runs.
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
    folder = runs / recipe / (f"seed{seed}" if fold is None else f"fold{fold}-seed{seed}")
    base = ("train", recipe, "--data", str(root), "--init", str(init), "--resume", *_set(given))
    start = settings.pruning.shrink_start
    trunk = folder / "trunk"
    stop = _set((f"optimiser.stop_after_epochs={start:g}", "evaluation.test_keep_rates=[]"))
    steps = [
        Step(
            f"{name} trunk", (*base, *stop, "--output", str(trunk)), trunk / "results.json", needs, inputs,
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
                at / "results.json", (f"{name} trunk",), inputs,
                training_macs(own, size, start, settings.optimiser.epochs),
                Cell(backbone, data, recipe, seed, fold, rate, at),
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


def missing_inputs(steps: Sequence[Step]) -> list[Path]:
    """What the plan needs and the disk lacks."""
    return sorted({path for step in steps for path in step.inputs if not path.exists()})


class Failed(SpectrimError):
    """A step of the plan did not end well."""


def run_plan(steps: Sequence[Step], out: Path, *, jobs: int = 1, tell: Tell = lambda line: None) -> None:
    """Run what is not done yet, several steps side by side, each with its log below ``out/logs``.

    Args:
        steps: in an order in which they can be run.
        out: where logs go.
        jobs: steps at a time; the cores are shared between them.
        tell: is told what begins and ends.

    Raises:
        InvalidSetting: jobs is below 1, or inputs are missing.
        Failed: a step ended badly; what runs beside it is ended too, and goes on where it was the next time.
    """
    if jobs < 1:
        raise InvalidSetting("jobs", jobs, "1 or more")
    if lacking := missing_inputs(steps):
        raise InvalidSetting("inputs", [str(path) for path in lacking], "files and folders that are there")
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    done = {step.name for step in steps if step.done.exists()}
    left = [step for step in steps if step.name not in done]
    running: dict[Future[int], Step] = {}
    total, stop = len(steps), Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while left or running:
                for step in [step for step in left if set(step.needs) <= done][: jobs - len(running)]:
                    left.remove(step)
                    tell(f"[{len(done)}/{total}] begins: {step.name}")
                    running[pool.submit(_run_step, step, logs, jobs, stop)] = step
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    code = future.result()
                    if code or not step.done.exists():
                        raise Failed(f"{step.name} ended with {code}; its log: {_log(step, logs)}; {step.command}")
                    done.add(step.name)
                    tell(f"[{len(done)}/{total}] done: {step.name}")
        finally:
            stop.set()


def _log(step: Step, logs: Path) -> Path:
    return logs / f"{step.name.replace(' ', '-').replace('=', '')}.log"


def _run_step(step: Step, logs: Path, jobs: int, stop: Event) -> int:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    command = [sys.executable, "-m", "spectrim", *step.arguments]
    with _log(step, logs).open("ab") as log:
        log.write(f"$ {step.command}\n".encode())
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        while True:
            try:
                return process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    process.terminate()


def collect(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """What the finished cells came to.

    Returns:
        One row a cell and tested keep rate: backbone, data, recipe, seed, fold, trained_keep_rate, keep_rate, metric,
        value, test_clips, paper_macs, executed_macs. The dense model's rows below 1 are training-free pruning.
    """
    rows = []
    for step in steps:
        if step.cell is None or not step.done.exists():
            continue
        cell, results = step.cell, json.loads(step.done.read_text(encoding="utf-8"))
        written = json.loads((cell.folder / "model" / "config.json").read_text(encoding="utf-8"))
        config = SpectrimConfig.from_dict(written)
        for rate, value in results["test"].items():
            count = macs(config, keep_rate=float(rate))
            rows.append(
                {
                    **{name: getattr(cell, name) for name in ("backbone", "data", "recipe", "seed", "fold")},
                    "trained_keep_rate": cell.keep_rate,
                    "keep_rate": float(rate),
                    "metric": results["metric"],
                    "value": value,
                    "test_clips": results["test_clips"],
                    "paper_macs": count.paper,
                    "executed_macs": count.executed,
                }
            )
    return rows


def write_rows(rows: Sequence[Mapping[str, Any]], steps: Sequence[Step], out: Path) -> None:
    """Write ``out/rows.json``: the rows of `collect`, and which steps are done and which are missing."""
    state = {step.name: step.done.exists() for step in steps}
    content = {
        "steps": {step.name: {"command": step.command, "done": state[step.name]} for step in steps},
        "rows": list(rows),
    }
    write_json(out / "rows.json", content)


def write_report(steps: Sequence[Step], out: Path, *, scale: str, quick: bool = False) -> Path:
    """Write ``out/rows.json`` and ``out/report.html``, ``report.md`` and ``figures/`` of what is done so far.

    Returns:
        Path of the HTML.
    """
    rows = collect(steps)
    write_rows(rows, steps, out)
    machine = environment()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    introduction = [INTRODUCTIONS[scale], f"Made on {machine['processor']} ({machine['system']}); {versions}."]
    if quick:
        introduction.append("This is the quick form: it shows that everything runs; its accuracies mean nothing.")
    words = ["spectrim", "reproduce", "--scale", scale, *(["--quick"] if quick else []), str(out)]
    return write_study(
        rows,
        out,
        title=f"Token pruning in audio transformers, {'in miniature' if scale == 'mini' else 'the paper'}",
        introduction=introduction,
        commands=[shlex.join(words)],
        missing=[step.name for step in steps if not step.done.exists()],
    )
