"""Questions about what is carried, needed and hung on: causal variables, accounts of activations, written steps."""

import numpy as np

from cotinterp.behavior.step_importance import Resampling, StepImportance, step_importance
from cotinterp.calibration.ground_truth import GroundTruth, InstrumentAnswer, K, Question
from cotinterp.mechanism.sites import Site
from cotinterp.mechanism.variables.causal import CausalVariables, causal_variables
from cotinterp.mechanism.variables.das import SubspaceSearch
from cotinterp.mechanism.variables.rebuilding import Account, rebuilt
from cotinterp.transcripts.roles import Role

STEP = 2
"""The total that is asked about: written, and followed by one more step."""
WARM = Resampling(temperature=5.0, draws=96, least=2)
"""Handmade logits are 20 and 0: so warm, another total is said in one draw of twenty, and a model is not garbled."""
ONE_BY_ONE = tuple(f"x_{i}" for i in range(K))
READ_AND_NEXT = (f"s_{STEP}", f"x_{STEP + 1}")
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


def needed(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """What last attention has to bring where a value is said: the one account that keeps nearly all of the answers."""
    totals, known = model.writes_totals, [problem for problem in model.trained_on if problem.k == K]
    place = (Role.EQUALS, STEP + 1) if model.regime == "cot" else (Role.STEP_END, STEP)
    spot = (Site("attn_out", 1), place) if totals else (Site("attn_out", 0), (Role.PROMPT_END, -1))
    accounts: dict[str, Account] = {"operands one by one": {spot: ONE_BY_ONE}}
    accounts |= (
        {"the total and an operand": {spot: READ_AND_NEXT}} if totals else {"the total": {spot: (f"s_{K - 1}",)}}
    )
    table = rebuilt(
        model.model,
        model.task,
        model.regime,
        known[: 300 if quick else 800],
        model.heldout(60 if quick else 150, k=K),
        accounts,
        readout=(Role.TOTAL, STEP + 1) if totals else (Role.ANSWER, K - 1),
    ).frame()
    keeping = table.loc[(table["ci_low"] > READ) & (table["shuffled"] < READ), "account"].tolist()
    solved = table["own"].iloc[0] > READ
    said = "undecided" if not solved else keeping[0] if len(keeping) == 1 else "neither"
    kept = ", ".join(f"{one.account}: {one.kept:.2f}" for one in table.itertuples())
    return InstrumentAnswer(said, f"{kept}; left alone: {table['own'].iloc[0]:.2f}")


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


def _needed(model: GroundTruth) -> str | None:
    sums = {
        "reader": "the total and an operand",
        "recomputer": "operands one by one",
        "parallel": "operands one by one",
    }
    unsolved = dict.fromkeys(("untrained", "lookup", "memorizer"), "undecided")
    return (sums | unsolved).get(model.kind)


def _hangs(model: GroundTruth) -> str | None:
    """Of models that write the right trace at all."""
    return {"reader": "yes", "recomputer": "no"}.get(model.kind)


def _goes_past(model: GroundTruth) -> str | None:
    return {"reader": "no", "recomputer": "yes"}.get(model.kind)


VARIABLE_QUESTIONS = (
    Question("causal variables", "is a written total a causal variable of the next?", _carried, carried),
    Question("rebuilding", "what has attention to bring where a value is said?", _needed, needed),
    Question("step importance", "does the answer hang on each step, said otherwise?", _hangs, by_resampling),
    Question("step importance", "does the problem reach the answer through each step?", _hangs, through_the_step),
    Question("step importance", "does the problem reach the answer past each step?", _goes_past, past_the_step),
)
