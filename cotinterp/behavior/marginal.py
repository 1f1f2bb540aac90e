"""How much of the answer does the trace carry? P(answer | problem) against P(answer | the model's own trace, problem).

A model that writes a trace first gives an answer with probability P(answer | problem), the sum over all traces of
P(trace | problem) P(answer | trace, problem). The sum is estimated from drawn traces by importance sampling: the mean
of w P(answer | trace, problem), where w is the trace's probability under the model over that under what it was drawn
from (1 at temperature 1). P(answer | own greedy trace) is what is left once the likeliest trace stands there. How many
nats it is above the marginal is what having written that trace adds to the true answer: negative where its own trace
leads the model astray, close to 0 where it is as sure before the trace is written as after, because it is sure of the
trace or because it does not read it. A competent model is near 0 either way: what an answer hangs on is a question for
edits and readiness, this number alone does not say it.

The same traces say what the model makes of its own mistakes: how often a drawn trace holds a wrong total, and whether
the answer is then the total that was written last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from cotinterp.behavior.accuracy import labels_of, require_lengths
from cotinterp.behavior.answer_given_trace import (
    FLOOR,
    Opening,
    answer_log_probs,
    greedy_traces,
    log_mean,
    mean_and_interval,
    sample_traces,
)
from cotinterp.figures.behavior import marginal_figure
from cotinterp.models.decoding import Decoding, LanguageModel
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.parsing import parse_response
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime, require_totals


@dataclass(frozen=True, eq=False)
class AnswerMarginal:
    """One problem and the traces that were drawn for it.

    Attributes:
        own_log_prob: Natural log of P(true answer | own greedy trace).
        log_weight: Of each drawn trace, natural log of its importance weight.
        answer_log_prob: Natural log of P(true answer | that trace); -inf for a trace that was given up.
        wrong: The trace is closed and holds a total that is not the prompt's, at one of the prompt's steps.
        followed: Where it does, and its last total is not the true answer, P(answer is that last total | trace); NaN
            elsewhere.
    """

    problem: Problem
    own_log_prob: float
    log_weight: Float[np.ndarray, " traces"]
    answer_log_prob: Float[np.ndarray, " traces"]
    wrong: Bool[np.ndarray, " traces"]
    followed: Float[np.ndarray, " traces"]

    @property
    def log_prob(self) -> float:
        """Natural log of the estimate of P(true answer | problem), which is unbiased; its logarithm is a little low."""
        return log_mean(self.log_weight + self.answer_log_prob)

    @property
    def mean_weight(self) -> float:
        """Mean weight of the drawn traces: an estimate of 1. Far from it, the weights are not to be trusted."""
        return float(np.exp(log_mean(self.log_weight)))

    @property
    def effective_n(self) -> float:
        """How many traces the estimate rests on (Kish): (sum of terms)^2 / sum of squared terms; 0 for no term."""
        terms = self._terms
        return float(terms.sum() ** 2 / (terms**2).sum()) if terms.any() else 0.0

    @property
    def standard_error(self) -> float:
        """Of `log_prob`, from the spread of its terms (delta method), in nats; NaN for one trace or no term.

        0 where all traces say the same: what was never drawn is not in it.
        """
        terms = self._terms
        if len(terms) < 2 or not terms.any():
            return float("nan")
        return float(terms.std(ddof=1) / (terms.mean() * np.sqrt(len(terms))))

    @property
    def _terms(self) -> Float[np.ndarray, " traces"]:
        """Weight times probability of each trace, relative to the largest."""
        logs = self.log_weight + self.answer_log_prob
        return np.exp(logs - logs.max()) if np.isfinite(logs.max()) else np.zeros(len(logs))


@dataclass(frozen=True)
class MarginalResult(Result):
    """What the trace carries of the answer, problem by problem; `temperature` is what the traces were drawn at."""

    problems: tuple[AnswerMarginal, ...]
    temperature: float
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each k: task, regime, run_seed, k, n, traces, temperature, then what was found.

        Natural logs, means over problems (no lower than FLOOR for a problem) with bootstrap intervals over them:
        `marginal`, of P(true answer | problem); `own`, of P(true answer | own greedy trace); `carried`, own minus
        marginal, positive where having written its trace makes the model surer of the true answer, negative where that
        trace is wrong more often than a drawn one; a few problems at FLOOR can decide its mean.
        `monte_carlo_error` is the standard error of `marginal` from the traces alone, `effective_n` the mean number
        of traces that a problem's estimate rests on, `mean_weight` should be 1. `wrong_share` is the share of
        traces with a wrong total, `wrong_followed` how often the answer is the last total of those of them that do not
        end on the true answer (there are `n_wrong`; NaN for none).
        """
        rows = []
        for k in sorted({one.problem.k for one in self.problems}):
            group = [one for one in self.problems if one.problem.k == k]
            marginal, own = (
                np.array([max(value, FLOOR) for value in values])
                for values in ([one.log_prob for one in group], [one.own_log_prob for one in group])
            )
            errors = np.array([one.standard_error for one in group])
            traces = int(group[0].log_weight.size)
            row: dict[str, float | int] = {"k": k, "n": len(group), "traces": traces, "temperature": self.temperature}
            row |= mean_and_interval("marginal", marginal)
            row |= mean_and_interval("own", own)
            row |= mean_and_interval("carried", own - marginal)
            row["monte_carlo_error"] = float(np.sqrt((errors**2).sum()) / len(group))
            row["effective_n"] = float(np.mean([one.effective_n for one in group]))
            row["mean_weight"] = float(np.mean([one.mean_weight for one in group]))
            rows.append(row | _own_wrong(group))
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """Both log-probabilities by number of operands."""
        return marginal_figure(self.frame())


def _own_wrong(group: list[AnswerMarginal]) -> dict[str, float | int]:
    """How often a trace of the model's own holds a wrong total, and what becomes of the answer then."""
    weight = np.exp(np.concatenate([one.log_weight for one in group]))
    wrong = np.concatenate([one.wrong for one in group])
    followed = np.concatenate([one.followed for one in group])
    telling = np.isfinite(followed)
    return {
        "wrong_share": float(weight[wrong].sum() / weight.sum()),
        "wrong_followed": float(np.average(followed[telling], weights=weight[telling])) if telling.any() else np.nan,
        "n_wrong": int(telling.sum()),
    }


def answer_marginal(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    *,
    rng: np.random.Generator,
    n_traces: int = 16,
    temperature: float = 1.0,
    run_seed: int = 0,
    decoding: Decoding = Decoding(),
) -> MarginalResult:
    """P(answer | problem) and P(answer | own greedy trace) of each problem, and what its own wrong totals lead to.

    Args:
        problems: Distinct ones are used once.
        rng: Draws the traces.
        temperature: What the traces are drawn at. Above 1 rarer traces are seen, with weights that even it out.
        run_seed: Label of the trained model in the tables.
        decoding: As in `sample_traces`; a trace that was given up answers nothing.

    Raises:
        ValueError: A regime that writes no totals, no problems, problems that the task did not solve or whose traces
            the model has no room for, or errors of `sample_traces`.
    """
    regime = require_totals(regime)
    if not problems:
        raise ValueError("P(answer | problem) needs at least one problem, got none")
    require_lengths(model, task, regime, problems, decoding.max_new)
    prompts = [Opening(problem, "") for problem in dict.fromkeys(problems)]
    drawn = sample_traces(
        model,
        task,
        regime,
        prompts,
        rng=rng,
        n_traces=n_traces,
        temperature=temperature,
        decoding=decoding,
    )
    own = greedy_traces(model, task, regime, prompts, decoding=decoding)
    flat = [trace.opening for traces in drawn for trace in traces]
    ends = [_wrong_end(task, regime, text) for text in flat]
    true = [text.problem.answer for text in [*own, *flat]]
    # What the last total is does not matter where nothing is wrong: those probabilities are dropped.
    last = [text.problem.answer if end.last is None else end.last for text, end in zip(flat, ends, strict=True)]
    log_p = answer_log_probs(model, task, [*own, *flat, *flat], [*true, *last], batch_size=decoding.batch_size)
    given_own, given_trace, followed = np.split(log_p, [len(own), len(own) + len(flat)])
    shape = (len(prompts), n_traces)
    telling = np.array([end.last is not None for end in ends])
    weight = np.array([trace.log_weight for traces in drawn for trace in traces])
    wrong = np.array([end.wrong for end in ends])
    columns = (weight, given_trace, wrong, np.where(telling, np.exp(followed), np.nan))
    by_problem = zip(prompts, given_own.tolist(), *(column.reshape(shape) for column in columns), strict=True)
    found = tuple(AnswerMarginal(prompt.problem, *numbers) for prompt, *numbers in by_problem)
    return MarginalResult(found, float(temperature), labels_of(task, regime, run_seed))


class _End(NamedTuple):
    """Whether a closed trace holds a wrong total; if so, and if its last total is not the answer, which that is."""

    wrong: bool
    last: int | None


def _wrong_end(task: Task, regime: Regime, text: Opening) -> _End:
    if not text.closed:
        return _End(False, None)
    steps = parse_response(task, text.written, separator=regime.separator).steps
    totals = [step.total for step in steps]
    wrong = any(found is not None and found != true for found, true in zip(totals, text.problem.totals, strict=False))
    last = next((total for total in reversed(totals) if total is not None), None)
    return _End(wrong, last if wrong and last != text.problem.answer else None)
