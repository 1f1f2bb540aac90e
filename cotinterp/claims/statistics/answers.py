"""Numbers made of accuracies: who is right, at which length, depth and number of training problems."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import ceil, log2

import numpy as np

from cotinterp.claims.cells import Cells, MissingEvidence, Values

HEADROOM = 0.2
"""Least that memory must leave open: where its best guess is worth nearly everything, nothing can go beyond it."""

SHORTEST = 3
"""Lengths below this have few held-out problems (22 for two digits) and few training problems to learn from."""


def heldout(cells: Cells, regime: str, k: int, variant: str = "") -> Values:
    """Accuracy on held-out problems of `k` operands."""
    return cells.mean("accuracy", regime=regime, k=k, condition="heldout", variant=variant)


def lengths(
    cells: Cells, regime: str, *, shortest: int = 0, variant: str = "", task: str | None = None
) -> tuple[int, ...]:
    """Numbers of operands that a regime was measured at; those below `shortest` only where there are no others."""
    ks = cells.ks("accuracy", regime=regime, condition="heldout", variant=variant, task=task)
    return tuple(k for k in ks if k >= shortest) or ks


def average(values: Sequence[Values]) -> Values:
    """The mean of several numbers, draw by draw."""
    mean: Values = np.mean(np.stack(values), axis=0)
    return mean


def difference(one: Values, other: Values) -> Values:
    """The first minus the second, draw by draw."""
    gap: Values = one - other
    return gap


def advantage(cells: Cells) -> Values:
    """Accuracy of cot minus that of direct at the largest K."""
    k = lengths(cells, "cot")[-1]
    return difference(heldout(cells, "cot", k), heldout(cells, "direct", k))


def advantage_slope(cells: Cells) -> Values:
    """Least-squares slope of that difference over K: what an operand more adds to it."""
    ks = lengths(cells, "cot")
    if len(ks) < 2:
        raise MissingEvidence(f"a slope needs two numbers of operands; measured: {ks}")
    centered = np.array(ks) - np.mean(ks)
    gaps = np.stack([heldout(cells, "cot", k) - heldout(cells, "direct", k) for k in ks])
    slope: Values = centered @ gaps / (centered @ centered)
    return slope


def ratio_of(cells: Cells, regime: str = "direct", task: str | None = None) -> Values:
    """(held-out - chance) / (train - chance): 1 for an algorithm, 0 for a table, NaN where nothing was learned."""
    ks = lengths(cells, regime, task=task)
    of = partial(cells.mean, regime=regime, task=task)
    chance = [of("chance", k=k) for k in ks]
    sides = [
        average([of("accuracy", k=k, condition=side) - c for k, c in zip(ks, chance, strict=True)])
        for side in ("heldout", "train")
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Values = np.where(sides[1] > 0, sides[0] / sides[1], np.nan)
    return ratio


def generalization_ratio(cells: Cells) -> Values:
    """The generalization ratio of direct."""
    return ratio_of(cells)


def memory_ratio(cells: Cells) -> Values:
    """The generalization ratio of the model that was trained on random labels."""
    return ratio_of(cells, task="random-labels")


def learned(cells: Cells) -> Values:
    """Accuracy of direct on its own training problems, above guessing."""
    ks = lengths(cells, "direct")
    return average(
        [
            cells.mean("accuracy", regime="direct", k=k, condition="train") - cells.mean("chance", regime="direct", k=k)
            for k in ks
        ]
    )


def beyond_memory(cells: Cells) -> Values:
    """Accuracy of direct minus the best of what memory is worth there.

    Memory: the most frequent answer, the nearest training problem, and, where order cannot matter, the nearest in any
    order. Mean over the K at which it leaves room (HEADROOM).
    """
    gains = []
    for k in lengths(cells, "direct", shortest=SHORTEST):
        worth = [cells.mean(name, regime="direct", k=k) for name in ("chance", "nearest")]
        with suppress(MissingEvidence):
            worth.append(cells.mean("reordered", regime="direct", k=k))
        best = np.max(np.broadcast_arrays(*worth), axis=0)
        if best.mean() <= 1 - HEADROOM:
            gains.append(heldout(cells, "direct", k) - best)
    if not gains:
        raise MissingEvidence(f"memory is worth more than {1 - HEADROOM:.0%} at every length")
    return average(gains)


def net_agreement(cells: Cells) -> Values:
    """How often a trained problem gets the same answer in an order never trained on: 0 by chance, 1 always."""
    found = []
    for k in cells.ks("agreement", regime="direct"):
        chance = cells.mean("agreement_chance", regime="direct", k=k)
        if (chance < 1).all():
            found.append((cells.mean("agreement", regime="direct", k=k) - chance) / (1 - chance))
    if not found:
        raise MissingEvidence("every problem gets the same answer: agreement says nothing")
    return average(found)


def size_gain(cells: Cells) -> Values:
    """Least-squares slope of direct's accuracy over the decimal logarithm of the number of training problems."""
    sizes = sorted((int(name[1:]), name) for name in cells.variants("direct") if name.startswith("n"))
    if len(sizes) < 2:
        raise MissingEvidence(f"a training-size curve needs two sizes; measured variants: {cells.variants('direct')}")
    logs = np.log10([size for size, _ in sizes])
    centered = logs - logs.mean()
    accuracies = np.stack(
        [
            average(
                [heldout(cells, "direct", k, name) for k in lengths(cells, "direct", shortest=SHORTEST, variant=name)]
            )
            for _, name in sizes
        ]
    )
    slope: Values = centered @ accuracies / (centered @ centered)
    return slope


def cliff(cells: Cells) -> Values:
    """Accuracy of direct at K = L + 1, which L serial steps still reach, minus that at K = L + 2."""
    layers = cells.n_layers("direct")
    return difference(heldout(cells, "direct", layers + 1), heldout(cells, "direct", layers + 2))


def cot_accuracy(cells: Cells) -> Values:
    """Accuracy of cot, mean over K."""
    return average([heldout(cells, "cot", k) for k in lengths(cells, "cot")])


def content(cells: Cells) -> Values:
    """Accuracy of cot minus that of filler, mean over K."""
    ks = lengths(cells, "cot", shortest=SHORTEST)
    return average([heldout(cells, "cot", k) - heldout(cells, "filler", k) for k in ks])


def passes(cells: Cells) -> Values:
    """Accuracy of filler minus that of direct, mean over K."""
    ks = lengths(cells, "filler", shortest=SHORTEST)
    return average([heldout(cells, "filler", k) - heldout(cells, "direct", k) for k in ks])


def _over_budget(cells: Cells, chosen: Sequence[tuple[str, int]], words: str) -> Values:
    if not chosen:
        raise MissingEvidence(f"no length of three operands or more lies {words}")
    return average([heldout(cells, "direct", k, variant) for variant, k in chosen])


def _grid(cells: Cells) -> list[tuple[str, int, int]]:
    """Variant, layers and K of every direct model that differs from the standard one in depth alone, and that one."""
    depths = [name for name in cells.variants("direct") if name == "" or name.startswith("L")]
    if len(depths) < 2:
        raise MissingEvidence(f"depth needs models of several depths; measured variants: {cells.variants('direct')}")
    return [
        (name, cells.n_layers("direct", name), k)
        for name in depths
        for k in lengths(cells, "direct", shortest=SHORTEST, variant=name)
    ]


def within_budget(cells: Cells) -> Values:
    """Accuracy of direct where K - 1 <= L, mean over depths and lengths."""
    return _over_budget(cells, [(v, k) for v, n, k in _grid(cells) if k - 1 <= n], "within K - 1 <= L")


def beyond_budget(cells: Cells) -> Values:
    """Accuracy of direct where K - 1 > L, mean over depths and lengths."""
    return _over_budget(cells, [(v, k) for v, n, k in _grid(cells) if k - 1 > n], "beyond K - 1 <= L")


def tree_budget(cells: Cells) -> Values:
    """Accuracy of direct where a tree is deep enough and a chain is not: K - 1 > L and ceil(log2 K) <= L."""
    chosen = [(v, k) for v, n, k in _grid(cells) if k - 1 > n and ceil(log2(k)) <= n]
    return _over_budget(cells, chosen, "between the logarithmic and the linear budget")


def depth_gain(cells: Cells) -> Values:
    """Accuracy of direct with the most layers minus that with the fewest, at the longest chain that fits the former.

    That is K = L + 1 of the deepest, or the largest K below it: beyond, a serial account predicts failure at any depth.
    """
    by_depth = sorted((layers, name) for name, layers, _ in _grid(cells))
    ks = lengths(cells, "direct", shortest=SHORTEST)
    k = max((k for k in ks if k - 1 <= by_depth[-1][0]), default=ks[0])
    deepest, shallowest = (heldout(cells, "direct", k, by_depth[end][1]) for end in (-1, 0))
    return difference(deepest, shallowest)
