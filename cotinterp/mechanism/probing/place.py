"""Where the features of a probe came from: what a table, an axis and an error call them."""

from dataclasses import dataclass, replace
from typing import Any

from cotinterp.mechanism.sites import Site


@dataclass(frozen=True, kw_only=True)
class ProbedAt:
    """Where the features of a probe came from.

    Attributes:
        site: Kind of activation, `input` for the baseline that sees the current token and its position alone.
        layer: -1 where the features belong to no layer.
        role: Role of the token, empty where it has none.
        step: Step of the token, -1 where it has none.
        model: `trained`, or `untrained` for the control of the same size at its initialization.
        place: Words for an axis; role and step where left empty.
    """

    site: str
    layer: int = -1
    role: str = ""
    step: int = -1
    model: str = "trained"
    place: str = ""

    @property
    def row(self) -> str:
        """`L2.resid_pre`, or the site alone where it belongs to no layer."""
        return self.site if self.layer < 0 else f"L{self.layer}.{self.site}"

    @property
    def column(self) -> str:
        """The place in words."""
        words = self.role.replace("_", " ")
        return self.place or (words if self.step < 0 else f"{words} {self.step}") or "everywhere"


def as_place(key: str | Site | ProbedAt, **where: Any) -> ProbedAt:
    """Where features under this name come from; `where` says more about it (role, step, model, place)."""
    if isinstance(key, ProbedAt):
        return replace(key, **where)
    if isinstance(key, str):
        return ProbedAt(site=key, **where)
    return ProbedAt(site=key.kind if key.head is None else f"{key.kind}.H{key.head}", layer=key.layer, **where)
