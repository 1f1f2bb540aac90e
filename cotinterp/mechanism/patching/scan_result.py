"""The scan of a patching sweep as a result of its own: which cells hold more than the largest of so many by chance."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.mechanism.patching.result import PatchingResult
from cotinterp.results import Result
from cotinterp.results.plots import heatmap


@dataclass(frozen=True, eq=False)
class PatchingScan(Result):
    """`PatchingResult.scan` with its picture. A flag says that an effect is there, not that it is large."""

    patching: PatchingResult

    @cached_property
    def _scan(self) -> pd.DataFrame:
        return self.patching.scan()

    def frame(self) -> pd.DataFrame:
        """One row for each cell: effect, simultaneous interval, adjusted p-value, flag (see `PatchingResult.scan`)."""
        return self._scan.copy()

    def figure(self) -> go.Figure:
        """Effects of the flagged cells; gray where a cell is not told from nothing."""
        table = self.frame()
        places = [cell.place for cell in self.patching.cells]
        flagged = table["flagged"].to_numpy(dtype=bool)
        return heatmap(
            table.assign(place=places, shown=np.where(flagged, table["effect"], np.nan)),
            x="place",
            y="site",
            value="shown",
            midpoint=0.0,
            title=f"{self.patching.pair} changed, {self.patching.direction}: effects that a scan tells from nothing",
            x_title="place",
            y_title="site",
            value_title="normalized effect",
            hover=["effect", "p_adjusted"],
        )
