"""Mistakes about training: another crossing than the first durable one, and patterns that are lent in part."""

from collections.abc import Sequence
from math import inf

import numpy as np

from cotinterp.calibration.dynamics_questions import TABLE_FIRST, UPDATES, planted_training
from cotinterp.calibration.mutations.trial import Mutation, instead, require
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.studies import dynamics, events
from cotinterp.studies.events import durable_crossing
from cotinterp.studies.subject import QUICK

CURVE_AT = (0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120)
CURVE = (0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0)
"""Passes halfway for one moment, then durably between 40 and 80, fails for a moment, and passes again."""
CHECKED = 57
"""An update at which the whole table of the planted training is there, and nothing of its routing."""


def check_event() -> None:
    """The event of a curve whose first durable crossing was read off by hand."""
    found = events.durable_crossing(CURVE_AT, CURVE, 0.5)
    require(40 < found < 80, f"the curve durably passes halfway between 40 and 80, and is said to do so at {found:.0f}")


def first_of_all(
    updates: Sequence[int | float],
    values: Sequence[int | float],
    mark: float,
    *,
    rising: bool = True,
    durable: int = events.DURABLE,  # noqa: ARG001
) -> float:
    """Whatever passes first."""
    return durable_crossing(updates, values, mark, rising=rising, durable=1)


def last_of_all(
    updates: Sequence[int | float],
    values: Sequence[int | float],
    mark: float,
    *,
    rising: bool = True,
    durable: int = events.DURABLE,  # noqa: ARG001
) -> float:
    """Where the curve passes for the last time."""
    beyond = np.asarray(values) >= mark if rising else np.asarray(values) <= mark
    below = np.flatnonzero(~beyond)
    start = int(below[-1]) if len(below) else 0
    return durable_crossing(updates[start:], values[start:], mark, rising=rising, durable=1) if beyond[-1] else inf


def check_table() -> None:
    """With the final patterns in all heads a table that is there is found, whatever the model looks at."""
    training = planted_training(TABLE_FIRST)
    models = {update: training.models[update] for update in (CHECKED, UPDATES[-1])}
    found = dynamics.dynamics_of(training, models, QUICK).values
    keys = (("step_table", "final patterns"), ("routing", "own patterns"))
    table, routing = (float(found[CHECKED, measure, condition].mean()) for measure, condition in keys)
    require(table > 0.99 and routing < 0.5, f"of a whole table without routing {table:.0%} and {routing:.0%} are found")


def only_first(model: HookedModel, kind: str = "resid_pre") -> tuple[Site, ...]:
    """Patterns of the first layer alone."""
    return residual_sites(model, kind)[:1] if kind == "pattern" else residual_sites(model, kind)


DYNAMICS_MUTATIONS = (
    Mutation(
        "an event at the first crossing, durable or not",
        "the event of a curve with a blip and a dip, by hand",
        instead(events, "durable_crossing", first_of_all),
        check_event,
    ),
    Mutation(
        "an event at the last crossing",
        "the event of a curve with a blip and a dip, by hand",
        instead(events, "durable_crossing", last_of_all),
        check_event,
    ),
    Mutation(
        "patterns that are lent in the first layer alone",
        "a planted table is found without its routing",
        instead(dynamics, "residual_sites", only_first),
        check_table,
    ),
)
