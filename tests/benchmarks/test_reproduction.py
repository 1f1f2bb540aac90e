import pandas as pd
import pytest

from benchmarks.reproduction import REPOSITORY, reproductions, same_losses, same_tables, updates


@pytest.fixture
def table():
    rows = [("digit-sum", "cot", 0, split, k, 0.9, 0.85, 0.95) for split in ("train", "heldout") for k in (2, 3)]
    return pd.DataFrame(rows, columns=["task", "regime", "run_seed", "split", "k", "accuracy", "ci_low", "ci_high"])


def test_equal_tables_are_equal(table):
    assert same_tables(table, table).equal


def test_a_missing_row_is_seen(table):
    agreement = same_tables(table, table.iloc[:-1])
    assert not agreement.equal
    assert "1 of them on one side only" in agreement.note


@pytest.mark.parametrize(("column", "equal"), [("heldout", False), ("train", True)])
def test_intervals_apart_are_seen_where_problems_are_held_out(table, column, equal):
    lower = table.copy()
    lower.loc[lower["split"] == column, ["accuracy", "ci_low", "ci_high"]] = (0.2, 0.1, 0.3)
    assert same_tables(table, lower).equal is equal


def test_updates_of_the_same_code_have_the_same_losses():
    comparisons = updates(REPOSITORY, ("fp32",), n_train=64)
    comparison = next(comparisons)
    ours, theirs = comparison.ours(), comparison.theirs()
    assert comparison.agree(ours, theirs).equal
    assert len(ours) == 20
    assert ours == theirs != comparison.ours()
    assert not same_losses(ours, [*theirs[:-1], theirs[-1] + 0.001]).equal
    comparisons.close()


def test_an_unknown_revision_is_refused():
    with pytest.raises(ValueError, match="no-such-revision"), reproductions("no-such-revision", jobs=1, quick=True):
        pass
