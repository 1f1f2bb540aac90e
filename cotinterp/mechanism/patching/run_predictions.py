"""What the runs of a contrast put first, before anything is patched: the answer, the foil, or something else.

This is the behavioral half of every patching result. On a `prompt_operand` pair the corrupted run of a reader keeps the
answer and that of a recomputer goes over to the foil; on a `written_total` pair it is the other way round. A pair on
which both runs put the same first has no gap to patch, and that is an answer too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.figures import stacked_bars
from cotinterp.figures.patching import families_figure
from cotinterp.mechanism.activations import BUDGET, Budget, at_positions, require_count
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.model import HookedModel, is_causal
from cotinterp.results import Result, wilson, with_labels

PREDICTIONS = ("answer", "foil", "other")
_ROWS_AT_ONCE = 256
FAMILIES = ("prompt_operand", "written_total", "both", "unrelated")
"""The families that `source` asks for."""
FOLLOWS = 0.8
"""A run goes over to the foil (or keeps the answer) where the 95% Wilson interval of the share that does lies above."""
LEAST_PAIRS = 16
"""Fewest pairs of a family that decide anything: of fewer, the interval of a share of 1 reaches below FOLLOWS."""
_Z = 1.96


Content = tuple[tuple[int, ...], tuple[int, ...], int, int, int]
"""Clean and corrupted tokens of a pair as far as they count, its readout, answer and foil."""


def contents_of(contrast: Contrast, *, causal: bool) -> list[Content]:
    """What each pair is, to a model that at the readout sees what stands before it (`causal`) or all tokens.

    ValueError for a pair that is given again: it is no further evidence, but would narrow every interval.
    """
    columns = (contrast.clean, contrast.corrupted, contrast.at, contrast.answer, contrast.foil)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    pairs = [
        (tuple(clean[: at + 1 if causal else None]), tuple(corrupted[: at + 1 if causal else None]), at, answer, foil)
        for clean, corrupted, at, answer, foil in rows
    ]
    first: dict[Content, int] = {}
    if again := [i for i, pair in enumerate(pairs) if first.setdefault(pair, i) != i]:
        raise ValueError(
            f"{len(again)} of {len(pairs)} pairs are given again (pair {again[0]} is pair {first[pairs[again[0]]]}): a "
            "repeated pair is no further evidence. Keep each once with Contrast.select."
        )
    return pairs


def require_changed(pairs: Sequence[Content]) -> None:
    """ValueError where clean and corrupted are the same tokens in some of the pairs."""
    if same := [i for i, (clean, corrupted, *_) in enumerate(pairs) if clean == corrupted]:
        raise ValueError(
            f"clean and corrupted are the same tokens up to the readout in {len(same)} of {len(pairs)} pairs (pair "
            f"{same[0]} is the first): nothing was changed there. Leave them out with Contrast.select, or read later."
        )


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
    """What `model` puts first in each run of `contrast`, without any patch. A sweep records the same: `runs()`.

    ValueError for a pair that is repeated, or in which nothing was changed before the readout.
    """
    require_changed(contents_of(contrast, causal=is_causal(model)))
    size = _ROWS_AT_ONCE if budget.batch_size is None else budget.batch_size
    require_count("batch_size", size)
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
    """What has the highest logit at `at`: 0 the answer, 1 the foil, 2 another token. ValueError for NaN logits."""
    read = at_positions(logits, at)
    if missing := int(read.isnan().any(dim=-1).sum()):
        raise ValueError(
            f"the logits at the readout are NaN in {missing} of {len(read)} runs: nothing comes first there."
        )
    first = read.argmax(dim=-1)
    other = torch.full_like(first, 2)
    found = torch.where(first == answer.to(first.device), 0, torch.where(first == foil.to(first.device), 1, other))
    return found.cpu().numpy()


def source(families: Mapping[str, RunPredictions], *, follows: float = FOLLOWS, least: int = LEAST_PAIRS) -> str:
    """Where the total comes from, by the families of `pair_families`: `trace`, `prompt`, `either`, or `undecided`.

    A corrupted run follows its change where it puts the foil first, and stays where it puts the answer first, in a
    share of the examples whose 95% Wilson interval lies above `follows`. `trace`: it follows the written total and
    stays under a changed prompt (a reader). `prompt`: the other way round (a recomputer). Both follow: `either`, which
    is no model of one source. `undecided` for everything between, where the control fails (`both` must be followed,
    `unrelated` must not), where a family has fewer than `least` pairs, and where one is missing; `would_decide` says
    which of these it is.

    This is a behavior under an edit that the model was not trained on; it says what the value depends on, not where in
    the model.
    """
    return _judged(families, follows, least)[0]


def would_decide(families: Mapping[str, RunPredictions], *, follows: float = FOLLOWS, least: int = LEAST_PAIRS) -> str:
    """Why `source` is undecided, and what would decide it; empty where it is decided."""
    return _judged(families, follows, least)[1]


def _judged(families: Mapping[str, RunPredictions], follows: float, least: int) -> tuple[str, str]:
    if missing := [family for family in FAMILIES if family not in families]:
        return "undecided", f"no pairs of {', '.join(missing)}: all four families of pair_families are needed"
    counts = {family: len(families[family].predicted["corrupted"]) for family in FAMILIES}
    few = [f"{n} pairs of {family}" for family, n in counts.items() if n < least]
    if few:
        return "undecided", f"only {', '.join(few)}: it takes {least} at least"

    def above(family: str, prediction: str) -> bool:
        n = counts[family]
        return wilson(round(n * families[family].share("corrupted", prediction)), n)[0] >= follows

    follow, stay = ({family: above(family, to) for family in FAMILIES} for to in ("foil", "answer"))
    if follow["both"] and stay["unrelated"]:
        if follow["written_total"] and stay["prompt_operand"]:
            return "trace", ""
        if follow["prompt_operand"] and stay["written_total"]:
            return "prompt", ""
        if follow["prompt_operand"] and follow["written_total"]:
            return "either", ""
    control = {"both": follow["both"], "unrelated": stay["unrelated"]}
    open_ones = [family for family in FAMILIES if not control.get(family, follow[family] or stay[family])]
    said = [_open(family, families[family], counts[family], follows) for family in open_ones]
    return "undecided", "; ".join(said) or "neither change is followed, and both together are: more pairs do not decide"


def _open(family: str, runs: RunPredictions, n: int, follows: float) -> str:
    """What is wanting of a family that neither follows nor stays, or of a control that does not do what it must."""
    wanted = {"both": ("foil",), "unrelated": ("answer",)}.get(family, ("foil", "answer"))
    share, best = max((runs.share("corrupted", to), to) for to in wanted)
    low, high = wilson(round(n * share), n)
    said = f"{family}: {best} first in {share:.0%} of {n} pairs ({low:.0%} to {high:.0%}, must lie above {follows:.0%})"
    if share > follows:
        takes = math.ceil(_Z**2 * follows * (1 - follows) / (share - follows) ** 2)
        return f"{said}: about {takes} pairs at that share decide"
    return f"{said}: more pairs {'may' if high >= follows else 'do not'} decide"


@dataclass(frozen=True, eq=False)
class FamilyPredictions(Result):
    """What a model puts first at one readout after each of four changes of the same problems.

    `source` says what the value depends on, by a declared rule (`run_predictions.source`): `trace`, `prompt`, `either`
    or `undecided`; `would_decide` what is wanting where it is undecided. It is behavior under an edit that the model
    was not trained on, and names no place in the model.
    """

    families: Mapping[str, RunPredictions]
    readout: str
    labels: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """`trace`, `prompt`, `either` or `undecided`."""
        return source(self.families)

    @property
    def would_decide(self) -> str:
        """Why the source is undecided, and what would decide it; empty where it is decided."""
        return would_decide(self.families)

    def frame(self) -> pd.DataFrame:
        """One row for each family and prediction of its changed run: count, n, share, Wilson interval; the source,
        and what would decide it.

        `prediction`: `answer`, what the unchanged run should put first; `foil`, what follows from the change; `other`.
        """
        parts = []
        for family, runs in self.families.items():
            table = runs.frame()
            table = table[table["run"] == "corrupted"][["prediction", "count", "n", "share", "ci_low", "ci_high"]]
            parts.append(table.assign(family=family, readout=self.readout))
        table = pd.concat(parts, ignore_index=True).assign(source=self.source, would_decide=self.would_decide)
        first = ["family", "readout"]
        return with_labels(table[[*first, *table.columns.drop(first)]], self.labels)

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
    """Run the contrast of every family of `pair_families`, without any patch; one that is missing leaves `source` open.

    ValueError for no family at all, an unknown one, and families that do not ask the same question of the same pairs.
    """
    unknown = [family for family in contrasts if family not in FAMILIES]
    if unknown or not contrasts:
        raise ValueError(f"families {unknown or '(none)'} were given; known are {list(FAMILIES)}.")
    asked = {
        family: [(clean, *question) for clean, _, *question in contents_of(contrast, causal=is_causal(model))]
        for family, contrast in contrasts.items()
    }
    first = next(iter(asked))
    if others := [family for family, rows in asked.items() if rows != asked[first]]:
        raise ValueError(
            f"{others} do not ask what {first!r} asks: clean tokens, readout, answer and foil must be the same row by "
            "row. Make all families together with pair_families."
        )
    runs = {family: run_predictions(model, contrast, budget=budget) for family, contrast in contrasts.items()}
    return FamilyPredictions(runs, contrasts[first].readout, dict(labels or {}))
