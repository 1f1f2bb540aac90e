"""All questions, by instrument: declared once, before anything is measured."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from cotinterp.calibration.behavior_questions import MEMORY_QUESTIONS, TRACE_QUESTIONS
from cotinterp.calibration.circuit_questions import CIRCUIT_QUESTIONS
from cotinterp.calibration.dynamics_questions import DYNAMICS_QUESTIONS, planted_trainings
from cotinterp.calibration.ground_truth import Ask, GroundTruth, InstrumentAnswer, Question, ground_truths
from cotinterp.calibration.patching_questions import HEAD_QUESTIONS, PATCHING_QUESTIONS
from cotinterp.calibration.probe_questions import PROBE_QUESTIONS
from cotinterp.calibration.route_questions import ROUTE_QUESTIONS
from cotinterp.calibration.search_questions import SEARCH_QUESTIONS, scripted
from cotinterp.calibration.variable_questions import VARIABLE_QUESTIONS
from cotinterp.figures import heatmap
from cotinterp.results.result import Result

QUESTIONS = (
    *MEMORY_QUESTIONS,
    *TRACE_QUESTIONS,
    *PATCHING_QUESTIONS,
    *CIRCUIT_QUESTIONS,
    *HEAD_QUESTIONS,
    *PROBE_QUESTIONS,
    *ROUTE_QUESTIONS,
    *VARIABLE_QUESTIONS,
    *SEARCH_QUESTIONS,
    *DYNAMICS_QUESTIONS,
)


COLUMNS = ("instrument", "model", "question", "truth", "answer", "right", "before", "evidence")


@dataclass(frozen=True)
class CalibrationRow:
    """One answer.

    Attributes:
        truth: What is so, declared beforehand.
        answer: What the instrument says.
        before: What the rule of the first version makes of it, with the instruments of today; `not asked` where it had
            no such question.
        evidence: The numbers that the answer rests on.
    """

    instrument: str
    model: str
    question: str
    truth: str
    answer: str
    before: str
    evidence: str

    @property
    def right(self) -> bool:
        """Whether the answer is the truth."""
        return self.answer == self.truth


@dataclass(frozen=True)
class CalibrationResult(Result):
    """Right and wrong answers of the instruments about models whose mechanism is known.

    All rows right does not show that an answer about a trained model is right: a mechanism may be of a kind that no
    model here has. A wrong row shows that an instrument cannot be trusted with its question.
    """

    rows: tuple[CalibrationRow, ...]

    @property
    def wrong(self) -> tuple[CalibrationRow, ...]:
        """The rows that are not right."""
        return tuple(row for row in self.rows if not row.right)

    def frame(self) -> pd.DataFrame:
        """One row for each question and model: instrument, model, question, truth, answer, right, before, evidence."""
        table = [[getattr(row, name) for name in COLUMNS] for row in self.rows]
        return pd.DataFrame(table, columns=list(COLUMNS))

    def figure(self) -> go.Figure:
        """Questions by models: 1 right, 0 wrong, gray where a question does not apply."""
        table = self.frame().assign(right=lambda rows: rows["right"].astype(float))
        grid = table.set_index(["question", "model"])[["right", "truth", "answer"]]
        every = pd.MultiIndex.from_product(
            [table["question"].unique(), table["model"].unique()], names=grid.index.names
        )
        cells = grid.reindex(every).reset_index()
        for axis in ("question", "model"):
            cells[axis] = pd.Categorical(cells[axis], categories=table[axis].unique(), ordered=True)
        return heatmap(
            cells,
            x="model",
            y="question",
            value="right",
            bounds=(0.0, 1.0),
            title="Calibration: what the instruments say about models whose mechanism is known",
            x_title="model",
            y_title="question",
            value_title="1 right, 0 wrong",
            hover=["truth", "answer"],
        )


def calibrate(
    questions: Sequence[Question] = QUESTIONS,
    models: Sequence[GroundTruth] | None = None,
    *,
    quick: bool = False,
    progress: Callable[[CalibrationRow], None] | None = None,
) -> CalibrationResult:
    """Ask every question of every model that has a declared truth for it.

    An instrument that refuses to answer (ValueError, ArithmeticError, RuntimeError) has given no answer, which is wrong
    unless it is the truth; its message is the evidence.

    Args:
        questions: By default all.
        models: By default all ground truths, the scripted generator and the planted trainings among them.
        quick: Fewer examples; the truths are the same.
        progress: Called with each row as it is found.
    """
    rows = []
    for row in _rows(
        questions, (*ground_truths(), scripted(), *planted_trainings()) if models is None else models, quick
    ):
        rows.append(row)
        if progress is not None:
            progress(row)
    return CalibrationResult(tuple(rows))


def _rows(questions: Sequence[Question], models: Sequence[GroundTruth], quick: bool) -> Iterator[CalibrationRow]:
    for question in questions:
        for model in models:
            truth = question.truth(model) if question.instrument.startswith(model.only) else None
            if truth is None:
                continue
            found = _asked(question.ask, model, quick)
            before = _before(question, model, quick, found)
            yield CalibrationRow(
                question.instrument, model.name, question.text, truth, found.answer, before, found.evidence
            )


def _before(question: Question, model: GroundTruth, quick: bool, found: InstrumentAnswer) -> str:
    if question.before is None:
        return "not asked"
    return found.answer if question.before is question.ask else _asked(question.before, model, quick).answer


def _asked(ask: Ask, model: GroundTruth, quick: bool) -> InstrumentAnswer:
    try:
        return ask(model, quick)
    except (ValueError, ArithmeticError, RuntimeError) as error:
        return InstrumentAnswer("no answer", f"{type(error).__name__}: {error}".splitlines()[0])
