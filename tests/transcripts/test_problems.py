"""Problems: solved by the task, on disjoint sides of the split, and which wrong totals may be written."""

import hashlib
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.tasks.task import whole_number
from cotinterp.transcripts.problems import (
    EmptySplitError,
    continued,
    informative_totals,
    require_own,
    require_solved,
    sample_problems,
    solve,
    split_of,
    substitute_total,
    training_problems,
    wrong_totals,
)

SUM = get_task("digit-sum")


def rng(seed=0):
    return np.random.default_rng(seed)


def test_solve():
    (problem,) = solve(SUM, np.array([[3, 4, 5]]))
    assert (problem.operands, problem.previous, problem.step_operands) == ((3, 4, 5), (3, 7), (4, 5))
    assert (problem.totals, problem.answer, problem.k) == ((7, 12), 12, 3)


def test_substituting_a_total_continues_from_it():
    (problem,) = solve(SUM, np.array([[3, 4, 5, 6]]))
    edited = substitute_total(SUM, problem, 2, 19)
    assert edited.totals == (7, 19, 25)
    assert edited.previous == (3, 7, 19)
    assert edited.operands == problem.operands
    assert substitute_total(SUM, problem, 3, 11).totals == (7, 12, 11)


def test_continuing_from_several_totals_keeps_them_all():
    (problem,) = solve(SUM, np.array([[3, 4, 5, 6]]))
    edited = continued(SUM, problem, (9, 1))
    assert (edited.totals, edited.previous) == ((9, 1, 7), (3, 7, 1))
    assert edited.step_operands == problem.step_operands


TREE = get_task("expressions-mod11")


def test_two_wrong_totals_of_a_tree_are_both_taken_up():
    """(1 + 2) * (3 + 4): 3 -> 5, then 7 -> 8, and the product is 40 = 7."""
    codes = [[1, 2 + 33, 3 + 22, 4 + 33]]
    (problem,) = solve(TREE, np.array(codes))
    assert (problem.totals, problem.step_operators) == ((3, 7, 10), (0, 0, 2))
    first = substitute_total(TREE, problem, 1, 5)
    assert (first.totals, first.previous, first.step_operands) == ((5, 7, 2), (1, 3, 5), (2, 4, 7))
    both = substitute_total(TREE, first, 2, 8)
    assert (both.totals, both.previous, both.step_operands) == ((5, 8, 7), (1, 3, 5), (2, 4, 8))
    assert continued(TREE, problem, (5, 8)) == both
    assert substitute_total(TREE, problem, 2, 8).totals == (3, 8, 2)


def test_problems_hold_canonical_codes():
    """The level 7 of the only operation is depth 0, and the first leaf has no operator."""
    (problem,) = solve(TREE, np.array([[4 + 11 * 2 + 33 * 9, 5 + 11 + 33 * 7]]))
    assert problem.operands == (4, 16)
    assert problem == solve(TREE, np.array([[4, 16]]))[0]


@pytest.mark.parametrize(
    ("name", "operands", "expected"),
    [
        ("s3", (1, 2, 3, 4), True),
        ("random-labels", (1, 2, 3, 4), True),
        ("pointers", (2, 0, 1), False),
        ("pointers", (0, 0, 0), True),
        ("expressions-mod11", (1, 2 + 33, 3 + 22, 4 + 33), False),
    ],
)
def test_which_problems_are_in_order(name, operands, expected):
    (problem,) = solve(get_task(name), np.array([operands]))
    assert problem.in_order == expected


def test_wrong_totals_are_as_wide_and_possible_at_their_step():
    (problem,) = solve(SUM, np.array([[3, 4, 5, 6]]))
    assert wrong_totals(SUM, problem, 1) == (0, 1, 2, 3, 4, 5, 6, 8, 9)
    assert wrong_totals(SUM, problem, 2) == tuple(t for t in range(10, 28) if t != 12)
    with pytest.raises(ValueError, match="steps 1 to 3, not 4"):
        wrong_totals(SUM, problem, 4)


def test_the_split_is_stable():
    """Literal values: another hash would leak held-out problems into the training sets of old checkpoints."""
    sides = {
        (0, 0): "heldout",
        (1, 2): "train",
        (2, 5): "validation",
        (3, 4, 5): "train",
        (7, 1): "train",
        (9, 9, 9, 9): "heldout",
    }
    assert {operands: split_of(operands) for operands in sides} == sides


def test_the_split_has_its_shares():
    sides = [split_of(operands) for operands in product(range(10), repeat=4)]
    assert sides.count("heldout") / 1e4 == pytest.approx(0.2, abs=0.02)
    assert sides.count("validation") / 1e4 == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize(("k", "n"), [(2, 30), (6, 500)])
def test_samples_are_distinct_and_on_their_side(k, n):
    for split in ("train", "validation", "heldout"):
        problems = sample_problems(SUM, k, n, split=split, rng=rng())
        assert {split_of(problem.operands) for problem in problems} == {split}
        assert len({problem.operands for problem in problems}) == len(problems) <= n


def test_all_there_are_where_fewer_exist():
    sides = [len(sample_problems(SUM, 2, 1000, split=side, rng=rng())) for side in ("train", "validation", "heldout")]
    assert sum(sides) == 100


@pytest.mark.parametrize(("name", "k"), [("expressions-mod11", 2), ("expressions-mod11", 4), ("pointers", 3)])
def test_samples_of_canonical_codes(name, k):
    task = get_task(name)
    for split in ("train", "heldout"):
        problems = sample_problems(task, k, 60, split=split, rng=rng())
        assert {split_of(problem.operands) for problem in problems} == {split}
        codes = np.array([problem.operands for problem in problems])
        assert np.array_equal(task.canonical(codes), codes)
        assert len(np.unique(codes, axis=0)) == len(codes)


def test_sampling_is_seeded():
    first, again, other = (sample_problems(SUM, 6, 20, split="train", rng=rng(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_training_problems_are_training_problems_of_every_length():
    problems = training_problems(SUM, (2, 6), 3000, rng())
    assert len(problems) == 3000
    assert {split_of(problem.operands) for problem in problems} == {"train"}
    counts = np.bincount([problem.k for problem in problems], minlength=7)
    assert counts[:2].sum() == 0
    assert counts[2:].min() > 500


def test_an_empty_side_is_an_error_that_says_so():
    parity = get_task("parity")
    empty = [
        side for side in ("train", "validation", "heldout") if side not in map(split_of, product((0, 1), repeat=2))
    ]
    assert empty
    with pytest.raises(EmptySplitError, match=f"no problem with 2 operands on the {empty[0]} side"):
        sample_problems(parity, 2, 10, split=empty[0], rng=rng())


def test_the_split_ignores_order_of_operands_only_by_chance():
    """Permuted twins are other tuples: the docstring's warning is true."""
    assert len({split_of(order) for order in permutations((1, 2, 3, 4, 5))}) > 1


def problems_of(task, *operands):
    return solve(task, np.array(operands))


def test_all_wrong_totals_of_a_sum_by_hand():
    task = get_task("digit-sum")
    problem = problems_of(task, (3, 4, 5))[0]
    found = informative_totals(task, [problem], 1, at_most=None, rng=np.random.default_rng(0))
    assert {wrong.total for wrong in found.chosen} == set(range(10)) - {7}
    assert all(wrong.followed == wrong.total + 5 for wrong in found.chosen)
    assert (found.n_without, found.n_ambiguous) == (0, 0)
    edits = informative_totals(task, [problem], 2, at_most=None, rng=np.random.default_rng(0)).chosen
    assert {edit.total for edit in edits} == set(range(10, 28)) - {12}
    assert all(edit.followed == edit.total for edit in edits)


def test_ambiguous_edits_are_left_out_and_counted():
    """In affine-mod10 an operand 7 multiplies by 10: whatever stood there, the next total is the same."""
    task = get_task("affine-mod10")
    problem = problems_of(task, (1, 2, 7, 4))[0]
    found = informative_totals(task, [problem], 1, at_most=None, rng=np.random.default_rng(0))
    assert found == ((), 0, len(task.reachable(4)[1]) - 1)


def test_problems_without_another_total_of_the_length_are_counted():
    class Lonely(type(get_task("parity"))):
        name = "lonely"

        @property
        def states(self):
            return ("0", "11")

    task = Lonely()
    problems = problems_of(task, (0, 1), (1, 1))
    assert informative_totals(task, problems, 1, at_most=3, rng=np.random.default_rng(0)) == ((), 2, 0)


@pytest.mark.parametrize("at_most", [1, 3, 100])
def test_some_of_each_problem(at_most):
    task = get_task("digit-sum")
    problems = problems_of(task, (3, 4, 5), (9, 9, 9), (0, 0, 1))
    available = {3: 9, 9: 8, 0: 9}  # one digit 0..9 but 7; two digits 10..18 but 18; one digit but 0
    edits = informative_totals(task, problems, 1, at_most=at_most, rng=np.random.default_rng(0)).chosen
    for problem in problems:
        chosen = [edit.total for edit in edits if edit.problem == problem]
        assert len(chosen) == len(set(chosen)) == min(at_most, available[problem.operands[0]])
        assert problem.totals[0] not in chosen


def test_choices_are_seeded_and_cover_all_values():
    task = get_task("digit-sum")
    problem = problems_of(task, (3, 4, 5))

    def draw(seed):
        return informative_totals(task, problem, 1, at_most=1, rng=np.random.default_rng(seed)).chosen[0].total

    drawn = [draw(seed) for seed in range(90)]
    assert drawn == [draw(seed) for seed in range(90)]
    assert set(drawn) == set(range(10)) - {7}


@pytest.mark.slow
def test_more_than_there_are_above_what_is_listed_are_all_there_are():
    """100,000 problems of five digits, of which 20,187 are held out: the hash of the split decides."""
    found = sample_problems(SUM, 5, 25_000, split="heldout", rng=rng(3))
    assert len(found) == len(set(found)) == 20_187
    assert {split_of(problem.operands) for problem in found} == {"heldout"}
    assert sample_problems(SUM, 5, 10**9, split="heldout", rng=rng(3)) == found


def test_what_a_call_returned_before_it_returns_still():
    drawn = [
        sample_problems(get_task(name), k, n, split=split, rng=rng(1), distinct=distinct)
        for name, k, n, split, distinct in (
            ("digit-sum", 5, 3000, "heldout", True),
            ("digit-sum", 6, 500, "train", False),
            ("pointers", 7, 400, "validation", True),
            ("expressions-mod11", 4, 300, "train", True),
            ("z6", 4, 100, "heldout", True),
        )
    ]
    text = repr([problem.operands for problems in drawn for problem in problems])
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "e62a4488351e864c9c2424cf23f889f8a9556de6dd516c4f618f45f2eb588185"
    )


class Forgetful(type(SUM)):
    """Says that it has a million problems, and has two of each length: all codes stand for their parity."""

    name = "forgetful"
    commutative = True
    states = tuple("0123456789AB")

    def canonical(self, operands):
        return operands % 2 * np.array([1, *[0] * (operands.shape[1] - 1)])

    def n_problems(self, k):
        return 10**k

    def step(self, total, operand):
        return np.maximum(total, operand)


def test_sampling_ends_where_a_task_has_fewer_problems_than_it_says():
    task = Forgetful()
    vars(task)["_checked"] = True
    with pytest.raises(EmptySplitError, match=r"are all that 200 further rounds .* though task 'forgetful' says"):
        sample_problems(task, 6, 30, split="train", rng=rng())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "test"}, "split 'test' is no side of the split; the sides are train, validation, heldout"),
        ({"n": -1}, "n is the number of problems, 0 or more; got -1"),
        ({"k": 1}, "2 to 12 operands, not 1"),
    ],
)
@pytest.mark.parametrize("k", [3, 6])
def test_what_cannot_be_asked_for_is_refused_at_once(k, change, message):
    with pytest.raises(ValueError, match=message):
        sample_problems(SUM, **{"k": k, "n": 5, "split": "train", "rng": rng(), **change})


@pytest.mark.parametrize("value", [2.0, True, "3", None])
def test_a_number_is_a_whole_number(value):
    with pytest.raises(ValueError, match=rf"n is .*, a whole number; got {value!r}"):
        whole_number(value, "n", "the number of problems", least=0)
    assert whole_number(np.int64(3), "n", "the number of problems") == 3


def test_problems_of_another_task_are_told():
    s3, z6 = get_task("s3"), get_task("z6")
    (of_z6,) = solve(z6, np.array([[5, 4, 3]]))
    with pytest.raises(
        ValueError, match=r"has totals \(3, 0\), and task 's3' makes .* solved by another task, or edited"
    ):
        require_solved(s3, [of_z6])
    (of_sum,) = solve(SUM, np.array([[9, 9]]))
    for task in (s3, get_task("parity")):
        with pytest.raises(ValueError, match=f"no problem of task {task.name!r}: its operands are"):
            require_own(task, of_sum)
    for wrong in ({"totals": (-1, 0)}, {"previous": (5, 6)}, {"step_operands": (4,)}):
        with pytest.raises(ValueError, match=f"no problem of task 'z6': its {next(iter(wrong))} are"):
            require_own(z6, replace(of_z6, **wrong))
    for codes in ([[-1, 2]], [[6, 0]]):
        with pytest.raises(ValueError, match=r"task 's3' has operand codes 0 to 5; got"):
            solve(s3, np.array(codes))
    with pytest.raises(ValueError, match=r"task 's3' has states 0 to 5; the totals to be written are \(-1,\)"):
        continued(s3, solve(s3, np.array([[1, 2, 3]]))[0], (-1,))
