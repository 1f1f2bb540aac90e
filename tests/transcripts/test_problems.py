"""Solving, splitting and sampling."""

from itertools import permutations, product

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import (
    EmptySplitError,
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
