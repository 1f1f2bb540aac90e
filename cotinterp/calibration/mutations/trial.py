"""What a mutation is, and how it is tried."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pandas as pd


class ControlFailed(AssertionError):
    """A control noticed that something is wrong."""


@dataclass(frozen=True)
class Mutation:
    """A deliberate bug and the check that is to catch it.

    Attributes:
        bug: What is done wrong.
        control: What notices it.
        plant: A context inside of which the library has the bug.
        check: Raises where the control notices; says nothing where all is well.
    """

    bug: str
    control: str
    plant: Callable[[], AbstractContextManager[object]]
    check: Callable[[], None]


@dataclass(frozen=True)
class Trial:
    """What became of one mutation.

    Attributes:
        sound: The check passes without the bug.
        caught: It fails with it.
        noticed: What the failing control said.
    """

    bug: str
    control: str
    sound: bool
    caught: bool
    noticed: str

    @property
    def proven(self) -> bool:
        """The control passes what is right and fails what is wrong."""
        return self.sound and self.caught


def try_mutation(mutation: Mutation) -> Trial:
    """Run the check without and with the bug."""
    before = _complaint(mutation.check)
    with mutation.plant():
        found = _complaint(mutation.check)
    return Trial(mutation.bug, mutation.control, not before, bool(found), found or before)


def trials_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """One row a mutation: bug, control, sound, caught, noticed."""
    rows = [(x.bug, x.control, x.sound, x.caught, x.noticed) for x in trials]
    return pd.DataFrame(rows, columns=["bug", "control", "sound", "caught", "noticed"])


def require(holds: bool, message: str) -> None:
    """ControlFailed with the message unless the condition holds."""
    if not holds:
        raise ControlFailed(message)


def _complaint(check: Callable[[], None]) -> str:
    """What the check complains about, empty where it does not."""
    try:
        check()
    except (ValueError, KeyError, IndexError, ArithmeticError, RuntimeError, ControlFailed) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""
