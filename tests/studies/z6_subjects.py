"""Subjects of one task whose mechanism is known, and the numbers of a table of rows."""

import pandas as pd

from cotinterp.mechanism.model import HookedModel
from cotinterp.studies.subject import Subject
from cotinterp.tasks import get_task

Z6 = get_task("z6")
K_RANGE = (2, 4)


def subject(model: HookedModel, regime: str, **others) -> Subject:
    """A model of z6 for two to four operands."""
    given = {"k_range": K_RANGE, "trained_on": (), **others}
    return Subject(model=model, task=Z6, regime=regime, run_seed=0, **given)


def cell_rates(rows: pd.DataFrame, measure: str, *, step: int = -1) -> dict[str, float]:
    """The number of every condition of a measure: values over trials, all problems together."""
    chosen = rows[(rows["measure"] == measure) & (rows["step"] == step)]
    found = {}
    for condition, cell in chosen.groupby("condition"):
        weight = cell["problems"].to_numpy()
        found[str(condition)] = float((cell["value"] * weight).sum() / (cell["trials"] * weight).sum())
    return found
