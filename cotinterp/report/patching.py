"""What a restored or removed activation does to the answer: layer (or head) by place of the transcript."""

import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.runs import ReportFigure, RunKey, file_name, runs_of
from cotinterp.report.panels import Panel, Scale, heatmap_grid
from cotinterp.report.places import Place, Symbols, reading_order

LAYER_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
HEAD_SITES = ("z", "q", "k", "v", "pattern")
SCALE = Scale(-1.0, 1.0, "RdBu", "normalized effect", written=0.05)
DIRECTION_WORDS = {"denoise": "denoise (clean into corrupted)", "noise": "noise (corrupted into clean)"}


def kind_of(frame: pd.DataFrame) -> pd.Series:
    """The kind of site of each row: `resid_pre` for L2.resid_pre, `z` for L1H3.z, the name itself for a baseline."""
    return frame["site"].str.rsplit(".", n=1).str[-1]


def is_cell(frame: pd.DataFrame) -> pd.Series:
    """True for the rows that are one site at one place; False for baselines (self, full, random donor)."""
    return kind_of(frame).isin([*LAYER_SITES, *HEAD_SITES])


def primary_metric(frame: pd.DataFrame) -> str:
    """The metric that figures show: the logit difference if the table has it, else the table's first metric."""
    metrics = [str(metric) for metric in frame["metric"].unique()]
    return next((metric for metric in metrics if metric.startswith("logit_diff")), metrics[0])


def pair_words(pair: str) -> str:
    """A family of pairs in words: `operand 2 -> answer 3` is `operand 2 differs, read at answer 3`."""
    changed, _, readout = pair.replace("_", " ").partition(" -> ")
    return f"{changed} differs" + (f", read at {readout}" if readout else "")


def told_apart(of_pair: pd.DataFrame) -> tuple[int, int] | None:
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
    alive = {Place(str(role), int(step)) for role, step in rows.loc[rows["effect"] != 0, ["role", "step"]].to_numpy()}
    start = next((index for index, place in enumerate(places) if place in alive), 0)
    return places[start:], start


def patching_figures(frame: pd.DataFrame, *, symbols: dict[RunKey, Symbols] | None = None) -> list[ReportFigure]:
    """Effects of patching one site at one place, by kind of site and by head, for each trained model and pair family.

    Effect 0: as without a patch; 1: as if every activation were patched. Denoising asks what is enough, noising what is
    needed; on serial chains and redundant circuits the two differ. Colors end at -1 and 1, the numbers on hover do not.
    A cell shows that information at that place matters to the answer, not that the model computes there.
    """
    figures = []
    for key, run in runs_of(frame.assign(kind=kind_of(frame))):
        for pair, of_pair in run.groupby("pair", sort=False):
            rows = of_pair[is_cell(of_pair) & (of_pair["metric"] == primary_metric(of_pair))]
            if rows.empty:
                continue
            places, left_out = without_dead_start(rows)
            known = (symbols or {}).get(key)
            for view, sites in {"layer": LAYER_SITES, "head": HEAD_SITES}.items():
                shown = rows[rows["kind"].isin(sites)]
                if len(shown):
                    name = file_name(f"patching-{key.slug}-{pair}-{view}s")
                    caption = f"{key.words}: {pair_words(str(pair))}, by {view} ({_about(of_pair, rows)})"
                    if left_out:
                        caption += f"; {left_out} places before {places[0].words} left out: every effect there is 0"
                    figure = _figure(shown, places, known, by_head=view == "head")
                    figures.append(ReportFigure(name, caption, figure))
    return figures


def _about(of_pair: pd.DataFrame, rows: pd.DataFrame) -> str:
    """How many pairs there are, and whether the model tells them apart at all."""
    told = told_apart(of_pair)
    about = f"n = {int(rows['n'].max())} pairs"
    return about if told is None else f"{about}, the top prediction tells {told[0]} of {told[1]} apart"


def _figure(rows: pd.DataFrame, places: tuple[Place, ...], symbols: Symbols | None, *, by_head: bool) -> go.Figure:
    layer = "L" + rows["layer"].astype(int).astype(str)
    cells = rows.assign(row=layer + "H" + rows["head"].astype(int).astype(str) if by_head else layer)
    order = cells.sort_values(["layer", "head"] if by_head else ["layer"], ascending=False)["row"].drop_duplicates()
    kinds = [site for site in (*LAYER_SITES, *HEAD_SITES) if site in set(cells["kind"])]
    directions = [direction for direction in DIRECTION_WORDS if direction in set(cells["direction"])]
    grid = [
        [
            Panel(
                f"<b>{kind}</b>, {DIRECTION_WORDS[direction]}",
                tuple(order),
                cells[(cells["kind"] == kind) & (cells["direction"] == direction)],
            )
            for direction in directions
        ]
        for kind in kinds
    ]
    return heatmap_grid(
        grid,
        places=places,
        value="effect",
        scale=SCALE,
        row_axis="head" if by_head else "layer",
        symbols=symbols,
        cell=16 if by_head else 20,
    )
