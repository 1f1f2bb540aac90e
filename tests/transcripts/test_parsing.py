"""Anything a model may write parses to something."""

import numpy as np
import pytest

from cotinterp.tasks import get_task, task_names
from cotinterp.transcripts.parsing import final_answer, parse_response
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.regimes import regime_names
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

SUM = get_task("digit-sum")


@pytest.mark.parametrize("regime", regime_names())
@pytest.mark.parametrize("name", task_names())
def test_what_is_rendered_parses_back(name, regime):
    task = get_task(name)
    for problem in sample_problems(task, 4, 5, split="heldout", rng=np.random.default_rng(0)):
        parsed = parse_response(task, render(task, problem, regime).response)
        assert parsed.ended
        assert parsed.answer == problem.answer
        assert parsed.trailing == ""
        assert parsed.opened == parsed.closed == (regime != "direct")
        if regime == "direct":
            assert parsed.steps == ()
        elif regime == "filler":
            assert [(step.style, set(step.text)) for step in parsed.steps] == [("malformed", {"."})]
        else:
            assert tuple(step.total for step in parsed.steps) == problem.totals
            assert {step.style for step in parsed.steps} == {"total" if regime == "totals" else "step"}
        if regime == "cot":
            assert tuple(step.previous for step in parsed.steps) == problem.previous
            assert tuple(step.operand for step in parsed.steps) == problem.step_operands


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


def test_random_strings_never_raise():
    rng = np.random.default_rng(0)
    symbols = Vocabulary.of(SUM).symbols
    for _ in range(2000):
        text = "".join(rng.choice(symbols, size=int(rng.integers(0, 30))))
        parsed = parse_response(SUM, text)
        assert parsed.ended == ("#" in text)
        assert final_answer(SUM, text) == (parsed.answer if parsed.ended else None)
        assert parsed.answer is None or parsed.answer_text == SUM.state_text(parsed.answer)
