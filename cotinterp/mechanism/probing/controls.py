"""What keeps a probe honest: a split that no problem crosses, and labels that mean nothing.

A probe may reach a high accuracy without reading a variable: because the test rows were in the training rows in all
but name, or because it can store a table of the inputs that recur. The split rules out the first. The control task
measures the second: every type of input is given a random label of its own, the same wherever that input recurs (Hewitt
& Liang, 2019, arXiv 1909.03368). Selectivity is the accuracy beyond what the probe reaches there.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from cotinterp.results import Interval, bootstrap, wilson


def hold_out(groups: Int[np.ndarray, " n"], *, fraction: float = 0.25, seed: int = 0) -> Bool[np.ndarray, " n"]:
    """True at the training rows of a random split in which all rows of one group are on the same side.

    About `fraction` of the groups, at least one, become test rows. Give each problem its own group: splitting rows or
    positions instead puts the same problem on both sides. ValueError for fewer than two groups.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction {fraction} of the groups cannot be held out; it must lie strictly between 0 and 1")
    distinct = np.unique(groups)
    if len(distinct) < 2:
        raise ValueError(f"{len(distinct)} distinct groups cannot be split into training and test; give more problems")
    n_test = min(len(distinct) - 1, max(1, round(fraction * len(distinct))))
    tested = np.random.default_rng(seed).permutation(distinct)[:n_test]
    return ~np.isin(groups, tested)


def check_split(groups: Int[np.ndarray, " n"], train: Bool[np.ndarray, " n"]) -> None:
    """ValueError where a group has rows on both sides: the test would ask for what the probe was shown."""
    crossing = np.intersect1d(groups[train], groups[~train])
    if len(crossing):
        rows = np.flatnonzero(groups == crossing[0]).tolist()
        raise ValueError(
            f"{len(crossing)} of {len(np.unique(groups))} groups have rows in both training and test (group "
            f"{crossing[0]}: rows {rows[:6]}). Split by group, e.g. with hold_out(groups)."
        )


def random_labels(
    labels: Int[np.ndarray, " n"], types: Int[np.ndarray, " n"], *, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Labels of a control task: those of `labels`, dealt out anew to the distinct inputs.

    Rows of one type that had one label get one label again, so a probe that stores inputs succeeds here exactly as it
    would on the real task, and one that must generalize to unseen types can only be at chance. Where a type has several
    labels (the input does not determine the target) it has as many afterwards: the control is as ambiguous.
    With one type per row, or per problem, this is the shuffled-label control.
    """
    pairs, index = np.unique(np.stack([types, labels], axis=1), axis=0, return_inverse=True)
    dealt = rng.permutation(pairs[:, 1])
    return dealt[index.reshape(-1)]


def distinct_rows(rows: Shaped[np.ndarray, "n width"]) -> Int[np.ndarray, " n"]:
    """A number for each row; equal rows have equal numbers."""
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def interval_over_groups(values: Shaped[np.ndarray, " n"], groups: Int[np.ndarray, " n"], *, seed: int = 0) -> Interval:
    """Interval of the mean of `values`, with whole groups as the units that another sample would redraw.

    Wilson's for hits and misses with one row per group; otherwise a bootstrap over groups.
    """
    _, index = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(index, weights=values.astype(np.float64)), np.bincount(index)
    if values.dtype == np.bool_ and counts.max(initial=0) <= 1:
        return wilson(int(values.sum()), len(values))

    def ratio(drawn: Float[np.ndarray, "resamples groups"], axis: int) -> Float[np.ndarray, " resamples"]:
        chosen = drawn.astype(np.int64)
        means: Float[np.ndarray, " resamples"] = sums[chosen].sum(axis) / counts[chosen].sum(axis)
        return means

    return bootstrap(np.arange(len(sums), dtype=np.float64), seed=seed, statistic=ratio)
