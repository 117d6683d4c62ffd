"""The runs of one recipe, fold and seed as steps: the beginning that they share, and a branch for each way to go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spectrim.analysis.ablations import ATTENTION, RANKINGS
from spectrim.analysis.analyse import STATISTICS_FILE
from spectrim.config import BUILDERS
from spectrim.data import DATA_SETS
from spectrim.errors import InvalidSetting
from spectrim.network.macs import macs
from spectrim.studies.runner import Cell, Step
from spectrim.training.optimiser import annealed_keep_rate
from spectrim.training.recipes import Recipe, load_recipe


@dataclass(frozen=True)
class Branch:
    """A way to go on from where the keep rate begins to fall.

    Attributes:
        keep_rate: to which it falls.
        ranking: what the patches are ranked by, a name in `spectrim.analysis.ablations.RANKINGS`.
    """

    keep_rate: float
    ranking: str = ATTENTION

    @property
    def name(self) -> str:
        """Its part of a step's name and, without the sign, of a folder's."""
        ranking = "" if self.ranking == ATTENTION else f"-{self.ranking.replace(', ', '-').replace(' ', '-')}"
        return f"r={self.keep_rate:g}{ranking}"

    @property
    def changes(self) -> tuple[str, ...]:
        """``field=value`` over the recipe."""
        fields = RANKINGS[self.ranking] if self.ranking != ATTENTION else {}
        own = (f"pruning.{name}={str(value).lower()}" for name, value in fields.items() if value)
        return (f"pruning.keep_rate={self.keep_rate:g}", *own)


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
    branches: Sequence[Branch],
    tested: Sequence[float],
    changes: Sequence[str] = (),
    needs: tuple[str, ...] = (),
    inputs: tuple[Path, ...] = (),
    size: tuple[int, int] | None = None,
) -> list[Step]:
    """The runs of one recipe, fold and seed with several keep rates and rankings.

    Until the keep rate begins to fall, all are the same run: it is trained once, and the others are branches of it.

    Args:
        backbone, data: for the report.
        recipe: name of the recipe.
        root: of the data set.
        out: of the study; the runs go to ``out/runs``.
        init: checkpoint to start from.
        seed, fold: of the runs; a data set may have no folds.
        branches: to train.
        tested: keep rates at which the dense model is tested.
        changes: ``field=value`` over the recipe.
        needs, inputs: steps before, and what must be there.
        size: clips in the training part and labels, for the cost; None where they are not known.
    """
    given = [*changes, f"seed={seed}", *(() if fold is None else (f"data.options.fold={fold}",))]
    settings = load_recipe(recipe, given)
    name = f"{recipe} {'' if fold is None else f'fold {fold} '}seed {seed}"
    folder = Path("runs", recipe) / (f"seed{seed}" if fold is None else f"fold{fold}-seed{seed}")
    base = ("train", recipe, "--data", str(root), "--init", str(init), "--resume", *set_words(given))
    start, trunk = settings.pruning.shrink_start, folder / "trunk"
    stop = set_words((f"optimiser.stop_after_epochs={start:g}", "evaluation.test_keep_rates=[]"))
    steps = [
        Step(
            f"{name} trunk",
            (*base, *stop, "--output", str(trunk)),
            out / trunk / "results.json",
            needs,
            inputs,
            training_macs(settings, size, 0.0, start),
        )
    ]
    for branch in branches:
        rate, at = branch.keep_rate, folder / branch.name.replace("=", "")
        own = load_recipe(recipe, [*given, *branch.changes])
        rates = json.dumps(list(tested) if rate == 1.0 else [rate])
        rest = set_words((*branch.changes, f"evaluation.test_keep_rates={rates}"))
        steps.append(
            Step(
                f"{name} {branch.name}",
                (*base, *rest, "--branch-of", str(trunk), "--output", str(at)),
                out / at / "results.json",
                (f"{name} trunk",),
                inputs,
                training_macs(own, size, start, settings.optimiser.epochs),
                Cell(backbone, data, recipe, seed, fold, rate, out / at, branch.ranking),
            )
        )
    return steps


def training_free(dense: Step, root: Path, keep_rates: Sequence[float]) -> Step:
    """The step that prunes a dense model of `fine_tuning` at test time, with every ranking.

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
    arguments = (
        *("analyze", "--model", str(run / "model"), "--dataset", cell.data, "--data", str(root), *fold),
        *("--keep-rates", rates, "--drop-at", "3", "--output", str(at), "--resume"),
    )
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
    config = BUILDERS[recipe.model.builder](**fields, prune_at=recipe.pruning.prune_at)
    points = 20
    middles = [begin + (end - begin) * (point + 0.5) / points for point in range(points)]
    counts = [macs(config, keep_rate=annealed_keep_rate(recipe.pruning, epoch)).executed for epoch in middles]
    return 3.0 * clips * (end - begin) * sum(counts) / points


def set_words(changes: Sequence[str]) -> tuple[str, ...]:
    """``field=value`` as words of a command line."""
    return tuple(word for change in changes for word in ("--set", change))
