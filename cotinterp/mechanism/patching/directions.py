"""Sufficient and necessary, side by side: one contrast, patched in both directions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.result import PatchingResult
from cotinterp.mechanism.patching.run_predictions import RunPredictions
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.results import Result, output_folder, write_atomic
from cotinterp.results.plots import heatmap

CELL = ("site", "layer", "head", "role", "step", "metric")


@dataclass(frozen=True, eq=False)
class PatchedBothWays(Result):
    """A denoising and a noising sweep of the same cells on the same pairs.

    Effects near 1 in both: the site carries the difference alone. High only in denoising: it is enough, and others
    would do as well (redundancy). High only in noising: it is needed, and not enough (it works with others).
    """

    denoise: PatchingResult
    noise: PatchingResult

    def frame(self) -> pd.DataFrame:
        """tables/patching.csv: the rows of both sweeps, denoising first."""
        return pd.concat([self.denoise.frame(), self.noise.frame()], ignore_index=True)

    def side_by_side(self) -> pd.DataFrame:
        """One row per metric and cell (baselines first): effect, interval and n of each direction.

        `difference` is denoise - noise: above 0 more sufficient than necessary, below 0 the other way round.
        """
        denoise, noise = self.denoise.frame().drop(columns="direction"), self.noise.frame()
        values = ["effect", "ci_low", "ci_high", "n"]
        table = denoise.rename(columns={name: f"denoise_{name}" for name in values})
        for name in values:
            table[f"noise_{name}"] = noise[name]
        return table.assign(difference=table["denoise_effect"] - table["noise_effect"])

    def runs(self) -> RunPredictions:
        """What the runs put first, before any patch: the same for both directions."""
        return self.denoise.runs()

    def scan(self, metric: str | None = None, **options: Any) -> pd.DataFrame:
        """`PatchingResult.scan` of both. Each direction is corrected by itself: they answer different questions."""
        return pd.concat([sweep.scan(metric, **options) for sweep in (self.denoise, self.noise)], ignore_index=True)

    def detail(self) -> pd.DataFrame:
        """`PatchingResult.detail` of both."""
        return pd.concat([self.denoise.detail(), self.noise.detail()], ignore_index=True)

    def figure(self, metric: str | None = None, *, heads: bool | None = None) -> go.Figure:
        """The figures of both directions, a facet for each kind and direction, on one color scale."""
        drawn = [sweep.drawn(metric, heads=heads) for sweep in (self.denoise, self.noise)]
        table = pd.concat([part.assign(kind=part["kind"] + ", " + part["direction"]) for part in drawn])
        return heatmap(
            table.sort_values("kind", kind="stable"),
            x="place",
            y="block",
            value="effect",
            facet="kind",
            midpoint=0.0,
            title=f"{self.denoise.pair} changed. Denoising: what restores the clean run. Noising: what breaks it",
            x_title="place and its symbol in the first example",
            y_title="layer and head" if table["head"].notna().any() else "layer",
            value_title="normalized effect",
        )

    def save(self, directory: Path | str, name: str) -> list[Path]:
        """`Result.save`, and the two directions side by side in `tables/<name>_directions.csv`."""
        paths = super().save(directory, name)
        table = self.side_by_side().to_csv(index=False, lineterminator="\n")
        return [*paths, write_atomic(output_folder(Path(directory) / "tables") / f"{name}_directions.csv", table)]


def patch_both_ways(model: HookedModel, contrast: Contrast, **options: Any) -> PatchedBothWays:
    """`patch_sweep` in both directions, with the same options; see there."""
    return PatchedBothWays(
        patch_sweep(model, contrast, direction="denoise", **options),
        patch_sweep(model, contrast, direction="noise", **options),
    )
