"""Questions about what models write: memory, and whether the written trace is read.

The edits asked about put a symbol of the same role in every symbol's place: the handmade models find places by
position, and are made for no other trace. Deleting, truncating and filling are questions to trained models.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from cotinterp.behavior.accuracy import AccuracyResult, accuracy_by_k
from cotinterp.behavior.edits import EditResult, trace_edits
from cotinterp.behavior.generalization import generalization_by_k
from cotinterp.behavior.invariance import permutation_invariance
from cotinterp.calibration.ground_truth import GroundTruth, InstrumentAnswer, K, Question, by_kind, families_of, percent
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.run_predictions import run_predictions, source
from cotinterp.results import wilson
from cotinterp.transcripts.pairs import written_total_pairs
from cotinterp.transcripts.roles import Role


def measured(model: GroundTruth, quick: bool) -> AccuracyResult:
    """Free-running accuracy on training and held-out problems."""
    n = 60 if quick else 250
    problems = {"train": model.trained(n), "heldout": model.heldout(n)}
    return accuracy_by_k(model.model, model.task, model.regime, problems)


def answers_heldout(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """`yes` where the whole interval of held-out accuracy lies above 90%, `no` where it lies below 50%."""
    right = [output.correct for output in measured(model, quick).of_split("heldout")]
    low, high = wilson(sum(right), len(right))
    said = "yes" if low > 0.9 else "no" if high < 0.5 else "partly"
    return InstrumentAnswer(said, f"{percent(sum(right) / len(right))} of {len(right)} held-out problems of K={K}")


def table_or_algorithm(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """By the interval of the generalization ratio: above one half an algorithm, below it a table."""
    (cell,) = generalization_by_k(model.task, measured(model, quick), model.trained_on).cells
    low, high = cell.interval
    if not cell.interval_known:
        return InstrumentAnswer("nothing learned", f"train {percent(cell.train)} at chance {percent(cell.chance)}")
    said = "algorithm" if low > 0.5 else "table" if high < 0.5 else "undecided"
    return InstrumentAnswer(
        said, f"ratio {cell.ratio:.2f} ({low:.2f} to {high:.2f}), nearest neighbor {percent(cell.nearest)}"
    )


def same_in_any_order(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """`yes` where agreement with unseen orders lies above 90%, `no` where it lies less than 20 points over chance."""
    result = permutation_invariance(
        model.model,
        model.task,
        model.regime,
        [problem for problem in model.trained_on if problem.k == K],
        rng=np.random.default_rng(0),
        max_per_k=40 if quick else 150,
    )
    row = result.frame().iloc[0]
    said = "yes" if row["ci_low"] > 0.9 else "no" if row["ci_high"] < row["chance"] + 0.2 else "partly"
    return InstrumentAnswer(said, f"{percent(row['agreement'])} agree, chance {percent(row['chance'])}")


ALGORITHM = {"reader": "algorithm", "recomputer": "algorithm", "parallel": "algorithm"}

MEMORY_QUESTIONS = (
    Question(
        "accuracy",
        "does it answer problems that it was not made for?",
        by_kind(reader="yes", recomputer="yes", parallel="yes", lookup="no", memorizer="no", untrained="no"),
        answers_heldout,
        answers_heldout,
    ),
    Question(
        "generalization ratio",
        "a table of its training problems, or an algorithm?",
        by_kind(**ALGORITHM, lookup="table", memorizer="table", untrained="nothing learned"),
        table_or_algorithm,
    ),
    Question(
        "reorderings",
        "does it know that order does not matter?",
        by_kind(reader="yes", recomputer="yes", parallel="yes", lookup="no"),
        same_in_any_order,
    ),
)


CLEAR = 0.8
"""Share of the edits that must end alike for the answer to be more than `mixed`: the lower end of its interval."""


def edited(edit: str, model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The outcome of most edits of one kind: `follows`, `ignores` or `other`; `mixed` where none is clear."""
    rng = np.random.default_rng(0)
    problems = model.heldout(30 if quick else 120)
    return clear_outcome(trace_edits(model.model, model.task, model.regime, problems, edits=[edit], rng=rng), edit)


def clear_outcome(result: EditResult, edit: str) -> InstrumentAnswer:
    """The outcome whose rate is clear at every step that was edited."""
    table = result.frame()
    table = table[table["edit"] == edit]
    rates = table.groupby("outcome")[["rate", "ci_low"]].min()
    clear = rates[rates["ci_low"] > CLEAR]
    n = int(table.groupby("step")["n"].first().sum())
    shares = ", ".join(f"{outcome} {percent(row['rate'])}" for outcome, row in rates.iterrows())
    return InstrumentAnswer(str(clear.index[0]) if len(clear) else "mixed", f"{n} edits, lowest at any step: {shares}")


def comes_from(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Where total 2 comes from, by the four families of pairs."""
    families = families_of(model, 40 if quick else 150)
    found = {family: run_predictions(model.model, Contrast.from_pairs(pairs)) for family, pairs in families.items()}
    shares = ", ".join(f"{family} {percent(runs.share('corrupted', 'foil'))}" for family, runs in found.items())
    return InstrumentAnswer(source(found), f"goes over to the foil: {shares}")


def comes_from_before(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """What pairs of the first version say: only a written total is changed, which a recomputer does not notice."""
    problems = model.heldout(40 if quick else 150)
    pairs = written_total_pairs(
        model.task, problems, model.regime, step=1, rng=np.random.default_rng(0), readout=(Role.TOTAL, 2)
    )
    runs = run_predictions(model.model, Contrast.from_pairs(pairs))
    followed = runs.share("corrupted", "foil")
    return InstrumentAnswer("trace" if followed > CLEAR else "undecided", f"written total: {percent(followed)}")


def _with_trace(model: GroundTruth) -> str | None:
    """The truth for the models that write totals."""
    truths = {"reader": "trace", "recomputer": "prompt", "untrained": "undecided"}
    return truths.get(model.kind) if model.writes_totals else None


def _question(edit: str, text: str) -> Question:
    truth = by_kind(reader="follows", recomputer="ignores")
    ask: Callable[[GroundTruth, bool], InstrumentAnswer] = partial(edited, edit)
    before = ask if edit == "substitute_total" else None
    return Question(f"trace edit: {edit}", text, truth, ask, before)


TRACE_QUESTIONS = (
    _question("substitute_total", "a written total is replaced: does the answer follow it?"),
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
