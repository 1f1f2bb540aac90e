"""What is lost without each read: a row for every read, place of the cut, and way of cutting, controls included."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.heads.evidence import scan_columns
from cotinterp.results import Result, with_labels
from cotinterp.results.plots import heatmap

RANDOM_SOURCES = "random sources"
ABSENT_READ = "absent read"


@dataclass(frozen=True)
class KnockOut:
    """One row: which read is cut, where, and how.

    Attributes:
        read: Name of the read; for random sources that of the read with as many sources.
        control: Empty, "random sources", or "absent read" for a read that no mechanism in question has.
        dest: "readout" or "everywhere".
        layer: The layer in which it is cut, or None for all layers.
        head: The head in which it is cut, or None for all heads.
        method: "pattern", or what the moved values are replaced by.
        attention: What the cut heads pay the sources on the clean run: mass per destination, mean of heads and
            examples. Exactly 0 where there is nothing to cut, and the loss is then exactly 0.
    """

    read: str
    control: str
    dest: str
    layer: int | None
    head: int | None
    method: str
    attention: float

    @property
    def scope(self) -> str:
        """ "L1H3" for a head, "L1" for all heads of a layer, "all" for those of all layers together."""
        if self.layer is None:
            return "all"
        return f"L{self.layer}" if self.head is None else f"L{self.layer}H{self.head}"


@dataclass(frozen=True)
class KnockOutResult(Result):
    """Logit difference lost under each knock-out, in logits and per example; NaN for examples without a donor.

    Attributes:
        cells: The knock-outs, in the order of the first axis of `lost`.
        clean: The clean logit difference.
    """

    cells: tuple[KnockOut, ...]
    lost: Float[Tensor, "cell batch"]
    clean: Float[Tensor, " batch"]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per knock-out.

        `scope`: "L1H3", "L1" or "all"; `layer` and `head` are -1 for all of them. `effect`: mean loss as a share of the
        mean clean logit difference: 1 says that nothing of it is left, above 1 that the foil is now preferred, below 0
        that the read was in the way. `ci_low`, `ci_high`: 95% for the row alone; `scan_low`, `scan_high`, `p`:
        simultaneous (max-statistic over examples) over all rows of the same kind of scope: those of single heads, of
        single layers, or of all heads together are three scans, and the last is the one to begin with.
        """
        places = pd.DataFrame(
            {
                "read": [cell.read for cell in self.cells],
                "control": [cell.control for cell in self.cells],
                "dest": [cell.dest for cell in self.cells],
                "scope": [cell.scope for cell in self.cells],
                "layer": [-1 if cell.layer is None else cell.layer for cell in self.cells],
                "head": [-1 if cell.head is None else cell.head for cell in self.cells],
                "method": [cell.method for cell in self.cells],
                "attention": [cell.attention for cell in self.cells],
            }
        )
        kinds = [(cell.layer is None, cell.head is None) for cell in self.cells]
        scans = []
        for kind in dict.fromkeys(kinds):
            rows = [row for row, other in enumerate(kinds) if other == kind]
            scans.append(scan_columns(self.lost[rows], self.clean).set_axis(rows))
        table = pd.concat([places, pd.concat(scans).sort_index()], axis="columns")
        return with_labels(table, self.labels)

    def effect(self, read: str, *, dest: str, method: str, scope: str = "all", control: str = "") -> float:
        """The effect of one row. KeyError naming what exists."""
        table = self.frame()
        asked = {"read": read, "dest": dest, "method": method, "scope": scope, "control": control}
        row = table[(table[list(asked)] == pd.Series(asked)).all(axis=1)]
        if row.empty:
            known = {name: table[name].unique().tolist() for name in asked}
            raise KeyError(f"no knock-out {asked}; there are {known}")
        return float(row["effect"].iloc[0])

    def figure(self) -> go.Figure:
        """A row for each head, layer and all heads together; a column for each read and control; a panel each for dest
        and method."""
        table = self.frame()
        words = table["read"].str.replace("_", " ")
        named = words.where(table["control"] != RANDOM_SOURCES, "random, as many as " + words)
        return heatmap(
            table.assign(cut=named, panel=table["dest"] + ", " + table["method"]),
            x="cut",
            y="scope",
            value="effect",
            facet="panel",
            midpoint=0.0,
            x_title="what can no longer be read",
            y_title="in which heads",
            value_title="share of logit difference lost",
            hover=["attention", "ci_low", "ci_high", "p", "n"],
            title="What is lost without each read",
        )
