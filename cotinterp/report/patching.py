"""What a restored or removed activation does to the answer: layer (or head) by place of the transcript."""

import pandas as pd

from cotinterp.report.panels import Panel, Scale, heatmap_grid
from cotinterp.report.places import Symbols, reading_order
from cotinterp.report.runs import ReportFigure, RunKey, file_name, runs_of

LAYER_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
HEAD_SITES = ("z", "q", "k", "v", "pattern")
SCALE = Scale(-1.0, 1.0, "RdBu", "normalized effect")
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


def patching_figures(frame: pd.DataFrame, *, symbols: dict[RunKey, Symbols] | None = None) -> list[ReportFigure]:
    """Effects of patching one site at one place, by kind of site and by head, for each trained model and pair family.

    Effect 0: as without a patch; 1: as if every activation were patched. Denoising asks what is enough, noising what is
    needed; on serial chains and redundant circuits the two differ. Colors end at -1 and 1, the numbers on hover do not.
    A cell shows that information at that place matters to the answer, not that the model computes there.
    """
    figures = []
    cells = frame.assign(kind=kind_of(frame))[is_cell(frame)]
    for key, run in runs_of(cells):
        for pair, of_pair in run.groupby("pair", sort=False):
            rows = of_pair[of_pair["metric"] == primary_metric(of_pair)]
            known = (symbols or {}).get(key)
            layers = rows[rows["kind"].isin(LAYER_SITES)]
            heads = rows[rows["kind"].isin(HEAD_SITES)]
            pair_words = str(pair).replace("_", " ")
            if len(layers):
                caption = f"{key.words}: pairs that differ in {pair_words}, by layer"
                figures.append(
                    _figure(file_name(f"patching-{key.slug}-{pair}-layers"), caption, layers, known, by_head=False)
                )
            if len(heads):
                caption = f"{key.words}: pairs that differ in {pair_words}, by head"
                figures.append(
                    _figure(file_name(f"patching-{key.slug}-{pair}-heads"), caption, heads, known, by_head=True)
                )
    return figures


def _figure(name: str, caption: str, rows: pd.DataFrame, symbols: Symbols | None, *, by_head: bool) -> ReportFigure:
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
    figure = heatmap_grid(
        grid,
        places=reading_order(rows),
        value="effect",
        scale=SCALE,
        row_axis="head" if by_head else "layer",
        symbols=symbols,
        cell=16 if by_head else 20,
    )
    return ReportFigure(name, caption, figure)
