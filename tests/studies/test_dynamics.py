"""Measures over training on a planted order of events: the parts of a handmade reader come in one after the other."""

import numpy as np
import pytest

from cotinterp.calibration.dynamics_questions import ROUTING_FIRST, TABLE_FIRST, planted_training
from cotinterp.studies.dynamics import PRIMARY, dynamics_of
from cotinterp.studies.events import events
from cotinterp.studies.subject import QUICK


@pytest.fixture(scope="module", params=[TABLE_FIRST, ROUTING_FIRST])
def planted(request):
    training = planted_training(request.param)
    return training, dynamics_of(training, training.models, QUICK).frame()


def curve(table, measure, condition=None):
    chosen = table[(table["measure"] == measure) & (table["condition"] == (condition or PRIMARY[measure]))]
    return chosen.set_index("update")["value"]


def test_planted_orders_are_recovered(planted):
    training, table = planted
    found = events(table).set_index("measure")["event"]
    table_at, routing_at = (20, 40) if training.kind == TABLE_FIRST else (113, 226), None
    routing_at = (113, 226) if training.kind == TABLE_FIRST else (20, 40)
    assert table_at[0] < found["step_table"] <= table_at[1]
    for measure in ("attention", "routing"):
        assert routing_at[0] < found[measure] <= routing_at[1]
    for measure in ("accuracy", "trace_right", "next_total"):
        assert 113 < found[measure] <= 226
