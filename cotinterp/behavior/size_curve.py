"""Accuracy against the number of training problems: an algorithm needs few, a table needs them all.

A table of tuples holds no held-out problem (the sides are disjoint), however large it grows; it answers them only as
far as near neighbors share the answer. Where held-out accuracy rises with the number of training problems at the same
number of updates, something that generalizes was learned from enough of them. A curve of one seed for each size
describes those models, not the training method.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from cotinterp.behavior.generalization import GeneralizationResult
from cotinterp.results.intervals import wilson
from cotinterp.results.plots import lines
from cotinterp.results.result import Result
from cotinterp.training.spec import RunSpec

SIZES = (100, 300, 1000, 3000, 10_000)


def size_specs(spec: RunSpec, sizes: Sequence[int] = SIZES) -> dict[int, RunSpec]:
    """The run of `spec` at each number of training problems, all else equal; the number of updates in particular.

    Smaller sets are not subsets of larger ones: each is drawn anew from the training side. ValueError without sizes.
    """
    if not sizes:
        raise ValueError("a curve needs at least one number of training problems")
    return {n: spec.model_copy(update={"n_train": n}) for n in sorted(set(sizes))}


@dataclass(frozen=True)
class SizeCurve(Result):
    """Generalization of otherwise equal runs by number of training problems."""

    runs: Mapping[int, GeneralizationResult]

    def frame(self) -> pd.DataFrame:
        """The rows of every run's generalization table, with `training_size` behind the labels."""
        parts = []
        for size, result in sorted(self.runs.items()):
            table = result.frame()
            table.insert(len(result.labels), "training_size", size)
            parts.append(table)
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> go.Figure:
        """Accuracy against training problems, a panel for each number of operands; training problems dashed."""
        table = self.frame()
        sides = []
        for side, words in (("heldout", "held-out problems"), ("train", "training problems")):
            part = table.assign(side=words, accuracy=table[side], n=table[f"n_{side}"].astype(int))
            intervals = [wilson(round(p * n), n) for p, n in zip(part["accuracy"], part["n"], strict=True)]
            sides.append(part.assign(ci_low=[i.low for i in intervals], ci_high=[i.high for i in intervals]))
        named = ", ".join(str(table[name].iloc[0]) for name in ("task", "regime"))
        return lines(
            pd.concat(sides).assign(facet=lambda rows: rows["k"].map("K = {}".format)),
            x="training_size",
            y="accuracy",
            low="ci_low",
            high="ci_high",
            dash="side",
            facet="facet",
            bounds=(0.0, 1.0),
            title=f"Accuracy against the number of training problems: {named}",
            x_title="training problems",
            y_title="share of answers that are right",
            hover=["n", "ratio"],
        )
