"""Donors, shares of the logit difference and their intervals, by hand."""

import re

import numpy as np
import pytest
import torch

from cotinterp.mechanism.contrast import templates_of
from cotinterp.mechanism.heads.losses import (
    LEAST_EXAMPLES,
    intervals,
    relative,
    scan_columns,
    simultaneous,
    unit_of,
)
from cotinterp.mechanism.interventions import NO_DONOR, draw_donors
from cotinterp.results import bootstrap
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

CLEAN = torch.tensor([1.0, 2.0, 3.0])


def test_donors_are_others_of_the_same_template_and_each_gives_once():
    groups = np.array([0, 1, 0, 1, 0, 2, 1])
    donors = draw_donors(groups, 50, np.random.default_rng(0))
    grouped = groups != 2
    assert (donors[:, 5] == NO_DONOR).all()
    assert (donors[:, grouped] != np.flatnonzero(grouped)).all()
    assert (groups[donors[:, grouped]] == groups[grouped]).all()
    assert all(set(draw[grouped]) == set(np.flatnonzero(grouped)) for draw in donors)
    assert len(np.unique(donors, axis=0)) > 1


def test_a_batch_without_any_two_of_a_kind_is_refused():
    with pytest.raises(ValueError, match="no two of the 3 examples share a template"):
        draw_donors(np.arange(3), 1, np.random.default_rng(0))


def test_templates_tell_layouts_apart_and_nothing_else():
    task = get_task("digit-sum")
    problems = solve(task, np.array([[3, 4], [1, 2], [9, 8], [7, 6]]))
    batch = collate([render(task, problem, "totals") for problem in problems], Vocabulary.of(task))
    groups = templates_of(batch)
    assert groups[0] == groups[1] != groups[2] == groups[3]


def test_what_is_lost_is_a_share_of_the_mean_of_the_same_examples():
    assert relative(torch.tensor([[1.0, 2.0, 6.0]]), CLEAN).tolist() == [[0.5, 1.0, 3.0]]
    assert relative(torch.tensor([[1.0, torch.nan, 6.0]]), torch.tensor([1.0, 90.0, 3.0])).tolist() == [[0.5, 3.0]]


@pytest.mark.parametrize(
    ("clean", "why"),
    [
        ([-1.0, -2.0, -3.0], "is -2 on average: the answer is not preferred"),
        ([1.0, -1.0, 0.0], "is 0 on average"),
        ([3.0, -3.0, 0.01], r"0.0033 on average, 95% interval -3 to 3: it may be 0"),
        ([9e-4, 9e-4, -9e-4], "none of 3 examples has a clean logit difference of 0.001"),
    ],
)
def test_a_share_of_nothing_or_next_to_nothing_is_nan_and_says_why(clean, why):
    lost = torch.full((1, 3), -5.0)
    assert np.isnan(relative(lost, torch.tensor(clean))).all()
    row = scan_columns(lost, torch.tensor(clean)).iloc[0]
    assert row[["effect", "ci_low", "p"]].isna().all()
    assert re.search(why, row["note"])


def test_examples_without_a_difference_of_their_own_are_dropped_and_counted():
    lost, clean = torch.tensor([[1.0, 700.0, 1.0, torch.nan]]), torch.tensor([2.0, 5e-4, 2.0, 2.0])
    row = scan_columns(lost, clean).iloc[0]
    assert (row["effect"], row["n"], row["dropped"]) == (0.5, 2, 2)
    assert row["note"] == f"2 examples, {LEAST_EXAMPLES} are needed"
    unit = unit_of(lost, clean)
    assert (unit.used.tolist(), unit.size) == ([True, False, True, False], 2.0)


def test_intervals_are_those_of_the_bootstrap_each_for_itself():
    values = np.random.default_rng(0).normal(size=(2, 40))
    assert (intervals(values).low[1], intervals(values).high[1]) == pytest.approx(tuple(bootstrap(values[1])))
    assert np.isnan(intervals(np.full((2, 3), np.nan)).low).all()
    assert np.isnan(simultaneous(np.full((2, 3), np.nan)).p).all()


def test_a_scan_over_nothing_finds_something_about_as_often_as_it_says():
    """Of 60 scans over 16 cells of 12 rows, 3 are expected at 5% and more than 8 have a chance of 0.4%."""
    rng = np.random.default_rng(0)
    scans = [simultaneous(rng.normal(size=(16, 12))) for _ in range(60)]
    assert sum(bool((scan.p <= 0.05).any()) for scan in scans) <= 8
    assert sum(bool((scan.low > 0).any() or (scan.high < 0).any()) for scan in scans) <= 8


def test_a_scan_finds_the_row_that_is_not_nothing_and_wider_scans_need_more():
    values = np.random.default_rng(0).normal(size=(16, 40))
    values[3] += 0.75
    alone, among = simultaneous(values[3:4]), simultaneous(values)
    assert among.p.argmin() == 3
    assert alone.p[0] < among.p[3] < 0.05
    assert among.low[3] < alone.low[0] < values[3].mean()


def test_the_columns_of_a_scan_are_shares_with_both_kinds_of_interval():
    values = np.random.default_rng(0).normal(size=(3, 30)) + 1.0
    table = scan_columns(torch.from_numpy(values), torch.full((30,), 2.0))
    assert table["effect"].tolist() == pytest.approx((values.mean(axis=1) / 2).tolist())
    assert (table["scan_low"] < table["ci_low"]).all()
    assert (table["ci_high"] < table["scan_high"]).all()
    assert set(table["n"]) == {30}
