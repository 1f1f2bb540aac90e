"""The trade of parameters against tokens as tables: the least of each price at which a regime got there."""

import math

import pandas as pd
from markupsafe import Markup

from cotinterp.report.simulator_words import amount, count
from cotinterp.report.specs import table_html
from cotinterp.sweeps.compute import ComputeResult

SHOWN = (4, 8, 12, 24)
"""Lengths that stand in the open; the others can be unfolded."""
GOOD = 0.9


def cheapest_html(result: ComputeResult) -> Markup:
    """`ComputeResult.cheapest` as HTML: some lengths in the open, all of them folded away."""
    cheapest = result.cheapest(GOOD)
    caption = f"The least that bought {GOOD:.0%} of held-out problems of K operands, among the measured configurations"
    few = cheapest[cheapest["k"].isin(SHOWN)]
    opened = table_html(_told(few), caption=caption) if len(few) else Markup()
    return opened + Markup("<details><summary>Every measured length ({} rows)</summary>{}</details>").format(
        len(cheapest), table_html(_told(cheapest), caption=caption)
    )


def _told(cheapest: pd.DataFrame) -> pd.DataFrame:
    def shown(column: str, flops: bool = False) -> list[str]:
        values = cheapest[column].tolist()
        return ["none" if math.isnan(value) else amount(value) if flops else count(value) for value in values]

    reached = zip(cheapest["good_enough"], cheapest["configurations"], strict=True)
    return pd.DataFrame(
        {
            "task": cheapest["task"],
            "K": cheapest["k"],
            "regime": cheapest["regime"],
            "configurations that got there": [f"{good} of {all_}" for good, all_ in reached],
            "best accuracy": [f"{value:.1%}" for value in cheapest["best_accuracy"]],
            "parameters": shown("n_parameters"),
            "tokens an answer": shown("response_tokens"),
            "operations an answer": shown("flops", flops=True),
            "operations of training": shown("training_flops", flops=True),
            "fewest operations an answer": cheapest["configuration"].where(cheapest["configuration"] != "", "none"),
        }
    )
