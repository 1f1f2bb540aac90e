"""What a model answers, what could be answered without it, and what it answers after an edited trace."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import factorial, prod

import numpy as np
import pandas as pd

from cotinterp.behavior.accuracy import AccuracyResult, Output
from cotinterp.behavior.edit_kinds import NONE, SUBSTITUTE
from cotinterp.behavior.edits import Outcome, chance_of
from cotinterp.behavior.errors import BOOKKEEPING, COPYING, CORRECT_ANSWER, Category, categories, error_taxonomy
from cotinterp.behavior.generalization import majority_credit, neighbor_credit
from cotinterp.behavior.invariance import permutation_invariance
from cotinterp.studies.evidence import EditCondition, joined, tally
from cotinterp.studies.instruments import edited, evaluated
from cotinterp.studies.subject import Effort, Subject
from cotinterp.transcripts.problems import Problem

ERROR_KINDS = {"bookkeeping": BOOKKEEPING, "copying": COPYING, "arithmetic": frozenset({Category.ARITHMETIC_SLIP})}
"""The conditions of `error_kind`: each fault of a regime that writes totals belongs to one of them."""


def answers(subject: Subject, effort: Effort, measured: AccuracyResult | None = None) -> pd.DataFrame:
    """Rows about the answers of one model, for each number of operands k.

    Every output is free-running. The held-out problems are the same for every seed, and none of them was trained on. On
    a commutative task a held-out problem may still have a reordered twin in training: `reordered` counts what that is
    worth.

    - `accuracy`, condition `heldout` or `train`: 1 where the output ended with the right answer.
    - `chance`, `nearest`, `reordered`: what always giving the most frequent training answer, that of the nearest
      training problem, and that of the nearest in any order are worth on the held-out problems, from 0 to 1. `chance`
      is one number, with as many problems as are held out; the others are a credit for each of these. For regimes that
      write no totals; `reordered` for commutative tasks.
    - `agreement`: for each training problem, how many of its orders that were never trained on (trials) are answered
      as it is (value), right or wrong. `agreement_chance`: the probability that two different problems are. For
      commutative tasks and regimes that write no totals, where such an order exists.
    - `error_kind` and `error_category`: over the wrong held-out outputs of a regime that writes totals, 1 where the
      first fault is of that kind (`ERROR_KINDS`) or category (`behavior.errors`). Every wrong output has a value in
      every condition, so the shares of a k sum to 1; where nothing is wrong there are no rows, which is no evidence
      that some share is 0. An output without an end counts as bookkeeping whatever stands before it.

    A share of faults says where a text departs first, not which computation failed.

    Args:
        measured: The outputs (`evaluated`), where they are there already.

    Raises:
        ValueError: A held-out problem was trained on, or the model gives NaN.
    """
    heldout = subject.evaluation_problems(effort.evaluated)["heldout"]
    if leaked := sorted({problem.operands for problem in set(heldout) & set(subject.trained_on)}):
        raise ValueError(f"{len(leaked)} held-out problems were trained on, e.g. operands {leaked[0]}: the split leaks")
    measured = evaluated(subject, effort) if measured is None else measured
    parts = list(_accuracy(measured.outputs))
    if subject.writes_totals:
        parts += _errors(subject, measured.of_split("heldout"))
    else:
        parts += _baselines(subject, heldout)
        parts += _agreement(subject, effort.reordered)
    return joined(parts)


def _accuracy(outputs: Sequence[Output]) -> Iterator[pd.DataFrame]:
    for split, k in sorted({(x.split, x.problem.k) for x in outputs}):
        right = [x.correct for x in outputs if (x.split, x.problem.k) == (split, k)]
        yield tally("accuracy", np.array(right, dtype=float), k=k, condition=split)


def _errors(subject: Subject, outputs: Sequence[Output]) -> Iterator[pd.DataFrame]:
    diagnosed = error_taxonomy(subject.task, subject.regime, outputs, run_seed=subject.run_seed)
    names = [category for category in categories(subject.regime) if category not in CORRECT_ANSWER]
    for k in sorted({output.problem.k for output in outputs}):
        pairs = zip(outputs, diagnosed.diagnoses, strict=True)
        found = [one.category for output, one in pairs if output.problem.k == k and one.category not in CORRECT_ANSWER]
        for kind, members in ERROR_KINDS.items():
            yield tally("error_kind", np.array([one in members for one in found], dtype=float), k=k, condition=kind)
        for name in names:
            values = np.array([one is name for one in found], dtype=float)
            yield tally("error_category", values, k=k, condition=name.value)


def _baselines(subject: Subject, heldout: Sequence[Problem]) -> Iterator[pd.DataFrame]:
    """What memory is worth at every length that the model was trained on."""
    task = subject.task
    for k in sorted({problem.k for problem in heldout} & {problem.k for problem in subject.trained_on}):
        asked = [problem for problem in heldout if problem.k == k]
        known = [problem for problem in subject.trained_on if problem.k == k]
        # Over all problems known of this length: what is frequent on one side of a small task is rare on the other.
        chance = majority_credit(known, tuple(dict.fromkeys([*known, *asked]))).mean()
        yield tally("chance", np.full(len(asked), chance), k=k)
        yield tally("nearest", neighbor_credit(task, known, asked), k=k)
        if task.commutative:
            yield tally("reordered", neighbor_credit(task, known, asked, reordered=True), k=k)


def _agreement(subject: Subject, most: int) -> Iterator[pd.DataFrame]:
    """Training problems asked again in another order, and two different problems."""
    if not (subject.task.commutative and _has_unseen_order(subject.trained_on)):
        return
    result = permutation_invariance(
        subject.model,
        subject.task,
        subject.regime,
        subject.trained_on,
        rng=np.random.default_rng(0),
        max_per_k=most,
        run_seed=subject.run_seed,
    )
    for row in result.frame().to_dict("records"):
        k, chance = int(row["k"]), float(row["chance"])
        group = [x for x in result.reorderings if x.problem.k == k]
        orders = np.array([len(x.reordered) for x in group])
        alike = np.array([x.agreement for x in group]) * orders
        yield tally("agreement", alike.round(), k=k, trials=orders)
        if np.isfinite(chance):
            yield tally("agreement_chance", np.full(len(group), chance), k=k)


def _has_unseen_order(trained_on: Sequence[Problem]) -> bool:
    """Whether some training problem has an order of its operands that is not a training problem."""
    known = Counter(tuple(sorted(problem.operands)) for problem in set(trained_on))
    return any(n < factorial(len(x)) // prod(map(factorial, Counter(x).values())) for x, n in known.items())


CLOSED = f"{NONE}_closed"
"""The control of edits that give the trace to its closing brace; that of the others is `none`."""


def edits(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows about edited traces of held-out problems, for each number of operands k; none where no totals are written.

    - `edit`, condition `KIND:follows` or `KIND:ignores`: for each problem, how many of its edits of that kind (trials)
      end with the answer that follows from the trace that is shown, or with the answer to the prompt that is shown
      (value). What is left of 1 is some other answer or none. Edits after which both would be the same answer are not
      made. A kind with nothing to follow (filler) has no `follows`.
    - `edit`, condition `none:follows` and `none_closed:follows`: the control, the true trace cut after a total or given
      to its closing brace: it is answered rightly. Only where the control is near 1 do follow rates of 1 stand for
      reading that works.
    - `edit`, condition `shuffled_target:follows` (for `substitute_total`), `shuffled_target:KIND:follows`, and so with
      `ignores`: the same answers judged by what another problem, edited alike, would have had: chance.
    - `edit_by_step`: the rows of `substitute_total` by the step of the replaced total. After the last total only a copy
      is left to be made, before it the task has to be continued.

    Kinds are those of `behavior.edit_kinds` (after Lanham et al. 2023, arXiv 2307.13702). A trace that was edited is
    nothing that a model trained on true traces has seen: the rates say what its answer depends on there.

    Raises:
        ValueError: No edit could be made on any problem, or the model gives NaN.
    """
    if not subject.writes_totals:
        return joined([])
    result = edited(subject, effort)
    examples = result.examples()
    shuffled = examples.dropna(subset=["chance_outcome"])
    shuffled = shuffled.assign(edit=shuffled["edit"].map(chance_of), outcome=shuffled["chance_outcome"])
    closed = examples["closed"] & (examples["edit"] == NONE)
    shown = examples.assign(edit=examples["edit"].mask(closed, CLOSED))
    parts = [
        _rates("edit", cell, str(kind), int(str(k)))
        for (kind, k), cell in pd.concat([shown, shuffled]).groupby(["edit", "k"])
    ]
    substituted = shown[shown["edit"] == SUBSTITUTE].groupby(["k", "step"])
    parts += [_rates("edit_by_step", cell, SUBSTITUTE, int(str(k)), int(str(step))) for (k, step), cell in substituted]
    return joined(parts)


def _rates(measure: str, edited: pd.DataFrame, kind: str, k: int, step: int = -1) -> pd.DataFrame:
    """How many edits of each problem came out in each way that can be told apart."""
    undefined = {Outcome.OTHER}
    if kind in (NONE, CLOSED):
        undefined.add(Outcome.IGNORES)
    if edited["followed_answer"].isna().all():
        undefined.add(Outcome.FOLLOWS)
    problem = np.unique(edited["problem"], return_inverse=True)[1]
    trials = np.bincount(problem)
    parts = []
    for outcome in (one for one in Outcome if one not in undefined):
        hits = np.bincount(problem, weights=edited["outcome"] == outcome.value)
        parts.append(tally(measure, hits, k=k, step=step, condition=EditCondition(kind, outcome.value), trials=trials))
    return joined(parts)
