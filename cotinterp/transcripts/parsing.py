"""Reading what a model wrote: total, so that anything at all parses to something."""

from dataclasses import dataclass
from typing import Literal

from cotinterp.tasks.task import Task

Style = Literal["step", "total", "malformed"]


@dataclass(frozen=True)
class ParsedStep:
    """One segment of a trace. A field is None where its text denotes no operand or state of the task.

    Attributes:
        text: The segment as written, without its separator.
        style: `a+b=c` is a step, a lone state a total, anything else malformed.
        operator: Index into `Task.operators` of the operator of a step.
    """

    text: str
    style: Style
    previous: int | None = None
    operand: int | None = None
    total: int | None = None
    operator: int | None = None


@dataclass(frozen=True)
class ParsedResponse:
    """A response taken apart.

    Attributes:
        opened: It begins with `{`.
        closed: ... and that brace is closed.
        steps: The trace's segments, as far as it was written.
        answer: State that the answer denotes, None where it denotes none.
        answer_text: Everything between the trace and the end.
        ended: `#` was written.
        trailing: Everything after `#`.
    """

    opened: bool
    closed: bool
    steps: tuple[ParsedStep, ...]
    answer: int | None
    answer_text: str
    ended: bool
    trailing: str


def parse_response(task: Task, text: str, *, separator: str = ";") -> ParsedResponse:
    """Takes any response apart; never raises. Without a separator every symbol of the trace is a step of its own."""
    body, end, trailing = text.partition("#")
    opened = body.startswith("{")
    if opened:
        trace, brace, answer_text = body[1:].partition("}")
    else:
        trace, brace, answer_text = "", "", body
    segments = trace.split(separator) if separator else list(trace)
    return ParsedResponse(
        opened=opened,
        closed=bool(brace),
        steps=tuple(parse_step(task, segment) for segment in segments) if opened else (),
        answer=task.parse_state(answer_text),
        answer_text=answer_text,
        ended=bool(end),
        trailing=trailing,
    )


def final_answer(task: Task, text: str) -> int | None:
    """The state that a response answers; None where it answers none or never ended. `parse_response` without steps."""
    body, end, _ = text.partition("#")
    answer = body.partition("}")[2] if body.startswith("{") else body
    return task.parse_state(answer) if end else None


def parse_step(task: Task, text: str) -> ParsedStep:
    """Takes one segment of a trace apart; never raises."""
    left, equals, right = text.partition("=")
    operator = next((symbol for symbol in left if symbol in task.operators), "")
    previous, _, operand = left.partition(operator) if operator else (left, "", "")
    if equals and previous and operand and right:
        return ParsedStep(
            text,
            "step",
            previous=task.parse_state(previous),
            operand=task.parse_operand(operand),
            total=task.parse_state(right),
            operator=task.operators.index(operator),
        )
    total = task.parse_state(text)
    return ParsedStep(text, "malformed" if total is None else "total", total=total)
