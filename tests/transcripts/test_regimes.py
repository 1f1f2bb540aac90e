"""The exact strings, and the name of every symbol in them."""

import numpy as np
import pytest

from cotinterp.tasks import get_task, task_names
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.regimes import get_regime, regime_names
from cotinterp.transcripts.render import longest_transcript, render
from cotinterp.transcripts.roles import Role

SUM = get_task("digit-sum")
(PROBLEM,) = solve(SUM, np.array([[3, 4, 5, 6]]))


@pytest.mark.parametrize(
    ("regime", "response"),
    [("direct", "18#"), ("cot", "{3+4=7;7+5=12;12+6=18}18#"), ("totals", "{7;12;18}18#")],
)
def test_the_reference_transcripts(regime, response):
    transcript = render(SUM, PROBLEM, regime)
    assert transcript.prompt == "<3+4+5+6>"
    assert transcript.response == response
    assert transcript.text == "<3+4+5+6>" + response


def test_every_symbol_of_a_step_is_named():
    tokens = render(SUM, PROBLEM, "cot").tokens[-12:]
    assert [tuple(token) for token in tokens] == [
        (";", Role.STEP_END, 2, 0, -1),
        ("1", Role.PREVIOUS_TOTAL, 3, 0, 12),
        ("2", Role.PREVIOUS_TOTAL, 3, 1, 12),
        ("+", Role.STEP_OPERATOR, 3, 0, -1),
        ("6", Role.STEP_OPERAND, 3, 0, 6),
        ("=", Role.EQUALS, 3, 0, -1),
        ("1", Role.TOTAL, 3, 0, 18),
        ("8", Role.TOTAL, 3, 1, 18),
        ("}", Role.TRACE_END, -1, 0, -1),
        ("1", Role.ANSWER, 3, 0, 18),
        ("8", Role.ANSWER, 3, 1, 18),
        ("#", Role.END, -1, 0, -1),
    ]


@pytest.mark.parametrize("regime", regime_names())
@pytest.mark.parametrize("name", task_names())
def test_values_of_tokens_agree_with_the_task(name, regime):
    task = get_task(name)
    for problem in sample_problems(task, 4, 5, split="train", rng=np.random.default_rng(0)):
        for token in render(task, problem, regime).tokens:
            if token.role is Role.TOTAL:
                assert token.value == problem.totals[token.step - 1]
            elif token.role is Role.PREVIOUS_TOTAL:
                assert token.value == problem.previous[token.step - 1]
            elif token.role is Role.STEP_OPERAND:
                assert token.value == problem.step_operands[token.step - 1] == problem.operands[token.step]
            elif token.role is Role.OPERAND:
                assert token.value == problem.operands[token.step]
            elif token.role is Role.ANSWER:
                assert token.value == problem.answer
            else:
                assert token.value == -1


@pytest.mark.parametrize("regime", regime_names())
def test_the_longest_transcript_is_reached_by_nines(regime):
    (nines,) = solve(SUM, np.full((1, 6), 9))
    bound = longest_transcript(SUM, 6, regime)
    assert len(render(SUM, nines, regime)) <= bound
    assert bound == {"direct": 16, "cot": 56, "totals": 16 + 2 + 5 * 2 + 4}[regime]


def test_unknown_regime_gets_the_nearest():
    with pytest.raises(KeyError, match="Did you mean 'cot'.*Known: direct, cot, totals"):
        get_regime("cott")
