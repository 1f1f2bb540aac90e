"""Figures of what a model writes: accuracy, faulty outputs, and what its answers owe to memory and to its trace."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.labels import RunKey, about, only, only_run, runs_of
from cotinterp.figures.lines import lines
from cotinterp.figures.sheet import GRAY, category_bar, grid, regime_mark, whiskers
from cotinterp.results.intervals import wilson

SPLITS = {"heldout": "held-out", "train": "train", "validation": "validation"}
SPLIT_DASHES = {"heldout": "solid", "train": "dot", "validation": "dash"}

CITATION = (
    "Illustrative accuracies given with the description of the reference experiment (digit-sum, K = 2 to 6). "
    "The source offers them as an illustration, not as a measurement."
)
ILLUSTRATIVE: Mapping[str, Mapping[str, Mapping[int, float]]] = {
    "digit-sum": {
        "direct": {2: 0.95, 3: 0.80, 4: 0.55, 5: 0.30, 6: 0.15},
        "cot": {2: 0.98, 3: 0.96, 4: 0.94, 5: 0.92, 6: 0.90},
    }
}
"""Accuracy by task, regime and K as the source of the reference experiment illustrates it.

Nobody measured them. They stand beside the measured points so that a reader can see where expectation and measurement
part; nothing is tuned toward them, and no claim is judged by them.
"""


def accuracy_figure(frame: pd.DataFrame, *, illustrative: bool = True) -> go.Figure:
    """Share of free-running answers that are exactly right, by K, with Wilson intervals (95 %); one task.

    Solid: held-out problems; dotted: problems of the train split. One line a trained model. Hollow gray markers are the
    source's illustrations (not measured). A gap between regimes is a fact about these models; it does not say why.
    Raises ValueError where the table holds more than one task.
    """
    task = only(frame, "task")
    figure = grid(title=about(task, "accuracy by K"), heights=[380], right=280)
    lines = [(key, str(split), rows) for key, run in runs_of(frame) for split, rows in run.groupby("split", sort=False)]
    for index, (key, split, rows) in enumerate(lines):
        shift = (index - (len(lines) - 1) / 2) * min(0.07, 0.36 / len(lines))
        figure.add_trace(_accuracy(key, split, rows.sort_values("k"), shift))
    _legend_once(figure)
    if illustrative:
        for regime, by_k in ILLUSTRATIVE.get(task, {}).items():
            figure.add_trace(_illustration(regime, by_k))
    figure.update_xaxes(title_text="K (number of operands)", dtick=1)
    figure.update_yaxes(title_text="answers right, free-running", range=[-0.03, 1.05], tickformat=".0%", dtick=0.2)
    return figure.update_layout(legend={"x": 1.02, "y": 1, "xanchor": "left", "itemsizing": "constant"})


def _accuracy(key: RunKey, split: str, rows: pd.DataFrame, shift: float) -> go.Scatter:
    mark, held = regime_mark(key.regime), split == "heldout"
    name = ", ".join(filter(None, (key.regime, SPLITS.get(split, split))))
    return go.Scatter(
        x=rows["k"] + shift,
        y=rows["accuracy"],
        error_y=whiskers(rows, "accuracy", color=mark.color),
        mode="lines+markers",
        name=name,
        legendgroup=name,
        line={"color": mark.color, "dash": SPLIT_DASHES.get(split, "dash"), "width": 2.4 if held else 1.6},
        marker={"symbol": mark.symbol, "size": 10 if held else 6, "color": mark.color},
        customdata=rows[["k", "correct", "n", "ci_low", "ci_high"]].to_numpy(dtype=float).tolist(),
        hovertemplate=(
            f"{about(key.within_task, SPLITS.get(split, split))}<br>K = %{{customdata[0]:.0f}}: %{{y:.1%}}"
            "<br>%{customdata[1]:.0f} of %{customdata[2]:.0f} right"
            "<br>95% interval %{customdata[3]:.1%} to %{customdata[4]:.1%}<extra></extra>"
        ),
    )


def _illustration(regime: str, by_k: Mapping[int, float]) -> go.Scatter:
    return go.Scatter(
        x=list(by_k),
        y=list(by_k.values()),
        mode="markers",
        name=f"{regime}: illustrative (source, not measured)",
        marker={"symbol": f"{regime_mark(regime).symbol}-open", "size": 13, "color": GRAY, "line": {"width": 1.5}},
        hovertemplate=f"{regime}, K = %{{x}}: %{{y:.0%}}<br>illustrative (source, not measured)<extra></extra>",
    )


def _legend_once(figure: go.Figure) -> None:
    seen: set[str] = set()
    for trace in figure.data:
        trace.showlegend = trace.legendgroup not in seen
        seen.add(trace.legendgroup)


CORRECT = "correct"
_FEW = 5.0


def errors_figure(frame: pd.DataFrame) -> go.Figure:
    """Counts of faulty outputs by category, stacked over K; one panel a trained model, one task.

    Faulty is whatever is not `correct`: also a right answer after a faulty trace. The number above a bar says how many,
    of how many. The panels have their own vertical scales, for one regime may fail a hundred times as often. A category
    describes the text that was written, not its cause.
    Raises ValueError where the table holds more than one task.
    """
    runs = list(runs_of(frame))
    figure = grid(
        [key.panel_title for key, _ in runs],
        title=about(only(frame, "task"), "faulty outputs by category"),
        columns=len(runs),
        heights=[300],
        below=130,
    )
    categories = [str(name) for name in frame["category"].unique() if name != CORRECT]
    shown = set(frame.loc[frame["count"] > 0, "category"])
    in_legend: set[str] = set()
    for column, (_, rows) in enumerate(runs, start=1):
        for index, category in enumerate(categories):
            of_category = rows[rows["category"] == category]
            if category in shown and len(of_category):
                figure.add_trace(_faults(of_category, category, index, category not in in_legend), 1, column)
                in_legend.add(category)
        _fault_totals(figure, rows, column)
    ks = frame["k"]
    figure.update_xaxes(title_text="K (number of operands)", dtick=1, range=[ks.min() - 0.7, ks.max() + 0.7])
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="faulty outputs", col=1)
    return figure.update_layout(
        barmode="stack",
        legend={"orientation": "h", "y": -0.24, "yanchor": "top", "x": 0, "traceorder": "normal"},
    )


def _faults(rows: pd.DataFrame, category: str, index: int, legend: bool) -> go.Bar:
    words = category.replace("_", " ")
    return go.Bar(
        x=rows["k"],
        y=rows["count"],
        name=words,
        legendgroup=category,
        showlegend=legend,
        marker=category_bar(index),
        customdata=rows[["share"]].to_numpy(dtype=float).tolist(),
        hovertemplate=f"{words}<br>K = %{{x}}: %{{y}} outputs (%{{customdata[0]:.1%}} of all)<extra></extra>",
    )


def _fault_totals(figure: go.Figure, rows: pd.DataFrame, column: int) -> None:
    totals = rows.groupby("k")["count"].sum()
    right = rows[rows["category"] == CORRECT].groupby("k")["count"].sum().reindex(totals.index, fill_value=0)
    faulty = totals - right
    figure.add_trace(
        go.Scatter(
            x=totals.index,
            y=faulty,
            mode="text",
            text=[f"{bad} of {all_}" for bad, all_ in zip(faulty, totals, strict=True)],
            textposition="top center",
            textfont={"size": 11},
            showlegend=False,
            hoverinfo="skip",
            cliponaxis=False,
        ),
        1,
        column,
    )
    # Counts: where there are hardly any, no fractions of an output on the axis.
    figure.update_yaxes(
        range=[0, max(float(faulty.max()) * 1.15, _FEW)], dtick=1 if faulty.max() <= _FEW else None, row=1, col=column
    )


def tagging_figure(frame: pd.DataFrame) -> go.Figure:
    """Share of problems whose states are named right, by K; held-out problems solid, training problems dashed."""
    readings = {"tags": "state at the last operand", "all": "state at every operand"}
    return lines(
        frame.assign(
            split=frame["split"].map(lambda split: SPLITS.get(split, split)), reading=frame["reading"].map(readings)
        ),
        x="k",
        y="accuracy",
        low="ci_low",
        high="ci_high",
        color="reading",
        dash="split",
        bounds=(0.0, 1.0),
        title=about(only_run(frame).words, "states named at the operands"),
        x_title="K (number of operands)",
        y_title="share of problems that are right",
        hover=["n"],
    )


def invariance_figure(frame: pd.DataFrame) -> go.Figure:
    """How often a problem and its unseen reordering are answered alike, by K, beside two different problems."""
    chance = frame.assign(agreement=frame["chance"], ci_low=np.nan, ci_high=np.nan, pair="two different problems")
    return lines(
        pd.concat([frame.assign(pair="a problem and its unseen reordering"), chance]),
        x="k",
        y="agreement",
        low="ci_low",
        high="ci_high",
        color="pair",
        bounds=(0.0, 1.0),
        title=about(only_run(frame).words, "same answer in another order"),
        x_title="K (number of operands)",
        y_title="share answered alike",
        hover=["n"],
    )


def generalization_figure(frame: pd.DataFrame) -> go.Figure:
    """Held-out accuracy by K, beside what each baseline that only remembers is worth on the same problems."""
    names = {"heldout": "model", "nearest": "nearest training problem", "majority": "most frequent answer"}
    table = frame.melt(id_vars=["k", "n_heldout"], value_vars=list(names), var_name="answers")
    table["answers"] = pd.Categorical(table["answers"].map(names), list(names.values()))
    return lines(
        with_intervals(table, rate="value", n="n_heldout"),
        x="k",
        y="value",
        low="ci_low",
        high="ci_high",
        color="answers",
        bounds=(0.0, 1.0),
        title=about(only_run(frame).words, "held-out problems, model against memory"),
        x_title="K (number of operands)",
        y_title="share of answers that are right",
        hover=["n_heldout"],
    )


def training_size_figure(frame: pd.DataFrame) -> go.Figure:
    """Accuracy against the number of training problems, a panel for each K; training problems dashed."""
    sides = [
        with_intervals(frame.assign(side=words, accuracy=frame[side], n=frame[f"n_{side}"]), rate="accuracy", n="n")
        for side, words in (("heldout", "held-out problems"), ("train", "training problems"))
    ]
    where = ", ".join(str(frame[name].iloc[0]) for name in ("task", "regime") if name in frame)
    return lines(
        pd.concat(sides).assign(facet=lambda rows: rows["k"].map("K = {}".format)),
        x="training_size",
        y="accuracy",
        low="ci_low",
        high="ci_high",
        dash="side",
        facet="facet",
        bounds=(0.0, 1.0),
        title=about(where, "accuracy against the number of training problems"),
        x_title="training problems",
        y_title="share of answers that are right",
        hover=["n", "ratio"],
    )


def with_intervals(frame: pd.DataFrame, *, rate: str, n: str) -> pd.DataFrame:
    """`frame` with Wilson's interval of a rate of `n`, in `ci_low` and `ci_high`."""
    intervals = [wilson(round(p * int(of)), int(of)) for p, of in zip(frame[rate], frame[n], strict=True)]
    return frame.assign(ci_low=[i.low for i in intervals], ci_high=[i.high for i in intervals])


def marginal_figure(frame: pd.DataFrame) -> go.Figure:
    """Log-probability of the true answer by K: given the problem, and given the problem and the model's own trace."""
    parts = []
    for name, words in (("marginal", "given the problem"), ("own", "given the problem and its own trace")):
        columns = {name: "nats", f"{name}_low": "low", f"{name}_high": "high"}
        parts.append(frame[["k", "n", "traces", *columns]].rename(columns=columns).assign(condition=words))
    return lines(
        pd.concat(parts, ignore_index=True),
        x="k",
        y="nats",
        low="low",
        high="high",
        color="condition",
        title=about(only_run(frame).words, "what the trace carries of the answer"),
        x_title="K (number of operands)",
        y_title="log P(true answer), nats",
        hover=["n", "traces"],
    )


def readiness_figure(frame: pd.DataFrame) -> go.Figure:
    """P(true answer) against the number of totals shown, a color for each trace, dashed where it is forced."""
    return lines(
        frame.assign(operands=[f"{k} operands" for k in frame["k"]]),
        x="step",
        y="probability",
        low="probability_low",
        high="probability_high",
        color="trace",
        dash="answered",
        facet="operands",
        bounds=(0.0, 1.0),
        title=about(only_run(frame).words, "P(true answer) along the trace"),
        x_title="totals shown",
        y_title="P(true answer)",
        hover=["n", "log_prob", "followed"],
    )
