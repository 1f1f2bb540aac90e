"""Does a verdict keep its level, and an interval its coverage, with few seeds? Simulated, where the truth is known.

The truth is put exactly on the threshold, the hardest case of "it is not above": `supported` should come out in at most
the level of such worlds, and the 95% interval should hold the truth in at least 95%.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.calibration.synthetic import Cell, synthetic
from cotinterp.claims.cells import Cells, Values
from cotinterp.claims.claim import Claim, Criterion, Threshold
from cotinterp.claims.evidence import Evidence
from cotinterp.claims.judge import judge, judge_all
from cotinterp.claims.thresholds import ALPHA, LEAST_SEEDS
from cotinterp.results import wilson
from cotinterp.results.plots import lines
from cotinterp.results.result import Result

TASK = "null"
FAMILY = 16
"""Claims by tasks in one table, as many as eight claims on two tasks."""
ON_IT = Cell(measure="accuracy", expected=0.5, k=4, condition="heldout")


class Null(NamedTuple):
    """Cells whose statistic has the true value `at`, which is the threshold too."""

    name: str
    cells: tuple[Cell, ...]
    at: float


def rate(cells: Cells) -> Values:
    """The rate of cot."""
    return cells.mean("accuracy", regime="cot", condition="heldout")


def difference(cells: Cells) -> Values:
    """The rate of cot minus that of direct."""
    direct = cells.mean("accuracy", regime="direct", condition="heldout")
    more: Values = rate(cells) - direct
    return more


NULLS = (
    Null("rate", (ON_IT,), 0.5),
    Null("high rate", (replace(ON_IT, expected=0.9),), 0.9),
    Null("difference", (replace(ON_IT, expected=0.8), replace(ON_IT, expected=0.7, regime="direct")), 0.1),
    Null("mean", (replace(ON_IT, kind="mean", within=0.5),), 0.5),
)
SPREADS = (0.0, 0.03, 0.1)
PROBLEMS = (40, 1000)


def claim_at(null: Null) -> Claim:
    """The claim that the statistic lies above its own true value, which it does not."""
    statistic: Callable[[Cells], Values] = rate if len(null.cells) == 1 else difference
    threshold = Threshold(null.at, "its true value")
    return Claim("on-it", "It lies above.", "nobody", (Criterion("it", "it", statistic, threshold),), {"it": "above"})


@dataclass(frozen=True)
class Simulated:
    """Worlds of one kind, all with the truth on the threshold.

    Attributes:
        worlds: How many were drawn.
        supported: In how many the claim came out as supported; of a table, in how many any claim did.
        covered: In how many the interval held the truth; -1 where there is no one interval.
    """

    null: str
    spread: float
    problems: int
    seeds: int
    worlds: int
    supported: int
    covered: int


@dataclass(frozen=True)
class VerdictLevel(Result):
    """False support and coverage in worlds whose truth is known."""

    cells: tuple[Simulated, ...]
    level: float = ALPHA

    def frame(self) -> pd.DataFrame:
        """One row for each kind of world: share supported and share covered, with Wilson intervals over worlds."""
        rows = []
        for cell in self.cells:
            ends = wilson(cell.supported, cell.worlds)
            covered = (
                (cell.covered / cell.worlds, *wilson(cell.covered, cell.worlds)) if cell.covered >= 0 else [np.nan] * 3
            )
            rows.append({**vars(cell), "share": cell.supported / cell.worlds, "ci_low": ends.low, "ci_high": ends.high})
            rows[-1] |= dict(zip(("coverage", "coverage_low", "coverage_high"), covered, strict=True))
        return pd.DataFrame(rows).drop(columns=["covered"])

    def figure(self) -> go.Figure:
        """Share supported over the spread among models, beside the level."""
        table = self.frame()
        return lines(
            table.assign(problems=table["problems"].astype(str) + " problems"),
            x="spread",
            y="share",
            low="ci_low",
            high="ci_high",
            color="null",
            facet="problems",
            bounds=(0.0, 1.0),
            references={f"level {self.level:g}": self.level},
            title="Claims that are just not so, and come out as supported",
            x_title="standard deviation among trained models",
            y_title="share of worlds supported",
            hover=["worlds", "coverage"],
        )


def verdict_level(
    n_worlds: int = 200,
    *,
    nulls: Sequence[Null] = NULLS,
    spreads: Sequence[float] = SPREADS,
    problems: Sequence[int] = PROBLEMS,
    seeds: int = LEAST_SEEDS,
    family: int = FAMILY,
) -> VerdictLevel:
    """Draw `n_worlds` of every kind and judge them; a quarter as many tables of `family` claims, each of its own task.

    ValueError for no worlds.
    """
    if n_worlds < 1:
        raise ValueError(f"{n_worlds} worlds: at least one is needed")
    found = [
        simulated(null, n_worlds, spread=spread, problems=n, seeds=seeds)
        for null in nulls
        for spread in spreads
        for n in problems
    ]
    found.append(simulated_tables(nulls[0], max(1, n_worlds // 4), spread=max(spreads), family=family, seeds=seeds))
    return VerdictLevel(tuple(found))


def simulated(null: Null, n_worlds: int, *, spread: float, problems: int, seeds: int = LEAST_SEEDS) -> Simulated:
    """Worlds of one kind, judged one by one. The truth of a rate with a spread is the mean over models."""
    cells, claim = _of_size(null, problems), claim_at(null)
    supported = covered = 0
    for world in range(n_worlds):
        rng = np.random.default_rng([world, problems])
        verdict = judge(claim, synthetic(TASK, cells, seeds=range(seeds), spread=spread, rng=rng))
        supported += verdict.verdict == "supported"
        covered += verdict.ci_low <= null.at <= verdict.ci_high
    return Simulated(null.name, spread, problems, seeds, n_worlds, supported, covered)


def simulated_tables(
    null: Null, n_tables: int, *, spread: float, family: int = FAMILY, problems: int = 200, seeds: int = LEAST_SEEDS
) -> Simulated:
    """Tables of one claim on many tasks, all with the truth on the threshold; supported where any of them is."""
    cells, claim = _of_size(null, problems), claim_at(null)
    supported = 0
    for table in range(n_tables):
        rng = np.random.default_rng([table, family])
        of_tasks = [
            synthetic(f"{TASK}-{task}", cells, seeds=range(seeds), spread=spread, rng=rng) for task in range(family)
        ]
        together = Evidence(*(pd.concat(frames) for frames in zip(*((x.table, x.runs) for x in of_tasks), strict=True)))
        supported += any(one.verdict == "supported" for one in judge_all((claim,), together).verdicts)
    return Simulated(f"any of {family}", spread, problems, seeds, n_tables, supported, -1)


def _of_size(null: Null, problems: int) -> tuple[Cell, ...]:
    return tuple(replace(cell, problems=problems) for cell in null.cells)
