import numpy as np
import pytest

from cotinterp.claims import statistics as trace
from cotinterp.claims.cells import Book, as_measured
from cotinterp.studies.evidence import tally
from tests.claims.worlds import evidence, rows


def cells(*parts):
    return as_measured(Book(evidence(parts)), "toy", 0)


def test_the_margin_is_between_following_and_ignoring():
    made = cells(
        rows("edit", 70, 100, condition="substitute_total:follows"),
        rows("edit", 20, 100, condition="substitute_total:ignores"),
        rows("edit", 95, 100, condition="none:follows"),
        rows("edit", 10, 100, condition="shuffled_target:follows"),
    )
    assert trace.follow_margin(made) == pytest.approx(0.5)
    assert trace.clean_trace(made) == pytest.approx(0.95)
    assert trace.follows_by_chance(made) == pytest.approx(0.1)


def test_bookkeeping_is_a_share_of_the_errors():
    assert trace.bookkeeping_share(cells(rows("error_kind", 3, 12, condition="bookkeeping"))) == pytest.approx(0.25)


CURVES = cells(
    rows("answer_prob", 10, 100, condition="true:forced", step=0),
    rows("answer_prob", 50, 100, condition="true:forced", step=1),
    rows("answer_prob", 90, 100, condition="true:forced", step=3),
    rows("answer_prob", 98, 100, condition="true:free", step=0),
    rows("answer_prob", 100, 100, condition="true:free", step=3),
    rows("answer_prob", 20, 100, condition="edited:free", step=3),
    rows("followed_prob", 75, 100, condition="edited:free", step=3),
)


def test_curves_are_read_at_their_ends():
    assert trace.readiness(CURVES) == pytest.approx(0.8)
    assert trace.lost_to_the_edit(CURVES) == pytest.approx(0.8)
    assert trace.anchored(CURVES) == pytest.approx(0.75)


def test_what_the_trace_carries_is_in_nats():
    labels = {"task": "toy", "regime": "cot", "variant": "", "n_layers": 4, "run_seed": 0}
    made = cells(
        tally("own_log_prob", np.array([-0.1, -0.3]), k=4).assign(**labels),
        tally("marginal_log_prob", np.array([-1.0, -2.0]), k=4).assign(**labels),
        rows("own_wrong_followed", 9, 10, condition=""),
    )
    assert trace.carried(made) == pytest.approx(1.3)
    assert trace.own_wrong_followed(made) == pytest.approx(0.9)
