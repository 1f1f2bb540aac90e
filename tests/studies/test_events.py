"""The order of events on curves whose events are known, and on planted orders with noise."""

from math import inf

import numpy as np
import pandas as pd
import pytest

from cotinterp.studies.dynamics import PRIMARY
from cotinterp.studies.events import AGREES, CANNOT_TELL, DIFFERS, PUBLISHED, durable_crossing, event_order, events

UPDATES = [0, *np.geomspace(10, 1000, 21).round().astype(int).tolist()]


def rows(measure, values, *, seed=0, regime="cot", updates=UPDATES):
    labels = {"task": "s3", "regime": regime, "run_seed": seed, "measure": measure, "condition": PRIMARY[measure]}
    return pd.DataFrame({"update": updates, "value": values, "n": 100}).assign(**labels)


def step(at, *, low=0.0, high=1.0, sharp=6.0):
    u = np.maximum(np.array(UPDATES, dtype=float), 1e-9)
    return low + (high - low) / (1 + (at / u) ** sharp)


def test_the_crossing_is_interpolated_in_log_updates():
    # Halfway between 1 + 9 = 10 and 1 + 999 = 1000 in logs is 1 + 99.
    assert durable_crossing([9, 999, 1500, 1501], [0, 1, 1, 1], 0.5) == pytest.approx(99)
    assert durable_crossing([9, 999, 1500, 1501], [1, 0, 0, 0], 0.5, rising=False) == pytest.approx(99)
    assert durable_crossing([0, 5, 6], [1, 1, 1], 0.5) == 0
    assert durable_crossing([0, 5, 6, 7], [0, 0, 1, 1], 0.5) == inf


def test_first_and_durably_is_neither_the_first_nor_the_last_crossing():
    values = [0, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1]
    updates = [0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120]
    assert 40 < durable_crossing(updates, values, 0.5) < 80
    assert 0 < durable_crossing(updates, values, 0.5, durable=1) < 10
    assert durable_crossing(updates, values, 0.5, durable=4) == inf


def test_events_are_at_the_midpoints_of_steps_whatever_their_height():
    table = pd.concat(
        [
            rows("accuracy", step(200)),
            rows("attention", step(100, low=0.1, high=0.4)),
            rows("selectivity", step(50, low=0.6, high=0.0)),
            rows("routing", step(400, high=0.05)),
            rows("step_table", step(5000)),
        ]
    )
    found = events(table).set_index("measure")
    assert found["event"]["accuracy"] == pytest.approx(200, rel=0.05)
    assert found["event"]["attention"] == pytest.approx(100, rel=0.05)
    assert found["event"]["selectivity"] == pytest.approx(50, rel=0.05)
    assert found["state"].to_dict() == {
        "accuracy": "passed", "attention": "passed", "selectivity": "passed", "routing": "unchanged",
        "step_table": "unchanged",
    }  # fmt: skip
    climbing = rows("accuracy", [0.0] * (len(UPDATES) - 1) + [0.9])
    assert events(climbing)[["event", "state"]].to_numpy().tolist() == [[inf, "late"]]
    with pytest.raises(ValueError, match="has 2 moments"):
        events(climbing.tail(2))


def world(at, *, seeds=6, spread=0.1, seed=0):
    """Runs whose measures rise at these updates, up to a factor of each run that all share and one of its own."""
    rng = np.random.default_rng(seed)
    parts = []
    for run in range(seeds):
        shared = rng.normal(0, 0.3)
        for measure, update in at.items():
            parts.append(rows(measure, step(update * np.exp(shared + rng.normal(0, spread))), seed=run))
    return pd.concat(parts)


def test_a_planted_order_agrees_the_reverse_differs_and_none_cannot_be_told():
    first, second, third = PUBLISHED
    assert event_order(world({first: 60, second: 120, third: 240})).judged() == AGREES
    assert event_order(world({first: 240, second: 120, third: 60})).judged() == DIFFERS
    assert event_order(world({first: 120, second: 120, third: 120})).judged() == CANNOT_TELL
    # Five seeds can agree with nothing at this level, whatever they show.
    assert event_order(world({first: 60, second: 120, third: 240}, seeds=5)).judged() == CANNOT_TELL
    assert event_order(world({first: 60, second: 120})).judged() == CANNOT_TELL


def test_pairs_have_their_share_and_how_far_they_lie_apart():
    order = event_order(world({"step_table": 60, "attention": 120}, spread=0.01))
    (pair,) = order.frame().to_dict("records")
    assert (pair["first"], pair["then"], pair["n"], pair["ties"], pair["share"]) == ("step_table", "attention", 6, 0, 1)
    assert pair["ci_low"] == pytest.approx(0.025 ** (1 / 6))
    assert pair["p"] == pytest.approx(2 / 2**6)
    assert pair["ratio_low"] <= pair["ratio"] <= pair["ratio_high"]
    assert pair["ratio"] == pytest.approx(2, rel=0.1)


def test_what_never_comes_is_later_than_all_that_does_and_two_such_are_a_tie():
    never = [0.0] * (len(UPDATES) - 1) + [1.0]
    table = pd.concat(
        [
            world({"step_table": 60}),
            *(rows(name, never, seed=run) for run in range(6) for name in ("attention", "routing")),
        ]
    )
    order = event_order(table)
    pairs = order.frame().set_index(["first", "then"])
    assert pairs.loc[("step_table", "attention"), ["n", "share"]].tolist() == [6, 1]
    assert np.isnan(pairs.loc[("step_table", "attention"), "ratio"])
    late = pairs[pairs.index.get_level_values(0) != "step_table"]
    assert late[["n", "ties"]].to_numpy().tolist() == [[0, 6]]
    moments = order.moments().set_index("measure")
    assert moments["late"].to_dict() == {"step_table": 0, "attention": 6, "routing": 6}
    assert moments.loc["attention", ["event", "ci_low", "ci_high"]].tolist() == [inf] * 3
    assert (
        moments.loc["step_table", "ci_low"] < moments.loc["step_table", "event"] < moments.loc["step_table", "ci_high"]
    )
    assert len(order.figure().data) == 1


def test_chance_orders_are_called_by_no_more_than_the_level():
    words = [event_order(world(dict.fromkeys(PUBLISHED, 120), seed=draw)).judged() for draw in range(30)]
    # Six of six: one in 64 for each of two steps that differ, far less for both that agree.
    assert words.count(AGREES) == 0
    assert words.count(DIFFERS) <= 3


def test_several_tasks_are_not_judged_together():
    table = world({"step_table": 60, "attention": 120, "accuracy": 200})
    with pytest.raises(ValueError, match="one task and regime"):
        event_order(pd.concat([table, table.assign(task="z6")])).judged()
