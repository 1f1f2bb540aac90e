"""What the runs of a contrast put first, before anything is patched: the answer, the foil, or something else.

This is the behavioral half of every patching result. On a `prompt_operand` pair the corrupted run of a reader keeps the
answer and that of a recomputer goes over to the foil; on a `written_total` pair it is the other way round. A pair on
which both runs put the same first has no gap to patch, and that is an answer too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.figures import stacked_bars
from cotinterp.figures.patching import families_figure
from cotinterp.mechanism.activations import BUDGET, Budget, at_positions
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.model import HookedModel
from cotinterp.results import Result, wilson, with_labels

PREDICTIONS = ("answer", "foil", "other")
_ROWS_AT_ONCE = 256
FOLLOWS = 0.8
"""Share of examples in which a run must go over to the foil (or, to stay, must not: 1 - FOLLOWS)."""


@dataclass(frozen=True, eq=False)
class RunPredictions(Result):
    """By run (clean, corrupted, reference) and example, what has the highest logit, as an index into `PREDICTIONS`."""

    predicted: Mapping[str, Int[np.ndarray, " batch"]]
    pair: str
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def share(self, run: str, prediction: str) -> float:
        """In which share of the examples `run` puts `prediction` first. KeyError for runs that were not made."""
        if run not in self.predicted:
            raise KeyError(f"no run {run!r} in this contrast; it has {list(self.predicted)}")
        return float((self.predicted[run] == PREDICTIONS.index(prediction)).mean())

    @property
    def distinguished(self) -> float:
        """Share of examples with the answer first in the clean run and the foil first in the run that sets the unit."""
        other = self.predicted["reference" if "reference" in self.predicted else "corrupted"]
        return float(((self.predicted["clean"] == 0) & (other == 1)).mean())

    def frame(self) -> pd.DataFrame:
        """One row per run and prediction: pair, run, prediction, count, n, share, and its Wilson interval."""
        rows = []
        for run, codes in self.predicted.items():
            for code, prediction in enumerate(PREDICTIONS):
                count, n = int((codes == code).sum()), len(codes)
                low, high = wilson(count, n)
                row = {"pair": self.pair, "run": run, "prediction": prediction, "count": count, "n": n}
                rows.append({**row, "share": count / n, "ci_low": low, "ci_high": high})
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """A bar for each run, cut into what it puts first."""
        return stacked_bars(
            self.frame(),
            x="run",
            y="share",
            color="prediction",
            title=f"{self.pair} changed: what each run puts first",
            y_title="share of examples",
            hover=("count", "n"),
        )


def run_predictions(
    model: HookedModel,
    contrast: Contrast,
    *,
    budget: Budget = BUDGET,
    labels: Mapping[str, str | int] | None = None,
) -> RunPredictions:
    """What `model` puts first in each run of `contrast`, without any patch. A sweep records the same: `runs()`."""
    size = budget.batch_size or _ROWS_AT_ONCE
    runs = {"clean": contrast.clean, "corrupted": contrast.corrupted, "reference": contrast.reference}
    found = {}
    for run, tokens in runs.items():
        if tokens is None:
            continue
        parts = []
        for start in range(0, len(contrast), size):
            part = contrast.select(slice(start, start + size))
            logits = run_with(model, tokens[start : start + size], [])
            parts.append(predictions(logits, part.at, part.answer, part.foil))
        found[run] = np.concatenate(parts)
    return RunPredictions(found, contrast.pair, dict(labels or {}))


def predictions(
    logits: Float[Tensor, "batch pos d_vocab"],
    at: Int[Tensor, " batch"],
    answer: Int[Tensor, " batch"],
    foil: Int[Tensor, " batch"],
) -> Int[np.ndarray, " batch"]:
    """What has the highest logit at `at`: 0 the answer, 1 the foil, 2 another token."""
    first = at_positions(logits, at).argmax(dim=-1)
    other = torch.full_like(first, 2)
    found = torch.where(first == answer.to(first.device), 0, torch.where(first == foil.to(first.device), 1, other))
    return found.cpu().numpy()


def source(families: Mapping[str, RunPredictions], *, follows: float = FOLLOWS) -> str:
    """Where the total comes from, by the families of `pair_families`: `trace`, `prompt`, `either`, or `undecided`.

    A corrupted run follows its change where it puts the foil first in at least `follows` of the examples, and stays
    where it puts the answer first in as many. `trace`: it follows the written total and stays under a changed prompt
    (a reader). `prompt`: the other way round (a recomputer). Both follow: `either`, which is no model of one source.
    `undecided` for everything between, and where the control fails: `both` must be followed, `unrelated` must not.

    This is a behavior under an edit that the model was not trained on; it says what the value depends on, not where in
    the model. KeyError where a family is missing.
    """
    wanted = ("prompt_operand", "written_total", "both", "unrelated")
    missing = [family for family in wanted if family not in families]
    if missing:
        raise KeyError(f"families {missing} are missing; pair_families makes {list(wanted)}")
    follow = {family: families[family].share("corrupted", "foil") >= follows for family in wanted}
    stay = {family: families[family].share("corrupted", "answer") >= follows for family in wanted}
    if not (follow["both"] and stay["unrelated"]):
        return "undecided"
    if follow["written_total"] and stay["prompt_operand"]:
        return "trace"
    if follow["prompt_operand"] and stay["written_total"]:
        return "prompt"
    return "either" if follow["prompt_operand"] and follow["written_total"] else "undecided"


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
        return families_figure(self.frame())


def family_predictions(
    model: HookedModel,
    contrasts: Mapping[str, Contrast],
    *,
    budget: Budget = BUDGET,
    labels: Mapping[str, str | int] | None = None,
) -> FamilyPredictions:
    """Run the contrast of every family of `pair_families`, without any patch. KeyError where a family is missing."""
    runs = {family: run_predictions(model, contrast, budget=budget) for family, contrast in contrasts.items()}
    source(runs)
    return FamilyPredictions(runs, contrasts["both"].readout, dict(labels or {}))
