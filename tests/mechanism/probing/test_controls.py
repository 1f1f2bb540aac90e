"""A split that no problem crosses, control labels that mean nothing, and renamed totals: one task, other names."""

from itertools import product

import numpy as np
import pytest
import torch

from cotinterp.mechanism.probing.controls import (
    check_split,
    distinct_rows,
    hold_out,
    interval_over_groups,
    random_labels,
    rename_tokens,
    renamed_totals,
    renamings,
)
from cotinterp.results import wilson
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.vocabulary import Vocabulary


def test_split_keeps_groups_together_and_is_a_function_of_the_seed() -> None:
    groups = np.repeat(np.arange(40), 5)
    train = hold_out(groups, fraction=0.25, seed=0)
    assert len(np.unique(groups[~train])) == 10
    check_split(groups, train)
    assert (train == hold_out(groups, fraction=0.25, seed=0)).all()
    assert (train != hold_out(groups, fraction=0.25, seed=1)).any()


def test_split_by_row_where_problems_recur_is_refused() -> None:
    groups = np.repeat(np.arange(40), 5)
    by_row = hold_out(np.arange(200), seed=0)
    crossing = len(set(groups[by_row]) & set(groups[~by_row]))
    assert crossing > 20
    with pytest.raises(ValueError, match=rf"{crossing} of 40 groups have rows in both.*hold_out"):
        check_split(groups, by_row)


def test_split_of_next_to_nothing() -> None:
    assert (~hold_out(np.array([4, 4, 9]), fraction=0.01)).sum() in (1, 2)
    with pytest.raises(ValueError, match="1 distinct groups cannot be split"):
        hold_out(np.array([3, 3, 3]))
    with pytest.raises(ValueError, match="strictly between"):
        hold_out(np.arange(9), fraction=1.0)


def test_control_labels_are_a_function_of_the_type_with_the_labels_frequencies() -> None:
    rng = np.random.default_rng(0)
    types = rng.integers(0, 60, size=500)
    labels = (types * 7 % 5).astype(np.int64)
    drawn = random_labels(labels, types, rng=rng)
    table = dict(zip(types.tolist(), drawn.tolist(), strict=True))
    assert [table[one] for one in types.tolist()] == drawn.tolist()
    assert sorted(table.values()) == sorted(one * 7 % 5 for one in table)
    assert 0.05 < (drawn == labels).mean() < 0.4


def test_control_is_as_ambiguous_as_the_task() -> None:
    # Type 0 has labels 5 and 6, type 1 has 7 alone: afterwards they have two and one again, whichever these are.
    types = np.array([0, 0, 0, 1, 1])
    labels = np.array([5, 6, 5, 7, 7])
    for seed in range(5):
        drawn = random_labels(labels, types, rng=np.random.default_rng(seed))
        assert drawn[0] == drawn[2] != drawn[1]
        assert drawn[3] == drawn[4]
        assert set(drawn) == {5, 6, 7}


def test_one_type_per_row_is_a_permutation() -> None:
    labels = np.random.default_rng(0).integers(0, 9, size=300)
    drawn = random_labels(labels, np.arange(300), rng=np.random.default_rng(1))
    assert (np.bincount(drawn) == np.bincount(labels)).all()
    assert (drawn != labels).mean() > 0.7


def test_interval_is_wilsons_where_every_row_is_its_own_group() -> None:
    hits = np.arange(50) < 35
    assert interval_over_groups(hits, np.arange(50)) == wilson(35, 50)


def test_rows_of_one_problem_do_not_narrow_the_interval() -> None:
    hits = np.random.default_rng(0).random(60) < 0.6
    once = interval_over_groups(hits.astype(float), np.arange(60))
    often = interval_over_groups(np.repeat(hits, 8), np.repeat(np.arange(60), 8))
    assert often == pytest.approx(once)
    too_narrow = wilson(int(hits.sum()) * 8, 480)
    assert often.high - often.low > 2 * (too_narrow.high - too_narrow.low)


def test_larger_groups_weigh_more() -> None:
    # One group of nine misses and one of one hit, drawn twice: means 0, 1/10 or 1, and never the 1/2 of equal weights.
    values, groups = np.array([0.0] * 9 + [1.0]), np.array([0] * 9 + [1])
    assert interval_over_groups(values, groups) == (0.0, 1.0)
    assert float(values.mean()) == 0.1


def test_distinct_rows_by_hand() -> None:
    numbers = distinct_rows(np.array([[1, 2], [3, 4], [1, 2], [1, 4]]))
    assert numbers[0] == numbers[2]
    assert len(set(numbers.tolist())) == 3


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


def test_a_renamed_text_has_other_symbols_and_the_same_form() -> None:
    task = get_task("digit-sum")
    vocabulary = Vocabulary.of(task)
    turned = np.array([0, 2, 9, *range(3, 9), 1])
    text = "1+9+2=1+9=10+2=12#"
    renamed = rename_tokens(torch.tensor([vocabulary.encode(text)]), task, vocabulary, turned)
    # In written totals, too: to a model that knows no names, the whole text is another one of the same kind.
    assert vocabulary.decode(renamed[0].tolist()) == "9+2+1=9+2=90+1=91#"


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


@pytest.mark.parametrize("name", ["expressions-mod11", "pointers"])
def test_symbols_that_are_no_codes_are_renamed_in_the_text_alone(name) -> None:
    task = get_task(name)
    rng = np.random.default_rng(0)
    operands = np.array([problem.operands for problem in sample_problems(task, 4, 60, split="train", rng=rng)])
    names = renamings(task, operands, 19, rng=rng)
    assert len({one.tobytes() for one in names}) == 19
    # Four entries are shown where pointers lead among four; eleven leaves in a tree.
    changed = (names != np.arange(len(task.operands))).any(0)
    assert changed.sum() == (4 if name == "pointers" else 11)
    with pytest.raises(ValueError, match=r"codes, which are not its .* probe_totals renames the text"):
        renamed_totals(task, operands, 1, names)
