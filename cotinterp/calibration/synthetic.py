"""Evidence with known rates: what a bench would have measured in a world that is made up.

A world is a set of cells, each with the number that is true of it; drawing from it gives tables as measuring trained
models does, with a spread among models and among problems that are both known. What a verdict on such a table ought to
be is therefore known as well, also for claims that would need hundreds of trained models to be tried otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import beta, norm

from cotinterp.claims.evidence import COLUMNS, RUN_COLUMNS, Evidence

Kind = Literal["rate", "mean", "constant"]
LAYERS = 4


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a made-up world: what identifies it in the table, and what is true of it.

    Attributes:
        expected: The cell's number in the population of models and problems: a rate, or the mean of a value.
        kind: `rate`: every problem is 0 or 1. `mean`: every problem has a value `within` above or below its model's,
            either as often as the other. `constant`: the same value in every model and problem, as a chance level is.
        problems: Measured on each model.
        variant: Of the run, as `L1` or `n300`; `n_layers` follows from a variant of that form.
    """

    measure: str
    expected: float
    k: int
    regime: str = "cot"
    variant: str = ""
    condition: str = ""
    step: int = -1
    kind: Kind = "rate"
    within: float = 0.5
    problems: int = 200

    @property
    def run(self) -> tuple[str, str]:
        """Regime and variant: the run of each seed that the cell was measured on."""
        return self.regime, self.variant

    @property
    def key(self) -> tuple[str, int, int, str]:
        """Measure, k, step and condition."""
        return self.measure, self.k, self.step, self.condition

    @property
    def n_layers(self) -> int:
        """Layers of that run."""
        return layers_of(self.variant)


def synthetic(
    task: str,
    cells: Sequence[Cell],
    *,
    seeds: Sequence[int] = range(5),
    spread: float = 0.03,
    rng: np.random.Generator,
) -> Evidence:
    """Evidence drawn from a world.

    Every model draws how good it is at each measure: its rates are of a beta distribution with the cell's rate as its
    mean and `spread` as its standard deviation, its means normal, with the same place in the distribution for all cells
    of one measure. So a model that is weak at three operands is weak at four, and the mean over models of each cell is
    exactly `expected`. Given the model, problems are independent.

    Args:
        cells: Of one task; a cell must not occur twice.
        seeds: One model of every regime and variant for each.
        spread: Standard deviation over models, in the units of the cell; half of what is possible where a rate so near
            to 0 or 1 leaves no room for it. 0: all models alike.

    Raises:
        ValueError: A cell occurs twice, or a rate lies outside 0..1.
    """
    named = [(*cell.run, *cell.key) for cell in cells]
    if repeated := sorted({str(name) for name in named if named.count(name) > 1}):
        raise ValueError(f"a world gives each cell one number; these have several: {', '.join(repeated)}")
    rows, runs = [], []
    for seed in seeds:
        places: dict[tuple[str, str, str], float] = {}
        for cell in cells:
            place = places.setdefault((*cell.run, cell.measure), float(rng.random()))
            labels = (task, *cell.run, cell.n_layers, seed, *cell.key)
            rows += [(*labels, value, 1.0, n) for value, n in _drawn(cell, place, spread, rng) if n]
        runs += [_run(task, *run, seed) for run in dict.fromkeys(cell.run for cell in cells)]
    return Evidence(pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(runs, columns=list(RUN_COLUMNS)))


def _drawn(cell: Cell, place: float, spread: float, rng: np.random.Generator) -> tuple[tuple[float, int], ...]:
    """Each value of a cell of the model that stands at `place` (0..1) of all, and how many problems have it."""
    if cell.kind == "constant":
        return ((cell.expected, cell.problems),)
    if cell.kind == "mean":
        level = cell.expected + spread * float(norm.ppf(place))
        upper = int(rng.binomial(cell.problems, 0.5))
        return (level - cell.within, cell.problems - upper), (level + cell.within, upper)
    right = int(rng.binomial(cell.problems, of_model(cell.expected, spread, place)))
    return (0.0, cell.problems - right), (1.0, right)


def of_model(rate: float, spread: float, place: float) -> float:
    """The rate of the model at `place` (0..1) of a beta distribution with this mean and standard deviation.

    ValueError for a rate outside 0..1.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"a rate lies in 0..1, got {rate:g}; a cell of kind 'mean' may have any number")
    possible = rate * (1 - rate)
    if not spread or not possible:
        return rate
    # The largest standard deviation of a rate is that of a coin that decides for a whole model.
    concentration = possible / min(spread**2, possible / 4) - 1
    return float(beta.ppf(place, rate * concentration, (1 - rate) * concentration))


def layers_of(variant: str) -> int:
    """Layers of a run, by the name of its variant."""
    return int(variant[1:]) if variant[:1] == "L" else LAYERS


def _run(task: str, regime: str, variant: str, seed: int) -> tuple[str | int | float, ...]:
    slug = "-".join(filter(None, (task, regime, variant, f"s{seed}")))
    return task, regime, variant, layers_of(variant), seed, slug, "finished", 0.01, 1.0, "made up"
