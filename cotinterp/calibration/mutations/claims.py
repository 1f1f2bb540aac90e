"""Mistakes of verdicts: models forgotten, tests uncorrected, thresholds and controls passed over, sides swapped."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
from jaxtyping import Float, Int

from cotinterp.calibration.claim_truths import expected_text, judge_made_up, verdict_text
from cotinterp.calibration.claim_worlds import made_up_worlds
from cotinterp.calibration.mutations.trial import Mutation, instead, require
from cotinterp.calibration.verdict_level import NULLS, TASK, NullWorld, claim_at, simulated
from cotinterp.claims import statistics as STATISTICS
from cotinterp.claims.cells import CellOutcomes, Cells, Values
from cotinterp.claims.claim import Claim
from cotinterp.claims.estimate import OUTER_DRAWS, Estimate
from cotinterp.claims.judge import ClaimEstimates, decide
from cotinterp.studies.evidence import TraceCondition

# By name: the package has a function of the same name in front of two of these modules.
ESTIMATE, JUDGE, WORDING = (import_module(f"cotinterp.claims.{name}") for name in ("estimate", "judge", "verdict"))
RATE = NULLS[0]
BARELY = Estimate(value=0.62, error=0.045, by_seed=dict.fromkeys(range(5), 0.62), n=1000)
"""Of five models: p = 0.028 against 0.5, and 0.10 against 0.55."""


def words_of(claim: Claim, n: int = 1) -> list[str]:
    """What is said where `n` tasks give the same estimate, which alone is barely significant."""
    estimates = [ClaimEstimates(claim, f"{TASK}-{task}", {"it": BARELY}, {}) for task in range(n)]
    return [verdict.verdict for verdict in decide(estimates)]


def check_coverage(null: NullWorld, spread: float, problems: int) -> None:
    """The 95% interval holds the truth in most worlds."""
    found = simulated(null, 16, spread=spread, problems=problems)
    require(found.covered >= 12, f"the 95% interval holds the truth in {found.covered} of {found.worlds} worlds")


def models_kept(
    seeds: tuple[int, ...], inner: int, task: str
) -> tuple[Int[np.ndarray, "draws seeds"], Int[np.ndarray, "draws seeds"]]:
    """Problems are redrawn, models are not."""
    size = (OUTER_DRAWS, len(seeds))
    return np.tile(np.arange(len(seeds)), (size[0], 1)), np.random.default_rng(0).integers(inner, size=size)


def check_world(name: str) -> None:
    """The verdict on a made-up world is the one that follows from its numbers."""
    world = next(one for one in made_up_worlds() if one.name == name)
    found = verdict_text(judge_made_up(world, np.random.default_rng(0)))
    require(found == expected_text(world), f"in the world {name!r}: {found}, in truth {expected_text(world)}")


def check_table() -> None:
    """What is barely significant alone is not so in a table of sixteen."""
    alone, together = words_of(claim_at(RATE)), words_of(claim_at(RATE), 16)
    require(alone == ["supported"], f"alone it is {alone[0]}, at p = {BARELY.p_above(RATE.at):.3f}")
    require("supported" not in together, "sixteen claims at p = 0.028 each are all supported")


def uncorrected(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Every p-value as if it were the only one."""
    return p


def check_threshold() -> None:
    """A number above nothing, and not shown to be above its threshold, supports nothing."""
    (word,) = words_of(claim_at(RATE._replace(at=0.55)))
    require(word != "supported", f"a rate of {BARELY.value} with p = {BARELY.p_above(0.55):.2f} is called above 0.55")


def above_nothing(self: Estimate, threshold: float) -> float:
    """Whether it is above 0, whatever was asked."""
    return self._tail(self.value)


def no_controls(claim: Claim, numbers: Mapping[str, Estimate | str]) -> tuple[str, list[str]]:
    """Controls are listed, and none is ever broken."""
    return "; ".join(control.name for control in claim.controls), []


def best(self: ClaimEstimates) -> float:
    """The clearest of the predictions speaks for all of them."""
    return min(self.p(one, self.claim.predicts[one.name]) for one in self.measured if one.name in self.claim.predicts)


def after_all(cells: Cells, measure: str, trace: str) -> Values:
    """The answer once all totals of a trace are written, where it was to be asked behind the wrong one."""
    return STATISTICS._at_last_total(cells, measure, TraceCondition(trace, "free"))


NEARLY_ALL = NullWorld("near the ceiling", tuple(replace(cell, expected=0.98) for cell in RATE.cells), 0.98)

CLAIM_MUTATIONS = (
    Mutation(
        "models counted as problems: they are not redrawn",
        "coverage over worlds in which models differ",
        instead(ESTIMATE, "_draws", models_kept),
        partial(check_coverage, RATE, 0.2, 1000),
    ),
    Mutation(
        "a cell without an error taken to be known exactly",
        "coverage where few problems are asked",
        instead(CellOutcomes, "_counts_hits", False),
        partial(check_coverage, NEARLY_ALL, 0.0, 5),
    ),
    Mutation(
        "Holm left out",
        "what is barely significant alone is not in a table of sixteen",
        instead(JUDGE, "holm", uncorrected),
        check_table,
    ),
    Mutation(
        "threshold passed over: compared with 0",
        "a number not shown to be above its threshold supports nothing",
        instead(Estimate, "p_above", above_nothing),
        check_threshold,
    ),
    Mutation(
        "sides swapped: below taken for above",
        "made-up world in which the claim is so",
        instead(Estimate, "p_above", Estimate.p_below),
        partial(check_world, "it widens"),
    ),
    Mutation(
        "controls passed over",
        "made-up world of models that read their trace and do not solve the task",
        instead(JUDGE, "controls_in_words", no_controls),
        partial(check_world, "each total from the written one, unsolved"),
    ),
    Mutation(
        "one prediction suffices for support",
        "made-up world in which a rival shares one of them",
        instead(ClaimEstimates, "support", property(best)),
        partial(check_world, "constant gap"),
    ),
    Mutation(
        "an answer copied from the last total taken for one that hangs on every step",
        "made-up world in which a wrong total is put right before the last",
        instead(STATISTICS, "_behind_the_edit", after_all),
        partial(check_world, "only the last total counts"),
    ),
    Mutation(
        "fewer seeds than a verdict needs",
        "made-up world of four seeds",
        instead(WORDING, "LEAST_SEEDS", 2),
        partial(check_world, "it widens, four seeds"),
    ),
)
