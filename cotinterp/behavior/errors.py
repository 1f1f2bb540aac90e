"""Where outputs go wrong: every output in exactly one category, the first fault in writing order.

The order of judgment, in full:

1. The expected response, symbol for symbol: `correct`.
2. Ended, with the right answer, but not the expected response: `correct_with_faulty_trace`. Accuracy counts both.
3. No stop symbol: `never_ended`, whatever the trace says. What was written is cut at a limit, so its end is unknown.
4. A fault in the trace, the first in writing order. A trace without `{` is malformed. Then step by step: a segment
   that is not a step of the regime is malformed (also one where an operand or state is none of the task's); a step
   beyond the last one is a wrong number of steps; a previous total that is not the one just written (x_0's state at
   step 1) is a wrong copy, then the operand likewise, or its operator; a total that is wrong after both copies are
   right is an arithmetic slip. Then a missing `}` is malformed, and too few steps are a wrong number.
5. A faultless trace: a parsable answer `answer_differs_from_last_total`, no parsable answer `right_total_no_answer`.

Because the first fault wins, every step before it is right, and later consequences are not counted again: a slip whose
total is then carried on faithfully is one slip; a skipped operand is a wrong copy of the operand at the step where it
is missed. `totals` writes no copies, so a wrong total there is an `arithmetic_slip` although a wrong copy inside the
model would look the same. `direct` writes no trace: what ended and is not right is a `wrong_answer`.

`filler` writes a trace without totals, and what ended and is not right is a `wrong_answer` there as well: dots cannot
be computed wrongly. Its trace is held to the expected one symbol by symbol, and the first departure is the fault: any
other symbol is malformed, too few dots or too many are a wrong number of steps. The fault stands at the step of the
token that belonged there, at k where all had been written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd
import plotly.graph_objects as go

from cotinterp.behavior.accuracy import Output, labels_of
from cotinterp.figures.behavior import errors_figure
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.parsing import ParsedResponse, ParsedStep, Style, parse_response
from cotinterp.transcripts.problems import Problem, require_solved
from cotinterp.transcripts.regimes import Regime, get_regime
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import Role


class Category(StrEnum):
    """What became of one output."""

    CORRECT = "correct"
    CORRECT_WITH_FAULTY_TRACE = "correct_with_faulty_trace"
    ARITHMETIC_SLIP = "arithmetic_slip"
    COPIED_WRONG_TOTAL = "copied_wrong_total"
    COPIED_WRONG_OPERAND = "copied_wrong_operand"
    WRONG_NUMBER_OF_STEPS = "wrong_number_of_steps"
    MALFORMED_TRACE = "malformed_trace"
    ANSWER_DIFFERS_FROM_LAST_TOTAL = "answer_differs_from_last_total"
    RIGHT_TOTAL_NO_ANSWER = "right_total_no_answer"
    WRONG_ANSWER = "wrong_answer"
    NEVER_ENDED = "never_ended"


CORRECT_ANSWER = frozenset({Category.CORRECT, Category.CORRECT_WITH_FAULTY_TRACE})
"""The categories that accuracy counts as right."""

BOOKKEEPING = frozenset(
    {
        Category.WRONG_NUMBER_OF_STEPS,
        Category.MALFORMED_TRACE,
        Category.ANSWER_DIFFERS_FROM_LAST_TOTAL,
        Category.RIGHT_TOTAL_NO_ANSWER,
        Category.NEVER_ENDED,
    }
)
"""Faults of form: a miscounted step, a brace or separator out of place, no end, another answer than the last total."""

COPYING = frozenset({Category.COPIED_WRONG_TOTAL, Category.COPIED_WRONG_OPERAND})
"""Faults of copying: a step from another total than the one just written, or with another operand than the prompt's."""

_WITHOUT_TOTALS = (Category.CORRECT, Category.CORRECT_WITH_FAULTY_TRACE, Category.WRONG_ANSWER, Category.NEVER_ENDED)
_AROUND_TRACE = frozenset({Role.TRACE_START, Role.TRACE_END, Role.ANSWER, Role.END})


@dataclass(frozen=True)
class Fault:
    """The first fault of a trace in writing order, and the step (1..) at which it stands."""

    category: Category
    step: int


@dataclass(frozen=True)
class Diagnosis:
    """The category of one output, and the first fault of its trace where there is one.

    Attributes:
        fault: Given also where the category is another one: a right answer all the same, or an output without an end.
        n_steps: Steps that were written, of whatever form.
    """

    category: Category
    fault: Fault | None
    n_steps: int


def classify(task: Task, problem: Problem, regime: str | Regime, text: str) -> Category:
    """The one category of a response: the docstring of the module has the order of judgment. Any text has one."""
    return diagnose(task, problem, regime, text).category


def diagnose(task: Task, problem: Problem, regime: str | Regime, text: str) -> Diagnosis:
    """`classify` with the first fault of the trace. What stands after the first stop symbol is not read."""
    regime = get_regime(regime)
    transcript = render(task, problem, regime)
    expected = transcript.response
    parsed = parse_response(task, text, separator=regime.separator)
    as_expected = text.removesuffix(parsed.trailing) == expected
    wanted = parse_response(task, expected, separator=regime.separator)
    fault = None if as_expected else _first_fault(parsed, wanted, transcript, regime)
    return Diagnosis(_category(problem, regime, parsed, fault, as_expected=as_expected), fault, len(parsed.steps))


def categories(regime: str | Regime) -> tuple[Category, ...]:
    """The categories that an output of this regime can fall into."""
    if get_regime(regime).writes_totals:
        return tuple(category for category in Category if category is not Category.WRONG_ANSWER)
    return _WITHOUT_TOTALS


def _category(
    problem: Problem, regime: Regime, parsed: ParsedResponse, fault: Fault | None, *, as_expected: bool
) -> Category:
    if not parsed.ended:
        return Category.NEVER_ENDED
    if as_expected:
        return Category.CORRECT
    if parsed.answer == problem.answer:
        return Category.CORRECT_WITH_FAULTY_TRACE
    if not regime.writes_totals:
        return Category.WRONG_ANSWER
    if fault is not None:
        return fault.category
    return Category.RIGHT_TOTAL_NO_ANSWER if parsed.answer is None else Category.ANSWER_DIFFERS_FROM_LAST_TOTAL


def _first_fault(
    written: ParsedResponse, expected: ParsedResponse, transcript: Transcript, regime: Regime
) -> Fault | None:
    """The first departure of the written trace from the expected one; the cut end of an unended trace is not judged."""
    if written.opened != expected.opened:
        return Fault(Category.MALFORMED_TRACE, 1) if written.ended or written.opened or written.answer_text else None
    cut = not written.ended and not written.closed
    if not regime.writes_totals:
        return _first_stray(written, transcript, cut=cut)
    steps = written.steps[:-1] if cut else written.steps
    for j, step in enumerate(steps, start=1):
        wanted = expected.steps[j - 1] if j <= len(expected.steps) else None
        category = _fault_of_step(step, wanted, style=expected.steps[0].style)
        if category is not None:
            return Fault(category, j)
    if cut:
        return None
    after = len(steps) + 1
    if written.opened and not written.closed:
        return Fault(Category.MALFORMED_TRACE, after)
    return Fault(Category.WRONG_NUMBER_OF_STEPS, after) if after <= len(expected.steps) else None


def _first_stray(written: ParsedResponse, transcript: Transcript, *, cut: bool) -> Fault | None:
    """The same for a trace without totals, symbol by symbol."""
    if not written.opened:
        return None
    belongs = [token for token in transcript.tokens[transcript.n_prompt :] if token.role not in _AROUND_TRACE]
    symbols = ";".join(step.text for step in written.steps)
    pairs = enumerate(zip(symbols, belongs, strict=False))
    at = next((place for place, (symbol, token) in pairs if symbol != token.symbol), min(len(symbols), len(belongs)))
    step = belongs[at].step if at < len(belongs) else transcript.problem.k
    if at < len(symbols):
        one_more = at == len(belongs) and symbols[at] in {token.symbol for token in belongs}
        return Fault(Category.WRONG_NUMBER_OF_STEPS if one_more else Category.MALFORMED_TRACE, step)
    if cut or (written.closed and at == len(belongs)):
        return None
    return Fault(Category.WRONG_NUMBER_OF_STEPS if written.closed else Category.MALFORMED_TRACE, step)


def _fault_of_step(step: ParsedStep, wanted: ParsedStep | None, *, style: Style) -> Category | None:
    """What is wrong with a step, given that every step before it is right."""
    if step.style != style:
        return Category.MALFORMED_TRACE
    if wanted is None:
        return Category.WRONG_NUMBER_OF_STEPS
    fields = (
        (step.previous, wanted.previous, Category.COPIED_WRONG_TOTAL),
        (step.operator, wanted.operator, Category.COPIED_WRONG_OPERAND),
        (step.operand, wanted.operand, Category.COPIED_WRONG_OPERAND),
        (step.total, wanted.total, Category.ARITHMETIC_SLIP),
    )
    for found, right, category in fields:
        if found != right:
            return Category.MALFORMED_TRACE if found is None else category
    return None


@dataclass(frozen=True)
class ErrorResult(Result):
    """What became of each output of one run on one side of the split, by number of operands.

    Shares are of all outputs with that number of operands, so the categories of each k sum to 1 and accuracy is
    `correct` plus `correct_with_faulty_trace`. A category says where the text first goes wrong, not which computation
    inside the model failed.
    """

    outputs: tuple[Output, ...]
    diagnoses: tuple[Diagnosis, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each k and category, zeros too: task, regime, run_seed, k, category, count, share."""
        examples = self.examples()
        rows = []
        for k, group in examples.groupby("k"):
            counts = group["category"].value_counts()
            for category in categories(str(self.labels["regime"])):
                count = int(counts.get(category.value, 0))
                rows.append((k, category.value, count, count / len(group)))
        return with_labels(pd.DataFrame(rows, columns=["k", "category", "count", "share"]), self.labels)

    def by_step(self) -> pd.DataFrame:
        """Where the first faults stand: task, regime, run_seed, k, category, fault, step, count, share.

        `fault` differs from `category` where the answer is right all the same and where the output never ended. Cells
        without a fault have no row.
        """
        examples = self.examples()
        n_of_k = examples["k"].value_counts()
        faulty = examples.dropna(subset=["fault"])
        table = faulty.groupby(["k", "category", "fault", "step"]).size().rename("count").reset_index()
        table["share"] = table["count"] / table["k"].map(n_of_k)
        return with_labels(table, self.labels)

    def examples(self) -> pd.DataFrame:
        """One row for each output: k, operands, text, category, fault, step, n_steps."""
        rows = [
            (
                output.problem.k,
                output.problem.operands,
                output.text,
                diagnosis.category.value,
                None if diagnosis.fault is None else diagnosis.fault.category.value,
                None if diagnosis.fault is None else diagnosis.fault.step,
                diagnosis.n_steps,
            )
            for output, diagnosis in zip(self.outputs, self.diagnoses, strict=True)
        ]
        columns = ["k", "operands", "text", "category", "fault", "step", "n_steps"]
        return pd.DataFrame(rows, columns=columns).astype({"step": "Int64"})

    def figure(self) -> go.Figure:
        """Faulty outputs by category, stacked over the number of operands."""
        return errors_figure(self.frame())


def _words(category: str) -> str:
    return category.replace("_", " ")


def error_taxonomy(task: Task, regime: str | Regime, outputs: Sequence[Output], *, run_seed: int = 0) -> ErrorResult:
    """Diagnoses outputs of one run, for instance `accuracy.of_split("heldout")`.

    Raises:
        ValueError: No outputs, or outputs for problems that the task did not solve.
    """
    if not outputs:
        raise ValueError("no outputs to diagnose; let the model answer some problems first (accuracy_by_k)")
    require_solved(task, (output.problem for output in outputs))
    diagnoses = tuple(diagnose(task, output.problem, regime, output.text) for output in outputs)
    return ErrorResult(outputs=tuple(outputs), diagnoses=diagnoses, labels=labels_of(task, regime, run_seed))
