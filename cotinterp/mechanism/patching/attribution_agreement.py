"""How far gradient estimates of patching effects may be trusted: against the effects themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int
from scipy.stats import pearsonr, spearmanr

from cotinterp.mechanism.patching.block import Cell
from cotinterp.results import Result, with_labels
from cotinterp.results.plots import PALETTE

RANKINGS = ("absolute", "signed")
ALL_SITES = "all sites"


@dataclass(frozen=True, eq=False)
class AttributionAgreement(Result):
    """Estimated (`score`) and true (`effect`) normalized effects of the same cells, and how alike they rank them.

    `ranking`: "absolute" ranks cells by the size of their effect, "signed" from the most positive down; which one was
    used stands in the table, because circuits chosen by one or the other differ. Cells where both are exactly 0 are
    left out (`left_out`): causal order alone makes them so, and they would agree whatever the estimate was worth.
    """

    cells: tuple[Cell, ...]
    score: Float[np.ndarray, " cells"]
    effect: Float[np.ndarray, " cells"]
    ranking: str
    top: tuple[int, ...]
    labels: Mapping[str, str | int]

    @property
    def told(self) -> Bool[np.ndarray, " cells"]:
        """The cells that are compared: those where not both numbers are exactly 0."""
        found: Bool[np.ndarray, " cells"] = (self.score != 0) | (self.effect != 0)
        return found

    def frame(self) -> pd.DataFrame:
        """One row for all sites and one for each kind of site (`z of heads`: one by one).

        `n` cells are compared, `left_out` are 0 on both sides. `spearman`: rank correlation under `ranking`. `pearson`:
        correlation of the signed numbers. `overlap_k`: share of the true top k that are among the k with the largest
        scores; k/n is what chance gives. NaN where there are fewer than three cells, or than k, or where one side does
        not vary. `max_difference`: largest |score - effect|.
        """
        groups = {ALL_SITES: np.arange(len(self.cells))}
        for kind in dict.fromkeys(map(kind_of, self.cells)):
            groups[kind] = np.array([i for i, cell in enumerate(self.cells) if kind_of(cell) == kind])
        rows = [{"sites": name, **self._compared(members)} for name, members in groups.items()]
        return with_labels(pd.DataFrame(rows), self.labels)

    def worst(self, n: int = 10) -> pd.DataFrame:
        """The cells whose estimate is furthest from the truth: site, place, score, effect, difference."""
        table = pd.DataFrame(
            {
                "site": [cell.site.label for cell in self.cells],
                "place": [cell.place for cell in self.cells],
                "score": self.score,
                "effect": self.effect,
                "difference": self.score - self.effect,
            }
        )
        return table[self.told].sort_values("difference", key=np.abs, ascending=False, kind="stable").head(n)

    def figure(self) -> go.Figure:
        """Estimate over truth, one point a cell, colored by kind; on the line they agree."""
        figure = go.Figure()
        kinds = np.array([kind_of(cell) for cell in self.cells])
        for color, kind in zip(PALETTE, dict.fromkeys(kinds), strict=False):
            of_kind = kinds == kind
            figure.add_scatter(
                x=self.effect[of_kind],
                y=self.score[of_kind],
                mode="markers",
                name=str(kind),
                marker_color=color,
                text=[f"{cell.site} at {cell.place}" for cell, drawn in zip(self.cells, of_kind, strict=True) if drawn],
                hovertemplate="%{text}: true %{x:.3f}, estimated %{y:.3f}",
            )
        low, high = (float(f([*self.effect, *self.score, 0.0])) for f in (min, max))
        figure.add_shape(type="line", x0=low, x1=high, y0=low, y1=high, line={"color": "gray", "dash": "dot"})
        overall = self.frame().iloc[0]
        figure.update_layout(
            template="plotly_white",
            title=f"Attribution against true patching: rank correlation {overall['spearman']:.2f} ({self.ranking}), "
            f"largest difference {overall['max_difference']:.2f}",
            xaxis_title="effect of the patch",
            yaxis_title="estimate from gradients",
            height=520,
            font_size=13,
        )
        return figure

    def _compared(self, members: Int[np.ndarray, " members"]) -> dict[str, str | int | float]:
        left_out = int((~self.told[members]).sum())
        members = members[self.told[members]]
        score, effect = self.score[members], self.effect[members]
        ranked = (np.abs(score), np.abs(effect)) if self.ranking == "absolute" else (score, effect)
        varied = len(members) > 2 and all(len(np.unique(side)) > 1 for side in (*ranked, score, effect))
        found: dict[str, str | int | float] = {
            "n": len(members),
            "left_out": left_out,
            "ranking": self.ranking,
            "spearman": float(spearmanr(*ranked).statistic) if varied else float("nan"),
            "pearson": float(pearsonr(score, effect).statistic) if varied else float("nan"),
        }
        for k in self.top:
            best = [set(np.argsort(-side, kind="stable")[:k].tolist()) for side in ranked]
            found[f"overlap_{k}"] = len(best[0] & best[1]) / k if k <= len(members) else float("nan")
        return {**found, "max_difference": float(np.abs(score - effect).max(initial=0.0))}


def agreement_of(
    cells: Sequence[Cell],
    score: Float[np.ndarray, " cells"],
    effect: Float[np.ndarray, " cells"],
    *,
    ranking: str = "absolute",
    top: Sequence[int] = (5, 10, 20),
    labels: Mapping[str, str | int] | None = None,
) -> AttributionAgreement:
    """Scores and effects of the same cells, compared. ValueError for an unknown ranking, or nothing but zeros."""
    if ranking not in RANKINGS:
        raise ValueError(f"unknown ranking {ranking!r}: {' or '.join(RANKINGS)}.")
    if not top or min(top) < 1:
        raise ValueError(f"top={tuple(top)}: name at least one k, each of 1 or more.")
    found = AttributionAgreement(tuple(cells), score, effect, ranking, tuple(top), dict(labels or {}))
    if not found.told.any():
        raise ValueError(f"all {len(cells)} cells are exactly 0 by gradient and by patching: nothing to compare.")
    return found


def kind_of(cell: Cell) -> str:
    """The kind of a cell's site; `z of heads` where heads are patched one by one."""
    return cell.site.kind if cell.site.head is None else f"{cell.site.kind} of heads"
