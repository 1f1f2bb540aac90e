"""What attribution patching estimates: per example until the table, in the format of patching.csv."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.mechanism.contrast import Address
from cotinterp.mechanism.effects import Effects, NoGapError, has_gap, missing_effects, normalized_effects
from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.patching.attribution_agreement import AttributionAgreement, agreement_of
from cotinterp.mechanism.patching.block import FIRST, Cell
from cotinterp.mechanism.patching.blocks import Changes
from cotinterp.mechanism.patching.result import COLUMNS, SPOKEN, PatchingResult
from cotinterp.results import Result, with_labels
from cotinterp.results.plots import heatmap


@dataclass(frozen=True, eq=False)
class AttributionPatchingResult(Result):
    """Estimated effects of every cell, per example until asked for the table, and never to be shown alone.

    `measured.changes` are the scores: what patching the cell would change in the metric if the model were linear.
    `effects` normalizes them as `PatchingResult.effects` does. `steps`: gradients averaged, 1 at the recipient alone.
    """

    cells: tuple[Cell, ...]
    measured: Changes
    addresses: Mapping[str, Address]
    steps: int
    direction: str
    pair: str
    labels: Mapping[str, str | int]
    seed: int = 0

    @property
    def metric(self) -> MetricName:
        """The metric whose gradient was taken."""
        (name,) = self.measured.gaps
        return name

    def effects(self) -> Effects:
        """Estimated effect of every cell with its interval over pairs, in the order of `cells`.

        The interval is of the estimate over examples; it knows nothing of how far the estimate is from the truth.
        """
        return normalized_effects(self.measured.changes[self.metric], self.measured.gaps[self.metric], seed=self.seed)

    def baselines(self) -> dict[str, Effects]:
        """`self` (exactly 0), `full` (`whole_change` with a reference: all of it, as estimated) and `random_donor`."""
        gap, found = self.measured.gaps[self.metric], {}
        for key, values in self.measured.baselines.items():
            some = bool(np.isfinite(values[self.metric])[has_gap(gap)].any())
            change = values[self.metric][None]
            found[key] = normalized_effects(change, gap, seed=self.seed) if some else missing_effects(1, len(gap))
        return found

    def agreement(
        self, patching: PatchingResult, *, ranking: str = "absolute", top: Sequence[int] = (5, 10, 20)
    ) -> AttributionAgreement:
        """How well these estimates stand for true patching of the same pairs: report it with the scores.

        `ranking`: whether sites are ranked by the size of their effect or by the signed effect; circuits differ by it.
        ValueError where the two are not about the same pairs, direction and metric, or share no cell.
        """
        self._check_same(patching)
        theirs = {cell: i for i, cell in enumerate(patching.cells)}
        shared = [i for i, cell in enumerate(self.cells) if cell in theirs]
        if not shared:
            raise ValueError("the two sweeps have no cell in common: score the kinds and heads that were patched.")
        cells = tuple(self.cells[i] for i in shared)
        score = self.effects().effect[shared]
        effect = patching.effects(self.metric).effect[[theirs[cell] for cell in cells]]
        about: dict[str, str | int] = {
            "metric": self.metric,
            "direction": self.direction,
            "pair": self.pair,
            "steps": self.steps,
        }
        return agreement_of(cells, score, effect, ranking=ranking, top=top, labels={**self.labels, **about})

    def frame(self) -> pd.DataFrame:
        """One row per cell in the columns of tables/patching.csv, the baselines first; `effect` is the estimate."""
        table = pd.DataFrame(list(self._rows())).astype({"head": "Int64"})[list(COLUMNS)]
        return with_labels(table, {"task": "", "regime": "", "seed": "", **self.labels})

    def figure(self) -> go.Figure:
        """Layers and heads by places, one facet per kind; red is negative, blue positive, white 0."""
        table = self.frame().iloc[-len(self.cells) :]
        table = table.assign(
            kind=[f"{cell.site.kind}{'' if cell.site.head is None else ' of heads'}" for cell in self.cells],
            block=[cell.site.block for cell in self.cells],
            place=[cell.place for cell in self.cells],
        )
        how = "at the recipient" if self.steps == 1 else f"averaged over {self.steps} steps"
        return heatmap(
            table,
            x="place",
            y="block",
            value="effect",
            facet="kind",
            midpoint=0.0,
            title=f"{self.pair} changed, {self.direction}: effect on the {SPOKEN.get(self.metric, self.metric)}, "
            f"estimated from gradients {how}. Read beside the agreement with true patching.",
            x_title="place",
            y_title="layer or head",
            value_title="estimated effect",
        )

    def _rows(self) -> Iterator[dict[str, Any]]:
        shared = {"pair": self.pair, "direction": self.direction, "metric": self.metric}
        try:
            effects, baselines = self.effects(), self.baselines()
        except NoGapError:
            pairs = len(self.measured.gaps[self.metric])
            effects = missing_effects(len(self.cells), pairs)
            baselines = dict.fromkeys(self.measured.baselines, missing_effects(1, pairs))
        for key, baseline in baselines.items():
            address = {"site": key, "layer": FIRST.layer, "head": None, "role": "all", "step": -1}
            yield {**shared, **address, **_numbers(baseline, 0)}
        for i, cell in enumerate(self.cells):
            site, (role, step, _) = cell.site, self.addresses[cell.place]
            address = {"site": site.label, "layer": site.layer, "head": site.head, "role": role, "step": step}
            yield {**shared, **address, **_numbers(effects, i)}

    def _check_same(self, patching: PatchingResult) -> None:
        ours = {"pair": self.pair, "direction": self.direction}
        theirs = {"pair": patching.pair, "direction": patching.direction}
        if ours != theirs:
            raise ValueError(f"attribution is of {ours}, patching of {theirs}: compare sweeps of the same contrast.")
        if self.metric not in patching.metrics:
            raise ValueError(f"{self.metric} was not patched, only {list(patching.metrics)} were.")
        gaps = self.measured.gaps[self.metric], patching.measured.gaps[self.metric]
        if len(gaps[0]) != len(gaps[1]) or not np.allclose(*gaps, rtol=1e-3, atol=1e-3):
            raise ValueError("the gaps differ: the two sweeps were made of different examples or models.")


def _numbers(effects: Effects, i: int) -> dict[str, Any]:
    return {"effect": effects.effect[i], "ci_low": effects.ci_low[i], "ci_high": effects.ci_high[i], "n": effects.n}
