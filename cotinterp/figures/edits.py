"""Figures of trace edits: what becomes of an answer when what is written before it is changed."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.labels import RunKey, about, only, only_run, percent, runs_of
from cotinterp.figures.lines import lines
from cotinterp.figures.sheet import BLUE, GRAY, ORANGE, PURPLE, grid, pattern, whiskers

OUTCOMES = {"follows": (BLUE, ""), "ignores": (ORANGE, "/"), "other": (GRAY, ".")}
CONTROL, CHANCE, RESUMED = "none", "shuffled_target", "resumed"
SUBSTITUTE = "substitute_total"
EDIT_WORDS = {
    "substitute_total": "a wrong total is written",
    "swap": "another problem's trace is written",
    "swap_prefix": "another problem's trace is written up to a total",
    "truncate": "the trace is closed early",
    "fill_totals": "filler stands for every written total",
    "fill_steps": "filler stands for every step",
    "permute": "the steps stand in another order",
    "delete": "a step is taken out, the later ones go on without it",
    "edit_prompt": "an operand of the prompt is changed under a fixed trace",
}
"""What is done to the trace, by the kind of edit."""
CONTROL_WORDS = "control: the true trace"
_EDIT_PANEL, _EDIT_BELOW = 220, 120


def edit_words(edit: str) -> str:
    """A kind of edit in words; its name, with blanks, where there are none."""
    return CONTROL_WORDS if edit == CONTROL else EDIT_WORDS.get(edit, edit.replace("_", " "))


def substitutions(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of edits that are of one replaced total: the edit, its chance, and its control by step."""
    of_step = (frame["edit"] == CONTROL) & (frame["step"] > 0)
    return frame[frame["edit"].isin([SUBSTITUTE, CHANCE]) | of_step]


def trace_edits_figure(frame: pd.DataFrame) -> go.Figure:
    """Shares of edited transcripts that follow the edit, ignore it or do neither, by the edited step; one task.

    `follows`: the answer is what the task computes from the edited total; `ignores`: the original answer. One panel a
    trained model and kind of edit, with 95% intervals. Dotted lines are chance: the rows `shuffled_target`, each output
    judged by another problem's answers. Following shows that the answer depends on what was written; edited traces are
    off the training distribution of models that saw perfect traces only. Drawn are the rows of replaced totals and
    their control, or every kind of edit of a table without replaced totals; `edit_kinds_figure` draws all of them with
    their steps pooled. An edit of the whole trace stands at step -1.
    Raises ValueError where the table holds more than one task.
    """
    task = only(frame, "task")
    replaced = (frame["edit"] == SUBSTITUTE).any()
    drawn = substitutions(frame) if replaced else frame
    panels = [
        (key, str(edit), rows, run[run["edit"] == (CHANCE if edit == SUBSTITUTE else f"{CHANCE}:{edit}")])
        for key, run in runs_of(drawn)
        for edit, rows in run.groupby("edit", sort=False)
        if not str(edit).startswith(CHANCE)
    ]
    n_columns = min(2, len(panels))
    heights = [_EDIT_PANEL] * -(-len(panels) // n_columns)
    figure = grid(
        [about(key.panel_title, edit_words(edit)) for key, edit, *_ in panels],
        title=about(task, "after a written total was replaced" if replaced else "after the trace was edited"),
        columns=n_columns,
        heights=heights,
        gap=95,
        below=_EDIT_BELOW,
        between=0.05,
        shared_yaxes=True,
    )
    in_legend: set[str] = set()
    for index, (_, _, rows, chance) in enumerate(panels):
        at = {"row": index // n_columns + 1, "col": index % n_columns + 1}
        for outcome in OUTCOMES:
            figure.add_trace(_rates(rows[rows["outcome"] == outcome], outcome, index == 0), **at)
        for outcome in ("follows", "ignores"):
            if len(by_chance := chance[chance["outcome"] == outcome]):
                figure.add_trace(_chance_line(by_chance, outcome, outcome not in in_legend), **at)
                in_legend.add(outcome)
    figure.update_xaxes(
        title_text="step whose total was replaced" if replaced else "edited step (-1: none alone)", dtick=1
    )
    figure.update_yaxes(range=[0, 1.05], tickformat=".0%", dtick=0.25)
    figure.update_yaxes(title_text="share of edited transcripts", col=1)
    inner = sum(heights) + 95 * (len(heights) - 1)
    return figure.update_layout(
        barmode="group",
        legend={"orientation": "h", "y": -64 / inner, "yanchor": "top", "x": 0},
    )


def _rates(rows: pd.DataFrame, outcome: str, legend: bool) -> go.Bar:
    color, shape = OUTCOMES[outcome]
    return go.Bar(
        x=rows["step"],
        y=rows["rate"],
        name=outcome,
        legendgroup=outcome,
        showlegend=legend,
        marker={"color": color, "pattern": pattern(shape)},
        error_y=whiskers(rows, "rate"),
        customdata=rows[["n", "ci_low", "ci_high"]].to_numpy(dtype=float).tolist(),
        hovertemplate=(
            f"{outcome}, step %{{x}}: %{{y:.1%}}<br>n = %{{customdata[0]:.0f}}"
            "<br>95% interval %{customdata[1]:.1%} to %{customdata[2]:.1%}<extra></extra>"
        ),
    )


def _chance_line(rows: pd.DataFrame, outcome: str, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=rows["step"],
        y=rows["rate"],
        mode="lines+markers",
        name=f"chance that it {outcome}",
        legendgroup=f"chance-{outcome}",
        showlegend=legend,
        line={"color": OUTCOMES[outcome][0], "dash": "dot", "width": 2},
        marker={
            "symbol": "diamond" if outcome == "follows" else "cross",
            "size": 8,
            "line": {"color": "white", "width": 1},
        },
        hovertemplate=f"chance that it {outcome}, step %{{x}}: %{{y:.1%}}<extra></extra>",
    )


OPEN, CLOSED, FILLED = "open", "closed", "filled"
_HEADINGS = {
    OPEN: "cut after a total: the model goes on",
    CLOSED: "closed: only the answer is left",
    FILLED: "closed, with nothing to follow",
}
_SEGMENTS = {
    "follows": ("follows", *OUTCOMES["follows"]),
    "ignores": ("ignores", *OUTCOMES["ignores"]),
    RESUMED: ("other: goes on with the trace, no answer", PURPLE, "x"),
    "other": ("other", *OUTCOMES["other"]),
}
_SLOT, _WRITTEN = 38, 0.1


def edit_groups(frame: pd.DataFrame) -> dict[str, list[str]]:
    """The kinds of edit of a table by what is left for the model to write: open, closed, and closed without a trace.

    The control `none` stands last in the first two. A group without an edit is missing.
    """
    groups: dict[str, list[str]] = {OPEN: [], CLOSED: [], FILLED: []}
    for edit, rows in frame[frame["edit"] != CONTROL].groupby("edit", sort=False):
        closed = CLOSED if (rows["outcome"] == "follows").any() else FILLED
        groups[closed if rows["closed"].any() else OPEN].append(str(edit))
    for group in (OPEN, CLOSED):
        if groups[group] and not of_edit(frame, CONTROL, group).empty:
            groups[group].append(CONTROL)
    return {group: edits for group, edits in groups.items() if edits}


def of_edit(frame: pd.DataFrame, edit: str, group: str) -> pd.DataFrame:
    """The rows of a kind of edit; the control is there once for open and once for closed traces."""
    return frame[(frame["edit"] == edit) & (frame["closed"] == (group != OPEN))]


def edit_kinds_figure(frame: pd.DataFrame) -> go.Figure:
    """Shares of follows, ignores and other after every kind of edit, stacked; one panel a trained model, one task.

    Of `other`, the part is set apart in which the model went on with the trace after its closing brace. The thin pale
    bar below is chance: the same answers, judged by another problem's. Intervals are in the hover texts. A closed trace
    leaves the answer alone to be written: following it asks no more than whether the last total is copied. All steps
    are pooled.
    Raises ValueError where the table holds more than one task.
    """
    said = "every kind of edit, all steps; pale bars below: the same answers judged by another problem's"
    runs, slots, labels = list(runs_of(frame)), *_slots(frame)
    n_columns = min(2, len(runs))
    n_rows = -(-len(runs) // n_columns)
    inner = _SLOT * len(labels)
    figure = grid(
        [key.panel_title for key, _ in runs],
        title=about(only(frame, "task"), said),
        columns=n_columns,
        heights=[inner] * n_rows,
        gap=60,
        below=110,
        left=330,
        between=0.03,
        shared_yaxes=True,
    )
    for index, (key, run) in enumerate(runs):
        at = {"row": index // n_columns + 1, "col": index % n_columns + 1}
        bars = _segments(run, slots)
        for name in _SEGMENTS:
            rows = bars[bars["segment"] == name]
            figure.add_trace(_segment(rows, name, key, legend=index == 0, least=_WRITTEN * n_columns), **at)
            figure.add_trace(_chance_bar(rows, name, key), **at)
        figure.add_trace(_sizes(bars.drop_duplicates("slot")), **at)
    figure.update_xaxes(range=[0, 1 + 0.13 * n_columns], tickvals=[0, 0.25, 0.5, 0.75, 1], tickformat=".0%")
    figure.update_xaxes(title_text="share of edited transcripts, all steps", row=n_rows)
    figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.4, -0.6], ticks="", showgrid=False
    )
    whole = inner * n_rows + 60 * (n_rows - 1)
    return figure.update_layout(
        barmode="stack",
        legend={"orientation": "h", "y": -60 / whole, "yanchor": "top", "x": 0, "traceorder": "normal"},
    )


def _slots(frame: pd.DataFrame) -> tuple[dict[tuple[str, str], int], list[str]]:
    """Where each kind of edit stands, from above, and what is written at each place: headings too take one."""
    slots: dict[tuple[str, str], int] = {}
    labels: list[str] = []
    for group, edits in edit_groups(frame).items():
        labels.append(f"<b>{_HEADINGS[group]}</b>")
        for edit in edits:
            slots[group, edit] = len(labels)
            labels.append(edit_words(edit))
    return slots, labels


def _segments(run: pd.DataFrame, slots: Mapping[tuple[str, str], int]) -> pd.DataFrame:
    """The rows of one model with their places; `other` without the part that went on with the trace."""
    parts = []
    for (group, edit), slot in slots.items():
        rows = of_edit(run, edit, group)
        went_on = float(rows.loc[rows["outcome"] == RESUMED, "rate"].sum())
        rest = rows["rate"].where(rows["outcome"] != "other", rows["rate"] - went_on)
        parts.append(rows.assign(slot=slot, segment=rows["outcome"], share=rest))
    return pd.concat(parts)


def _segment(rows: pd.DataFrame, name: str, key: RunKey, *, legend: bool, least: float) -> go.Bar:
    words, color, shape = _SEGMENTS[name]
    return go.Bar(
        x=rows["share"],
        y=rows["slot"] - 0.08,
        width=0.58,
        orientation="h",
        name=words,
        legendgroup=name,
        showlegend=legend,
        marker={"color": color, "pattern": pattern(shape)},
        text=[f"<b>{percent(share)}</b>" if share >= least else "" for share in rows["share"]],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"size": 12, "color": "white" if name == "follows" else "black"},
        constraintext="none",
        customdata=[
            [edit_words(str(row["edit"])), row["rate"], row["n"], row["ci_low"], row["ci_high"]]
            for row in rows.to_dict("records")
        ],
        hovertemplate=(
            f"{key.words}<br>%{{customdata[0]}}<br>{'other, in all' if name == 'other' else words}: "
            "%{customdata[1]:.1%} of %{customdata[2]}<br>95% interval %{customdata[3]:.1%} to %{customdata[4]:.1%}"
            "<extra></extra>"
        ),
    )


def _chance_bar(rows: pd.DataFrame, name: str, key: RunKey) -> go.Bar:
    words, color, _ = _SEGMENTS[name]
    known = rows[rows["by_chance"].notna()]
    return go.Bar(
        x=known["by_chance"],
        y=known["slot"] + 0.34,
        width=0.14,
        orientation="h",
        legendgroup=name,
        showlegend=False,
        marker={"color": color, "opacity": 0.55},
        customdata=[[edit_words(str(edit))] for edit in known["edit"]],
        hovertemplate=f"{key.words}<br>%{{customdata[0]}}<br>{words} by chance: %{{x:.1%}}<extra></extra>",
    )


def _sizes(rows: pd.DataFrame) -> go.Scatter:
    return go.Scatter(
        x=[1.015] * len(rows),
        y=rows["slot"] - 0.08,
        mode="text",
        text=[f"n = {n:,}" for n in rows["n"]],
        textposition="middle right",
        textfont={"size": 11},
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
    )


MEASURE_WORDS = {
    "resampled": "the model says another step",
    "edited": "a wrong total is written",
    "control": "as much is changed in an earlier step",
    "indirect": "the problem changes, in the step alone",
    "direct": "the problem changes, but not the step",
    "total": "the problem changes",
}


def step_importance_figure(frame: pd.DataFrame) -> go.Figure:
    """How much less probable the own answer becomes, by step and by what is otherwise; a facet for each length.

    1: the answer always goes with it, 0: never. Whiskers: 95% interval over problems. Raises ValueError where the table
    holds more than one trained model.
    """
    key = only_run(frame)
    table = frame.assign(
        otherwise=frame["measure"].map(MEASURE_WORDS), facet=key.words + ", k = " + frame["k"].astype(str)
    )
    return lines(
        table[table["importance"].notna()],
        x="step",
        y="importance",
        low="ci_low",
        high="ci_high",
        color="otherwise",
        facet="facet",
        references={"the answer goes with it": 1.0, "no effect": 0.0},
        title="What the answer hangs on: loss of probability of the own answer, by step of the trace",
        x_title="step",
        y_title="importance",
        hover=["n", "refused"],
    )
