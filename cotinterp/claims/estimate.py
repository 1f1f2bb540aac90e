"""A statistic over trained models: its value, and how far another set of seeds and problems might have put it.

Hierarchical bootstrap: seeds are drawn with replacement, then problems within each drawn seed (Davison & Hinkley 1997,
section 3.8). Its spread counts the choice of problems twice, which errs on the safe side, and it is too small by the
factor (S - 1) / S in the variance, which is put right. It takes each seed to have problems of its own. Where seeds were
measured on the same ones (`EvidenceIndex.draws`) and err on the same ones, their number does not make up for the choice
of problems: to the variance is added what it lacks if they all err alike, the worst case.

Few seeds are the rule here, so the interval takes Student's t with S - 1 degrees of freedom instead of the percentiles,
which are known to be too narrow for five units (Hesterberg 2015, doi 10.1080/00031305.2015.1089789). The trained model
is the unit of replication: thousands of problems of one seed do not make a second seed. A mean over models says nothing
of a rare kind of model that is not among them; `judge` reports at how many seeds a prediction holds.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from cotinterp.claims.cells import (
    INNER_DRAWS,
    Cells,
    EvidenceIndex,
    MissingEvidence,
    Statistic,
    measured_cells,
    nothing_read,
    pooled_cells,
    problems_read,
    redrawn_cells,
    redrawn_pooled_cells,
    seed_core_hours,
    unconverged_seeds,
)

OUTER_DRAWS = 4000
"""Redrawn sets of seeds."""

LEVEL, POWER = 0.95, 0.8


@dataclass(frozen=True)
class Estimate:
    """A statistic with its uncertainty over seeds and problems.

    Attributes:
        value: The mean over seeds; for a pooled statistic, its value on all seeds together.
        error: Standard error. 0 only where nothing that it was made of can vary.
        by_seed: The value at each seed; NaN where a pooled statistic is undefined there.
        error_by_seed: Standard error of each of these over problems alone.
        measures: Names of the measures that it was made of, in alphabetical order.
        unconverged: Seeds of which a run that it was made of had not learned or was ended by its budget.
        n: Problems that it rests on, over all seeds; one counts in every cell that the number is made of.
        missing: The seeds of the task that it does not rest on, and why.
        core_hours: What training one more seed of the runs that it was made of takes; 0 where that is not known.
    """

    value: float
    error: float
    by_seed: Mapping[int, float]
    n: int
    missing: Mapping[int, str] = field(default_factory=dict)
    error_by_seed: Mapping[int, float] = field(default_factory=dict)
    measures: tuple[str, ...] = ()
    unconverged: tuple[int, ...] = ()
    core_hours: float = 0.0

    @property
    def freedom(self) -> float:
        """Degrees of freedom: seeds minus one; infinite for one seed, whose interval is over problems alone."""
        return float(len(self.by_seed) - 1) if len(self.by_seed) > 1 else float("inf")

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval, over seeds and problems (over problems alone for one seed)."""
        half = float(stats.t.ppf((1 + LEVEL) / 2, self.freedom)) * self.error
        return self.value - half, self.value + half

    def row(self, bounds: tuple[float, float]) -> dict[str, Any]:
        """Fields of a table: value, ci_low, ci_high, n (seeds), unconverged (which of them, in words).

        The interval is cut to the `bounds` of what the number can be.
        """
        low, high = np.clip(self.interval, *bounds).tolist()
        short = " ".join(map(str, self.unconverged))
        return {"value": self.value, "ci_low": low, "ci_high": high, "n": len(self.by_seed), "unconverged": short}

    def p_above(self, threshold: float) -> float:
        """One-sided p-value of "it is not above the threshold"."""
        return self._tail(self.value - threshold)

    def p_below(self, threshold: float) -> float:
        """One-sided p-value of "it is not below the threshold"."""
        return self._tail(threshold - self.value)

    def detectable(self, alpha: float) -> float:
        """How far from a threshold the truth must lie to be seen at this one-sided level with a power of 80%.

        With this spread over seeds and problems; about, because the spread is itself estimated.
        """
        quantiles = sum(float(stats.t.ppf(level, self.freedom)) for level in (1 - alpha, POWER))
        return quantiles * self.error

    @property
    def short_of_training(self) -> bool:
        """Whether that is so at more than half of the seeds: then it is about the budget, and carries no verdict."""
        return 2 * len(self.unconverged) > len(self.by_seed)

    def shown(self, threshold: float, alpha: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The seeds shown to lie above the threshold, and those below it, each over its own problems.

        One-sided at `alpha` for each seed, by the normal distribution: correct it for how many are looked at.
        """
        quantile = float(stats.norm.ppf(1 - alpha))
        far = {seed: (self.by_seed[seed] - threshold, quantile * error) for seed, error in self.error_by_seed.items()}
        above = tuple(seed for seed, (distance, least) in far.items() if distance > least)
        return above, tuple(seed for seed, (distance, least) in far.items() if -distance > least)

    def _tail(self, distance: float) -> float:
        if not np.isfinite(self.error):
            return 1.0
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(stats.t.sf(distance / self.error, self.freedom))


def estimate(statistic: Statistic, index: EvidenceIndex, task: str, *, pool: bool = False) -> Estimate:
    """The statistic of one task over all seeds that have what it asks for.

    Args:
        statistic: A function of the cells of one seed.
        pool: Evaluate it on the sums over seeds instead of averaging over seeds: for shares of rare things, which a
            single seed may not have at all.

    Raises:
        MissingEvidence: No seed has the cells that it asks for, it read no cell at all, or the number or its error is
            undefined. ValueError: The statistic gives neither one number nor one for each draw.
    """
    return _pooled(statistic, index, task) if pool else _averaged(statistic, index, task)


def _averaged(statistic: Statistic, index: EvidenceIndex, task: str) -> Estimate:
    values: dict[int, float] = {}
    missing: dict[int, str] = {}
    drawn: list[np.ndarray] = []
    measures: set[str] = set()
    short: list[int] = []
    n, hours = 0, 0.0
    for seed in index.seeds(task):
        cells = measured_cells(index, task, seed)
        try:
            value = _one(statistic, cells, (seed,))
        except MissingEvidence as without:
            missing[seed] = str(without)
            continue
        if not np.isfinite(value):
            missing[seed] = f"it is undefined at seed {seed}"
            continue
        values[seed] = value
        drawn.append(_draws_of(statistic, redrawn_cells(index, task, seed), INNER_DRAWS))
        n += problems_read(cells, (seed,))
        measures |= {key.measure for key in cells.read}
        short += unconverged_seeds(cells, (seed,))
        hours = seed_core_hours(cells)
    if not values:
        raise MissingEvidence(list(missing.values())[-1] if missing else f"no seed of task {task!r} was measured")
    table = np.stack(drawn)
    slots, inner = _draws(tuple(values), table.shape[1], task)
    errors = {seed: _spread(of_seed) for seed, of_seed in zip(values, table, strict=True)}
    problems = sum(error**2 for error in errors.values()) / len(values) ** 2
    error = _error(table[slots, inner].mean(axis=1), problems, _alike(index, task, tuple(values)))
    mean = float(np.mean(list(values.values())))
    return Estimate(mean, error, values, n, missing, errors, tuple(sorted(measures)), tuple(short), hours)


def _pooled(statistic: Statistic, index: EvidenceIndex, task: str) -> Estimate:
    seeds = index.seeds(task)
    if not seeds:
        raise MissingEvidence(f"no seed of task {task!r} was measured")
    together = pooled_cells(index, task, seeds)
    value = _one(statistic, together, seeds)
    if not np.isfinite(value):
        raise MissingEvidence("it is undefined on all seeds together")
    used = {key.regime for key in together.read}
    seeds = tuple(
        s for s in seeds if any(s in index.cells[k] for k in index.cells if k.task == task and k.regime in used)
    )
    slots, inner = _draws(seeds, INNER_DRAWS, task)
    redrawn = _draws_of(statistic, redrawn_pooled_cells(index, task, np.array(seeds)[slots], inner), OUTER_DRAWS)
    every = np.tile(seeds, (OUTER_DRAWS, 1))
    same = _draws_of(statistic, redrawn_pooled_cells(index, task, every, inner), OUTER_DRAWS)
    error = _error(redrawn, _spread(same) ** 2, _alike(index, task, seeds))
    alone = {seed: _alone(statistic, measured_cells(index, task, seed))[0] for seed in seeds}
    errors = {seed: _spread(_alone(statistic, redrawn_cells(index, task, seed))) for seed in seeds}
    by_seed = {seed: float(one) for seed, one in alone.items()}
    measures = tuple(sorted({key.measure for key in together.read}))
    short = unconverged_seeds(together, seeds)
    n, hours = problems_read(together, seeds), seed_core_hours(together)
    return Estimate(value, error, by_seed, n, {}, errors, measures, short, hours)


def _alone(statistic: Statistic, cells: Cells) -> np.ndarray:
    try:
        return _numbers(statistic, cells)
    except MissingEvidence:
        return np.array([np.nan])


def _alike(index: EvidenceIndex, task: str, seeds: tuple[int, ...]) -> np.ndarray:
    """How many of these seeds were measured on each draw of problems."""
    draws = index.draws(task)
    return np.unique([draws[seed] for seed in seeds], return_counts=True)[1]


def _one(statistic: Statistic, cells: Cells, seeds: tuple[int, ...]) -> float:
    """The value on what was measured. MissingEvidence where no problem stands behind it."""
    value = float(_numbers(statistic, cells)[0])
    if problems_read(cells, seeds) == 0:
        raise MissingEvidence(nothing_read(cells))
    return value


def _draws_of(statistic: Statistic, cells: Cells, draws: int) -> np.ndarray:
    values = _numbers(statistic, cells)
    if len(values) not in (1, draws):
        raise ValueError(f"a statistic gives one number, or one for each of the {draws} draws, not {len(values)}")
    return np.broadcast_to(values, (draws,))


def _numbers(statistic: Statistic, cells: Cells) -> np.ndarray:
    values = np.asarray(statistic(cells), dtype=float).reshape(-1)
    if not len(values):
        raise MissingEvidence("its statistic gave no number, but an empty array")
    return values


def _draws(seeds: tuple[int, ...], inner: int, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Which seeds make up each redrawn set, and which redrawn sample of problems of each; the same for all statistics
    of a task with these seeds, so that they move together."""
    digest = hashlib.blake2b(repr((task, seeds)).encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    size = (OUTER_DRAWS, len(seeds))
    return rng.integers(len(seeds), size=size), rng.integers(inner, size=size)


def _error(drawn: np.ndarray, problems: float, alike: np.ndarray) -> float:
    """Standard error, from redrawn seeds and problems.

    Args:
        problems: Variance over problems alone, were each seed measured on its own.
        alike: How many seeds there are of each draw of problems. If n of S err alike on theirs, the variance over
            problems is n times as large, weighted by n / S.
    """
    spread, n_seeds = _spread(drawn), int(alike.sum())
    if np.isnan(spread):
        raise MissingEvidence("its spread over seeds and problems is undefined: no redrawn sample gives a number")
    few = n_seeds / (n_seeds - 1) if n_seeds > 1 else 1.0
    shared = float((alike**2).sum()) / n_seeds - 1
    return float(np.sqrt(few * spread**2 + shared * problems))


def _spread(drawn: np.ndarray) -> float:
    """Standard deviation over the draws that give a number; NaN where none does."""
    finite = drawn[np.isfinite(drawn)]
    return float(finite.std()) if len(finite) else float("nan")
