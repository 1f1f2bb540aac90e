"""How far a sweep is, from the files of its runs alone: asked from any shell that sees them, at any moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cotinterp.sweeps.grid import Grid
from cotinterp.sweeps.run_record import STATUSES, RunRecord, Status, read_record_of


@dataclass(frozen=True)
class SweepStatus:
    """The record of every run of a grid, in the grid's order."""

    records: tuple[RunRecord, ...]

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many runs are finished, unfinished, failed and absent."""
        return {status: sum(record.status == status for record in self.records) for status in STATUSES}

    def frame(self) -> pd.DataFrame:
        """One row for each run: slug, status, step (logged updates), steps (of the whole run), loss (last), error."""
        rows = [(x.spec.slug, x.status, x.step, x.spec.optimizer.steps, x.loss, x.error) for x in self.records]
        return pd.DataFrame(rows, columns=["slug", "status", "step", "steps", "loss", "error"])


def sweep_status(grid: Grid, root: Path | str) -> SweepStatus:
    """How far each run of the grid is under `root`; all are absent where there is no such folder yet."""
    root = Path(root).resolve()
    return SweepStatus(tuple(read_record_of(spec, root, grid.problems_per_k) for spec in grid.specs))
