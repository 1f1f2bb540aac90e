"""The rule by which a row of the sources' table holds, fails or is open; and the differences of few-shot."""

import numpy as np
import pandas as pd
import pytest

from analyses.few_shot import word as worth
from analyses.publishing import over_seeds
from analyses.setups import of_encoders, word

WANTED = {"gain": 0.1, "content": 0.1}


def numbers(gain, content, n=5, unconverged="", at_once=0.8):
    rows = [("gain", *gain, n, unconverged), ("content", *content, n, ""), ("at once", at_once, at_once, n, "")]
    table = pd.DataFrame(rows, columns=["measure", "ci_low", "ci_high", "n", "unconverged"])
    return table.assign(value=table[["ci_low", "ci_high"]].mean(axis=1))


@pytest.mark.parametrize(
    ("found", "sign", "said"),
    [
        (numbers((0.2, 0.3), (0.11, 0.5)), 1, "holds"),
        (numbers((0.2, 0.3), (-0.1, 0.05)), 1, "fails"),
        (numbers((0.2, 0.3), (0.05, 0.5)), 1, "open, too wide"),
        (numbers((0.2, 0.3), (0.11, 0.5)), -1, "fails"),
        (numbers((-0.2, 0.05), (-0.1, 0.05)), -1, "holds"),
        (numbers((0.2, 0.3), (0.2, 0.5), n=2), 1, "open, 2 of 3 seeds"),
        (numbers((0.2, 0.3), (0.2, 0.5), unconverged="1 4"), 1, "open, not converged at seed 1 4"),
        (numbers((0.2, 0.3), (0.2, 0.5)).iloc[[0, 2]], 1, "open, not measured"),
        (numbers((0.0, 0.02), (0.2, 0.5), at_once=0.99), 1, "open, nothing left to gain"),
        (numbers((0.2, 0.3), (0.0, 0.02), at_once=0.99), -1, "open, nothing left to gain"),
        (numbers((-0.3, -0.2), (0.0, 0.02), at_once=0.6), 1, "fails"),
    ],
)
def test_a_row_holds_where_all_its_numbers_lie_beyond_and_fails_where_one_falls_short(found, sign, said):
    assert word(found, sign, WANTED) == said


def test_an_interval_over_seeds_is_that_of_student():
    mean, low, high = over_seeds(np.array([0.1, 0.2, 0.3]))
    assert (mean, high - mean, mean - low) == pytest.approx((0.2, *[4.302653 * 0.1 / 3**0.5] * 2))
    assert np.isnan(over_seeds(np.array([0.5]))[1:]).all()


def test_encoders_are_compared_seed_by_seed_with_the_one_without_a_rationale():
    runs = [
        {"task": "z6", "setup": setup, "run_seed": seed, "k": k, "accuracy": right, "ended": ended}
        for setup, by_seed in {"no rationale": (0.5, 0.9), "rationale in the data, never read": (0.6, 1.0)}.items()
        for seed, (right, ended) in enumerate(zip(by_seed, ("solved", "budget"), strict=True))
        for k in (2, 3, 4)
    ]
    found = of_encoders(pd.DataFrame(runs)).set_index(["setup", "measure"])
    row = found.loc[("rationale in the data, never read", "gain")]
    assert (row["value"], row["ci_low"], row["ci_high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert (row["n"], row["unconverged"]) == (2, "1")
    assert found.loc[("no rationale", "at once"), "value"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("values", "short", "said"),
    [
        ((0.3, 0.31, 0.32), "", "helps"),
        ((-0.3, -0.31, -0.32), "", "hurts"),
        ((0.0, 0.001, -0.001), "", "no difference"),
        ((0.3, -0.3, 0.0), "", "open"),
        ((0.3, 0.31), "", "open: 2 seeds"),
        ((0.3, 0.31, 0.32), "2", "open: ended by the budget at seed 2"),
    ],
)
def test_examples_help_where_the_whole_interval_does(values, short, said):
    assert worth(np.array(values), short).split(", ")[-1] == said
