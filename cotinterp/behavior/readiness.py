"""When is the answer settled? P(true answer) along the trace, one total at a time.

After Lanham et al. 2023 (arXiv 2307.13702, early answering), with probabilities in the place of drawn answers. The
first j totals of a trace are shown, j = 0 to k-1, in two ways:

- `forced`: the trace is closed after total j, `{}` for none, and the answer is judged at once. Exact, but off the
  distribution that the model was trained on for every j below k-1: a model that was never shown a short trace may
  answer anything, and a low value does not say that it has not settled on an answer.
- `free`: the text is cut after total j, at the prompt for none, and the model writes the rest of the trace itself,
  several times; P(answer) is the mean over what it wrote. This is its own P(answer | prompt, first j totals).

Three traces are shown: the true one; an edited one, with a wrong total at one step from which the later ones follow;
and another problem's (`shown_traces`). A model whose answer hangs on what is written gives the true answer up as soon
as the wrong total stands there and follows it; one that computes from the prompt keeps it whatever is written. At
j = 0 nothing is shown, and all three begin at one point.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cotinterp.behavior.answer_given_trace import Opening, answer_log_probs, drawn_traces, log_mean
from cotinterp.behavior.decoding import LanguageModel
from cotinterp.behavior.labels import labels_of
from cotinterp.behavior.readiness_result import How, ReadinessResult, Ready
from cotinterp.behavior.shown_traces import ShownTrace, require_totals, shown_traces
from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime


def answer_readiness(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    *,
    rng: np.random.Generator,
    n_traces: int = 16,
    edited_step: int = 1,
    seed: int = 0,
    batch_size: int = 256,
) -> ReadinessResult:
    """P(true answer) and P(answer that follows from the edit) after each total of each trace of each problem.

    Args:
        problems: Distinct ones are used once. Held-out problems keep memory of the answer out of j = 0.
        rng: Draws the edits, the order in which problems exchange their traces, and the model's continuations.
        n_traces: Continuations of each beginning (`free`). Fewer make a problem's probability coarser, not biased; its
            logarithm is biased downward where a rare continuation holds most of the probability.
        edited_step: Step whose total is wrong in the edited trace; problems without that step have no edited trace.
        seed: Label of the trained model in the tables.

    Raises:
        ValueError: A regime that writes no totals, no problems, `n_traces` below 1, or a model that gives NaN logits.
    """
    regime = require_totals(regime)
    if not problems:
        raise ValueError("the answer-readiness curve needs at least one problem, got none")
    groups: dict[int, list[Problem]] = {}
    for problem in sorted(dict.fromkeys(problems), key=lambda problem: problem.k):
        groups.setdefault(problem.k, []).append(problem)
    shown = [
        one for group in groups.values() for one in shown_traces(task, regime, group, edited_step=edited_step, rng=rng)
    ]
    places = [(one, n) for one in shown for n in range(one.problem.k)]
    begun = list(dict.fromkeys(one.begun(n) for one, n in places))
    drawn = drawn_traces(model, task, regime, begun, rng=rng, n_traces=n_traces, batch_size=batch_size)
    written = {start: [trace.opening for trace in traces] for start, traces in zip(begun, drawn, strict=True)}
    cells = [_Cell(one, n, "forced", [one.closed(n)]) for one, n in places]
    cells += [_Cell(one, n, "free", written[one.begun(n)]) for one, n in places]
    true = _log_means(model, task, cells, [cell.shown.problem.answer for cell in cells], batch_size)
    edited = [cell for cell in cells if cell.shown.followed is not None]
    followed = iter(_log_means(model, task, edited, [cell.shown.followed for cell in edited], batch_size))
    points = [
        Ready(
            shown.problem,
            shown.trace,
            how,
            n,
            log_prob,
            None if shown.followed is None else next(followed),
        )
        for (shown, n, how, _), log_prob in zip(cells, true, strict=True)
    ]
    return ReadinessResult(tuple(points), labels_of(task, regime, seed))


class _Cell(NamedTuple):
    """A trace, how many totals of it are shown and how, and every text after which the answer is judged."""

    shown: ShownTrace
    n: int
    how: How
    texts: list[Opening]


def _log_means(
    model: LanguageModel, task: Task, cells: Sequence[_Cell], answers: Sequence[int | None], batch_size: int
) -> list[float]:
    """Natural log of the mean probability of one answer over the texts of each cell."""
    texts = [text for cell in cells for text in cell.texts]
    asked = [answer for cell, answer in zip(cells, answers, strict=True) for _ in cell.texts if answer is not None]
    log_p = answer_log_probs(model, task, texts, asked, batch_size=batch_size)
    ends = np.cumsum([len(cell.texts) for cell in cells])
    return [log_mean(part) for part in np.split(log_p, ends[:-1])] if cells else []
