"""The trade of parameters against tokens, as the report tells it."""

import pytest

from cotinterp.depth.compute import accuracy_against_compute
from cotinterp.report.sections import cheapest_html
from tests.depth.made_up_sweep import made_up_sweep


@pytest.fixture(scope="module")
def html():
    return str(cheapest_html(accuracy_against_compute(made_up_sweep(k_max=8))))


def test_some_lengths_in_the_open_and_all_of_them_folded_away(html):
    opened, folded = html.split("<details>")
    assert opened.count('<th scope="row">s3</th>') == 4
    assert folded.count('<th scope="row">s3</th>') == 14
    assert "Every measured length (14 rows)" in folded


def test_prices_have_units_and_what_was_not_reached_says_so(html):
    opened = html.split("<details>")[0]
    assert "<td>4</td><td>cot</td><td>2 of 2</td><td>98.0%</td>" in opened
    assert "<td>8</td><td>direct</td><td>0 of 4</td>" in opened
    assert opened.count("<td>none</td>") == 5
    assert "MFLOP" in opened
    assert "GFLOP" in opened
