"""What the commands share: options, how an error is told, and how lists are read."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from spectrim.errors import InvalidSetting, SpectrimError, one_of, printable

if TYPE_CHECKING:
    from rich.console import Console

    from spectrim.checkpoints import DescribedSource

FAILURE, WRONG_USE, INTERRUPTED = 1, 2, 130

Command = TypeVar("Command", bound=Callable[..., Any])

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Directory, file, hub id, or a model in the package: spectrim-mini or spectrim-words."
    ),
]
StrideOption = Annotated[
    str | None,
    typer.Option(help="Step between the model's patches where its file does not say it: 10, or 10,16."),
]
FramesOption = Annotated[
    int | None,
    typer.Option(
        help="Frames of 10 ms that the model was trained for, where its file does not say them; where it does, a "
        "length to fit it to, which changes its scores."
    ),
]
CriterionOption = Annotated[
    str | None,
    typer.Option(help="What ranks the patches, e.g. value_norm; default: as the model says. docs/pruning.md has all."),
]
ReducerOption = Annotated[
    str | None,
    typer.Option(help="What becomes of the others, e.g. cluster, which ranks nothing; default: as the model says."),
]
PrecisionOption = Annotated[
    str | None, typer.Option(help="fp32 or bf16; default: as the weights are. bf16 is slower on CPUs without it.")
]
ProgressOption = Annotated[
    bool | None, typer.Option("--progress/--no-progress", help="Draw progress; by default on a terminal.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="option=value of the data set; also data.options.option=value.")
]
DatasetOption = Annotated[
    str, typer.Option("--dataset", help="Its name in recipes, e.g. esc50, speech-commands, folder or csv.")
]
OptionalDatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", help="Its name in recipes, e.g. esc50, speech-commands or csv; by default folder."),
]
FoldOption = Annotated[int | None, typer.Option("--fold", help="The held-out fold, as --set data.options.fold=.")]
FoldsOption = Annotated[
    str | None, typer.Option("--folds", help="all, or several held-out folds separated by commas, one after another.")
]
FormatOption = Annotated[str, typer.Option("--format", help="table, csv or json.")]

OUTPUTS = ("out", "output", "write_recipe")
"""What the commands call that which they write; a new name of this kind belongs here."""

INPUTS = (
    *("branch_of", "clips", "data", "data_root", "earlier", "extra_audio", "init", "labels", "model", "paths"),
    *("recipe", "root", "segments", "sounds", "source", "watch", "weights"),
)
"""What they call that which they read, where that can be a file or folder; likewise."""


def plainly(command: Command) -> Command:
    """Say what went wrong in one line on standard error, and exit with the code that it stands for.

    No command writes one of the files that it was told to read: that is refused here, for all of them.
    """

    @wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        from spectrim.cli.terminal import complain, error_console, warnings_as_lines

        if logging.lastResort is not None:
            logging.lastResort.setFormatter(_Plain())
        console = error_console()
        try:
            with warnings_as_lines(console):
                _refuse_inputs(options)
                return command(*args, **options)
        except InvalidSetting as error:
            complain(console, error)
            raise typer.Exit(WRONG_USE) from error
        except BrokenPipeError:
            raise
        except (SpectrimError, OSError) as error:
            complain(console, _when_full(error) or error)
            raise typer.Exit(FAILURE) from error
        except KeyboardInterrupt as error:
            complain(console, "interrupted")
            raise typer.Exit(INTERRUPTED) from error
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            complain(console, _unexpected(error))
            raise typer.Exit(FAILURE) from error

    return run  # type: ignore[return-value]


def _refuse_inputs(options: Mapping[str, Any]) -> None:
    """Refuse an output that is a file which another argument names."""
    from spectrim.files import refuse_input

    values = [value for name, value in options.items() if name in INPUTS]
    named = [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]
    inputs = [one for one in named if isinstance(one, str | os.PathLike)]
    for field in OUTPUTS:
        if options.get(field) is not None:
            refuse_input(options[field], inputs, field)


@contextmanager
def resumable(console: Console) -> Iterator[None]:
    """Say after Ctrl-C, and where the disk is full, how to go on with a run."""
    from spectrim.cli.terminal import complain
    from spectrim.files import FULL

    on = "the same command with --resume goes on from the newest checkpoint"
    try:
        yield
    except KeyboardInterrupt:
        complain(console, on)
        raise
    except OSError as error:
        if error.errno in FULL:
            complain(console, f"once there is room, {on}")
        raise


def nothing_named(allowed: str) -> typer.Exit:
    """Say that no sound is named, and what could be; the exit to raise."""
    from spectrim.cli.terminal import complain, error_console

    complain(error_console(), f"nothing is named to be heard: {allowed}")
    return typer.Exit(WRONG_USE)


def put(text: object, end: str = "\n") -> None:
    """Print to standard output: exactly, but on a terminal with what that would act on written out."""
    print(printable(str(text)) if sys.stdout.isatty() else text, end=end)


class _Plain(logging.Formatter):
    """Log records with what a terminal would act on written out."""

    def format(self, record: logging.LogRecord) -> str:
        """The message of a record."""
        return printable(super().format(record))


def _when_full(error: Exception) -> str | None:
    """What to say of an error of writing where there is no room; None of others."""
    from spectrim.files import FULL

    if not isinstance(error, OSError) or error.errno not in FULL:
        return None
    if error.filename is None:
        return f"{error.strerror}: standard output, or a temporary file in {tempfile.gettempdir()}"
    return f"{error.filename}: {error.strerror}; make room, or write elsewhere"


def _unexpected(error: Exception) -> str:
    """One line about an error that nobody foresaw; where it came from goes into a new file, which the line names."""
    from spectrim import __version__
    from spectrim.checkpoints.untrusted import one_line

    kind = type(error).__name__
    where = "its details could not be written"
    with suppress(OSError):
        number, name = tempfile.mkstemp(prefix="spectrim-error-", suffix=".txt", text=True)
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"spectrim {__version__}, Python {sys.version}\n{sys.argv}\n\n")
            file.writelines(traceback.format_exception(error))
        where = f"details are in {name}"
    return f"unexpected {kind}: {one_line(error) or 'no reason is given'}; {where}; please report it with that file"


def named_model(
    model: str, stride: str | None, frames: int | None, criterion: str | None = None, reducer: str | None = None
) -> str | DescribedSource:
    """A model's name with what --stride, --frames, --criterion and --reducer say of it.

    Raises:
        InvalidSetting: the stride is no number and no two numbers, or the model is an exported file, which says all.
    """
    said = {"stride": stride, "frames": frames, "criterion": criterion, "reducer": reducer}
    given = {name: value for name, value in said.items() if value is not None}
    if not given:
        return model
    if model.lower().endswith(".onnx"):
        name, value = next(iter(given.items()))
        where = f": spectrim export --{name}" if name in ("criterion", "reducer") else ""
        raise InvalidSetting(name, value, f"none with an exported file{where}")
    from spectrim.checkpoints import DescribedSource

    steps = None if stride is None else numbers("stride", stride, int)
    step = steps[0] if steps is not None and len(steps) == 1 else steps
    return DescribedSource(model, step, frames, criterion, reducer)


def check_form(form: str) -> None:
    """Refuse what is no format of a table."""
    if form not in ("table", "csv", "json"):
        raise InvalidSetting("format", form, one_of(("table", "csv", "json")))


def held_out(fold: Any, folds: str | None) -> Sequence[int] | Literal["all"]:
    """The folds that --fold or --folds names, none for what the data set opens with."""
    if folds is None:
        return [] if fold is None else [fold]
    if fold is not None:
        raise InvalidSetting("fold", fold, "one of --fold and --folds")
    return "all" if folds == "all" else numbers("folds", folds, int)


def numbers(field: str, text: str, kind: type) -> list[Any]:
    """Numbers that are separated by commas."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidSetting(field, text, "numbers separated by commas, e.g. 1,2") from error


def byte_size(field: str, text: str, allowed: str = "a size such as 500MB or 20GB") -> int:
    """Bytes that a text such as 500MB says."""
    number, unit = text[:-2], {"MB": 10**6, "GB": 10**9, "TB": 10**12}.get(text[-2:].upper())
    try:
        size = int(float(number) * (unit or math.nan))
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise InvalidSetting(field, text, allowed)
    return size


OPTIONS = "data.options."
"""What the options of a data set are called in a recipe."""


def data_options(changes: Sequence[str] | None, fold: int | None = None) -> dict[str, Any]:
    """The options of a data set that --set and --fold name; as in a recipe, or by their names alone.

    Raises:
        InvalidSetting: one is no ``option=value``, or the fold is named twice.
    """
    options = options_of([change.removeprefix(OPTIONS) for change in changes or ()])
    if fold is not None:
        if "fold" in options:
            raise InvalidSetting("fold", fold, "one of --fold and --set fold=")
        options["fold"] = fold
    return options


def options_of(changes: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """``name=value`` each → name → value, read as YAML where there is a letter or digit in it, else as it is."""
    from spectrim.checkpoints.untrusted import parse_yaml

    options = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not name:
            raise InvalidSetting(option, change, "option=value, e.g. fold=2")
        try:
            options[name] = parse_yaml(value) if any(map(str.isalnum, value)) else value
        except ValueError as error:
            raise InvalidSetting(option, change, f"option=value with a value in YAML ({error})") from error
    return options


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Let a hangup and a request to end interrupt as Ctrl-C does, unless ignored, so that nothing is left behind."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
