"""Which measures a subject is given, and their rows with its name in front."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from cotinterp.behavior.accuracy import accuracy_by_k, longest_k
from cotinterp.behavior.answer_given_trace import OPEN
from cotinterp.results import with_labels
from cotinterp.studies.answers import answers, edits
from cotinterp.studies.evidence import BEYOND, COLUMNS, MEMORY_TASK, REFUSED, WITHOUT, joined, tally
from cotinterp.studies.instruments import evaluated
from cotinterp.studies.probes import probes, uses_on_the_way
from cotinterp.studies.readiness import readiness
from cotinterp.studies.reads import families, knock_outs
from cotinterp.studies.subject import Effort, Subject
from cotinterp.transcripts.problems import Problem

Measure = Callable[[Subject, Effort], pd.DataFrame]
"""Rows of evidence about one model: measure, k, step, condition, value, trials, problems (see `studies.evidence`)."""

TRACE = "cot"
"""The regime in which a trace is asked for: its prompts end with `>`."""

LABEL = "label"
"""The regime in which a label is asked for with nothing but the problem in front of it."""

TRACE_TRAIN = "trace-train"
"""Condition of `exact`: training problems, asked for their trace."""

ANSWERS_OF_VARIANTS = ("accuracy", "chance", "nearest", "error_kind")


def outcomes(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Of `answers` how often it is right, what chance and memory are worth, and what kind its errors are."""
    rows = answers(subject, effort)
    return rows[rows["measure"].isin(ANSWERS_OF_VARIANTS)]


def as_taught(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows about one model that may have learned several ways of responding.

    - `exact`, condition `asked` or `trace`: held-out problems; 1 where the whole response is the right one and nothing
      else, asked in the regime of the subject and after the prompt of `cot`. A model that writes its trace where it was
      asked for the answer has not answered at once, right as its answer may be (`accuracy` counts it). Condition
      `trace-train`: training problems, asked for the trace.
    - `accuracy` and its companions (`answers`), asked in the regime of the subject, which writes no totals.
    - `leakage`: held-out problems, so asked; 1 where the response begins a trace that was not asked for. 0 in regimes
      whose own responses begin with one (filler).
    - `edit`, `edit_by_step` (`edits`), asked as `cot`: whether the answer follows an edited trace.
    - `probe`, `probe_control`, `probe_use` and its companions (`probes`), in the prompt, asked in its own regime: can
      running totals be read inside before the answer, and is what is read used? `probe_use` at the end of the prompt
      also of the totals before the answer (`uses_on_the_way`). Refused where the subject answers after
      continuous thoughts (`REFUSED`), which takes no other measure with it.

    What is decodable or used says nothing of where training put it: compare with the control of the same phases.

    Raises:
        ValueError: The subject is asked in a regime that writes totals.
    """
    if subject.writes_totals:
        raise ValueError(
            f"regime {subject.regime!r} writes totals: ask the model for its answer at once ('direct', 'direct-mode')"
        )
    traced = replace(subject, regime=TRACE)
    measured, written = (evaluated(one, effort) for one in (subject, traced))
    asked = measured.of_split("heldout")
    has_trace = subject.batch(subject.heldout(1)).transcripts[0].response.startswith(OPEN)
    rows = [answers(subject, effort, measured)]
    of_trace = {name: written.of_split(side) for name, side in (("trace", "heldout"), (TRACE_TRAIN, "train"))}
    for condition, outputs in {"asked": asked, **of_trace}.items():
        for k in sorted({one.problem.k for one in outputs}):
            exact = [one.exact for one in outputs if one.problem.k == k]
            rows.append(tally("exact", np.array(exact, dtype=float), k=k, condition=condition))
    for k in sorted({one.problem.k for one in asked}):
        leaked = [not has_trace and one.text.startswith(OPEN) for one in asked if one.problem.k == k]
        rows.append(tally("leakage", np.array(leaked, dtype=float), k=k))
    inside = [_rows_or_refusal(each, subject, effort) for each in (probes, uses_on_the_way)]
    return joined([*rows, edits(traced, effort), *inside])


def beyond_training(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `accuracy`, condition `beyond`: problems longer than those of its training, up to twice as long.

    Up to `effort.evaluated` of each length, held-out ones, as far as the task has them and their right transcripts fit
    the context. No rows where there are none. A model that fails there may have learned the rule for the lengths that
    it was shown; what it lacks may be the place of a symbol as well as the total.
    """
    longest = subject.k_range[1]
    most = min(2 * longest, longest_k(subject.model, subject.task, subject.regime))
    asked = [subject.heldout(effort.evaluated, k=k) for k in range(longest + 1, most + 1)]
    return _right(subject, sum(asked, ()), BEYOND)


def without_trace(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `accuracy`, condition `without`: held-out problems, asked for the label with no trace in the input."""
    heldout = subject.evaluation_problems(effort.evaluated)["heldout"]
    return _right(replace(subject, regime=LABEL), heldout, WITHOUT)


def _right(subject: Subject, problems: tuple[Problem, ...], condition: str) -> pd.DataFrame:
    if not problems:
        return joined([])
    model, task, regime, seed = subject.writer, subject.task, subject.regime, subject.run_seed
    by_k: dict[int, list[float]] = {}
    for one in accuracy_by_k(model, task, regime, {condition: problems}, run_seed=seed).outputs:
        by_k.setdefault(one.problem.k, []).append(float(one.correct))
    return joined([tally("accuracy", np.array(right), k=k, condition=condition) for k, right in by_k.items()])


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
