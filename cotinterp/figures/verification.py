"""Figures of verifiers: how well each tells right steps from wrong ones, and whether the model reads what it reads."""

import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.lines import lines


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
