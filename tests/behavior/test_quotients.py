"""Partitions that every step respects, worked out by hand, and outputs that are judged by them."""

import numpy as np
import pytest

from cotinterp.behavior.accuracy import AccuracyResult, Output
from cotinterp.behavior.quotients import accuracy_by_quotient, quotients
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("z6", ["024|135", "03|14|25"]),  # modulo 2 and 3
        ("parity", []),  # a group without subgroups
        (
            "s3",
            ["034|125", "01|23|45", "02|14|35", "05|13|24"],
        ),  # cosets of the even permutations, of each transposition
    ],
)
def test_the_quotients_of_a_group_are_the_cosets_of_its_subgroups(task, expected):
    found = quotients(get_task(task))
    assert {frozenset(map(frozenset, one.name.split("|"))) for one in found} == {
        frozenset(map(frozenset, name.split("|"))) for name in expected
    }


@pytest.mark.parametrize("task", ["z6", "s3", "affine-mod10", "a4xz5"])
def test_every_step_respects_every_quotient(task):
    fold = get_task(task)
    state, operand = (axis.ravel() for axis in np.indices((fold.n_states, fold.n_operands)))
    after = fold.step(state, operand)
    found = quotients(fold)
    assert len({quotient.name for quotient in found}) == len(found) > 0
    for quotient in found:
        assert 1 < len(np.unique(quotient.of)) < fold.n_states
        for one in np.unique(quotient.of):
            images = quotient.of[after[quotient.of[state] == one]]
            at = operand[quotient.of[state] == one]
            assert all(len(np.unique(images[at == x])) == 1 for x in range(fold.n_operands))


def outputs(task, problems, answers):
    written = [f"{task.states[answer]}#" for answer in answers]
    rows = zip(problems, written, answers, strict=True)
    made = [Output(p, "heldout", text, True, answer == p.answer, answer == p.answer) for p, text, answer in rows]
    return AccuracyResult(tuple(made), {"task": task.name, "regime": "direct", "run_seed": 0})


def test_a_model_that_knows_the_parity_of_a_sum_alone_has_its_class_right_and_guesses_within():
    task = get_task("z6")
    problems = solve(task, np.indices((6, 6, 6)).reshape(3, -1).T)
    parities = outputs(task, problems, [problem.answer % 2 for problem in problems])
    table = accuracy_by_quotient(task, parities).frame().set_index("quotient")
    assert table["n"].tolist() == [216, 216]
    assert table.loc["024|135", ["accuracy", "chance", "classes"]].tolist() == [1.0, 0.5, 2]
    assert table.loc["024|135", ["within", "within_chance"]].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert table.loc["03|14|25", "accuracy"] == table.loc["03|14|25", "whole"] == pytest.approx(1 / 3)
    right = accuracy_by_quotient(task, outputs(task, problems, [problem.answer for problem in problems])).frame()
    assert (right[["accuracy", "whole", "within"]] == 1).all().all()


def test_an_output_without_an_answer_is_in_no_class():
    task = get_task("z6")
    (problem,) = solve(task, np.array([[1, 1, 0]]))
    silent = AccuracyResult(
        (Output(problem, "heldout", "2", False, False, False),), {"task": "z6", "regime": "direct", "run_seed": 0}
    )
    table = accuracy_by_quotient(task, silent).frame()
    assert table["accuracy"].tolist() == [0.0, 0.0]
    assert table["within"].isna().all()


def test_what_cannot_be_judged_is_refused():
    z6, parity = get_task("z6"), get_task("parity")
    made = outputs(parity, solve(parity, np.array([[0, 1]])), [1])
    with pytest.raises(ValueError, match="'parity', not on 'z6'"):
        accuracy_by_quotient(z6, made)
    with pytest.raises(ValueError, match="'parity' has no quotient"):
        accuracy_by_quotient(parity, made)
    with pytest.raises(ValueError, match="'9' leads from '100' out of its 109 states"):
        quotients(get_task("digit-sum"))
