"""Orders that were never trained on, asked of a sum and of a table."""

import numpy as np
import pytest

from cotinterp.behavior.invariance import permutation_invariance
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems, solve

Z6 = get_task("z6")


@pytest.fixture(scope="module")
def trained():
    return sample_problems(Z6, 4, 300, split="train", rng=np.random.default_rng(0))


def by_table(task, known):
    """The trained answer, or one that is fixed for a tuple and has nothing to do with its sum."""
    answers = {problem.operands: problem.answer for problem in known}

    def policy(text):
        prompt, _, written = text.partition(">")
        operands = tuple(task.parse_operand(x) for x in prompt.removeprefix("<").split(task.operator))
        guess = sum((place + 2) ** 3 * x**2 for place, x in enumerate(operands)) % 6
        return "#" if written else task.state_text(answers.get(operands, guess))

    return policy


def test_a_sum_answers_every_order_alike(scripted, trained):
    model = scripted.Model(Z6, scripted.recomputer(Z6, "direct"))
    result = permutation_invariance(model, Z6, "direct", trained, rng=np.random.default_rng(0), max_per_k=40)
    frame = result.frame()
    assert frame["agreement"].tolist() == [1.0]
    assert frame["n"].tolist() == [40]
    assert frame["ci_low"][0] > frame["chance"][0]


def test_a_table_agrees_no_more_than_two_different_problems(scripted, trained):
    model = scripted.Model(Z6, by_table(Z6, trained))
    result = permutation_invariance(model, Z6, "direct", trained, rng=np.random.default_rng(0), max_per_k=150)
    row = result.frame().iloc[0]
    assert row["ci_low"] < row["chance"] + 0.05
    assert row["agreement"] < 0.35


def test_no_trained_order_is_ever_asked(scripted, trained):
    model = scripted.Model(Z6, scripted.recomputer(Z6, "direct"))
    known = {problem.operands for problem in trained}
    asked: set[tuple[int, ...]] = set()

    def spy(text):
        prompt, _, written = text.partition(">")
        if not written:
            asked.add(tuple(Z6.parse_operand(x) for x in prompt.removeprefix("<").split(Z6.operator)))
        return scripted.recomputer(Z6, "direct")(text)

    result = permutation_invariance(
        scripted.Model(Z6, spy), Z6, "direct", trained, rng=np.random.default_rng(0), max_per_k=30
    )
    reordered = asked - known
    assert len(asked & known) == 30
    assert sum(len(x.reordered) for x in result.reorderings) >= len(reordered) > 30
    assert {tuple(sorted(row)) for row in reordered} <= {tuple(sorted(row)) for row in asked & known}
    assert model.passes == 0


def test_where_order_matters_there_is_nothing_to_test(scripted, trained):
    s3 = get_task("s3")
    with pytest.raises(ValueError, match="order matters in task 's3'"):
        permutation_invariance(scripted.Model(Z6, str), s3, "direct", trained, rng=np.random.default_rng(0))


def test_no_unseen_order_left_is_an_error(scripted):
    both = solve(Z6, np.array([(0, 1), (1, 0), (2, 2)]))
    with pytest.raises(ValueError, match="every order of each of the 3 training problems was trained on"):
        permutation_invariance(scripted.Model(Z6, str), Z6, "direct", both, rng=np.random.default_rng(0))
