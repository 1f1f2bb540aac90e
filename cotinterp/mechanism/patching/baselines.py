"""What a patch at no site in particular does: the row that every single site must stand out from."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.patching.block import Cell, Measured


def random_site(
    cells: Sequence[Cell], measured: Measured, metric: MetricName
) -> dict[str, Float[np.ndarray, " batch"]]:
    """By kind of site, what a cell drawn at random changes in each example: the mean over its live cells.

    Live are the cells at which donor and recipient differ in that example; the others are 0 by identity and would make
    the baseline small by construction. The mean is what drawing one cell of the kind again and again comes to, without
    the chance of the draw. Kinds whose heads are patched one by one are named `random_site z head`. NaN for an example
    without a live cell, or with a live cell that was not measured (no unrelated donor).
    """
    found = {}
    for name, members in live_cells(cells, measured).items():
        live, changes = measured.live[members], measured.changes[metric][members]
        count = live.sum(axis=0)
        total = np.where(live, changes, 0.0).sum(axis=0)
        found[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def live_cells(cells: Sequence[Cell], measured: Measured) -> dict[str, list[int]]:
    """By the name of the baseline, the indices of the cells that are live in any example."""
    kinds: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        members = kinds.setdefault(f"random_site {cell.site.kind}" + " head" * (cell.site.head is not None), [])
        if measured.live[i].any():
            members.append(i)
    return kinds
