"""Questions about what is carried and what is hung on: causal variables, and the importance of a written step."""

import numpy as np

from cotinterp.behavior.step_importance import Resampling, StepImportance, step_importance
from cotinterp.calibration.ground_truth import GroundTruth, InstrumentAnswer, K, Question
from cotinterp.mechanism.sites import Site
from cotinterp.mechanism.variables.causal import CausalVariables, causal_variables
from cotinterp.mechanism.variables.das import SubspaceSearch
from cotinterp.transcripts.roles import Role

STEP = 2
"""The total that is asked about: written, and followed by one more step."""
WARM = Resampling(temperature=5.0, draws=96, least=2)
"""Handmade logits are 20 and 0: so warm, another total is said in one draw of twenty, and a model is not garbled."""
READ, UNREAD = 0.8, 0.2
"""An importance whose interval lies above the first is that of a step that is read, below the second of another."""


def carried(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether the written total is a causal variable of the next, at the token that a reader of it would look at."""
    result = searched(model, quick)
    ((said, reason), *_) = result.answers
    return InstrumentAnswer(said, reason)


def searched(model: GroundTruth, quick: bool) -> CausalVariables:
    """Total STEP where it stands written last before the next is computed, and operand 0, which nothing needs there."""
    copied = model.regime == "cot"
    return causal_variables(
        model.model,
        model.task,
        model.regime,
        [problem for problem in model.trained_on if problem.k == K][: 150 if quick else 400],
        model.heldout(60 if quick else 150, k=K),
        place=(Role.PREVIOUS_TOTAL, STEP + 1) if copied else (Role.TOTAL, STEP),
        readout=(Role.TOTAL, STEP + 1),
        variables={f"s_{STEP}": "mapped", "x_0": "unmapped"},
        sites=[Site("resid_pre", 1)],
        search=SubspaceSearch(rank=6, steps=100 if quick else 200),
    )


def steps_asked(model: GroundTruth, quick: bool) -> StepImportance:
    """Every step of held-out problems."""
    problems, rng = model.heldout(12 if quick else 40, k=K), np.random.default_rng(0)
    return step_importance(model.model, model.task, model.regime, problems, rng=rng, resampling=WARM)


def hangs_on(measure: str, model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """`yes` where the importance of every step is that of a step that is read, `no` where of none."""
    rows = steps_asked(model, quick).frame()
    rows = rows[rows["measure"] == measure]
    clear = rows["n"].min() >= 2
    low, high = rows["ci_low"].min(), rows["ci_high"].max()
    said = "yes" if clear and low > READ else "no" if clear and high < UNREAD else "mixed"
    return InstrumentAnswer(said, f"{rows['importance'].min():.2f} at least, {rows['importance'].max():.2f} at most")


def by_resampling(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """What the model itself says in other draws."""
    return hangs_on("resampled", model, quick)


def through_the_step(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The step as a mediator of the problem."""
    return hangs_on("indirect", model, quick)


def past_the_step(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """What of the problem goes past it."""
    return hangs_on("direct", model, quick)


def _carried(model: GroundTruth) -> str | None:
    truths = {"reader": "carried", "recomputer": "not shown to be carried", "untrained": "undecided"}
    return truths.get(model.kind) if model.writes_totals else None


def _hangs(model: GroundTruth) -> str | None:
    """Of models that write the right trace at all."""
    return {"reader": "yes", "recomputer": "no"}.get(model.kind)


def _goes_past(model: GroundTruth) -> str | None:
    return {"reader": "no", "recomputer": "yes"}.get(model.kind)


VARIABLE_QUESTIONS = (
    Question("causal variables", "is a written total a causal variable of the next?", _carried, carried),
    Question("step importance", "does the answer hang on each step, said otherwise?", _hangs, by_resampling),
    Question("step importance", "does the problem reach the answer through each step?", _hangs, through_the_step),
    Question("step importance", "does the problem reach the answer past each step?", _goes_past, past_the_step),
)
