"""What search finds: accuracy against what was spent, the tree of one problem, how well scorers tell steps apart."""

import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.labels import only
from cotinterp.figures.lines import lines
from cotinterp.figures.sheet import BLUE, GRAY, INK, VERMILLION, text

WORDS = {
    "written": "tokens written for one problem, mean",
    "read": "tokens read for one problem, mean",
    "passes": "forward passes one after another, mean",
    "flops": "operations for one problem, mean",
}


def compute_figure(frame: pd.DataFrame, *, x: str = "written") -> go.Figure:
    """Accuracy against what was spent on a problem, a line a method and scorer, a panel a number of operands; one task.

    `x` is the currency: written, read, passes or flops. Costs are means over problems of all that was spent; whiskers
    are the intervals of the table. Nothing is drawn at NaN, where operations of a model are not known.
    """
    task = only(frame, "task")
    known = frame.dropna(subset=[x])
    if known.empty:
        raise ValueError(f"no row has a number in {x!r}: draw another currency ({', '.join(WORDS)})")
    names = known["method"] + known["scorer"].map(lambda scorer: f", {scorer}" if scorer else "")
    figure = lines(
        known.assign(method=names),
        x=x,
        y="accuracy",
        low="ci_low",
        high="ci_high",
        color="method",
        facet="k",
        title=f"{task}: accuracy against inference compute",
        bounds=(0.0, 1.0),
        x_title=WORDS.get(x, x),
        y_title="answers right",
        hover=["budget", "n"],
    )
    return figure.update_yaxes(tickformat=".0%")


def spending_figure(frame: pd.DataFrame) -> go.Figure:
    """Accuracy against operations, on a log axis: a panel for each scorer, a line for each method; one task and length.

    Columns: task, k, shape (of the model), method, scorer, flops, accuracy, low and high (cut at 0 and 1), times,
    written, seeds. The panel `none` has what no scorer chose: single responses and votes. Of budgets that cost the
    same, the smallest stands.
    """
    told = frame.sort_values("times").drop_duplicates(["method", "scorer", "flops"])
    table = told.assign(low=told["low"].clip(lower=0), high=told["high"].clip(upper=1))
    figure = lines(
        table.assign(scorer=table["scorer"].replace("", "none")),
        x="flops",
        y="accuracy",
        low="low",
        high="high",
        color="method",
        facet="scorer",
        title=f"{only(frame, 'task')}, {only(frame, 'k')} operands: accuracy against operations, 95% over seeds",
        bounds=(0.0, 1.0),
        x_title=WORDS["flops"],
        y_title="answers right",
        hover=["shape", "times", "written", "seeds"],
    )
    figure.update_traces(mode="lines+markers", selector={"mode": "lines"})
    figure.update_xaxes(type="log", tickvals=None, tickangle=0, dtick=1, exponentformat="power")
    return figure.update_yaxes(tickformat=".0%")


def search_tree_figure(tree: pd.DataFrame, *, title: str) -> go.Figure:
    """The search tree of one problem: a node a prefix, its last step beside it, steps from left to right.

    The larger a node, the more often it was visited. A right prefix is a filled blue circle, one with a wrong step
    a vermillion cross, and the step at which it went wrong is printed bold; the way to the answer that was chosen is
    drawn thick. Scores stand in the hover text.
    """
    children: dict[int, list[int]] = {}
    for node, parent in zip(tree["node"], tree["parent"], strict=True):
        children.setdefault(int(parent), []).append(int(node))
    height = _heights(children)
    x, y = tree["step"].tolist(), [height[int(node)] for node in tree["node"]]
    right, chosen = tree["right"].tolist(), tree["chosen"].tolist()
    figure = go.Figure()
    for on_path in (False, True):
        ends = [(p, n) for n, p in enumerate(tree["parent"]) if p >= 0 and chosen[n] == on_path]
        figure.add_scatter(
            x=[place for p, n in ends for place in (x[p], x[n], None)],
            y=[place for p, n in ends for place in (y[p], y[n], None)],
            mode="lines",
            line={"color": INK if on_path else GRAY, "width": 3 if on_path else 1},
            name="way to the answer" if on_path else "tried",
            hoverinfo="skip",
        )
    for good, name, color, symbol in ((True, "right so far", BLUE, "circle"), (False, "wrong", VERMILLION, "x")):
        rows = [node for node in range(len(tree)) if right[node] == good]
        shown = tree.iloc[rows]
        first_wrong = [not good and right[parent] for parent in shown["parent"]]
        labels = [text(step) or "prompt" for step in shown["text"]]
        figure.add_scatter(
            x=[x[node] for node in rows],
            y=[y[node] for node in rows],
            mode="markers+text",
            text=[f"<b>{label}</b>" if bold else label for label, bold in zip(labels, first_wrong, strict=True)],
            textposition=["top center" if node else "middle left" for node in rows],
            marker={
                "color": color,
                "symbol": symbol,
                "size": (7 + 4 * shown["visits"].clip(upper=16) ** 0.5).tolist(),
            },
            name=name,
            customdata=shown[["score", "visits"]].to_numpy(dtype=float).tolist(),
            hovertemplate="%{text}<br>score %{customdata[0]:.3g}<br>visits %{customdata[1]:.0f}<extra></extra>",
        )
    deepest, leaves = max(x), max(y) + 1
    figure.update_xaxes(
        title_text="steps written", dtick=1, range=[-0.5, deepest + 0.5], showgrid=False, zeroline=False
    )
    figure.update_yaxes(visible=False, range=[leaves - 0.3, -0.8])
    return figure.update_layout(
        title={"text": text(title), "font": {"size": 15, "color": INK}},
        template="plotly_white",
        width=max(500, 190 * (deepest + 1)),
        # Many leaves stand closer, so that the tree stays one picture; without branches there is room for the legend.
        height=max(300, 140 + int(leaves * max(18, min(46, 1200 / leaves)))),
        legend={"x": 1.02, "y": 1, "xanchor": "left"},
    )


def _heights(children: dict[int, list[int]]) -> dict[int, float]:
    """Leaves one below another, every other node in the middle of its first and last child."""
    height: dict[int, float] = {}
    leaves = 0

    def place(node: int) -> float:
        nonlocal leaves
        below = [place(child) for child in children.get(node, [])]
        if not below:
            leaves += 1
        height[node] = (below[0] + below[-1]) / 2 if below else float(leaves - 1)
        return height[node]

    place(0)
    return height


def verification_figure(frame: pd.DataFrame) -> go.Figure:
    """AUROC of each scorer with its interval, beside that with shuffled labels and of an untrained model."""
    site = frame.get("site", pd.Series("", index=frame.index)).fillna("").astype(str)
    model = frame.get("model", pd.Series("trained", index=frame.index)).fillna("trained").astype(str)
    control = (model + " model").where(frame["labels"] == "true", "shuffled labels")
    control = control.where((model == "trained") | (frame["labels"] == "true"), model + " model, shuffled labels")
    table = frame.assign(read_by=(frame["scorer"] + " " + site).str.strip(), control=control).dropna(subset=["auroc"])
    return lines(
        table,
        x="read_by",
        y="auroc",
        low="ci_low",
        high="ci_high",
        color="control",
        title="Right steps against wrong ones",
        bounds=(0.0, 1.0),
        references={"says nothing": 0.5},
        x_title="scorer",
        y_title="AUROC",
        hover=["auroc_at_step", "n", "n_wrong"],
    )


def verifier_use_figure(frame: pd.DataFrame) -> go.Figure:
    """Share of next steps that an exchange changes: the probe's direction, random ones, the whole activation."""
    return lines(
        frame,
        x="subspace",
        y="changed",
        low="ci_low",
        high="ci_high",
        color="prefix",
        title="Next steps that change where the state at a step's end is exchanged",
        bounds=(0.0, 1.0),
        x_title="what is exchanged",
        y_title="share of next steps changed",
        hover=["right", "right_before", "log_prob_change", "n"],
    )
