"""A first recipe for a data set of one's own, with the reason for every value beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spectrim.checkpoints import DescribedSource, describe
from spectrim.data import PARTS, AudioDataset, find_data_set
from spectrim.data.check import Report
from spectrim.data.dataset import labels_have
from spectrim.data.folder import parts_of
from spectrim.data.packed import is_packed
from spectrim.data.table import GROUPS, columns_of
from spectrim.data.whole_groups import groups_of
from spectrim.errors import DataError, InvalidSetting, shown
from spectrim.files import file_beside
from spectrim.pruning.criteria import AUTO
from spectrim.training.recipe_files import load_recipe

SPLITTING = ("folds", "group", "fold", "validation_fold", "validation_share", "test_share", "seed")
"""Options that say which clip belongs to which part: where one of them is given, nothing else is chosen."""

ENOUGH = 2000
"""Clips from which on a tenth of them, held out once, tells models apart; below, folds let every clip be tested."""

FOLDS = 5

BATCHES = ((1000, 16), (5000, 32), (math.inf, 64))
"""Training clips below which → clips in a step."""

EPOCHS = ((1000, 30), (5000, 20), (50_000, 10), (math.inf, 5))
"""Training clips below which → epochs."""


SMALL, RATES = 192, ("1.0e-3", "3.0e-4")
"""Width up to which the first of the learning rates is right, above it the second."""


@dataclass(frozen=True)
class Start:
    """The checkpoint that training is to start from.

    Attributes:
        source: its place, with what its file does not say.
        width: of its tokens.
        blocks: how many.
        sampling_rate: that it hears, in hertz.
        criterion: by which it ranks patches.
    """

    source: DescribedSource
    width: int
    blocks: int
    sampling_rate: int
    criterion: str

    @property
    def prune_at(self) -> list[int]:
        """Blocks after a quarter, a half and three quarters of all but the last: 3, 6 and 9 of 12."""
        blocks = {quarter * self.blocks // 4 for quarter in (1, 2, 3)}
        return sorted(blocks - {0, self.blocks - 1}) or [0]


def look_at(source: DescribedSource) -> Start:
    """What of a checkpoint decides in a recipe; raises `CheckpointError` for what is none."""
    described = describe(source)
    sizes = described["hidden_size"], described["num_hidden_layers"]
    return Start(source, *sizes, described["sampling_rate"], described["criterion"])


@dataclass(frozen=True)
class Split:
    """Which clips are for training, validation and test.

    Attributes:
        options: of the data set's opener.
        why: in words, for a comment.
        held_out: whether there are clips for validation that are not those of the test.
    """

    options: dict[str, Any]
    why: str
    held_out: bool


def choose_split(name: str, root: str | Path, options: Mapping[str, Any]) -> Split:
    """The split that suits a data set: its own, else folds for few clips, else a tenth each for validation and test.

    Args:
        name: of the data set.
        root: where it is.
        options: of its opener; those in `SPLITTING` decide.

    Raises:
        DataError: it cannot be read, a label has too few clips to be in training and test, or all clips are of one
            group.
        InvalidSetting: an option is wrong.
    """
    entry = find_data_set(name)
    given = dict(options)
    if is_packed(root):
        parts = {part: entry.open(root, part, **given).recordings for part in ("validation", "test")}
        if folds := entry.open(root, "test", **given).folds:
            held_out = {"fold": folds[0], **given}
            if all(entry.open(root, part, **held_out).recordings == parts[part] for part in parts):
                given = held_out  # not where parts were packed beside the folds: a fold would take their place
        return Split(given, "as it was packed", parts["validation"] != parts["test"])
    if name == "folder" and parts_of(Path(root)) != {"train": Path(root)}:
        return Split(given, "its folders are named for the parts", True)
    columns = columns_of(root, given) if name == "csv" else set()
    if "split" in columns and not given.keys() & set(SPLITTING):
        return Split(given, "its column split says which clip is for what", True)
    if "fold" in columns or entry.folds:
        given.setdefault("fold", entry.open(root, "test", **given).folds[0])
        return Split(given, "one of its folds is held out for the test", "validation_fold" in given)
    if name not in ("folder", "csv") or given.keys() & set(SPLITTING) - {"group"}:
        return Split(given, "as the data set and its options say", "folds" not in given or "validation_fold" in given)
    everything = entry.open(root, "test", **given, test_share=1)
    return _made(everything, given, next((one for one in GROUPS if one in columns), None))


def _made(clips: AudioDataset, given: dict[str, Any], group: str | None) -> Split:
    """A split of clips of which nothing says what they are for."""
    if group is not None:
        given.setdefault("group", group)
    counts = [0] * len(clips.labels)
    for recording in clips.recordings:
        for label in recording.labels:
            counts[label] += 1
    fewest = min(counts) if not clips.multi_label else len(clips)
    if fewest < 2:
        alone = [clips.labels[number] for number, count in enumerate(counts) if count < 2]
        raise DataError(
            f"{labels_have(len(alone))} fewer than two clips, e.g. {shown(alone[0])}: a label must be in training and "
            "in the test; add clips, or take it out"
        )
    if len(clips) >= ENOUGH and fewest >= 2 * FOLDS and "group" not in given:
        shares = {"validation_share": 0.1, "test_share": 0.1, "seed": 0}
        return Split({**given, **shares}, f"{len(clips)} clips: a tenth each is enough to choose and to test on", True)
    groups = groups_of(clips.recordings)
    together_in = len(clips) if groups is None else len(set(groups))
    if together_in < 2:
        raise DataError(
            f"all {len(clips)} clips have the same {given['group']}, so none of them can test what others train; name "
            "another column with the option group, or add a column split that says which clip is for what"
        )
    folds = min(FOLDS, fewest, together_in)
    options = {**given, "folds": folds, "fold": 1, "seed": 0}
    together = (
        f"clips with the same {given['group']} are in one fold"
        if "group" in given
        else "clips of one recording or speaker may be in several: a table with a column group keeps them together"
    )
    why = f"{len(clips)} clips: with folds, every one of them is tested on once; {together}"
    return Split(options, why, False)


def write_starter(path: Path, root: str | Path, report: Report, split: Split, start: Start | None = None) -> None:
    """Write a recipe for a data set that has been checked.

    Args:
        path: a new file.
        root: where the data set is.
        report: of `spectrim.data.check.check` with the options of ``split``.
        split: from `choose_split`.
        start: what it is to start from, None where nobody says.

    Raises:
        InvalidSetting: there is a file of this name.
        DataError: the check found what keeps training from running, or no sound.
    """
    refuse_existing(path)
    if report.failures or not math.isfinite(report.mean):
        raise DataError(f"no recipe is written: {'; '.join(report.failures) or 'there is no sound in the clips'}")
    with file_beside(path) as beside:
        beside.write_text(starter_text(path, root, report, split, start), encoding="utf-8")
        load_recipe(beside)
        refuse_existing(path)


def refuse_existing(path: Path) -> None:
    """Refuse to write over a file, and into a folder that is not there."""
    if path.exists() or path.is_symlink():
        raise InvalidSetting("write-recipe", str(path), "a file that is not there yet: remove it, or give another name")
    if not path.absolute().parent.is_dir():
        raise InvalidSetting("write-recipe", str(path), "a file in a folder that is there")


def starter_text(path: Path, root: str | Path, report: Report, split: Split, start: Start | None = None) -> str:
    """The recipe as YAML with comments."""
    train = report.parts["train"]
    clips, seconds = train.clips, report.max_length / 100
    counts = sorted(train.per_label.values())
    batch = next(size for most, size in BATCHES if clips < most)
    epochs = next(number for most, number in EPOCHS if clips < most)
    dense, falling = round(epochs / 3), round(epochs / 3)
    same = report.parts["validation"] is report.parts["test"]
    choose = "best" if split.held_out and not same else "last"
    first = dense + falling if choose == "best" else 0
    spread = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    kind = f"{len(counts)} labels with {spread} training clips each"
    longest = f"the longest clip has {train.seconds[2]:.2f} s"
    cut = f"{report.cut} of {clips} training clips are longer and lose their ends; {longest}" if report.cut else longest
    chosen = (
        "the epoch is chosen on clips that are neither trained nor tested on"
        if choose == "best"
        else "no epoch is chosen: the validation clips are those of the test"
    )
    steps = math.ceil(clips / batch)
    name = "CHECKPOINT" if start is None else _comment(start.source.place)
    return f"""\
# A first recipe for {_comment(str(root))}, written by `spectrim data check {report.name} DIR --write-recipe`:
# {kind}, {_counted(report)}.
# Train:  spectrim train {_comment(path.name)} --data DIR --init {name} --output RUN
{_folds_line(path.name, split, name)}# Another value without a change here: --set optimiser.learning_rate=1.0e-3
name: {_yaml(path.stem)}
description: {_yaml(f"{len(counts)} labels of {Path(root).name}, {clips} training clips")}
data:
  name: {report.name}
  # {_comment(split.why)}.
  options: {_yaml(split.options)}
model:
  # Without --init: a small AST from random weights; a few hundred clips are then too few to learn much from.
  builder: ast-tiny
{_described_lines(start)}  fields:
    # Mean and standard deviation of the log-mel values of the training clips, padding left out.
    mean: {report.mean:.6g}
    std: {report.std:.6g}
    # Frames of 10 ms, in whole patches of 16: {seconds:g} s.
    # {cut[0].upper()}{cut[1:]}.
    max_length: {report.max_length}
optimiser:
  {_rate_lines(start)}
  # Layers nearer to the sound change less; from random weights, 1.0e-3 and a layer_decay of 1.
  learning_rate: {RATES[1] if start is None or start.width > SMALL else RATES[0]}
  layer_decay: 0.75
  weight_decay: 0.05
  # {batch} clips a step, {steps} step{"" if steps == 1 else "s"} an epoch, {epochs * steps} in all: \
the fewer clips, the more often each is seen.
  batch_size: {batch}
  epochs: {epochs}
schedule:
  # The rate rises for a tenth of the course, then falls by a cosine.
  warmup_epochs: {epochs / 10:g}
pruning:
  # 0.7 of the patches are kept at each of these blocks; 1 trains the dense model. A third of the course is dense, in
  # the second third the keep rate falls, the last third is trained as the model will work.
  keep_rate: 0.7
  prune_at: {[3, 6, 9] if start is None else start.prune_at}
  # What ranks the patches{"" if start is None else ": the checkpoint's own"}. auto is the backbone's attention, the \
paper's; docs/pruning.md says what else there is.
  criterion: {AUTO if start is None else start.criterion}
  shrink_start: {dense}
  shrink_epochs: {falling}
augment:
  # Stripes of up to 24 of 128 mel bins and a fifth of the frames are blanked while the keep rate is 1.
  frequency_mask: 24
  time_mask: {report.max_length // 5}
evaluation:
  # {chosen[0].upper()}{chosen[1:]}.
  choose: {choose}
  first_epoch: {first}
  test_keep_rates: [1.0, 0.7, 0.5]
seed: 0
"""


def _counted(report: Report) -> str:
    """How many clips each part has, those that are the same clips named once."""
    clips = {part: report.parts[part].clips for part in PARTS}
    if report.parts["validation"] is report.parts["test"]:
        return f"{clips['train']} clips to train on, {clips['test']} for validation and test"
    return f"{clips['train']} clips to train on, {clips['validation']} for validation, {clips['test']} for test"


def _rate_lines(start: Start | None) -> str:
    """Why the learning rate is what it is."""
    sizes = f"models of width up to {SMALL} take {RATES[0]}, larger ones (AST, AudioMAE: 768) {RATES[1]}."
    if start is not None:
        return f"# For {_comment(start.source.place)}, of width {start.width}: {sizes}"
    return f"# {sizes[0].upper()}{sizes[1:]}\n  # Here a large one; with --init CHECKPOINT, --write-recipe looks at it."


def _described_lines(start: Start | None) -> str:
    """What the file of a checkpoint does not say."""
    if start is None:
        return ""
    said = {"stride": start.source.stride, "frames": start.source.frames}
    return "".join(f"  {name}: {_yaml(value)}\n" for name, value in said.items() if value is not None)


def _folds_line(recipe: str, split: Split, name: str) -> str:
    if "fold" not in split.options:
        return ""
    return (
        "# Another fold, into a folder of its own: --fold 2 --output RUN-2\n"
        f"# All of them, with one table: spectrim train {_comment(recipe)} --data DIR --init {name} --output RUNS "
        "--folds all\n"
    )


def _comment(text: str) -> str:
    """Text that stays in one comment."""
    return " ".join(shown(text).split())


def _yaml(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
