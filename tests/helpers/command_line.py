"""The command line in this process, as a user would call it."""

from __future__ import annotations

import csv
import io

from typer.testing import CliRunner

from spectrim.cli.app import app


def run(*arguments: object, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Exit code, standard output, standard error; what is no exit is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of a CSV text."""
    return list(csv.DictReader(io.StringIO(text, newline="")))
