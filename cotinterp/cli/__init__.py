"""The command line: every instrument as a verb. Nothing heavy is imported until a command needs it."""

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from cotinterp.cli import experiments, instruments, verdicts
from cotinterp.cli.instruments import DESCRIPTION, app

COMMANDS = (instruments, experiments, verdicts)
"""Modules whose commands are known once they are imported."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. An error that tells its reader what to do next ends the program with status 2, no traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["train"]:
        # Its options are the fields of a spec. To load those would double the time of every other command's --help.
        from cotinterp.training.spec import RunSpec

        instruments.train_command.__annotations__["spec"] = Annotated[RunSpec, tyro.conf.arg(name="")]
    try:
        app.cli(prog="cotinterp", description=DESCRIPTION, args=arguments)
    except (ValueError, KeyError, OSError, ArithmeticError) as error:
        print(f"cotinterp: error: {_text(error)}", file=sys.stderr)
        raise SystemExit(2) from error


def _text(error: Exception) -> str:
    """What an error says, without the quotes of a KeyError and the frame that pydantic puts around its messages."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        faults = [
            (".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()
        ]
        return "; ".join(f"{place}: {message}" if place else message for place, message in faults)
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
