"""What the commands share: options, how an error is told, and how lists are read."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer

from spectrim.errors import InvalidSetting, SpectrimError, one_of, printable

FAILURE, WRONG_USE, INTERRUPTED = 1, 2, 130

Command = TypeVar("Command", bound=Callable[..., Any])

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Directory, file, hub id, or spectrim-mini, the model in the package.")
]
PrecisionOption = Annotated[
    str | None, typer.Option(help="fp32 or bf16; default: as the weights are. bf16 is slower on CPUs without it.")
]
ProgressOption = Annotated[
    bool | None, typer.Option("--progress/--no-progress", help="Draw progress; by default on a terminal.")
]
FormatOption = Annotated[str, typer.Option("--format", help="table, csv or json.")]


def plainly(command: Command) -> Command:
    """Say what went wrong in one line on standard error, and exit with the code that it stands for."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        from spectrim.cli.terminal import complain, error_console, warnings_as_lines

        if logging.lastResort is not None:
            logging.lastResort.setFormatter(_Plain())
        console = error_console()
        try:
            with warnings_as_lines(console):
                return command(*args, **options)
        except InvalidSetting as error:
            complain(console, error)
            raise typer.Exit(WRONG_USE) from error
        except BrokenPipeError:
            raise
        except (SpectrimError, OSError) as error:
            complain(console, error)
            raise typer.Exit(FAILURE) from error
        except KeyboardInterrupt as error:
            complain(console, "interrupted")
            raise typer.Exit(INTERRUPTED) from error

    return run  # type: ignore[return-value]


def put(text: object, end: str = "\n") -> None:
    """Print to standard output: exactly, but on a terminal with what that would act on written out."""
    print(printable(str(text)) if sys.stdout.isatty() else text, end=end)


class _Plain(logging.Formatter):
    """Log records with what a terminal would act on written out."""

    def format(self, record: logging.LogRecord) -> str:
        """The message of a record."""
        return printable(super().format(record))


def check_form(form: str) -> None:
    """Refuse what is no format of a table."""
    if form not in ("table", "csv", "json"):
        raise InvalidSetting("format", form, one_of(("table", "csv", "json")))


def numbers(field: str, text: str, kind: type) -> list[Any]:
    """Numbers that are separated by commas."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidSetting(field, text, "numbers separated by commas, e.g. 1,2") from error


def options_of(changes: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """``name=value`` each → name → value, read as YAML where there is a letter or digit in it, else as it is."""
    from spectrim.untrusted import parse_yaml

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
