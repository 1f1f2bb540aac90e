"""Where a written total comes from, the trace or the prompt: the figure and the sentences of the pair families."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures import stacked_bars
from cotinterp.figures.runs import only, runs_of
from cotinterp.report.behavior_findings import percent

CHANGED = {
    "prompt_operand": "prompt operand",
    "written_total": "written total",
    "both": "both",
    "unrelated": "unrelated operand",
}
SOURCES = {
    "trace": "comes from the trace",
    "prompt": "comes from the prompt",
    "either": "follows either change",
    "undecided": "is undecided",
}


def families_figure(frame: pd.DataFrame) -> go.Figure:
    """A bar for each change, cut into what the changed run puts first; a panel for each trained model of a task."""
    table = frame.assign(
        change=pd.Categorical(frame["family"].map(CHANGED), list(CHANGED.values()), ordered=True),
        run=[key.words for key, rows in runs_of(frame) for _ in range(len(rows))],
        prediction=frame["prediction"].map({"answer": "as before", "foil": "follows the change", "other": "neither"}),
    )
    return stacked_bars(
        table,
        x="change",
        y="share",
        color="prediction",
        facet="run",
        bounds=(0.0, 1.0),
        title=f"{only(frame, 'task')}: what is written as {only(frame, 'readout')} after one change",
        x_title="what was changed",
        y_title="share of problems",
        hover=["count", "n"],
    )


def family_findings(frame: pd.DataFrame) -> list[str]:
    """For each trained model what the total depends on, by the declared rule, and the four shares behind it."""
    sentences = []
    for key, rows in runs_of(frame):
        foil = rows[rows["prediction"] == "foil"].to_dict("records")
        shares = "; ".join(f"{CHANGED[row['family']]} {_share(row)}" for row in foil)
        source, readout = str(rows["source"].iloc[0]), str(rows["readout"].iloc[0])
        sentences.append(f"{key.words}: {readout} {SOURCES[source]}. It follows a changed {shares}.")
    return sentences


def _share(row: Mapping[Any, Any]) -> str:
    return f"in {percent(row['share'])} of {row['n']} ({percent(row['ci_low'])} to {percent(row['ci_high'])})"
