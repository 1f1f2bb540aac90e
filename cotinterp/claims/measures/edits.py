"""What a model answers after its written trace was edited."""

import numpy as np
import pandas as pd

from cotinterp.behavior.edit_kinds import all_edits
from cotinterp.behavior.edits import trace_edits
from cotinterp.behavior.outcomes import NONE, SUBSTITUTE, Outcome, chance_of
from cotinterp.claims.evidence import joined, tally
from cotinterp.claims.subject import Effort, Subject
from cotinterp.transcripts.problems import EmptySplitError, Problem

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
    result = trace_edits(
        subject.model,
        subject.task,
        subject.regime,
        _problems(subject, effort.edited),
        edits=all_edits(values_per_step=effort.edits_per_step),
        rng=np.random.default_rng(0),
        seed=subject.seed,
    )
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


def _problems(subject: Subject, most: int) -> tuple[Problem, ...]:
    """Held-out problems of every length of which there are any."""
    low, high = subject.k_range
    found: list[Problem] = []
    for k in range(low, high + 1):
        try:
            found += subject.heldout(most, k=k)
        except EmptySplitError:
            continue
    return tuple(found)


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
        parts.append(tally(measure, hits, k=k, step=step, condition=f"{kind}:{outcome.value}", trials=trials))
    return joined(parts)
