"""Renamed labels are the same task under other names: as balanced, as symmetric, and different."""

from itertools import product

import numpy as np
import pytest

from cotinterp.mechanism.probing.controls import renamed_totals, renamings
from cotinterp.tasks import get_task

PAIRS = np.array(list(product(range(6), repeat=2)))
TRIPLES = np.array(list(product(range(6), repeat=3)))


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    return len(set(zip(one.tolist(), other.tolist(), strict=True))) == len(set(one)) == len(set(other))


def test_renamed_totals_by_hand() -> None:
    digits, ten = get_task("digit-sum"), np.arange(10)[None]
    swapped = np.where(ten == 3, 4, np.where(ten == 4, 3, ten))
    operands = np.array([[3, 4, 5], [3, 3, 9], [1, 2, 3]])
    assert renamed_totals(digits, operands, 1, ten).tolist() == [[7, 6, 3]]
    assert renamed_totals(digits, operands, 2, np.concatenate([ten, swapped])).tolist() == [[12, 15, 6], [12, 17, 7]]
    # From a total that stands written the sum goes on; a total is no digit, so it keeps its name.
    shown = np.array([7, 6, 3])
    assert renamed_totals(digits, operands, 2, swapped, after=1, shown=shown).tolist() == [[12, 15, 7]]
    z6 = get_task("z6")
    name = np.array([[1, 0, 2, 3, 4, 5]])
    assert renamed_totals(z6, np.array([[5, 1, 1]]), 2, name, after=1, shown=np.array([0])).tolist() == [[1]]


@pytest.mark.parametrize("name", ["z6", "s3"])
def test_balance_and_symmetry_are_those_of_the_task(name: str) -> None:
    task = get_task(name)
    for labels in renamed_totals(task, TRIPLES, 1, renamings(task, TRIPLES, 19, rng=np.random.default_rng(0))):
        square = labels.reshape(6, 6, 6)[:, :, 0]
        assert all(len(set(line)) == 6 for line in (*square, *square.T))
        assert (square == square.T).all() == task.commutative
        assert not same_partition(labels, task.steps(TRIPLES).total[:, 0]) or name == "s3"


def test_renamings_differ_from_the_truth_and_from_one_another() -> None:
    task = get_task("z6")
    names = renamings(task, PAIRS, 59, rng=np.random.default_rng(0))
    labels = [task.steps(PAIRS).total[:, 0], *renamed_totals(task, PAIRS, 1, names)]
    assert not any(same_partition(labels[i], labels[j]) for i in range(60) for j in range(i))
    # 720 permutations; x -> a x + b with a = 1, 5 only renames the totals, so there are 60 tasks, one of them true.
    with pytest.raises(ValueError, match=r"only 59 ways.*60 were asked for"):
        renamings(task, PAIRS, 60, rng=np.random.default_rng(0))


def test_parity_has_no_other_names() -> None:
    bits = np.array(list(product(range(2), repeat=4)))
    with pytest.raises(ValueError, match="'parity' has 2 operands, and only 0 ways"):
        renamings(get_task("parity"), bits, 1, rng=np.random.default_rng(0))


def test_what_is_written_has_no_other_truth() -> None:
    names = np.arange(6)[None]
    with pytest.raises(ValueError, match="s_1 has been written where s_1 stands"):
        renamed_totals(get_task("z6"), TRIPLES, 1, names, after=1)
    with pytest.raises(ValueError, match="give shown="):
        renamed_totals(get_task("z6"), TRIPLES, 2, names, after=1)


@pytest.mark.parametrize("name", ["expressions-mod11", "pointers"])
def test_codes_that_are_no_symbols_cannot_be_renamed(name) -> None:
    task = get_task(name)
    with pytest.raises(ValueError, match="would change more than names"):
        renamings(task, np.zeros((4, 3), dtype=np.int64), 1, rng=np.random.default_rng(0))
