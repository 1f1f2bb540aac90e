"""Group axioms, on the tables that the tasks really use."""

import numpy as np
import pytest

from cotinterp.tasks import Group, get_task, task_names
from cotinterp.tasks.groups import compose, is_even

GROUPS = [name for name in task_names() if isinstance(get_task(name), Group)]
ORDER = {"z6": 6, "s3": 6, "z60": 60, "a5": 60, "a4xz5": 60, "s5": 120}


def test_the_groups_are_there():
    assert set(GROUPS) == set(ORDER)


@pytest.mark.parametrize("name", GROUPS)
def test_group_axioms(name):
    task = get_task(name)
    table, order = task.table, ORDER[name]
    everything = np.arange(order)
    assert table.shape == (order, order)
    assert task.n_states == task.n_operands == order
    assert np.array_equal(table[0], everything)
    assert np.array_equal(table[:, 0], everything)
    assert all(np.array_equal(np.sort(row), everything) for row in (*table, *table.T))
    assert np.array_equal(table[table], table[:, table])


@pytest.mark.parametrize("name", GROUPS)
def test_abelian_exactly_where_said(name):
    table = get_task(name).table
    assert np.array_equal(table, table.T) == get_task(name).commutative


def derived_order(table):
    """Order of the commutator subgroup."""
    inverse = np.argmin(table, axis=1)
    a, b = np.meshgrid(np.arange(len(table)), np.arange(len(table)))
    subgroup = np.unique(table[table[inverse[a], inverse[b]], table[a, b]])
    while len(larger := np.unique(table[np.ix_(subgroup, subgroup)])) > len(subgroup):
        subgroup = larger
    return len(subgroup)


@pytest.mark.parametrize(("name", "derived"), [("z6", 1), ("s3", 3), ("a4xz5", 4), ("a5", 60), ("s5", 60), ("z60", 1)])
def test_commutator_subgroups_tell_solvable_from_not(name, derived):
    assert derived_order(get_task(name).table) == derived


def test_the_left_factor_acts_first():
    swap01, swap12 = (1, 0, 2), (0, 2, 1)
    assert compose(swap01, swap12) == (2, 0, 1)
    assert is_even((1, 2, 0))
    assert not is_even(swap01)


def test_words_of_three_elements_reach_all_of_s5_and_multiply_as_it_does():
    words, s5 = get_task("s5-words"), get_task("s5")
    elements = words.initial(np.arange(3))
    assert words.operands == "".join(s5.operands[one] for one in elements)
    assert words.reachable(12)[-1] == frozenset(range(120)) != words.reachable(10)[-1]
    drawn = np.random.default_rng(0).integers(3, size=(50, 6))
    assert np.array_equal(words.steps(drawn).total, s5.steps(elements[drawn]).total)


def test_matched_pairs_share_their_symbols():
    assert get_task("z6").operands == get_task("s3").operands
    assert get_task("z60").operands == get_task("a5").operands == get_task("a4xz5").operands
