"""Figures of interventions: what a restored activation does to the answer, and what a changed run puts first."""

import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.bars import stacked_bars
from cotinterp.figures.heatmap import Panel, Scale, place_heatmaps
from cotinterp.figures.labels import (
    NO_SYMBOLS,
    Place,
    RunKey,
    Symbols,
    about,
    file_name,
    only,
    only_run,
    place_words,
    reading_order,
    runs_of,
)
from cotinterp.figures.sheet import DIVERGING, GRAY, PALETTE, SYMBOLS, NamedFigure, grid

LAYER_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
HEAD_SITES = ("z", "q", "k", "v", "pattern")
_EFFECT = Scale(-1.0, 1.0, DIVERGING, "normalized effect", written=0.05)
_DIRECTIONS = {"denoise": "denoise (clean into corrupted)", "noise": "noise (corrupted into clean)"}


def is_cell(frame: pd.DataFrame) -> pd.Series:
    """True for the rows that are one site at one place; False for baselines (self, full, random donor)."""
    return frame["kind"].isin([*LAYER_SITES, *HEAD_SITES])


def primary_metric(frame: pd.DataFrame) -> str:
    """The metric that figures show: the logit difference if the table has it, else the table's first metric."""
    metrics = [str(metric) for metric in frame["metric"].unique()]
    return next((metric for metric in metrics if metric.startswith("logit_diff")), metrics[0])


def pair_words(pair: str) -> str:
    """A family of pairs in words: `operand 2 -> answer 3` is `operand 2 differs, read at answer 3`."""
    changed, _, readout = pair.replace("_", " ").partition(" -> ")
    return f"{changed} differs" + (f", read at {readout}" if readout else "")


def distinguished_pairs(of_pair: pd.DataFrame) -> tuple[int, int] | None:
    """In how many pairs the top prediction tells clean from corrupted, and of how many; None if the table cannot say.

    That is the number of pairs with a gap in accuracy: the readout's symbol is predicted right in one of the runs and
    not in the other. Where it is small, the logit difference that is patched is that between two guesses.
    """
    full = of_pair[of_pair["site"] == "full"]
    first = full[full["metric"] == "accuracy"]
    if first.empty or full.empty:
        return None
    return int(first["n"].iloc[0]), int(full["n"].max())


def without_dead_start(rows: pd.DataFrame) -> tuple[tuple[Place, ...], int]:
    """The places from the first one where any effect is not exactly 0, and how many were left out before it.

    In a causal model clean and corrupted agree bit for bit before what was changed, so a patch there does nothing.
    Nothing is left out of a table in which every effect is 0.
    """
    places = reading_order(rows)
    alive = {(str(role), int(step)) for role, step in rows.loc[rows["effect"] != 0, ["role", "step"]].to_numpy()}
    start = next((index for index, place in enumerate(places) if place in alive), 0)
    return places[start:], start


def patching_figure(
    frame: pd.DataFrame, metric: str | None = None, *, heads: bool | None = None, symbols: Symbols = NO_SYMBOLS
) -> go.Figure:
    """Effects of patching one site at one place, layers by places, a row of panels a kind of site; with `heads`, heads.

    Of one trained model and one pair family. Effect 0: as without a patch; 1: as if every activation were patched.
    Denoising asks what is enough, noising what is needed; on serial chains and redundant circuits the two differ.
    Colors end at -1 and 1, the numbers on hover do not. A cell shows that information at that place matters to the
    answer, not that the model computes there. By default the logit difference is drawn, and heads only where the table
    has no other cells.
    Raises ValueError where the table holds several models or families, no such cells, or not the metric.
    """
    key, pair = only_run(frame), only(frame, "pair")
    metric = primary_metric(frame) if metric is None else metric
    rows = frame[is_cell(frame) & (frame["metric"] == metric)]
    if heads is None:
        heads = not rows["kind"].isin(LAYER_SITES).any()
    shown = rows[rows["kind"].isin(HEAD_SITES if heads else LAYER_SITES)]
    if shown.empty:
        raise ValueError(
            f"no cells {'of' if heads else 'without'} heads to draw in {metric}; the table has the metrics "
            f"{list(frame['metric'].unique())} and the kinds of site {list(frame['kind'].unique())}"
        )
    places, left_out = without_dead_start(rows)
    said = f"{pair_words(pair)}, by {'head' if heads else 'layer'} ({_counts(frame, rows)})"
    if metric != primary_metric(frame):
        said = f"{metric.replace('_', ' ')}, {said}"
    if left_out:
        said += f"; {left_out} places before {place_words(places[0])} left out: every effect there is 0"
    return _by_place(shown, places, about(key.words, said), heads=heads, symbols=symbols)


def patching_scan_figure(frame: pd.DataFrame, *, symbols: Symbols = NO_SYMBOLS) -> go.Figure:
    """Effects of the cells that a scan flags, sites by places; gray where a cell is not told from nothing.

    Of one trained model and one pair family, `PatchingResult.scan`.
    """
    key, pair = only_run(frame), only(frame, "pair")
    rows = frame.assign(effect=frame["effect"].where(frame["flagged"].astype(bool)), row=frame["site"])
    panels = [
        [Panel(f"<b>{kind}</b>, {_DIRECTIONS[str(direction)]}", tuple(of_kind["row"].unique()[::-1]), of_kind)]
        for (direction, kind), of_kind in rows.groupby(["direction", "kind"], sort=False)
    ]
    return place_heatmaps(
        panels,
        places=reading_order(rows),
        value="effect",
        scale=_EFFECT,
        title=about(key.words, f"{pair_words(pair)}: effects that a scan tells from nothing{_not_flagged(frame)}"),
        symbols=symbols,
        hover=("ci_low", "ci_high", "p_adjusted", "n"),
    )


def _not_flagged(scanned: pd.DataFrame) -> str:
    """How many cells are flagged; where none is, the reason that most of them share."""
    flagged = int(scanned["flagged"].sum())
    if flagged or "reason" not in scanned or scanned.empty:
        return f" ({flagged} of {len(scanned)} cells)"
    return f" (none of {len(scanned)} cells: {scanned['reason'].mode().iloc[0]})"


def patching_figures(frame: pd.DataFrame, *, symbols: dict[RunKey, Symbols] | None = None) -> list[NamedFigure]:
    """`patching_figure` of every trained model and pair family in a table, by layer and by head."""
    figures = []
    for key, run in runs_of(frame):
        for pair, of_pair in run.groupby("pair", sort=False):
            kinds = set(of_pair["kind"])
            for view, sites in {"layer": LAYER_SITES, "head": HEAD_SITES}.items():
                if kinds & set(sites):
                    known = (symbols or {}).get(key, NO_SYMBOLS)
                    figure = patching_figure(of_pair, heads=view == "head", symbols=known)
                    figures.append(NamedFigure(file_name(f"patching-{key.slug}-{pair}-{view}s"), figure))
    return figures


def _counts(of_pair: pd.DataFrame, rows: pd.DataFrame) -> str:
    """How many pairs there are, and whether the model tells them apart at all."""
    pairs = distinguished_pairs(of_pair)
    counts = f"n = {int(rows['n'].max())} pairs"
    if "reason" in rows and rows["effect"].isna().all() and (why := str(rows["reason"].iloc[0])):
        counts += f": no effects, {why.rstrip('.')}"
    return counts if pairs is None else f"{counts}, the top prediction tells {pairs[0]} of {pairs[1]} apart"


def _by_place(rows: pd.DataFrame, places: tuple[Place, ...], title: str, *, heads: bool, symbols: Symbols) -> go.Figure:
    layer = "L" + rows["layer"].astype(int).astype(str)
    cells = rows.assign(row=layer + "H" + rows["head"].astype(int).astype(str) if heads else layer)
    order = cells.sort_values(["layer", "head"] if heads else ["layer"], ascending=False)["row"].drop_duplicates()
    kinds = [site for site in (*LAYER_SITES, *HEAD_SITES) if site in set(cells["kind"])]
    directions = [direction for direction in _DIRECTIONS if direction in set(cells["direction"])]
    panels = [
        [
            Panel(
                f"<b>{kind}</b>, {_DIRECTIONS[direction]}",
                tuple(order),
                cells[(cells["kind"] == kind) & (cells["direction"] == direction)],
            )
            for direction in directions
        ]
        for kind in kinds
    ]
    return place_heatmaps(
        panels,
        places=places,
        value="effect",
        scale=_EFFECT,
        title=title,
        row_axis="head" if heads else "layer",
        symbols=symbols,
        cell=16 if heads else 20,
    )


CHANGED = {
    "prompt_operand": "prompt operand",
    "written_total": "written total",
    "both": "both",
    "unrelated": "unrelated operand",
}
"""What a family of pairs changes, in words."""


def families_figure(frame: pd.DataFrame) -> go.Figure:
    """A bar for each change, cut into what the changed run puts first; a panel for each trained model of a task."""
    runs = [key.words for key, rows in runs_of(frame) for _ in range(len(rows))]
    table = frame.assign(
        change=pd.Categorical(frame["family"].map(CHANGED), list(CHANGED.values()), ordered=True),
        run=runs,
        prediction=frame["prediction"].map({"answer": "as before", "foil": "follows the change", "other": "neither"}),
    )
    return stacked_bars(
        table,
        x="change",
        y="share",
        color="prediction",
        facet="run" if any(runs) else None,
        bounds=(0.0, 1.0),
        title=about(only(frame, "task"), f"what is written as {only(frame, 'readout')} after one change"),
        x_title="what was changed",
        y_title="share of problems",
        hover=["count", "n"],
    )


def agreement_figure(cells: pd.DataFrame, *, title: str) -> go.Figure:
    """Estimate (`score`) over truth (`effect`), one point a cell, colored by kind; on the line they agree."""
    figure = grid(title=title, heights=[420])
    for number, (kind, of_kind) in enumerate(cells.groupby("kind", sort=False)):
        figure.add_scatter(
            x=of_kind["effect"],
            y=of_kind["score"],
            mode="markers",
            name=str(kind),
            marker={"color": PALETTE[number % len(PALETTE)], "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 7},
            text=of_kind["site"] + " at " + of_kind["place"],
            hovertemplate="%{text}: true %{x:.3f}, estimated %{y:.3f}",
        )
    ends = cells[["effect", "score"]].to_numpy(dtype=float)
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    figure.add_shape(type="line", x0=low, x1=high, y0=low, y1=high, line={"color": GRAY, "dash": "dot"})
    figure.update_xaxes(title_text="effect of the patch")
    return figure.update_yaxes(title_text="estimate from gradients")
