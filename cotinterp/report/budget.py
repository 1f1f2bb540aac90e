"""The serial-budget picture in numbers: what is to be computed in sequence, and how many passes there are for it."""

from math import ceil, log2

import pandas as pd

from cotinterp.report.schema import SCHEMAS
from cotinterp.sweeps.cost import answer_lengths
from cotinterp.tasks import Task


def serial_budget(task: Task, regime: str, *, n_layers: int, ks: range, n: int = 200, seed: int = 0) -> pd.DataFrame:
    """One row a K: the additions of the serial fold, the levels of a tree, and what a regime offers for them.

    `additions` is K - 1; `tree_levels` is ceil(log2 K), enough for any associative fold. `response_tokens` is the mean
    length R of the right response over `n` held-out problems, END included; each token is one pass through `n_layers`
    layers, so `layer_operations` is R * L. `slots_before_answer` counts only what can still serve the answer's first
    symbol: L, and L more for every token that is written before it. These are capacities of the picture, not
    measurements of a model: nothing says that a model uses them so.
    """
    rows = []
    for k in ks:
        lengths = answer_lengths(task, regime, k, n=n, seed=seed)
        tokens, before = float(lengths.response.mean()), float(lengths.before_answer.mean())
        slots = n_layers * (1 + before)
        rows.append((task.name, regime, k, n_layers, k - 1, ceil(log2(k)), tokens, tokens * n_layers, slots))
    return pd.DataFrame(rows, columns=list(SCHEMAS["budget"].columns))
