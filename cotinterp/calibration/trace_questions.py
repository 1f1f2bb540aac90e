"""Questions about the written trace: is it read, or is the answer computed from the prompt again?

The edits asked about leave every symbol's place to a symbol of the same role: the handmade models find places by
position, and are made for no other trace. Deleting, truncating and filling are questions to trained models.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from cotinterp.behavior.edits import substitute_totals, trace_edits
from cotinterp.behavior.outcomes import EditResult
from cotinterp.calibration.ground_truth import GroundTruth
from cotinterp.calibration.questions import Answer, Ask, Question, by_kind, percent
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.run_predictions import run_predictions, source
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.pairs import written_total_pairs
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.roles import Role

CLEAR = 0.8
"""Share of the edits that must end alike for the answer to be more than `mixed`: the lower end of its interval."""


def edited(edit: str, model: GroundTruth, quick: bool) -> Answer:
    """The outcome of most edits of one kind: `follows`, `ignores` or `other`; `mixed` where none is clear."""
    rng = np.random.default_rng(0)
    problems = model.heldout(30 if quick else 120)
    return clear_outcome(trace_edits(model.model, model.task, model.regime, problems, edits=[edit], rng=rng), edit)


def substituted(model: GroundTruth, quick: bool) -> Answer:
    """The one edit of the first version."""
    rng = np.random.default_rng(0)
    result = substitute_totals(model.model, model.task, model.regime, model.heldout(30 if quick else 120), rng=rng)
    return clear_outcome(result, "substitute_total")


def clear_outcome(result: EditResult, edit: str) -> Answer:
    """The outcome whose rate is clear at every step that was edited."""
    table = result.frame()
    table = table[table["edit"] == edit]
    rates = table.groupby("outcome")[["rate", "ci_low"]].min()
    clear = rates[rates["ci_low"] > CLEAR]
    n = int(table.groupby("step")["n"].first().sum())
    shares = ", ".join(f"{outcome} {percent(row['rate'])}" for outcome, row in rates.iterrows())
    return Answer(str(clear.index[0]) if len(clear) else "mixed", f"{n} edits, lowest at any step: {shares}")


def comes_from(model: GroundTruth, quick: bool) -> Answer:
    """Where total 2 comes from, by the four families of pairs."""
    problems = model.heldout(40 if quick else 150)
    made = pair_families(model.task, problems, model.regime, step=2, rng=np.random.default_rng(0))
    found = {family: run_predictions(model.model, Contrast.from_pairs(pairs)) for family, pairs in made.items()}
    shares = ", ".join(f"{family} {percent(runs.share('corrupted', 'foil'))}" for family, runs in found.items())
    return Answer(source(found), f"goes over to the foil: {shares}")


def comes_from_before(model: GroundTruth, quick: bool) -> Answer:
    """What pairs of the first version say: only a written total is changed, which a recomputer does not notice."""
    problems = model.heldout(40 if quick else 150)
    pairs = written_total_pairs(
        model.task, problems, model.regime, step=1, rng=np.random.default_rng(0), readout=(Role.TOTAL, 2)
    )
    runs = run_predictions(model.model, Contrast.from_pairs(pairs))
    followed = runs.share("corrupted", "foil")
    return Answer("trace" if followed > CLEAR else "undecided", f"written total: {percent(followed)}")


def _with_trace(model: GroundTruth) -> str | None:
    """The truth for the models that write totals."""
    truths = {"reader": "trace", "recomputer": "prompt", "untrained": "undecided"}
    return truths.get(model.kind) if get_regime(model.regime).writes_totals else None


def _question(edit: str, text: str, before: Ask | None = None) -> Question:
    truth = by_kind(reader="follows", recomputer="ignores")
    ask: Callable[[GroundTruth, bool], Answer] = partial(edited, edit)
    return Question(f"trace edit: {edit}", text, truth, ask, before)


TRACE_QUESTIONS = (
    _question("substitute_total", "a written total is replaced: does the answer follow it?", substituted),
    _question("swap", "another problem's trace is written: does the answer follow it?"),
    _question("swap_prefix", "another trace up to a total: does the answer go on from it?"),
    _question("permute", "the steps stand in another order: does the answer follow the last?"),
    _question("edit_prompt", "the prompt is changed under a fixed trace: does the answer follow the trace?"),
    Question(
        "pair families",
        "where does a total come from, the trace or the prompt?",
        _with_trace,
        comes_from,
        comes_from_before,
    ),
)
