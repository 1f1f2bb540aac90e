"""Where a written value comes from, the trace or the prompt: the four families of pairs, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.run_predictions import RunPredictions, run_predictions, source
from cotinterp.results import Result, with_labels
from cotinterp.results.plots import stacked_bars
from cotinterp.transcripts.pairs import Pairs

WORDS = {
    "prompt_operand": "an operand, the trace as it was",
    "written_total": "the written total, the prompt as it was",
    "both": "the operand and all that follows",
    "unrelated": "a later operand",
}


@dataclass(frozen=True, eq=False)
class FamilyPredictions(Result):
    """What a model puts first at one readout after each of four changes of the same problems.

    `source` says what the value depends on, by a declared rule (`run_predictions.source`): `trace`, `prompt`, `either`
    or `undecided`. It is behavior under an edit that the model was not trained on, and names no place in the model.
    """

    families: Mapping[str, RunPredictions]
    readout: str
    labels: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """`trace`, `prompt`, `either` or `undecided`."""
        return source(self.families)

    def frame(self) -> pd.DataFrame:
        """One row for each family and prediction of its changed run: count, n, share, Wilson interval; and the source.

        `prediction`: `answer`, what the unchanged run should put first; `foil`, what follows from the change; `other`.
        """
        parts = []
        for family, runs in self.families.items():
            table = runs.frame()
            table = table[table["run"] == "corrupted"][["prediction", "count", "n", "share", "ci_low", "ci_high"]]
            parts.append(table.assign(family=family, readout=self.readout, source=self.source))
        table = pd.concat(parts, ignore_index=True)
        first = ["family", "readout"]
        return with_labels(table[[*first, *table.columns.drop([*first, "source"]), "source"]], self.labels)

    def figure(self) -> go.Figure:
        """A bar for each family, cut into what the changed run puts first."""
        table = self.frame()
        named = ", ".join(str(value) for value in self.labels.values())
        return stacked_bars(
            table.assign(change=table["family"].map(WORDS)),
            x="change",
            y="share",
            color="prediction",
            bounds=(0.0, 1.0),
            title=f"What is written as {self.readout} after one change ({named or self.source})",
            x_title="what was changed",
            y_title="share of problems",
            hover=("count", "n"),
        )


def family_predictions(
    model: HookedModel, families: Mapping[str, Pairs], *, labels: Mapping[str, str | int] | None = None
) -> FamilyPredictions:
    """Run every family of `pair_families`, without any patch. KeyError where a family is missing."""
    runs = {family: run_predictions(model, Contrast.from_pairs(pairs)) for family, pairs in families.items()}
    source(runs)
    role, step = families["both"].readout
    return FamilyPredictions(runs, f"{role.value} {step}", dict(labels or {}))
