"""Anything a model may write parses to something."""

import numpy as np
import pytest

from cotinterp.tasks import get_task, task_names
from cotinterp.transcripts.parsing import final_answer, parse_response
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.regimes import get_regime, regime_names
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

SUM = get_task("digit-sum")


@pytest.mark.parametrize(
    ("name", "regime"),
    [
        (n, r)
        for n in task_names()
        for r in regime_names()
        if r != "chain" or get_regime(r).refusal(get_task(n)) is None
    ],
)
def test_what_is_rendered_parses_back(name, regime):
    task = get_task(name)
    for problem in sample_problems(task, 4, 5, split="heldout", rng=np.random.default_rng(0)):
        separator = get_regime(regime).separator
        parsed = parse_response(task, render(task, problem, regime).response, separator=separator)
        assert parsed.ended
        assert parsed.answer == problem.answer
        assert parsed.trailing == ""
        assert parsed.opened == parsed.closed == (regime not in ("direct", "tagging", "direct-mode", "label"))
        if not parsed.opened:
            assert parsed.steps == ()
        elif regime in ("filler", "dots"):
            assert [(step.style, set(step.text)) for step in parsed.steps] == [("malformed", {"."})]
        else:
            assert tuple(step.total for step in parsed.steps) == problem.totals
            assert {step.style for step in parsed.steps} == {"total" if regime in ("totals", "chain") else "step"}
        if regime == "cot":
            assert tuple(step.previous for step in parsed.steps) == problem.previous
            assert tuple(step.operand for step in parsed.steps) == problem.step_operands
            operators = problem.step_operators or (0,) * (problem.k - 1)
            assert tuple(step.operator for step in parsed.steps) == operators


@pytest.mark.parametrize(
    ("text", "opened", "closed", "styles", "answer", "ended"),
    [
        ("", False, False, [], None, False),
        ("#", False, False, [], None, True),
        ("18", False, False, [], 18, False),
        ("018#", False, False, [], None, True),
        ("{", True, False, ["malformed"], None, False),
        ("{}18#", True, True, ["malformed"], 18, True),
        ("{3+4=7;7+5=12", True, False, ["step", "step"], None, False),
        ("{3+4=7;;7+5=12}12#", True, True, ["step", "malformed", "step"], 12, True),
        ("{3+4=7;7+5=}12#", True, True, ["step", "malformed"], 12, True),
        ("{3+4=7;12}12#", True, True, ["step", "total"], 12, True),
        ("{3+4=7}}7#", True, True, ["step"], None, True),
        ("{3+4=7}7#7#", True, True, ["step"], 7, True),
        ("7{3+4=7}7#", False, False, [], None, True),
        ("{3+44=7}7#", True, True, ["step"], 7, True),
    ],
)
def test_faulty_responses(text, opened, closed, styles, answer, ended):
    parsed = parse_response(SUM, text)
    assert (parsed.opened, parsed.closed, parsed.answer, parsed.ended) == (opened, closed, answer, ended)
    assert [step.style for step in parsed.steps] == styles
    assert final_answer(SUM, text) == (answer if ended else None)


def test_a_field_that_denotes_nothing_is_none():
    (step,) = parse_response(SUM, "{3+44=7}7#").steps
    assert (step.previous, step.operand, step.total) == (3, None, 7)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{3-A=4}4#", ("step", 3, 1, 10, 4)),
        ("{3*4+5=6}4#", ("step", 3, 2, None, 6)),
        ("{34=1}4#", ("malformed", None, None, None, None)),
        ("{+4=1}4#", ("malformed", None, None, None, None)),
    ],
)
def test_the_first_operator_of_a_step_is_its_own(text, fields):
    (step,) = parse_response(get_task("expressions-mod11"), text).steps
    assert (step.style, step.previous, step.operator, step.operand, step.total) == fields


def test_without_a_separator_every_symbol_is_a_step():
    steps = parse_response(get_task("z6"), "{41;*}1#", separator="").steps
    assert [(step.text, step.style, step.total) for step in steps] == [
        ("4", "total", 4),
        ("1", "total", 1),
        (";", "malformed", None),
        ("*", "malformed", None),
    ]
    assert parse_response(get_task("z6"), "{}1#", separator="").steps == ()


def test_random_strings_never_raise():
    rng = np.random.default_rng(0)
    symbols = Vocabulary.of(SUM).symbols
    for _ in range(2000):
        text = "".join(rng.choice(symbols, size=int(rng.integers(0, 30))))
        parsed = parse_response(SUM, text)
        assert parsed.ended == ("#" in text)
        assert final_answer(SUM, text) == (parsed.answer if parsed.ended else None)
        assert parsed.answer is None or parsed.answer_text == SUM.state_text(parsed.answer)
