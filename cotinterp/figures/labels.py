"""What figures and sentences call things: trained models, places of a transcript, shares."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

import pandas as pd


def file_name(text: str) -> str:
    """A text as part of a file name or an id: whatever is no letter, digit, `_` or `-` becomes one hyphen."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


@dataclass(frozen=True, order=True)
class RunKey:
    """Which trained model a row is about; a table without these labels is about one model that has no name."""

    task: str = ""
    regime: str = ""
    run_seed: int = -1

    @property
    def words(self) -> str:
        """The run in words: `digit-sum, cot, seed 0`; empty without labels."""
        return ", ".join(filter(None, (self.task, self.within_task)))

    @property
    def within_task(self) -> str:
        """The run in words where the task is known: `cot, seed 0`."""
        return ", ".join(filter(None, (self.regime, "" if self.run_seed < 0 else f"seed {self.run_seed}")))

    @property
    def panel_title(self) -> str:
        """The run above its panel, where the task stands in the title."""
        return f"<b>{self.regime}</b>, seed {self.run_seed}" if self.regime and self.run_seed >= 0 else self.within_task

    @property
    def slug(self) -> str:
        """The run as part of a file name."""
        return file_name("-".join(filter(None, (self.task, self.regime, str(self.run_seed)))))


def runs_of(frame: pd.DataFrame) -> Iterator[tuple[RunKey, pd.DataFrame]]:
    """Each trained model of a table with its rows, in the order of the table.

    A table that lacks `task`, `regime` or `run_seed` has one model in that respect.
    """
    labels = [name for name in ("task", "regime", "run_seed") if name in frame.columns]
    if not labels:
        yield RunKey(), frame
        return
    for key, rows in frame.groupby(labels, sort=False, dropna=False):
        known = {name: "" if str(value) == "nan" else str(value) for name, value in zip(labels, key, strict=True)}
        task, regime, seed = (known.get(name, "") for name in ("task", "regime", "run_seed"))
        yield RunKey(task, regime, int(float(seed)) if seed else -1), rows


def tasks_of(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each task of a table with its rows, in the order of the table."""
    for (task,), rows in frame.groupby(["task"], sort=False):
        yield str(task), rows


def only(frame: pd.DataFrame, column: str) -> str:
    """The one value of a column; empty where the table does not have the column.

    Raises ValueError naming the values where there are several (or no rows): the figure would mix what it must not.
    """
    if column not in frame.columns:
        return ""
    values = [str(value) for value in frame[column].unique()]
    if len(values) != 1:
        raise ValueError(
            f"this figure is about one {column}, and the table has {values or 'no rows'}; select one first"
        )
    return values[0]


def only_run(frame: pd.DataFrame) -> RunKey:
    """The one trained model of a table. Raises ValueError naming them where there are several."""
    runs = [key for key, _ in runs_of(frame)]
    if len(runs) != 1:
        raise ValueError(
            f"this figure is about one trained model, and the table has {[key.words for key in runs] or 'no rows'}; "
            "select one first"
        )
    return runs[0]


def about(subject: str, said: str) -> str:
    """`said` behind what it is about; alone where that has no name."""
    return f"{subject}: {said}" if subject else said[:1].upper() + said[1:]


Place = tuple[str, int]
"""Where in a transcript: a role and the step that it belongs to (-1: to none)."""


def place_words(place: Place) -> str:
    """A place in words, `total 1`; the role alone where it belongs to no step."""
    role, step = place[0].replace("_", " "), place[1]
    return role if step < 0 else f"{role} {step}"


Symbols = Mapping[Place, str]
"""What stands at each place of an example."""
NO_SYMBOLS: Symbols = MappingProxyType({})


def reading_order(frame: pd.DataFrame) -> tuple[Place, ...]:
    """The places of a table in the order of their first rows, which is the order of the transcript."""
    pairs = frame[["role", "step"]].drop_duplicates()
    return tuple((str(role), int(step)) for role, step in zip(pairs["role"], pairs["step"], strict=True))


def axis_labels(places: tuple[Place, ...], symbols: Symbols = NO_SYMBOLS) -> list[str]:
    """One distinct label a place for a plotly axis; the symbol that stands there in bold where `symbols` knows it."""
    words = {place: place_words(place) for place in places}
    return [
        f"{words[place]}  <b>{escape(symbols[place])}</b>" if place in symbols else words[place] for place in places
    ]


def symbols_of(tokens: tuple[str, ...], roles: tuple[str, ...], steps: tuple[int, ...]) -> dict[Place, str]:
    """What stands at each place of one transcript; the characters of a total of several characters are joined."""
    found: dict[Place, str] = {}
    for token, role, step in zip(tokens, roles, steps, strict=True):
        found[role, step] = found.get((role, step), "") + token
    return found


def percent(share: float) -> str:
    """A share as a percentage with one decimal; never rounded to 0% or 100% where it is neither."""
    shown = f"{share:.1%}"
    if shown == "100.0%" and share < 1:
        return ">99.9%"
    return "<0.1%" if shown == "0.0%" and share > 0 else shown
