"""What a patching sweep found: per example until the table, and the pictures of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.mechanism.contrast import Address
from cotinterp.mechanism.effects import Effects, NoGapError, has_gap, missing_effects, normalized_effects
from cotinterp.mechanism.metrics import MetricName, metric_name
from cotinterp.mechanism.patching_block import FIRST, Cell, Measured
from cotinterp.results import Result, output_folder, with_labels, write_atomic
from cotinterp.results.plots import heatmap

READINGS = {
    "denoise": "Denoising: {metric} restored by writing clean activations into the corrupted run "
    "(0: as corrupted, 1: as clean)",
    "noise": "Noising: {metric} lost by writing corrupted activations into the clean run "
    "(0: as clean, 1: as corrupted)",
}
SPOKEN: dict[str, str] = {"logit_diff": "logit difference", "kl": "KL divergence", "log_prob": "log probability"}
COLUMNS = ("pair", "direction", "site", "layer", "head", "role", "step", "metric", "effect", "ci_low", "ci_high", "n")


@dataclass(frozen=True, eq=False)
class PatchingResult(Result):
    """Normalized effects of every cell (site and place), per example until asked for the table.

    `measured` holds numerators and denominators by metric; the first metric is primary. `effects` aggregates them (see
    `normalized_effects` for what is dropped, the ratio and the interval). Signs and limits: see `mechanism.patching`.
    """

    cells: tuple[Cell, ...]
    measured: Measured
    addresses: Mapping[str, Address]
    direction: str
    pair: str
    labels: Mapping[str, str | int]
    seed: int = 0

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """Names of the metrics, the primary one first."""
        return tuple(self.measured.gaps)

    def checked(self, *, require_gap: bool = True) -> "PatchingResult":
        """This result. ValueError if it is one of nothing: no cell changed the primary metric, or (unless told not to
        ask) that metric has no gap to normalize by."""
        primary = self.metrics[0]
        if require_gap:
            self.effects(primary)
        if not self.measured.ran.any():
            raise ValueError(
                f"donor and recipient agree bit for bit at every place of the sweep ({list(self.addresses)}): what was "
                "changed lies at none of them, or after them all. Add the places that differ."
            )
        if not np.nan_to_num(self.measured.changes[primary]).any():
            raise ValueError(
                f"{int(self.measured.ran.sum())} patches were written and none changed {primary} in any example: the "
                "model does not use what it holds there, or its hooks do not act on its forward pass."
            )
        return self

    def effects(self, metric: str | None = None) -> Effects:
        """Effect and interval of every cell, in the order of `cells`."""
        name = self._name(metric)
        return normalized_effects(self.measured.changes[name], self.measured.gaps[name], seed=self.seed)

    def baselines(self, metric: str | None = None) -> dict[str, Effects]:
        """`self` (exactly 0), `full` (exactly 1) and `random_donor`, each an Effects of one cell.

        `random_donor` is missing (n = 0) where no example has another one of its layout.
        """
        name, measured = self._name(metric), self.measured
        found = {}
        for key, values in measured.baselines.items():
            some = bool(np.isfinite(values[name])[has_gap(measured.gaps[name])].any())
            change, gap = values[name][None], measured.gaps[name]
            found[key] = normalized_effects(change, gap, seed=self.seed) if some else missing_effects(1, len(gap))
        return found

    def frame(self) -> pd.DataFrame:
        """tables/patching.csv: one row per metric and cell, the baselines first.

        `n` is the number of pairs with a gap in that metric; where it has none to normalize by (accuracy of a model
        that is never right) the effects are missing and n is 0. `head` is missing for sites without heads.
        """
        rows = [row for metric in self.metrics for row in self._rows(metric)]
        table = pd.DataFrame(rows).astype({"head": "Int64"})[list(COLUMNS)]
        return with_labels(table, {"task": "", "regime": "", "seed": "", **self.labels})

    def figure(self, metric: str | None = None, *, heads: bool | None = None) -> go.Figure:
        """Layers by places, one facet per kind; with `heads`, head by place. By default heads only where that is all.

        Red is negative, blue positive, white 0; the places carry the symbols of the first example.
        """
        frame, name = self.frame(), self._name(metric)
        of_heads = not self._has(heads=False) if heads is None else heads
        if not self._has(heads=of_heads):
            raise ValueError(f"the sweep has no cells {'of' if of_heads else 'without'} heads to draw.")
        cells = [i for i, cell in enumerate(self.cells) if (cell.site.head is not None) == of_heads]
        table = frame[frame["metric"] == name].iloc[-len(self.cells) :].iloc[cells]
        table = table.assign(
            kind=[self.cells[i].site.kind for i in cells],
            block=[self.cells[i].site.block for i in cells],
            place=[self._tick(self.cells[i].place) for i in cells],
        )
        reading = READINGS[self.direction].format(metric=SPOKEN.get(name, name.replace("_", " ")))
        return heatmap(
            table,
            x="place",
            y="block",
            value="effect",
            facet="kind",
            midpoint=0.0,
            title=f"{self._subject()}{reading}",
            x_title="place and its symbol in the first example",
            y_title="layer and head" if of_heads else "layer",
            value_title="normalized effect",
        )

    def save(self, directory: Path | str, name: str) -> list[Path]:
        """`Result.save`, and `figures/<name>_heads.html` where the sweep has heads besides other sites."""
        paths = super().save(directory, name)
        if self._has(heads=True) and self._has(heads=False):
            page = self.figure(heads=True).to_html(include_plotlyjs=True, div_id=f"{name}_heads")
            paths.append(write_atomic(output_folder(Path(directory) / "figures") / f"{name}_heads.html", page))
        return paths

    def _rows(self, metric: MetricName) -> Iterator[dict[str, Any]]:
        shared = {"pair": self.pair, "direction": self.direction, "metric": metric}
        effects, baselines = self._effects_or_missing(metric)
        for key, baseline in baselines.items():
            address = {"site": key, "layer": FIRST.layer, "head": None, "role": "all", "step": -1}
            yield {**shared, **address, **_cell(baseline, 0)}
        for i, cell in enumerate(self.cells):
            role, step, _ = self.addresses[cell.place]
            address = {"site": cell.site.label, "layer": cell.site.layer, "head": cell.site.head}
            yield {**shared, **address, "role": role, "step": step, **_cell(effects, i)}

    def _effects_or_missing(self, metric: MetricName) -> tuple[Effects, dict[str, Effects]]:
        try:
            return self.effects(metric), self.baselines(metric)
        except NoGapError:
            pairs = len(self.measured.gaps[metric])
            return missing_effects(len(self.cells), pairs), dict.fromkeys(
                self.measured.baselines, missing_effects(1, pairs)
            )

    def _name(self, metric: str | None) -> MetricName:
        name = self.metrics[0] if metric is None else metric_name(metric)
        if name not in self.metrics:
            raise ValueError(f"{name} was not measured in this sweep; it has {list(self.metrics)}.")
        return name

    def _has(self, *, heads: bool) -> bool:
        return any((cell.site.head is not None) == heads for cell in self.cells)

    def _tick(self, place: str) -> str:
        symbol = self.addresses[place].symbol
        return f"{place}: {symbol}" if symbol else place

    def _subject(self) -> str:
        named = [str(value) for label, value in self.labels.items() if label in ("task", "regime")]
        return ", ".join([*named, f"{self.pair} changed"]) + ". "


def _cell(effects: Effects, i: int) -> dict[str, Any]:
    return {"effect": effects.effect[i], "ci_low": effects.ci_low[i], "ci_high": effects.ci_high[i], "n": effects.n}
