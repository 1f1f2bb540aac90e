"""Every kind of trace edit in one table and one figure, all steps together, with chance beside each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cotinterp.figures.runs import RunKey, only, runs_of
from cotinterp.report.behavior_findings import percent
from cotinterp.report.edits import CONTROL, OUTCOMES
from cotinterp.report.palette import PURPLE, dressed, pattern
from cotinterp.results.result import Result

if TYPE_CHECKING:
    from cotinterp.behavior.edits import EditResult

RESUMED = "resumed"
WORDS = {
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
"""What is done to the trace; the descriptions of the kinds, which a report knows without loading them."""

OPEN, CLOSED, FILLED = "open", "closed", "filled"
HEADINGS = {
    OPEN: "cut after a total: the model goes on",
    CLOSED: "closed: only the answer is left",
    FILLED: "closed, with nothing to follow",
}
SEGMENTS = {
    "follows": ("follows", *OUTCOMES["follows"]),
    "ignores": ("ignores", *OUTCOMES["ignores"]),
    RESUMED: ("other: goes on with the trace, no answer", PURPLE, "x"),
    "other": ("other", *OUTCOMES["other"]),
}
SLOT, ABOVE, BELOW, WRITTEN = 38, 50, 110, 0.1


@dataclass(frozen=True)
class EditKinds(Result):
    """Outcomes of every kind of edit, pooled over steps: what `EditResult.pooled` says, as a table of its own."""

    edits: "EditResult"

    def frame(self) -> pd.DataFrame:
        """tables/trace_edit_kinds.csv: one row for each kind of edit and outcome; see `EditResult.pooled`."""
        return self.edits.pooled()

    def figure(self) -> go.Figure:
        """`edit_kinds_figure` of that table."""
        return edit_kinds_figure(self.frame())


def edit_words(edit: str) -> str:
    """A kind of edit in words; its name where the report has none."""
    return WORDS.get(edit, edit.replace("_", " "))


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
    only(frame, "task")
    runs, slots, labels = list(runs_of(frame)), *_slots(frame)
    n_columns = min(2, len(runs))
    n_rows = -(-len(runs) // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[f"<b>{key.regime}</b>, seed {key.run_seed}" for key, _ in runs],
        shared_yaxes=True,
        horizontal_spacing=0.03,
    )
    for index, (key, run) in enumerate(runs):
        at = {"row": index // n_columns + 1, "col": index % n_columns + 1}
        bars = _segments(run, slots)
        for name in SEGMENTS:
            rows = bars[bars["segment"] == name]
            figure.add_trace(_measured(rows, name, key, legend=index == 0, least=WRITTEN * n_columns), **at)
            figure.add_trace(_chance(rows, name, key), **at)
        figure.add_trace(_sizes(bars.drop_duplicates("slot")), **at)
    inner = SLOT * len(labels)
    dressed(figure, height=ABOVE + BELOW + inner * n_rows, margin={"t": ABOVE, "b": BELOW, "l": 330})
    figure.update_xaxes(range=[0, 1 + 0.13 * n_columns], tickvals=[0, 0.25, 0.5, 0.75, 1], tickformat=".0%")
    figure.update_xaxes(title="share of edited transcripts, all steps", row=n_rows)
    figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.4, -0.6], ticks="", showgrid=False
    )
    return figure.update_layout(
        barmode="stack",
        legend={"orientation": "h", "y": -60 / (inner * n_rows), "yanchor": "top", "x": 0, "traceorder": "normal"},
    )


def _slots(frame: pd.DataFrame) -> tuple[dict[tuple[str, str], int], list[str]]:
    """Where each kind of edit stands, from above, and what is written at each place: headings too take one."""
    slots: dict[tuple[str, str], int] = {}
    labels: list[str] = []
    for group, edits in edit_groups(frame).items():
        labels.append(f"<b>{HEADINGS[group]}</b>")
        for edit in edits:
            slots[group, edit] = len(labels)
            labels.append("control: the true trace" if edit == CONTROL else edit_words(edit))
    return slots, labels


def _segments(run: pd.DataFrame, slots: dict[tuple[str, str], int]) -> pd.DataFrame:
    """The rows of one model with their places; `other` without the part that went on with the trace."""
    parts = []
    for (group, edit), slot in slots.items():
        rows = of_edit(run, edit, group)
        went_on = float(rows.loc[rows["outcome"] == RESUMED, "rate"].sum())
        rest = rows["rate"].where(rows["outcome"] != "other", rows["rate"] - went_on)
        parts.append(rows.assign(slot=slot, segment=rows["outcome"], share=rest))
    return pd.concat(parts)


def _measured(rows: pd.DataFrame, name: str, key: RunKey, *, legend: bool, least: float) -> go.Bar:
    words, color, shape = SEGMENTS[name]
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


def _chance(rows: pd.DataFrame, name: str, key: RunKey) -> go.Bar:
    words, color, _ = SEGMENTS[name]
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
