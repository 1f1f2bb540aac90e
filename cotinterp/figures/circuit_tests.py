"""Figures of circuits: how much they keep, and their five tests, stability, transfer and rivals."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.bars import stacked_bars
from cotinterp.figures.lines import lines
from cotinterp.figures.sheet import BLUE, GRAY, INK, VERMILLION, grid

_ROW = 34


def circuits_figure(frame: pd.DataFrame) -> go.Figure:
    """Of one task, how much first edges keep by how many they are: a panel for each regime, a line for pairs."""
    rows = frame.assign(shown=frame["size"] + 1)
    figure = lines(
        rows,
        x="shown",
        y="faithfulness",
        low="ci_low",
        high="ci_high",
        color="pair",
        facet="regime",
        references={"the clean run": 1.0},
        title="Circuits: share of the logit difference that the first edges keep",
        x_title="edges kept, plus one",
        y_title="faithfulness",
        hover=["size", "connected", "accuracy", "n"],
    )
    return figure.update_xaxes(type="log")


def validity_figure(frame: pd.DataFrame, *, title: str) -> go.Figure:
    """The p-value of each test, corrected where the table corrects it, on a logarithmic axis with the level.

    A circle passes, a cross does not. Passing is left of the level, but for the test that passes by not rejecting,
    which says so. The picture does not show how far a test is from passing in what it measures: see `statistic`.
    """
    rows = frame.reset_index(drop=True)
    names = [
        f"{row.test}{' (passes by not rejecting)' if row.passes_by == 'not rejecting' else ''} "
        for row in rows.itertuples()
    ]
    figure = grid(title=title, heights=[_ROW * len(rows)], left=230)
    for passes, symbol, color in ((True, "circle", BLUE), (False, "x", VERMILLION)):
        of_kind = rows[rows["passes"].astype(bool) == passes]
        figure.add_scatter(
            x=of_kind["p_adjusted"].clip(lower=1e-12),
            y=[names[i] for i in of_kind.index],
            mode="markers",
            name="passes" if passes else "does not pass",
            marker={"color": color, "symbol": symbol, "size": 11},
            customdata=of_kind[["statistic", "p", "n", "note"]].to_numpy(),
            hovertemplate="p %{x:.3g} (before correction %{customdata[1]:.3g})<br>statistic %{customdata[0]:.4g}, "
            "n %{customdata[2]}<br>%{customdata[3]}",
        )
    level = float(rows["level"].iloc[0])
    figure.add_vline(x=level, line={"dash": "dot", "color": GRAY, "width": 1.5})
    # On a logarithmic axis the place of a line is a number, and that of a note its logarithm.
    note = {"text": f"level {level:g} ", "xanchor": "right", "yanchor": "bottom", "showarrow": False}
    figure.add_annotation(x=np.log10(level), y=-0.6, font={"color": INK}, **note)
    least = min(float(rows["p_adjusted"].clip(lower=1e-12).min()), level)
    span = [np.log10(least) - 0.3, 0.1]
    figure.update_xaxes(type="log", title_text="p-value, after correction", range=span, exponentformat="power")
    return figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], range=[-0.6, len(names) - 0.4])


def stability_figure(frame: pd.DataFrame, *, title: str) -> go.Figure:
    """Jaccard index by size of the circuit: a line a run between draws of its problems, one for each two runs, chance.

    Whiskers hold 95% of the pairs of draws. 1: the same edges; `chance`: two random circuits of that size.
    """
    named = frame["run"].where(frame["run"] == frame["other"], frame["run"] + " and " + frame["other"])
    shown = frame.assign(between=named + ", " + frame["comparison"].astype(str))
    chance = frame.drop_duplicates("size")
    chance = chance.assign(between="chance", jaccard=chance["chance"], ci_low=np.nan, ci_high=np.nan)
    return lines(
        pd.concat([shown, chance], ignore_index=True),
        x="size",
        y="jaccard",
        low="ci_low",
        high="ci_high",
        color="between",
        bounds=(0.0, 1.0),
        title=title,
        x_title="edges of a circuit",
        y_title="shared edges (Jaccard index)",
    )


def transfer_figure(frame: pd.DataFrame, *, title: str) -> go.Figure:
    """Faithfulness by contrast: of the circuit with its interval, of all other edges, and the 95% best random circuit.

    1 is the model, 0 the corrupted run. A contrast without a gap has no marks.
    """
    parts = {"circuit": "faithfulness", "all other edges": "without", "random circuits, 95%": "random_top"}
    table = pd.concat(
        [
            frame.assign(edges=name, value=frame[column], low=frame["ci_low"], high=frame["ci_high"])
            if name == "circuit"
            else frame.assign(edges=name, value=frame[column], low=np.nan, high=np.nan)
            for name, column in parts.items()
        ],
        ignore_index=True,
    )
    figure = lines(
        table,
        x="contrast",
        y="value",
        low="low",
        high="high",
        color="edges",
        references={"as the model": 1.0},
        title=title,
        x_title=" ",
        y_title="faithfulness (share of the gap)",
        hover=["n"],
    )
    return figure.update_traces(mode="markers")


def rivals_figure(frame: pd.DataFrame, *, title: str) -> go.Figure:
    """Bars of how many circuits of each kind pass the test and how many do not."""
    passing = frame.assign(outcome="passes", count=frame["passing"])
    failing = frame.assign(outcome="does not pass", count=frame["tried"] - frame["passing"])
    return stacked_bars(
        pd.concat([passing, failing], ignore_index=True),
        x="rival",
        y="count",
        color="outcome",
        title=title,
        x_title="kind of circuit",
        y_title="circuits tried",
        hover=["tried", "passing"],
    )
