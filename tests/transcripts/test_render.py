"""Many at once is one by one, and what is shared between transcripts changes nothing."""

from functools import cached_property

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.regimes import Cot, Token, get_regime, regime_names, sign, written
from cotinterp.transcripts.render import render, render_all_for_training, render_for_training
from cotinterp.transcripts.roles import Role

SUM = get_task("digit-sum")


def rng_of_row(row):
    return np.random.default_rng([7, row])


class Sorted(Cot):
    """A regime of somebody's own, which draws without a share of wrong totals."""

    name = "sorted"
    description = "draws an order"

    def training_response(self, task, problem, rng):
        tokens = list(self.response(task, problem))
        return iter([tokens[index] for index in rng.permutation(len(tokens))])


@pytest.mark.parametrize("regime", [*map(get_regime, regime_names()), Sorted()], ids=lambda regime: regime.name)
def test_training_transcripts_at_once_are_those_one_by_one(regime):
    problems = sample_problems(SUM, 5, 30, split="train", rng=np.random.default_rng(0))
    one_by_one = tuple(
        render_for_training(SUM, problem, regime, rng_of_row(row)) for row, problem in enumerate(problems)
    )
    assert render_all_for_training(SUM, problems, regime, rng_of_row) == one_by_one


def test_a_generator_is_made_only_where_something_is_drawn():
    problems = sample_problems(SUM, 4, 3, split="train", rng=np.random.default_rng(0))
    asked = []

    def noted(row):
        asked.append(row)
        return rng_of_row(row)

    for name in ("direct", "cot", "totals"):
        assert not get_regime(name).draws
        render_all_for_training(SUM, problems, name, noted)
    assert asked == []
    assert get_regime("noisy").draws
    assert Sorted().draws
    render_all_for_training(SUM, problems, "noisy", noted)
    assert asked == [0, 1, 2]


def test_texts_by_hand():
    (problem,) = solve(SUM, np.array([[3, 4, 5, 6]]))
    transcript = render(SUM, problem, "cot")
    assert transcript.text == "<3+4+5+6>{3+4=7;7+5=12;12+6=18}18#"
    assert (transcript.prompt, transcript.response) == ("<3+4+5+6>", "{3+4=7;7+5=12;12+6=18}18#")
    assert transcript.n_prompt == 9


@pytest.mark.parametrize(
    ("codes", "direct", "cot"),
    [
        ([3, 4 + 33, 5 + 22], "<((3+4)*5)>2#", "<((3+4)*5)>{3+4=7;7*5=2}2#"),
        ([3, 4 + 11, 5 + 22 + 33], "<(3-(4*5))>5#", "<(3-(4*5))>{4*5=9;3-9=5}5#"),
        ([1, 2 + 33, 3 + 22, 4 + 33 + 11], "<((1+2)*(3-4))>8#", "<((1+2)*(3-4))>{1+2=3;3-4=A;3*A=8}8#"),
    ],
)
def test_trees_by_hand(codes, direct, cot):
    task = get_task("expressions-mod11")
    (problem,) = solve(task, np.array([codes]))
    assert render(task, problem, "direct").text == direct
    assert render(task, problem, "cot").text == cot
    steps = cot.partition("{")[2].partition("}")[0].split(";")
    totals = ";".join(step.partition("=")[2] for step in steps)
    assert render(task, problem, "totals").response == f"{{{totals}}}{direct[-2:]}"
    dots = "." * (6 * len(steps) - 1)
    assert render(task, problem, "filler").response == f"{{{dots}}}{direct[-2:]}"


def test_brackets_are_given_not_written_and_carry_the_step_of_their_operation():
    task = get_task("expressions-mod11")
    (problem,) = solve(task, np.array([[3, 4 + 33, 5 + 22]]))
    transcript = render(task, problem, "cot")
    assert transcript.n_prompt == len("<((3+4)*5)>")
    brackets = [(t.symbol, t.step, t.part) for t in transcript.tokens if t.role is Role.BRACKET]
    assert brackets == [("(", 2, 0), ("(", 1, 0), (")", 1, 1), (")", 2, 1)]
    operators = [(t.symbol, t.role, t.step) for t in transcript.tokens if "operator" in t.role]
    assert operators == [
        ("+", Role.OPERATOR, 1),
        ("*", Role.OPERATOR, 2),
        ("+", Role.STEP_OPERATOR, 1),
        ("*", Role.STEP_OPERATOR, 2),
    ]


def test_equal_tokens_are_one_object_and_others_are_not_equal():
    assert written("12", Role.TOTAL, 2, 12) == (Token("1", Role.TOTAL, 2, 0, 12), Token("2", Role.TOTAL, 2, 1, 12))
    assert written("12", Role.TOTAL, 2, 12) is written("12", Role.TOTAL, 2, 12)
    assert written("12", Role.TOTAL, 3, 12) != written("12", Role.TOTAL, 2, 12)
    assert sign("=", Role.EQUALS, 1) == Token("=", Role.EQUALS, 1, 0, -1, True)
    assert sign("4", Role.OPERAND, 1, 4) != sign("4", Role.STEP_OPERAND, 1, 4)


def test_a_task_that_computes_its_states_is_asked_for_them_once():
    class Counted(type(SUM)):
        asked = 0

        @property
        def states(self):
            Counted.asked += 1
            return super().states

    task = Counted()
    problems = sample_problems(task, 4, 20, split="train", rng=np.random.default_rng(0))
    texts = [render(task, problem, "cot").text for problem in problems]
    assert texts == [render(SUM, problem, "cot").text for problem in problems]
    assert Counted.asked == 1
    assert isinstance(type(task).state_widths, cached_property)
    assert task.state_widths.tolist() == [len(state) for state in SUM.states]
