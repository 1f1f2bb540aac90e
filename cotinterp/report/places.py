"""Places of a transcript as a table names them (role and step), in reading order, and the words for an axis."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import pandas as pd

from cotinterp.transcripts.roles import place_words


@dataclass(frozen=True)
class Place:
    """Where in a transcript: a role and the step that it belongs to (-1: to none)."""

    role: str
    step: int

    @property
    def words(self) -> str:
        """The place in words, `total 1`; the role alone where it belongs to no step."""
        return place_words(self.role, self.step)


Symbols = Mapping[Place, str]


def reading_order(frame: pd.DataFrame) -> tuple[Place, ...]:
    """The places of a table in the order of their first rows, which is the order of the transcript."""
    pairs = frame[["role", "step"]].drop_duplicates()
    return tuple(Place(str(role), int(step)) for role, step in zip(pairs["role"], pairs["step"], strict=True))


def axis_labels(places: tuple[Place, ...], symbols: Symbols | None = None) -> list[str]:
    """One distinct label a place for a plotly axis; the symbol that stands there in bold where `symbols` knows it."""
    known = symbols or {}
    return [f"{place.words}  <b>{escape(known[place])}</b>" if place in known else place.words for place in places]


def symbols_of(tokens: tuple[str, ...], roles: tuple[str, ...], steps: tuple[int, ...]) -> dict[Place, str]:
    """What stands at each place of one transcript; the characters of a total of several characters are joined."""
    found: dict[Place, str] = {}
    for token, role, step in zip(tokens, roles, steps, strict=True):
        place = Place(role, step)
        found[place] = found.get(place, "") + token
    return found
