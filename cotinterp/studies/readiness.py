"""Evidence on whether wrong steps anchor wrong answers: the answer along the trace, and what a trace adds to it."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from cotinterp.behavior.answer_given_trace import FLOOR
from cotinterp.behavior.marginal import MarginalResult, answer_marginal
from cotinterp.behavior.readiness import ReadinessResult, answer_readiness
from cotinterp.studies.evidence import TraceCondition, joined, tally
from cotinterp.studies.subject import Effort, Subject

SEED = 8
PROBABILITY_DIGITS, CURVE_DIGITS, NATS_DIGITS = 3, 1, 3
"""Decimals that a problem's probability, its log-probability on the curve, and its two other ones are rounded to.
Problems that round alike share a row: tables stay small, and a mean moves by far less than its interval is wide."""


def readiness(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of the answer-readiness curve, of the marginal and of the model's own wrong totals; none without totals.

    All at one number of operands, the largest that the subject was trained on: traces are longest there, and a problem
    is least likely to be answered without one. `effort.ready` held-out problems, `effort.traces` continuations each.

    - `answer_prob`, `answer_log_prob`: P(true answer | prompt, first `step` totals of a trace), step 0 to k-1, and its
      natural log (no lower than FLOOR). The condition is `<trace>:<answered>`, as in `behavior.readiness`.
    - `followed_prob`, condition `edited:<answered>`: P(answer that follows from the wrong total of step 1).
    - `marginal_log_prob`, `own_log_prob`: log P(true answer | problem), log P(true answer | own greedy trace), in nats.
    - `own_wrong_share`: a problem's drawn traces that hold a wrong total, out of all of them (`trials`).
    - `own_wrong_followed`: of those that do not end on the true answer (`trials`), how many are answered with their
      last total: the sum of the probabilities that they are. Problems without such a trace have no row.
    """
    if not subject.writes_totals:
        return joined([])
    problems = subject.heldout(effort.ready)
    curve = answer_readiness(
        subject.model,
        subject.task,
        subject.regime,
        problems,
        rng=np.random.default_rng([SEED, 0]),
        n_traces=effort.traces,
        run_seed=subject.run_seed,
    )
    marginal = answer_marginal(
        subject.model,
        subject.task,
        subject.regime,
        problems,
        rng=np.random.default_rng([SEED, 1]),
        n_traces=effort.traces,
        run_seed=subject.run_seed,
    )
    return joined([*_curve(curve), *_carried(marginal)])


def _curve(result: ReadinessResult) -> list[pd.DataFrame]:
    parts = []
    for (k, trace, answered, step), points in result.cells().items():
        log_p = np.array([point.log_prob for point in points])
        followed = [point.followed_log_prob for point in points if point.followed_log_prob is not None]
        of = {
            "answer_prob": np.exp(log_p).round(PROBABILITY_DIGITS),
            "answer_log_prob": _nats(log_p, CURVE_DIGITS),
            "followed_prob": np.exp(np.array(followed)).round(PROBABILITY_DIGITS),
        }
        for measure, values in of.items():
            parts.append(tally(measure, values, k=k, step=step, condition=TraceCondition(trace, answered)))
    return parts


def _carried(result: MarginalResult) -> list[pd.DataFrame]:
    found, k = result.problems, result.problems[0].problem.k
    followed = [one.followed[np.isfinite(one.followed)] for one in found]
    value, trials = (np.array([of(one) for one in followed if len(one)]) for of in (np.sum, len))
    return [
        tally("marginal_log_prob", _nats(np.array([one.log_prob for one in found]), NATS_DIGITS), k=k),
        tally("own_log_prob", _nats(np.array([one.own_log_prob for one in found]), NATS_DIGITS), k=k),
        tally(
            "own_wrong_share",
            np.array([one.wrong.sum() for one in found]),
            trials=np.array([len(one.wrong) for one in found]),
            k=k,
        ),
        tally("own_wrong_followed", value.round(PROBABILITY_DIGITS), trials=trials, k=k),
    ]


def _nats(log_p: Float[np.ndarray, " problems"], digits: int) -> Float[np.ndarray, " problems"]:
    floored: Float[np.ndarray, " problems"] = np.maximum(log_p, FLOOR)
    return floored.round(digits)
