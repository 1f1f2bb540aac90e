"""What the claims make of untrained models: nothing about them is so, and none may come out as supported."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import plotly.graph_objects as go

from cotinterp.calibration.claim_subjects import SEEDS, untrained
from cotinterp.calibration.claim_truths import LEAST
from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.claim import Claim
from cotinterp.claims.judge import judge_all
from cotinterp.claims.measuring import Measure
from cotinterp.claims.replication import gather_subjects
from cotinterp.claims.subject import Effort, Subject
from cotinterp.results import wilson
from cotinterp.results.plots import lines
from cotinterp.results.result import Result
from cotinterp.sweeps.processes import deal

LITTLE = replace(LEAST, probed=400)
"""As for handmade models; a probe needs some held-out problems of every total."""
TASKS = ("z6", "s3")
REGIMES = ("cot", "direct", "filler")
WORDS = ("supported", "partly supported", "not supported", "inconclusive")


@dataclass(frozen=True)
class NullVerdict:
    """One claim in one world of untrained models, and what was said of it."""

    world: int
    task: str
    claim: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class NullClaims(Result):
    """Claims about untrained models: whatever is called supported is not so.

    `inconclusive` is the usual word for them, because a control does not pass; `not supported` is as right.
    """

    verdicts: tuple[NullVerdict, ...]

    @property
    def false(self) -> tuple[NullVerdict, ...]:
        """Those called supported, wholly or partly."""
        return tuple(one for one in self.verdicts if one.verdict in ("supported", "partly supported"))

    def examples(self) -> pd.DataFrame:
        """One row for each world and claim: world, task, claim, verdict, reason."""
        return pd.DataFrame([vars(one) for one in self.verdicts])

    def frame(self) -> pd.DataFrame:
        """One row for each claim: worlds, how many of each word, share supported or partly so, Wilson interval."""
        rows = []
        for claim, group in self.examples().groupby("claim", sort=False):
            counts = [int((group["verdict"] == word).sum()) for word in WORDS]
            false, n = sum(counts[:2]), len(group)
            rows.append((claim, n, *counts, false / n, *wilson(false, n)))
        words = [word.replace(" ", "_") for word in WORDS]
        return pd.DataFrame(rows, columns=["claim", "worlds", *words, "share_false", "ci_low", "ci_high"])

    def figure(self) -> go.Figure:
        """Share of worlds in which each claim is called supported, wholly or partly."""
        figure = lines(
            self.frame(),
            x="claim",
            y="share_false",
            low="ci_low",
            high="ci_high",
            bounds=(0.0, 1.0),
            title="Claims supported by untrained models",
            x_title="claim",
            y_title="share of worlds with a false verdict",
            hover=["worlds"],
        )
        return figure.update_traces(mode="markers")


def null_claims(
    n_worlds: int = 20,
    *,
    catalog: Sequence[Claim] = CATALOG,
    effort: Effort = LITTLE,
    measures: Sequence[Measure] | None = None,
    jobs: int = 0,
) -> NullClaims:
    """Judge every claim in `n_worlds` worlds of untrained models, alternately of a commutative and of another group.

    Args:
        effort: What each model is measured with.
        measures: By default all that apply to a model.
        jobs: Processes side by side, one thread each; 0: none but this one.

    Raises:
        ValueError: No worlds.
        RuntimeError: A world could not be measured.
    """
    if n_worlds < 1:
        raise ValueError(f"{n_worlds} worlds: at least one is needed")
    work = partial(judge_untrained, effort=effort, catalog=catalog, measures=measures)
    found: list[NullVerdict] = []
    for world, answer in enumerate(deal(work, range(n_worlds), jobs=jobs)):
        if answer.value is None:
            raise RuntimeError(f"world {world} of untrained models could not be measured: {answer.error}")
        found.extend(answer.value)
    return NullClaims(tuple(found))


def untrained_world(world: int) -> tuple[Subject, ...]:
    """Five seeds of every regime, and of direct with one layer."""
    task = TASKS[world % len(TASKS)]
    standard = tuple(untrained(task, regime, seed, world=world) for regime in REGIMES for seed in SEEDS)
    return (*standard, *(untrained(task, "direct", seed, world=world, layers=1) for seed in SEEDS))


def judge_untrained(
    world: int,
    *,
    effort: Effort = LITTLE,
    catalog: Sequence[Claim] = CATALOG,
    measures: Sequence[Measure] | None = None,
) -> tuple[NullVerdict, ...]:
    """Every claim in one world."""
    evidence = gather_subjects(untrained_world(world), effort, measures)
    return tuple(
        NullVerdict(world, one.task, one.claim, one.verdict, one.reason)
        for one in judge_all(catalog, evidence).verdicts
    )
