"""The numbers of one task's models as a claim's statistic sees them, as measured or redrawn.

A statistic is written once, for one trained set of models: `cells.mean("accuracy", regime="cot", k=6) - ...`. It is
then evaluated on what was measured, and on thousands of redrawn samples of problems at a time, which is why `mean`
gives an array.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cotinterp.studies.evidence import (
    BASE_VARIANT,
    COUNTS,
    DEALT_VARIANT,
    EARLY_VARIANT,
    OTHER_START,
    REFUSED,
    REWARD_VARIANT,
    RUN,
    SAME_START,
    SMALL_VARIANT,
    TWIN_VARIANT,
    Condition,
    Evidence,
)

LIMITED = (
    *(EARLY_VARIANT, OTHER_START, SAME_START),
    *(SMALL_VARIANT, BASE_VARIANT, REWARD_VARIANT, TWIN_VARIANT, DEALT_VARIANT),
)
"""Before the variants of which it is asked what they learn in the updates that they have."""

Values = Float[np.ndarray, " draws"]
Statistic = Callable[["Cells"], Values]

INNER_DRAWS = 2000
"""Redrawn samples of problems of each cell and seed."""


class MissingEvidence(LookupError):
    """A statistic asked for a cell that was not measured. It says what was asked for and what there is."""


class CellKey(NamedTuple):
    """What names a cell of one seed."""

    task: str
    regime: str
    variant: str
    measure: str
    condition: str
    k: int
    step: int


@dataclass(frozen=True, eq=False)
class CellOutcomes:
    """The problems of one cell of one seed: `problems[i]` of them had `value[i]` out of `trials[i]`."""

    value: Float[np.ndarray, " rows"]
    trials: Float[np.ndarray, " rows"]
    problems: Int[np.ndarray, " rows"]

    @property
    def measured(self) -> Float[np.ndarray, "2"]:
        """Sum of the values and sum of the trials."""
        return np.array([self.value @ self.problems, self.trials @ self.problems])

    def redrawn(self, rng: np.random.Generator, draws: int = INNER_DRAWS) -> Float[np.ndarray, "2 draws"]:
        """The same sums of samples of as many problems, drawn with replacement.

        In a cell of counts half a problem with no hits and half a problem with nothing but hits are drawn from as well
        (Jeffreys): else a cell in which all problems end alike would seem to be known exactly.
        """
        value, trials, weight = self.value, self.trials, self.problems.astype(float)
        n = int(self.problems.sum())
        if self._counts_hits:
            usual = float(trials @ weight) / n
            value, trials = np.append(value, [0.0, usual]), np.append(trials, [usual, usual])
            weight = np.append(weight, [0.5, 0.5])
        drawn = rng.multinomial(n, weight / weight.sum(), size=draws)
        return np.stack([drawn @ value, drawn @ trials])

    @property
    def _counts_hits(self) -> bool:
        whole = all(np.array_equal(of, np.round(of)) for of in (self.value, self.trials))
        return whole and bool((self.value >= 0).all() and (self.value <= self.trials).all())


@dataclass(frozen=True, eq=False)
class EvidenceIndex:
    """Evidence, looked up by cell and seed; draws are a function of the cell's name and seed, not of any order."""

    evidence: Evidence

    @cached_property
    def cells(self) -> Mapping[CellKey, Mapping[int, CellOutcomes]]:
        """Every cell by name and seed."""
        names = ["task", "regime", "variant", "measure", "condition", "k", "step", "run_seed"]
        table = self.evidence.table.sort_values([*names, "value", "trials"], kind="stable")
        found: dict[CellKey, dict[int, list[tuple[float, float, int]]]] = {}
        columns = [table[name].tolist() for name in [*names, *COUNTS]]
        for task, regime, variant, measure, condition, k, step, seed, *row in zip(*columns, strict=True):
            key = CellKey(task, regime, variant, measure, condition, k, step)
            value, trials, problems = row
            found.setdefault(key, {}).setdefault(seed, []).append((value, trials, problems))
        return {key: {seed: _cell(rows) for seed, rows in seeds.items()} for key, seeds in found.items()}

    @cached_property
    def layers(self) -> Mapping[tuple[str, str, str], int]:
        """Layers of the models of each task, regime and variant."""
        rows = self.evidence.table[["task", "regime", "variant", "n_layers"]].drop_duplicates()
        of = zip(*(rows[name].tolist() for name in rows), strict=True)
        return {(task, regime, variant): layers for task, regime, variant, layers in of}

    def seeds(self, task: str) -> tuple[int, ...]:
        """The seeds at which anything of this task was measured, ascending."""
        table = self.evidence.table
        return tuple(sorted(int(seed) for seed in table.loc[table["task"] == task, "run_seed"].unique()))

    def draws(self, task: str) -> Mapping[int, int]:
        """By seed, on which draw of problems its runs were measured; 0 where nothing is known of them."""
        runs = self.evidence.runs
        of_task = runs[runs["task"] == task].groupby("run_seed")["draw"].min()
        return {seed: int(of_task.get(seed, 0)) for seed in self.seeds(task)}

    @cached_property
    def unconverged(self) -> frozenset[tuple[str, str, str, int]]:
        """Task, regime, variant and seed of the runs that had not learned.

        Left out are those that were stopped early or begun from another model: what they learn in that time is asked.
        """
        runs = self.evidence.runs
        limited = runs["variant"].str.startswith(LIMITED)
        short = runs[(runs["status"] == "unconverged") & ~limited]
        return frozenset(zip(*(short[name].tolist() for name in RUN), strict=True))

    @cached_property
    def core_hours(self) -> Mapping[tuple[str, str, str], float]:
        """What training a run of each task, regime and variant took, its mean over seeds; 0 where none was timed."""
        names = list(RUN[:3])
        runs = self.evidence.runs.assign(seconds=self.evidence.runs["core_seconds"].astype(float))
        mean = runs.groupby(names, as_index=False)["seconds"].mean().fillna(0.0)
        of = zip(*(mean[name].tolist() for name in (*names, "seconds")), strict=True)
        return {(task, regime, variant): seconds / 3600 for task, regime, variant, seconds in of}

    @cached_property
    def _drawn(self) -> dict[tuple[CellKey, int], Float[np.ndarray, "2 draws"]]:
        return {}

    def redrawn(self, key: CellKey, seed: int) -> Float[np.ndarray, "2 draws"]:
        """`CellOutcomes.redrawn`, made once."""
        if (key, seed) not in self._drawn:
            digest = hashlib.blake2b(repr((*key, seed)).encode(), digest_size=8).digest()
            rng = np.random.default_rng(int.from_bytes(digest, "big"))
            self._drawn[key, seed] = self.cells[key][seed].redrawn(rng)
        return self._drawn[key, seed]


Sums = Callable[[CellKey], Float[np.ndarray, "2 draws"] | None]
"""Sums of values and trials of a cell; None where this seed has no such cell."""


@dataclass(frozen=True, eq=False)
class Cells:
    """What a statistic is a function of: the cells of one seed (or of several, pooled) of one task.

    Attributes:
        task: The task that the claim is judged on.
        read: The names of the cells that were looked at, in order.
        missed: What was asked for and not there, in words.
    """

    index: EvidenceIndex
    task: str
    sums: Sums
    read: list[CellKey] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def mean(
        self,
        measure: str,
        *,
        regime: str,
        k: int | None = None,
        step: int | None = None,
        condition: Condition = "",
        variant: str = "",
        task: str | None = None,
    ) -> Values:
        """Sum of values over sum of trials of a cell, in every draw; of all k or all steps together where it is None.

        Raises:
            MissingEvidence: No such cell was measured at this seed.
        """
        found = self._measured(measure, regime, variant, condition, task, k, step)
        self.read.extend(found)
        value, trials = np.sum(list(found.values()), axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: Values = np.where(trials != 0, value / trials, np.nan)
        return ratio

    def ks(
        self, measure: str, *, regime: str, condition: Condition = "", variant: str = "", task: str | None = None
    ) -> tuple[int, ...]:
        """Every number of operands of which a cell was measured, ascending. MissingEvidence where there is none."""
        return tuple(sorted({key.k for key in self._measured(measure, regime, variant, condition, task)}))

    def steps(
        self, measure: str, *, regime: str, condition: Condition = "", variant: str = "", task: str | None = None
    ) -> tuple[int, ...]:
        """Every step of which a cell was measured, ascending. MissingEvidence where there is none."""
        return tuple(sorted({key.step for key in self._measured(measure, regime, variant, condition, task)}))

    def variants(self, regime: str) -> tuple[str, ...]:
        """The variants of a regime that were measured on this task; the standard one is the empty text."""
        return tuple(sorted({key.variant for key in self.index.cells if (key.task, key.regime) == (self.task, regime)}))

    def n_layers(self, regime: str, variant: str = "") -> int:
        """Layers of those models. MissingEvidence where there are none."""
        if (self.task, regime, variant) not in self.index.layers:
            raise MissingEvidence(
                f"no model of task {self.task!r}, regime {regime!r}, variant {variant!r} was measured"
            )
        return self.index.layers[self.task, regime, variant]

    def _measured(
        self,
        measure: str,
        regime: str,
        variant: str,
        condition: Condition,
        task: str | None,
        k: int | None = None,
        step: int | None = None,
    ) -> dict[CellKey, Float[np.ndarray, "2 draws"]]:
        """The sums of every cell of that name; of all k or all steps where it is None."""
        task, text = task or self.task, str(condition)
        wanted = (task, regime, variant, measure, text)
        keys = [
            key for key in self.index.cells if key[:5] == wanted and k in (None, key.k) and step in (None, key.step)
        ]
        found = {key: sums for key in keys if (sums := self.sums(key)) is not None}
        if found:
            return found
        of_task = [key for key in self.index.cells if key.task == task]
        known = sorted(
            {
                (key.variant, key.condition, key.k, key.step)
                for key in of_task
                if key.measure == measure and key.regime == regime
            }
        )
        in_regime = sorted({key.measure for key in of_task if key.regime == regime})
        of_run = [key for key in of_task if (key.regime, key.variant) == (regime, variant)]
        refused = "; ".join(sorted({key.condition for key in of_run if key.measure == REFUSED}))
        there = (
            f"there is no evidence on {task!r}, only on {sorted({key.task for key in self.index.cells})}"
            if not of_task
            else f"variant, condition, k and step measured of it: {known[:12]}"
            if known
            else f"measured in that regime: {in_regime}"
            if in_regime
            else f"regimes that were measured: {sorted({key.regime for key in of_task})}"
        )
        asked = f"{measure!r} of {task!r}, {regime!r}" + (f" variant {variant!r}" if variant else "")
        why = f"no {asked} (condition {text!r}, k {k}, step {step}); {there}"
        self.missed.append(f"{task!r}, {regime!r} refused {refused}" if refused and not known else why)
        raise MissingEvidence(self.missed[-1])


def _cell(rows: list[tuple[float, float, int]]) -> CellOutcomes:
    value, trials, problems = np.array(rows, dtype=float).T
    return CellOutcomes(value, trials, problems.astype(np.int64))


def measured_cells(index: EvidenceIndex, task: str, seed: int) -> Cells:
    """The cells of one seed as they were measured: every mean has one entry."""

    def sums(key: CellKey) -> Float[np.ndarray, "2 draws"] | None:
        cell = index.cells[key].get(seed)
        return None if cell is None else cell.measured[:, None]

    return Cells(index, task, sums)


def redrawn_cells(index: EvidenceIndex, task: str, seed: int) -> Cells:
    """The cells of one seed with their problems redrawn, INNER_DRAWS times."""

    def sums(key: CellKey) -> Float[np.ndarray, "2 draws"] | None:
        return index.redrawn(key, seed) if seed in index.cells[key] else None

    return Cells(index, task, sums)


def redrawn_pooled_cells(
    index: EvidenceIndex, task: str, slots: Int[np.ndarray, "draws slots"], inner: Int[np.ndarray, "draws slots"]
) -> Cells:
    """The cells of several seeds as one: in draw b the seeds `slots[b]`, each with its redrawn sample `inner[b]`.

    A seed without a cell adds nothing to it.
    """

    def sums(key: CellKey) -> Float[np.ndarray, "2 draws"] | None:
        total = np.zeros((2, len(slots)))
        for seed in index.cells[key]:
            rows, places = np.nonzero(slots == seed)
            drawn = index.redrawn(key, seed)[:, inner[rows, places]]
            for part in range(2):
                total[part] += np.bincount(rows, weights=drawn[part], minlength=len(slots))
        return total if index.cells[key] else None

    return Cells(index, task, sums)


def pooled_cells(index: EvidenceIndex, task: str, seeds: tuple[int, ...]) -> Cells:
    """The cells of several seeds added up, as they were measured."""

    def sums(key: CellKey) -> Float[np.ndarray, "2 draws"] | None:
        found = [cell.measured for seed, cell in index.cells[key].items() if seed in seeds]
        return np.sum(found, axis=0)[:, None] if found else None

    return Cells(index, task, sums)


def nothing_read(cells: Cells) -> str:
    """Why a number that was made without a single cell rests on nothing: what it missed, or what there would be."""
    there = sorted({f"{key.regime}: {key.measure}" for key in cells.index.cells if key.task == cells.task})
    why = cells.missed[-1] if cells.missed else f"it asked for none; measured of {cells.task!r}: {there}"
    return f"its statistic read no cell of the evidence: {why}"


def unconverged_seeds(cells: Cells, seeds: Iterable[int]) -> tuple[int, ...]:
    """The seeds of which a run that was looked at had not learned, or was ended by its budget."""
    runs = {(key.task, key.regime, key.variant) for key in cells.read}
    return tuple(seed for seed in seeds if any((*run, seed) in cells.index.unconverged for run in runs))


def seed_core_hours(cells: Cells) -> float:
    """Core-hours of training that one more seed of the runs that were looked at takes; 0 where some is not known."""
    runs = {(key.task, key.regime, key.variant) for key in cells.read}
    hours = [cells.index.core_hours.get(run, 0.0) for run in runs]
    return sum(hours) if all(hours) else 0.0


def problems_read(cells: Cells, seeds: tuple[int, ...]) -> int:
    """How many problems the cells that were looked at hold, over these seeds."""
    by_seed = [cells.index.cells[key].get(seed) for key in dict.fromkeys(cells.read) for seed in seeds]
    return int(sum(cell.problems.sum() for cell in by_seed if cell is not None))
