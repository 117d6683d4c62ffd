"""Steps that train one recipe, fold and seed: the shared beginning, and a branch for each ranking and keep rate."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spectrim.analysis.ablations import ATTENTION, RANKINGS
from spectrim.analysis.analyse import STATISTICS_FILE
from spectrim.backbones import BUILDERS
from spectrim.data import DATA_SETS
from spectrim.errors import InvalidSetting
from spectrim.network.macs import macs
from spectrim.studies.runner import Cell, Step
from spectrim.training.optimiser import annealed_keep_rate
from spectrim.training.recipe_files import load_recipe
from spectrim.training.recipes import Recipe

DROP = "drop"

TRUNK = "trunk"
"""Folder of the beginning that runs share, beside theirs."""


@dataclass(frozen=True)
class Branch:
    """A way to go on from where the keep rate begins to fall.

    Attributes:
        keep_rate: to which it falls.
        ranking: what the patches are ranked by: a name in `spectrim.analysis.ablations.RANKINGS`, or of a criterion.
        reducer: what becomes of those that are not kept, a name in `spectrim.pruning.reducers.REDUCERS`.
    """

    keep_rate: float
    ranking: str = ATTENTION
    reducer: str = DROP

    @property
    def name(self) -> str:
        """Its part of a step's name and, without the sign, of a folder's."""
        ranking = "" if self.ranking == ATTENTION else f"-{self.ranking.replace(', ', '-').replace(' ', '-')}"
        reducer = "" if self.reducer == DROP else f"-{self.reducer}"
        return f"r={self.keep_rate:g}{ranking}{reducer}"

    @property
    def changes(self) -> tuple[str, ...]:
        """``field=value`` over the recipe."""
        fields = RANKINGS.get(self.ranking, {"criterion": self.ranking}) if self.ranking != ATTENTION else {}
        own = (f"pruning.{name}={str(value).lower()}" for name, value in fields.items() if value)
        reducer = () if self.reducer == DROP else (f"pruning.reducer={self.reducer}",)
        return (f"pruning.keep_rate={self.keep_rate:g}", *own, *reducer)


@dataclass(frozen=True)
class FineTuning:
    """The runs of one recipe, fold and seed with several keep rates and rankings.

    Until the keep rate begins to fall, all are the same run: it is trained once, and the others are branches of it.

    Attributes:
        backbone: for the report.
        data: name of the data set, for the report.
        recipe: name of the recipe.
        root: of the data set.
        out: of the study; the runs go to ``out/runs``.
        init: checkpoint to start from.
        seed: of the runs.
        fold: of the data set, None where it has none.
        tested: keep rates at which the dense model is tested; where there are none, no run is tested.
        changes: ``field=value`` over the recipe.
        needs: names of the steps before.
        inputs: what must be there: files or folders that no step makes.
        size: clips in the training part and labels, for the cost; None where they are not known.
    """

    backbone: str
    data: str
    recipe: str
    root: Path
    out: Path
    init: Path
    seed: int
    fold: int | None
    tested: Sequence[float]
    changes: Sequence[str] = ()
    needs: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    size: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """What the names of its steps begin with."""
        return f"{self.recipe} {'' if self.fold is None else f'fold {self.fold} '}seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where its runs go, from the folder of the study."""
        seed = f"seed{self.seed}"
        return Path("runs", self.recipe) / (seed if self.fold is None else f"fold{self.fold}-{seed}")

    @property
    def trunk(self) -> Path:
        """Folder of the beginning that its runs share, from the folder of the study."""
        return self.folder / TRUNK

    def folder_of(self, branch: Branch) -> Path:
        """Folder of a branch, from the folder of the study."""
        return self.folder / branch.name.replace("=", "")

    @property
    def all_changes(self) -> list[str]:
        """``field=value`` over the recipe, with seed and fold."""
        fold = [] if self.fold is None else [f"data.options.fold={self.fold}"]
        return [*self.changes, f"seed={self.seed}", *fold]

    def steps(self, branches: Sequence[Branch]) -> list[Step]:
        """The beginning, and a step for each branch."""
        recipe = load_recipe(self.recipe, self.all_changes)
        return [self._trunk_step(recipe), *(self._branch_step(recipe, branch) for branch in branches)]

    def _trunk_step(self, recipe: Recipe) -> Step:
        start = recipe.pruning.shrink_start
        stop = set_words((f"optimiser.stop_after_epochs={start:g}", "evaluation.test_keep_rates=[]"))
        return Step(
            f"{self.name} trunk",
            (*self._train_words(), *stop, "--output", str(self.trunk)),
            self.out / self.trunk / "results.json",
            self.needs,
            self.inputs,
            training_macs(recipe, self.size, 0.0, start),
        )

    def _branch_step(self, recipe: Recipe, branch: Branch) -> Step:
        rate, folder = branch.keep_rate, self.folder_of(branch)
        pruned = load_recipe(self.recipe, [*self.all_changes, *branch.changes])
        tested = json.dumps(list(self.tested) if rate == 1.0 else [rate] if self.tested else [])
        changes = set_words((*branch.changes, f"evaluation.test_keep_rates={tested}"))
        return Step(
            f"{self.name} {branch.name}",
            (*self._train_words(), *changes, "--branch-of", str(self.trunk), "--output", str(folder)),
            self.out / folder / "results.json",
            (f"{self.name} trunk",),
            self.inputs,
            training_macs(pruned, self.size, recipe.pruning.shrink_start, recipe.optimiser.epochs),
            Cell(
                self.backbone,
                self.data,
                self.recipe,
                self.seed,
                self.fold,
                rate,
                self.out / folder,
                branch.ranking,
            ),
        )

    def _train_words(self) -> tuple[str, ...]:
        """The command line that all its runs share."""
        fixed = ("train", self.recipe, "--data", str(self.root), "--init", str(self.init), "--resume")
        return (*fixed, *set_words(self.all_changes))


def training_free(dense: Step, root: Path, keep_rates: Sequence[float]) -> Step:
    """The step that prunes a dense model of a `FineTuning` at test time, with every ranking.

    It drops clusters at one block only, since nothing here reads what that gives.

    Args:
        dense: the step that trains it.
        root: of the data set.
        keep_rates: to prune it to.
    """
    if dense.cell is None:
        raise InvalidSetting("dense", dense.name, "a step that trains a model")
    cell, run = dense.cell, Path(dense.arguments[dense.arguments.index("--output") + 1])
    at = run.with_name(f"{run.name}-training-free")
    fold = () if cell.fold is None else set_words((f"fold={cell.fold}",))
    rates = ",".join(f"{rate:g}" for rate in keep_rates)
    arguments = ("analyze", "--model", str(run / "model"), "--dataset", cell.data, "--data", str(root), *fold)
    arguments += ("--keep-rates", rates, "--drop-at", "3", "--output", str(at), "--resume")
    done = cell.folder.with_name(at.name) / STATISTICS_FILE
    free = replace(cell, training_free=True)
    return Step(f"{dense.name} training-free", arguments, done, (dense.name,), dense.inputs, cell=free)


def training_macs(recipe: Recipe, size: tuple[int, int] | None, begin: float, end: float) -> float | None:
    """Multiply-accumulates of training between two epochs: three forward passes a clip, at the keep rate of the moment.

    Masked patches are counted as if they were there, so it is an upper bound where there is masking.
    """
    if size is None:
        return None
    clips, labels = size
    entry = DATA_SETS[recipe.data.name]
    fields = {"max_length": entry.max_length, **recipe.model.fields, "num_labels": labels}
    model = json.dumps({**fields, "prune_at": recipe.pruning.prune_at}, sort_keys=True)
    points = 20
    middles = [begin + (end - begin) * (point + 0.5) / points for point in range(points)]
    rates = [annealed_keep_rate(recipe.pruning, epoch) for epoch in middles]
    counts = [_executed_macs(recipe.model.builder, model, rate) for rate in rates]
    return 3.0 * clips * (end - begin) * sum(counts) / points


@functools.lru_cache(maxsize=1024)
def _executed_macs(builder: str, fields: str, keep_rate: float) -> int:
    """Executed MACs of one clip, kept by the fields in JSON: the runs of a study differ in fold and seed alone."""
    return macs(BUILDERS[builder](**json.loads(fields)), keep_rate=keep_rate).executed


def set_words(changes: Sequence[str]) -> tuple[str, ...]:
    """``field=value`` as words of a command line."""
    return tuple(word for change in changes for word in ("--set", change))
