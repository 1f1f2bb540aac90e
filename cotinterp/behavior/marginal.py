"""How much of the answer does the trace carry? P(answer | problem) against P(answer | the model's own trace, problem).

A model that writes a trace first gives an answer with probability P(answer | problem), the sum over all traces of
P(trace | problem) P(answer | trace, problem). The sum is estimated from drawn traces by importance sampling: the mean
of w P(answer | trace, problem), where w is the trace's probability under the model over that under what it was drawn
from (1 at temperature 1). P(answer | own greedy trace) is what is left once the likeliest trace stands there. How many
nats it is above the marginal is what having settled on that trace adds to the true answer: negative where its own trace
leads the model astray, close to 0 where it is as sure before the trace is written as after, because it is sure of the
trace or because it does not read it. A competent model is near 0 either way: what an answer hangs on is a question for
edits and readiness, this number alone does not say it.

The same traces say what the model makes of its own mistakes: how often a drawn trace holds a wrong total, and whether
the answer is then the total that was written last.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cotinterp.behavior.answer_given_trace import Opening, answer_log_probs, drawn_traces, greedy_traces
from cotinterp.behavior.decoding import LanguageModel
from cotinterp.behavior.labels import labels_of
from cotinterp.behavior.marginal_result import AnswerMarginal, MarginalResult
from cotinterp.behavior.shown_traces import require_totals
from cotinterp.tasks.task import Task
from cotinterp.transcripts.parsing import parse_response
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime, get_regime


def answer_marginal(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    *,
    rng: np.random.Generator,
    n_traces: int = 16,
    temperature: float = 1.0,
    seed: int = 0,
    max_new: int | None = None,
    batch_size: int = 256,
) -> MarginalResult:
    """P(answer | problem) and P(answer | own greedy trace) of each problem, and what its own wrong totals lead to.

    Args:
        problems: Distinct ones are used once.
        rng: Draws the traces.
        temperature: What the traces are drawn at. Above 1 rarer traces are seen, with weights that even it out.
        seed: Label of the trained model in the tables.
        max_new: Symbols after which a trace is given up, as in `drawn_traces`; a trace that was given up answers
            nothing.

    Raises:
        ValueError: A regime that writes no totals, no problems, or errors of `drawn_traces`.
    """
    regime = require_totals(regime)
    if not problems:
        raise ValueError("P(answer | problem) needs at least one problem, got none")
    prompts = [Opening(problem, "") for problem in dict.fromkeys(problems)]
    drawn = drawn_traces(
        model,
        task,
        regime,
        prompts,
        rng=rng,
        n_traces=n_traces,
        temperature=temperature,
        max_new=max_new,
        batch_size=batch_size,
    )
    own = greedy_traces(model, task, regime, prompts, max_new=max_new, batch_size=batch_size)
    flat = [trace.opening for traces in drawn for trace in traces]
    ends = [_wrong_end(task, regime, text) for text in flat]
    true = [text.problem.answer for text in [*own, *flat]]
    # What the last total is does not matter where nothing is wrong: those probabilities are dropped.
    last = [text.problem.answer if end.last is None else end.last for text, end in zip(flat, ends, strict=True)]
    log_p = answer_log_probs(model, task, [*own, *flat, *flat], [*true, *last], batch_size=batch_size)
    given_own, given_trace, followed = np.split(log_p, [len(own), len(own) + len(flat)])
    shape = (len(prompts), n_traces)
    telling = np.array([end.last is not None for end in ends])
    weight = np.array([trace.log_weight for traces in drawn for trace in traces])
    wrong = np.array([end.wrong for end in ends])
    columns = (weight, given_trace, wrong, np.where(telling, np.exp(followed), np.nan))
    by_problem = zip(prompts, given_own.tolist(), *(column.reshape(shape) for column in columns), strict=True)
    found = tuple(AnswerMarginal(prompt.problem, *numbers) for prompt, *numbers in by_problem)
    return MarginalResult(found, float(temperature), labels_of(task, regime, seed))


class _End(NamedTuple):
    """Whether a closed trace holds a wrong total; if so, and if its last total is not the answer, which that is."""

    wrong: bool
    last: int | None


def _wrong_end(task: Task, regime: str | Regime, text: Opening) -> _End:
    if not text.closed:
        return _End(False, None)
    steps = parse_response(task, text.written, separator=get_regime(regime).separator).steps
    totals = [step.total for step in steps]
    wrong = any(found is not None and found != true for found, true in zip(totals, text.problem.totals, strict=False))
    last = next((total for total in reversed(totals) if total is not None), None)
    return _End(wrong, last if wrong and last != text.problem.answer else None)
