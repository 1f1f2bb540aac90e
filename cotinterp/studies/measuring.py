"""Which measures a subject is given, and their rows with its name in front."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from cotinterp.results import with_labels
from cotinterp.studies.answers import answers, edits
from cotinterp.studies.evidence import COLUMNS, MEMORY_TASK, joined, tally
from cotinterp.studies.probes import probes
from cotinterp.studies.readiness import readiness
from cotinterp.studies.reads import families, knock_outs
from cotinterp.studies.subject import Effort, Subject

Measure = Callable[[Subject, Effort], pd.DataFrame]
"""Rows of evidence about one model: measure, k, step, condition, value, trials, problems (see `studies.evidence`)."""

REFUSED = "refused"
"""Measure of the row that says that another measure could not be taken of a subject, and why."""

ANSWERS_OF_VARIANTS = ("accuracy", "chance", "nearest", "error_kind")


def outcomes(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Of `answers` how often it is right, what chance and memory are worth, and what kind its errors are."""
    rows = answers(subject, effort)
    return rows[rows["measure"].isin(ANSWERS_OF_VARIANTS)]


def measures_of(subject: Subject) -> tuple[Measure, ...]:
    """The measures that apply: a model that writes totals gets all of them, `direct` is also probed.

    Variants, and models of the task without a rule, are there to be compared in what they get right, and nothing else.
    """
    if subject.variant or subject.task.name == MEMORY_TASK:
        return (outcomes,)
    if subject.writes_totals:
        return (answers, edits, families, knock_outs, probes, readiness)
    return (answers, probes) if subject.regime == "direct" else (answers,)


def measure(subject: Subject, effort: Effort, measures: Sequence[Measure] | None = None) -> pd.DataFrame:
    """The rows of every measure of one subject, with its labels in front: the columns of `Evidence.table`.

    A measure that refuses a subject (no pairs of problems to exchange, a probe that does not converge) takes no other
    with it: its refusal is a row of its own, `REFUSED`, with the reason as condition.

    Args:
        measures: Those to apply; by default `measures_of(subject)`.
    """
    chosen = measures_of(subject) if measures is None else measures
    parts = joined([_rows_or_refusal(each, subject, effort) for each in chosen])
    return with_labels(parts, subject.evidence_labels)[list(COLUMNS)]


def _rows_or_refusal(each: Measure, subject: Subject, effort: Effort) -> pd.DataFrame:
    try:
        return each(subject, effort)
    except (ValueError, ArithmeticError, RuntimeError) as error:
        said = " ".join(str(error).split())
        return tally(REFUSED, np.zeros(1), k=0, condition=f"{each.__name__}: {type(error).__name__}: {said}")
