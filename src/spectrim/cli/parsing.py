"""A command whose errors about numbers show what was typed, and what would have been right."""

from __future__ import annotations

import typer
from typer.core import TyperCommand

from spectrim.cli.common import WRONG_USE
from spectrim.errors import InvalidSetting

NUMBERS = {"float_parsing": "a number, e.g. 0.7", "int_parsing": "a whole number"}
BOUNDS = {"greater_than_equal": "{ge} or more", "less_than_equal": "{le} or less"}
"""Kinds of error that Typer has from pydantic → what is allowed."""

KEEP_RATE = "a number in (0, 1], e.g. 0.7"


class Command(TyperCommand):
    """A command that tells a number that cannot be read as `InvalidSetting` tells it.

    Typer since 0.29 reads numbers by pydantic, whose text lacks the value; that of earlier ones has it, and stays.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the arguments; exit with 2 where a number is none."""
        from spectrim.cli.terminal import complain, error_console

        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            said = _setting(error)
            if said is None:
                raise
            complain(error_console(), said)
            raise typer.Exit(WRONG_USE) from error


def _setting(error: typer.BadParameter) -> InvalidSetting | None:
    from pydantic import ValidationError

    cause = error.__cause__
    if not isinstance(cause, ValidationError) or error.param is None or error.param.name is None:
        return None
    first = cause.errors()[0]
    kind, name = first["type"], error.param.name
    if kind in BOUNDS:
        allowed = BOUNDS[kind].format(**first["ctx"])
    elif kind in NUMBERS:
        allowed = KEEP_RATE if name == "keep_rate" else NUMBERS[kind]
    else:
        return None
    return InvalidSetting(name, first["input"], allowed)
