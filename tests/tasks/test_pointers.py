"""Pointer chasing by hand and by following the pointers one by one."""

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems, solve, substitute_total
from cotinterp.transcripts.render import render

TASK = get_task("pointers")


@pytest.mark.parametrize(
    ("table", "cot"),
    [
        ((2, 0, 1), "<2,0,1>{0,2=2;2,1=1}1#"),
        ((1, 2, 3, 0), "<1,2,3,0>{0,1=1;1,2=2;2,3=3}3#"),
        ((0, 3, 1, 2), "<0,3,1,2>{0,0=0;0,0=0;0,0=0}0#"),
    ],
)
def test_tables_by_hand(table, cot):
    (problem,) = solve(TASK, np.array([table]))
    assert render(TASK, problem, "cot").text == cot


@pytest.mark.parametrize("k", [2, 5, 12])
def test_the_chase_is_that_of_one_pointer_after_another(k):
    for problem in solve(TASK, np.random.default_rng(k).integers(TASK.n_operands, size=(100, k))):
        entry, chain = 0, []
        for _ in range(k - 1):
            entry = problem.operands[entry]
            chain.append(entry)
        assert problem.totals == problem.step_operands == tuple(chain)
        assert problem.previous == (0, *chain[:-1])
        assert max(problem.operands) < k


def test_an_edited_entry_is_where_the_chase_goes_on():
    (problem,) = solve(TASK, np.array([(1, 2, 3, 0)]))
    assert render(TASK, substitute_total(TASK, problem, 1, 3), "cot").response == "{0,1=3;3,0=0;0,1=1}1#"


def test_codes_are_pointers_modulo_the_length():
    assert TASK.n_operands == 27720
    assert TASK.canonical(np.array([[12, 13, 27719]])).tolist() == [[0, 1, 2]]
    for k in range(TASK.min_k, TASK.max_k + 1):
        counts = np.bincount(np.arange(TASK.n_operands) % k)
        assert len(set(counts.tolist())) == 1
    assert TASK.replacements((0, 4, 1), 1) == (0, 2)


def test_all_short_tables_are_listed_and_split():
    assert len(np.unique(TASK.every(3), axis=0)) == TASK.n_problems(3) == 27
    rng = np.random.default_rng(0)
    sides = [sample_problems(TASK, 3, 100, split=side, rng=rng) for side in ("train", "validation", "heldout")]
    assert sum(map(len, sides)) == 27


def test_how_far_a_random_table_leads():
    """The figures of the docstring: entries that a chase visits, and how often it ends where it began."""
    rng = np.random.default_rng(0)
    visited = [len({0, *row}) for row in TASK.steps(rng.integers(TASK.n_operands, size=(4000, 12))).total.tolist()]
    assert np.mean(visited) == pytest.approx(4.04, abs=0.15)
    for k, share in ((3, 5 / 9), (4, 0.343), (6, 0.181)):
        answers = TASK.steps(rng.integers(TASK.n_operands, size=(20000, k))).total[:, -1]
        assert np.mean(answers == 0) == pytest.approx(share, abs=0.012)


def test_the_first_entry_is_the_only_one_to_begin_at():
    assert TASK.reachable(3) == (frozenset({0}), frozenset({0, 1, 2}), frozenset({0, 1, 2}))
