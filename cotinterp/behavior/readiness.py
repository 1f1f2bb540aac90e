"""When is the answer known? P(true answer) along the trace, one total at a time.

After Lanham et al. 2023 (arXiv 2307.13702, early answering), with probabilities in the place of drawn answers. The
first j totals of a trace are shown, j = 0 to k-1, in two ways:

- `forced`: the trace is closed after total j, `{}` for none, and the answer is judged at once. Exact, but off the
  distribution that the model was trained on for every j below k-1: a model that was never shown a short trace may
  answer anything, and a low value does not say that it has no answer yet.
- `free`: the text is cut after total j, at the prompt for none, and the model writes the rest of the trace itself,
  several times; P(answer) is the mean over what it wrote. This is its own P(answer | prompt, first j totals).

Three traces are shown: the true one; an edited one, with a wrong total at one step from which the later ones follow;
and another problem's (`shown_traces`). A model whose answer hangs on what is written gives the true answer up as soon
as the wrong total stands there and follows it; one that computes from the prompt keeps it whatever is written. At
j = 0 nothing is shown, and all three begin at one point.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.behavior.accuracy import labels_of, require_lengths
from cotinterp.behavior.answer_given_trace import (
    CLOSE,
    FLOOR,
    OPEN,
    Opening,
    answer_log_probs,
    log_mean,
    mean_and_interval,
    sample_traces,
)
from cotinterp.figures.behavior import readiness_figure
from cotinterp.models.decoding import Decoding, LanguageModel
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task, whole_number
from cotinterp.transcripts.problems import Problem, by_length, informative_totals, substitute_total
from cotinterp.transcripts.regimes import Regime, require_totals
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role

Trace = Literal["true", "edited", "shuffled"]
IN_A_STEP = frozenset({Role.PREVIOUS_TOTAL, Role.STEP_OPERATOR, Role.STEP_OPERAND, Role.EQUALS, Role.TOTAL})
SEPARATOR = ";"


class ShownTrace(NamedTuple):
    """A trace to be shown under the prompt of `problem`.

    Attributes:
        steps: Text of each of its steps, without separators.
        followed: Answer at which the task arrives from the wrong total of an edited trace; None for the others.
    """

    trace: Trace
    problem: Problem
    steps: tuple[str, ...]
    followed: int | None

    def begun(self, n: int) -> Opening:
        """The first `n` steps, cut directly after total `n`; the prompt alone for none."""
        return Opening(self.problem, OPEN + SEPARATOR.join(self.steps[:n]) if n else "")

    def closed(self, n: int) -> Opening:
        """The first `n` steps between braces, closed as the regime closes a whole trace; `{}` for none."""
        return Opening(self.problem, OPEN + SEPARATOR.join(self.steps[:n]) + CLOSE)


def shown_traces(
    task: Task, regime: str | Regime, problems: Sequence[Problem], *, edited_step: int = 1, rng: np.random.Generator
) -> Iterator[ShownTrace]:
    """The three traces of each problem, as far as there are such.

    - `true`: the problem's own.
    - `edited`: the total of `edited_step` is another one that is written with as many symbols and occurs there, and the
      later steps follow from it. Missing where no such total leads to another answer, or the problem has no such step.
    - `shuffled`: the trace of another of the problems with as many operands and another answer. Every problem's trace
      is shown under another prompt about as often. A reader of all of it arrives at the other answer; from a part of it
      it goes on with its own operands, and may arrive at the true answer by chance. Missing where no other problem has
      another answer.

    Args:
        problems: Distinct ones of one length.
    """
    edits = {}
    if problems and 1 <= edited_step < problems[0].k:
        wrong = informative_totals(task, problems, edited_step, at_most=1, rng=rng)
        edits = {one.problem: one for one in wrong.chosen}
    ring = [problems[index] for index in rng.permutation(len(problems))]
    for place, problem in enumerate(ring):
        yield ShownTrace("true", problem, steps_of(task, regime, problem), None)
        if (edit := edits.get(problem)) is not None:
            shown = substitute_total(task, problem, edited_step, edit.total)
            yield ShownTrace("edited", problem, steps_of(task, regime, shown), edit.followed)
        others = (other for other in ring[place + 1 :] + ring[:place] if other.answer != problem.answer)
        if (other := next(others, None)) is not None:
            yield ShownTrace("shuffled", problem, steps_of(task, regime, other), None)


def steps_of(task: Task, regime: str | Regime, problem: Problem) -> tuple[str, ...]:
    """The text of each step of the trace that the regime writes, without separators."""
    tokens = [token for token in render(task, problem, regime).tokens if token.role in IN_A_STEP]
    return tuple("".join(token.symbol for token in tokens if token.step == step) for step in range(1, problem.k))


Answered = Literal["forced", "free"]


class Ready(NamedTuple):
    """One problem after one total of one trace.

    Attributes:
        step: Answered many totals are shown, 0 to k-1.
        log_prob: Natural log of P(true answer); -inf where no drawn continuation could give it.
        followed_log_prob: The same of the answer that follows from the edited total; None for traces without an edit.
    """

    problem: Problem
    trace: Trace
    answered: Answered
    step: int
    log_prob: float
    followed_log_prob: float | None


@dataclass(frozen=True)
class ReadinessResult(Result):
    """Answer readiness, problem by problem."""

    points: tuple[Ready, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each k, trace, answered and step: the labels, k, trace, answered, step, n, then three numbers.

        `probability` is the mean of P(true answer) over problems, `log_prob` the mean of its natural log (no lower than
        FLOOR for a problem), `followed` the mean of P(answer that follows from the edit), NaN for other traces; each
        with a bootstrap interval over problems (`<name>_low`, `<name>_high`), NaN for fewer than two problems.
        """
        rows = []
        for (k, trace, answered, step), group in self.cells().items():
            row: dict[str, object] = {"k": k, "trace": trace, "answered": answered, "step": step, "n": len(group)}
            columns: dict[str, Callable[[Ready], float]] = {
                "probability": lambda point: float(np.exp(point.log_prob)),
                "log_prob": lambda point: max(point.log_prob, FLOOR),
                "followed": lambda point: float(np.exp(_or_nan(point.followed_log_prob))),
            }
            for name, number in columns.items():
                row |= mean_and_interval(name, np.array([number(point) for point in group]))
            rows.append(row)
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """P(true answer) against the number of totals shown, a color for each trace, dashed where it is forced."""
        return readiness_figure(self.frame())

    def cells(self) -> dict[tuple[int, Trace, Answered, int], list[Ready]]:
        cells: dict[tuple[int, Trace, Answered, int], list[Ready]] = {}
        for point in self.points:
            cells.setdefault((point.problem.k, point.trace, point.answered, point.step), []).append(point)
        return cells


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def answer_readiness(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    *,
    rng: np.random.Generator,
    n_traces: int = 16,
    edited_step: int = 1,
    run_seed: int = 0,
    decoding: Decoding = Decoding(),
) -> ReadinessResult:
    """P(true answer) and P(answer that follows from the edit) after each total of each trace of each problem.

    Args:
        problems: Distinct ones are used once. Held-out problems keep memory of the answer out of j = 0.
        rng: Draws the edits, the order in which problems exchange their traces, and the model's continuations.
        n_traces: Continuations of each beginning (`free`). Fewer make a problem's probability coarser, not biased; its
            logarithm is biased downward where a rare continuation holds most of the probability.
        edited_step: Step whose total is wrong in the edited trace; problems without that step have no edited trace.
        run_seed: Label of the trained model in the tables.

    Raises:
        ValueError: A regime that writes no totals, no problems, problems that the task did not solve or whose traces
            the model has no room for, an `edited_step` that is no number of a step, `n_traces` below 1, or a
            model that gives NaN logits.
    """
    regime = require_totals(regime)
    if not problems:
        raise ValueError("the answer-readiness curve needs at least one problem, got none")
    whole_number(edited_step, "edited_step", "the number of a step", least=1)
    require_lengths(model, task, regime, problems, decoding.max_new)
    shown = [
        one
        for group in by_length(problems).values()
        for one in shown_traces(task, regime, group, edited_step=edited_step, rng=rng)
    ]
    places = [(one, n) for one in shown for n in range(one.problem.k)]
    begun = list(dict.fromkeys(one.begun(n) for one, n in places))
    drawn = sample_traces(model, task, regime, begun, rng=rng, n_traces=n_traces, decoding=decoding)
    written = {start: [trace.opening for trace in traces] for start, traces in zip(begun, drawn, strict=True)}
    cells = [_Shown(one, n, "forced", [one.closed(n)]) for one, n in places]
    cells += [_Shown(one, n, "free", written[one.begun(n)]) for one, n in places]
    true = _log_means(model, task, cells, [cell.shown.problem.answer for cell in cells], decoding)
    edited = [cell for cell in cells if cell.shown.followed is not None]
    followed = iter(_log_means(model, task, edited, [cell.shown.followed for cell in edited], decoding))
    points = [
        Ready(
            shown.problem,
            shown.trace,
            answered,
            n,
            log_prob,
            None if shown.followed is None else next(followed),
        )
        for (shown, n, answered, _), log_prob in zip(cells, true, strict=True)
    ]
    return ReadinessResult(tuple(points), labels_of(task, regime, run_seed))


class _Shown(NamedTuple):
    """A trace, how many totals of it are shown, how it is answered, and every text after which the answer is judged."""

    shown: ShownTrace
    n: int
    answered: Answered
    texts: list[Opening]


def _log_means(
    model: LanguageModel, task: Task, cells: Sequence[_Shown], answers: Sequence[int | None], decoding: Decoding
) -> list[float]:
    """Natural log of the mean probability of one answer over the texts of each cell."""
    texts = [text for cell in cells for text in cell.texts]
    asked = [answer for cell, answer in zip(cells, answers, strict=True) for _ in cell.texts if answer is not None]
    log_p = answer_log_probs(model, task, texts, asked, batch_size=decoding.batch_size)
    ends = np.cumsum([len(cell.texts) for cell in cells])
    return [log_mean(part) for part in np.split(log_p, ends[:-1])] if cells else []
