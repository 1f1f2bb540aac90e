"""Accuracies that the source of the reference experiment gives as illustrations. Nobody measured them.

They stand beside the measured points so that a reader can see where expectation and measurement part; nothing in the
bench is tuned toward them, and no claim is judged by them.
"""

import pandas as pd

CITATION = (
    "Illustrative accuracies given with the description of the reference experiment (digit-sum, K = 2 to 6). "
    "The source offers them as an illustration, not as a measurement."
)

ACCURACY_BY_K: dict[str, dict[str, dict[int, float]]] = {
    "digit-sum": {
        "direct": {2: 0.95, 3: 0.80, 4: 0.55, 5: 0.30, 6: 0.15},
        "cot": {2: 0.98, 3: 0.96, 4: 0.94, 5: 0.92, 6: 0.90},
    }
}


def illustrative_accuracy(task: str) -> pd.DataFrame:
    """The source's illustrative accuracies of one task: columns task, regime, k, accuracy (a fraction).

    Empty, with the same columns, for a task about which the source says nothing.
    """
    rows = [
        (task, regime, k, accuracy)
        for regime, by_k in ACCURACY_BY_K.get(task, {}).items()
        for k, accuracy in by_k.items()
    ]
    return pd.DataFrame(rows, columns=["task", "regime", "k", "accuracy"])
