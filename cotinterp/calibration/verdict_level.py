"""Evidence with known rates: what measuring would have given in a world that is made up.

A world is a set of cells, each with the number that is true of it; drawing from it gives tables as measuring trained
models does, with a spread among models and among problems that are both known. What a verdict on such a table ought to
be is therefore known as well, also for claims that would need hundreds of trained models to be tried otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from scipy.stats import beta, norm

from cotinterp.claims.cells import Cells, Values
from cotinterp.claims.claim import ALPHA, LEAST_SEEDS, Claim, Criterion, Threshold
from cotinterp.claims.judge import Looks, equal_looks, judge, judge_all, judge_in_stages, look_factors
from cotinterp.claims.verdict import Word
from cotinterp.figures import lines
from cotinterp.results import wilson
from cotinterp.results.result import Result
from cotinterp.studies.evidence import COLUMNS, RUN_COLUMNS, Condition, Evidence

ValueKind = Literal["rate", "either", "mean", "constant"]
LAYERS = 4


@dataclass(frozen=True, kw_only=True)
class SyntheticCell:
    """One cell of a made-up world: what identifies it in the table, and what is true of it.

    Attributes:
        expected: The cell's number in the population of models and problems: a rate, or the mean of a value.
        kind: `rate`: every problem is 0 or 1. `either`: a rate of which models are of two kinds, at either of `ends`,
            as many of the upper one as makes the mean over models `expected`. `mean`: every problem has a value
            `within` above or below its model's, either as often as the other. `constant`: the same value in every model
            and problem, as a chance level is.
        problems: Measured on each model.
        variant: Of the run, as `L1` or `n300`; `n_layers` follows from a variant of that form.
    """

    measure: str
    expected: float
    k: int
    regime: str = "cot"
    variant: str = ""
    condition: Condition = ""
    step: int = -1
    kind: ValueKind = "rate"
    within: float = 0.5
    ends: tuple[float, float] = (0.0, 1.0)
    problems: int = 200

    @property
    def upper(self) -> float:
        """The share of models of the upper of two kinds."""
        low, high = self.ends
        return (self.expected - low) / (high - low)

    @property
    def run(self) -> tuple[str, str]:
        """Regime and variant: the run of each seed that the cell was measured on."""
        return self.regime, self.variant

    @property
    def key(self) -> tuple[str, int, int, str]:
        """Measure, k, step and condition."""
        return self.measure, self.k, self.step, str(self.condition)

    @property
    def n_layers(self) -> int:
        """Layers of that run."""
        return layers_of(self.variant)


@dataclass(frozen=True)
class MadeUpWorld:
    """A world of known rates and what follows from them about one claim.

    Attributes:
        name: What is so in it: the name of a rival, or that the claim is true.
        claim: Whose question it is.
        verdict: The word that must come out.
        stands: Rivals that must stand; all others must not.
        seeds: Models of each kind.
    """

    name: str
    claim: str
    cells: tuple[SyntheticCell, ...]
    verdict: Word
    stands: frozenset[str] = frozenset()
    seeds: int = 5


def synthetic(
    task: str,
    cells: Sequence[SyntheticCell],
    *,
    seeds: Sequence[int] = range(5),
    spread: float = 0.03,
    shared: float = 0.0,
    rng: np.random.Generator,
) -> Evidence:
    """Evidence drawn from a world.

    Every model draws how good it is at each measure: its rates are of a beta distribution with the cell's rate as its
    mean and `spread` as its standard deviation, its means normal, with the same place in the distribution for all cells
    of one measure. So a model that is weak at three operands is weak at four, and the mean over models of each cell is
    exactly `expected`. Given the model, problems are independent, and every seed has its own; or all seeds have the
    same and err on the same ones.

    Args:
        cells: Of one task; a cell must not occur twice.
        seeds: One model of every regime and variant for each.
        spread: Standard deviation over models, in the units of the cell; half of what is possible where a rate so near
            to 0 or 1 leaves no room for it. 0: all models alike.
        shared: Correlation among seeds of what makes a problem of a rate hard (of the latent normal variables of which
            a problem is right below the model's quantile). 0: every seed has problems of its own.

    Raises:
        ValueError: A cell occurs twice, or a rate lies outside 0..1.
    """
    named = [(*cell.run, *cell.key) for cell in cells]
    if repeated := sorted({str(name) for name in named if named.count(name) > 1}):
        raise ValueError(f"a world gives each cell one number; these have several: {', '.join(repeated)}")
    rows, runs = [], []
    alike = {cell.key: np.sqrt(shared) * rng.standard_normal(cell.problems) for cell in cells} if shared else {}
    for seed in seeds:
        places: dict[tuple[str, str, str], float] = {}
        for cell in cells:
            place = places.setdefault((*cell.run, cell.measure), float(rng.random()))
            labels = (task, *cell.run, cell.n_layers, seed, *cell.key)
            hardness = None
            if shared:
                hardness = alike[cell.key] + np.sqrt(1 - shared) * rng.standard_normal(cell.problems)
            rows += [(*labels, value, 1.0, n) for value, n in _drawn(cell, place, spread, rng, hardness) if n]
        runs += [_run(task, *run, seed, 0 if shared else seed) for run in dict.fromkeys(cell.run for cell in cells)]
    return Evidence(pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(runs, columns=list(RUN_COLUMNS)))


def _drawn(
    cell: SyntheticCell,
    place: float,
    spread: float,
    rng: np.random.Generator,
    hardness: Float[np.ndarray, " problems"] | None,
) -> tuple[tuple[float, int], ...]:
    """Each value of a cell of the model that stands at `place` (0..1) of all, and how many problems have it.

    `hardness`: Of each problem of a rate, standard normal; None where problems are independent of those of other seeds.
    """
    if cell.kind == "constant":
        return ((cell.expected, cell.problems),)
    if cell.kind == "mean":
        level = cell.expected + spread * float(norm.ppf(place))
        upper = int(rng.binomial(cell.problems, 0.5))
        return (level - cell.within, cell.problems - upper), (level + cell.within, upper)
    rate = cell.ends[place < cell.upper] if cell.kind == "either" else of_model(cell.expected, spread, place)
    right = int(rng.binomial(cell.problems, rate) if hardness is None else (hardness < norm.ppf(rate)).sum())
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


def _run(task: str, regime: str, variant: str, seed: int, draw: int) -> tuple[str | int | float, ...]:
    slug = "-".join(filter(None, (task, regime, variant, f"s{seed}")))
    return task, regime, variant, layers_of(variant), seed, slug, "finished", 0.01, 1.0, "made up", "", draw, 0.0


TASK = "null"
FAMILY = 66
"""Claims by tasks in one table, as many as eleven claims on six tasks."""
ON_IT = SyntheticCell(measure="accuracy", expected=0.5, k=4, condition="heldout")


SPREADS = (0.0, 0.03, 0.1)
PROBLEMS = (40, 1000)


class NullWorld(NamedTuple):
    """Cells whose statistic lies at the threshold `at`: the mean over models, or the model in the middle.

    Attributes:
        spreads: Standard deviations among models that it is drawn with.
        shared: Correlation among seeds of what makes a problem hard (`synthetic`).
        looks: At how many seeds it is looked until the verdict is decided (`judge.Looks`); none: their number is fixed.
    """

    name: str
    cells: tuple[SyntheticCell, ...]
    at: float
    spreads: tuple[float, ...] = SPREADS
    shared: float = 0.0
    looks: Looks = MappingProxyType({})

    def above(self, spread: float) -> float:
        """The share of models that lie above the threshold. A claim that they do is not so up to one half."""
        (cell, *more) = self.cells
        if cell.kind == "either":
            return cell.upper
        if more or cell.kind != "rate":
            return 0.5 if spread else 0.0
        places = (np.arange(1000) + 0.5) / 1000
        return float(np.mean([of_model(cell.expected, spread, place) > self.at for place in places]))


def rate(cells: Cells) -> Values:
    """The rate of cot."""
    return cells.mean("accuracy", regime="cot", condition="heldout")


def difference(cells: Cells) -> Values:
    """The rate of cot minus that of direct."""
    direct = cells.mean("accuracy", regime="direct", condition="heldout")
    more: Values = rate(cells) - direct
    return more


MIDDLE = replace(ON_IT, expected=0.85)
"""The mean of a skewed distribution, whose middle lies higher."""
TWO_KINDS = replace(ON_IT, kind="either")
TWENTY, TEN = look_factors(20), equal_looks(10)
NULLS = (
    NullWorld("rate", (ON_IT,), 0.5),
    NullWorld("high rate", (replace(ON_IT, expected=0.9),), 0.9),
    NullWorld("high rate, middle model", (MIDDLE,), of_model(MIDDLE.expected, 0.1, 0.5), (0.1,)),
    NullWorld("difference", (replace(ON_IT, expected=0.8), replace(ON_IT, expected=0.7, regime="direct")), 0.1),
    NullWorld("mean", (replace(ON_IT, kind="mean", within=0.5),), 0.5),
    NullWorld("rate, problems shared", (ON_IT,), 0.5, (0.0, 0.03), 0.9),
    NullWorld("high rate, problems shared", (replace(ON_IT, expected=0.9),), 0.9, (0.0, 0.03), 0.9),
    NullWorld("half at 1, half at 0", (TWO_KINDS,), 0.5, (0.0,)),
    NullWorld("half at 1, half at 0.85", (replace(TWO_KINDS, expected=0.925, ends=(0.85, 1.0)),), 0.9, (0.0,)),
    NullWorld("four in five at 1, else 0", (replace(TWO_KINDS, expected=0.8),), 0.8, (0.0,)),
    NullWorld("nine in ten at 1, else 0", (replace(TWO_KINDS, expected=0.9),), 0.9, (0.0,)),
    NullWorld("rate, until decided", (ON_IT,), 0.5, looks=TWENTY),
    NullWorld("high rate, until decided", (replace(ON_IT, expected=0.9),), 0.9, (0.0, 0.03), looks=TWENTY),
    NullWorld(
        "high rate, middle model, until decided", (MIDDLE,), of_model(MIDDLE.expected, 0.1, 0.5), (0.1,), looks=TWENTY
    ),
    NullWorld("half at 1, half at 0, until decided", (TWO_KINDS,), 0.5, (0.0,), looks=TWENTY),
    NullWorld("rate, five seeds more where open", (ON_IT,), 0.5, looks=TEN),
    NullWorld("high rate, five seeds more where open", (replace(ON_IT, expected=0.9),), 0.9, (0.0, 0.03), looks=TEN),
)


def claim_at(null: NullWorld) -> Claim:
    """The claim that the statistic lies above its own true value, which it does not."""
    statistic: Callable[[Cells], Values] = rate if len(null.cells) == 1 else difference
    threshold = Threshold(null.at, "its true value")
    return Claim("on-it", "It lies above.", "nobody", (Criterion("it", "it", statistic, threshold),), {"it": "above"})


@dataclass(frozen=True)
class Simulated:
    """Worlds of one kind, all with the truth on the threshold.

    Attributes:
        above: Share of models that lie above the threshold (`NullWorld.above`).
        seeds: Of each world; the most, where they are added until the verdict is decided.
        worlds: How many were drawn.
        supported: In how many the claim came out as supported; of a table, in how many any claim did.
        mixed: In how many it came out as mixed.
        covered: In how many the interval held the mean over models; -1 where there is no one interval.
    """

    null: str
    spread: float
    problems: int
    seeds: int
    above: float
    worlds: int
    supported: int
    mixed: int
    covered: int


@dataclass(frozen=True)
class VerdictLevel(Result):
    """False support and coverage in worlds whose truth is known.

    The truth is put exactly on the threshold, the hardest case of "it is not above": `supported` should come out in at
    most the level of such worlds (alpha), and the 95% interval should hold the truth in at least 95% of them. A verdict
    is about most models: where more than half of them lie above (`above`), `supported` is so, whatever their mean.
    """

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
    nulls: Sequence[NullWorld] = NULLS,
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
        for spread in null.spreads
        for n in problems
    ]
    widest = max(nulls[0].spreads)
    found.append(simulated_tables(nulls[0], max(1, n_worlds // 4), spread=widest, family=family, seeds=seeds))
    return VerdictLevel(tuple(found))


def simulated(null: NullWorld, n_worlds: int, *, spread: float, problems: int, seeds: int = LEAST_SEEDS) -> Simulated:
    """Worlds of one kind, judged one by one. The truth of a rate with a spread is the mean over models."""
    cells, claim, above = _of_size(null, problems), claim_at(null), null.above(spread)
    mean = cells[0].expected - sum(cell.expected for cell in cells[1:])
    supported = mixed = covered = 0
    most = max(null.looks, default=seeds)
    for world in range(n_worlds):
        rng = np.random.default_rng([world, problems])
        drawn = range(most)
        evidence = synthetic(TASK, cells, seeds=drawn, spread=spread, shared=null.shared, rng=rng)
        if null.looks:
            staged, _ = judge_in_stages((claim,), partial(_first_seeds, evidence), (TASK,), lambda _: null.looks)
            (verdict,) = staged.verdicts
        else:
            verdict = judge(claim, evidence)
        supported += verdict.verdict == "supported"
        mixed += verdict.verdict == "mixed"
        covered += verdict.ci_low <= mean <= verdict.ci_high
    return Simulated(null.name, spread, problems, most, above, n_worlds, supported, mixed, covered)


def _first_seeds(evidence: Evidence, n: int, tasks: tuple[str, ...]) -> Evidence:
    """For `judge_in_stages`; a world is of one task."""
    assert tasks == (TASK,)
    return evidence.of_seeds(n)


def simulated_tables(
    null: NullWorld,
    n_tables: int,
    *,
    spread: float,
    family: int = FAMILY,
    problems: int = 200,
    seeds: int = LEAST_SEEDS,
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
    return Simulated(f"any of {family}", spread, problems, seeds, null.above(spread), n_tables, supported, 0, -1)


def _of_size(null: NullWorld, problems: int) -> tuple[SyntheticCell, ...]:
    return tuple(replace(cell, problems=problems) for cell in null.cells)
