"""Python itself as the oracle of every expression."""

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.render import render

TASK = get_task("expressions-mod11")


def value_of(expression):
    return eval(expression.replace("A", "10")) % 11


@pytest.mark.parametrize("k", [2, 3, 5, 7, 11])
def test_prompts_and_steps_are_what_python_makes_of_them(k):
    for problem in solve(TASK, np.random.default_rng(k).integers(TASK.n_operands, size=(200, k))):
        transcript = render(TASK, problem, "cot")
        assert value_of(transcript.prompt.strip("<>")) == problem.answer
        steps = transcript.response.partition("}")[0].strip("{").split(";")
        assert len(steps) == k - 1
        for step, total in zip(steps, problem.totals, strict=True):
            operation, _, result = step.partition("=")
            assert value_of(operation) == value_of(result) == total


def test_a_wrong_operator_fails_that_test():
    """Negative control: exchange + and - in the prompt and most values change."""
    problems = solve(TASK, np.random.default_rng(0).integers(TASK.n_operands, size=(200, 5)))
    prompts = [render(TASK, problem, "direct").prompt.strip("<>") for problem in problems]
    exchanged = [prompt.translate(str.maketrans("+-", "-+")) for prompt in prompts]
    same = [value_of(prompt) == problem.answer for prompt, problem in zip(exchanged, problems, strict=True)]
    assert np.mean(same) < 0.5


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_no_prompt_is_on_two_sides_of_the_split(k):
    sides = [
        {render(TASK, problem, "direct").prompt for problem in sample_problems(TASK, k, 400, split=split, rng=rng)}
        for split, rng in (("train", np.random.default_rng(0)), ("heldout", np.random.default_rng(1)))
    ]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_zero_is_the_commonest_answer():
    answers = TASK.steps(np.random.default_rng(0).integers(TASK.n_operands, size=(40000, 7))).total[:, -1]
    share = np.bincount(answers, minlength=11) / 40000
    assert share[0] == pytest.approx(0.135, abs=0.006)
    assert share[1:] == pytest.approx(np.full(10, (1 - 0.135) / 10), abs=0.006)
