"""Features, labels, groups and splits as callers have them, made what probes are fitted on. Every entrance passes here.

What is asked holds for all rows, those of the test as well: a NaN there would be read as a wrong answer.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Labels = Shaped[np.ndarray, " n"] | Shaped[Tensor, " n"] | pd.Series | Sequence[int]
"""Class of each row: whole numbers of any kind, booleans (False is 0), in the order of the rows."""
Features = Shaped[Tensor, "n _"] | Shaped[np.ndarray, "n _"] | pd.DataFrame | Sequence[Sequence[float]]
"""One row of numbers for each example, of any precision and on any device."""

AGREE = 2**12
"""Rows are one input if all of their features agree to one part in so many: a model's answer to the same tokens differs
in the last of 24 bits where it is computed in another batch, and in hundreds of features some are near a boundary."""


def whole_labels(given: Labels | Any, name: str, n: int | None = None) -> Int[np.ndarray, " n"]:
    """One whole number a row (int64). The index of a Series plays no part: rows are taken in order.

    ValueError that names the field for text, fractions, missing values, more axes than one, another length than `n`.
    """
    values = _array(given)
    wanted = f"Wanted is one whole number for each {'row' if n is None else f'of {n} rows'}"
    if values is None or values.ndim != 1 or not len(values) or (n is not None and len(values) != n):
        what = f"shape {values.shape}" if values is not None else f"a {type(given).__name__}"
        raise ValueError(f"{name}: {what} was given. {wanted}.")
    if values.dtype == object:
        kinds = {type(one) for one in values}
        if not all(issubclass(kind, int | float | np.number | np.bool_) for kind in kinds):
            values = values.astype(str)
        else:
            values = values.astype(np.float64)
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: {values.dtype.name} was given, such as {str(values[0])!r}. {wanted}; np.unique(labels, "
            "return_inverse=True)[1] numbers labels of any kind."
        )
    if values.dtype.kind == "f":
        wrong = ~np.isfinite(values) | (values != np.round(values))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{name}: {values[row]} was given in row {row}, one of {int(wrong.sum())} that are no whole numbers. "
                f"{wanted}; a quantity has to be divided into classes first."
            )
    whole: Int[np.ndarray, " n"] = values.astype(np.int64)
    return whole


def feature_rows(given: Features | Any, name: str, n: int | None = None) -> Float[Tensor, "n d"]:
    """Floating, without gradient, half precision promoted to float32; where it was.

    ValueError that names the field for another shape than rows by features, another number of rows than `n`, and rows
    that hold NaN or infinity.
    """
    rows = given if isinstance(given, Tensor) else None
    if rows is None:
        values = _array(given)
        if values is not None and values.dtype.kind in "biuf":
            rows = torch.from_numpy(np.ascontiguousarray(values))
    wanted = f"Wanted are numbers, {'one row an example' if n is None else f'{n} rows'} by the features"
    if rows is None or rows.ndim != 2 or rows.is_complex() or not rows.shape[0] or (n is not None and len(rows) != n):
        what = f"shape {tuple(rows.shape)}" if rows is not None else f"a {type(given).__name__}"
        raise ValueError(f"{name}: {what} was given. {wanted}.")
    rows = rows.detach()
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32) if rows.is_floating_point() else torch.float32)
    bad = ~rows.isfinite().all(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"{name}: {int(bad.sum())} of {len(rows)} rows hold NaN or infinite features, the first of them row "
            f"{int(bad.int().argmax())}. {wanted}, all of them finite."
        )
    return rows


def training_rows(given: Any, n: int) -> Bool[np.ndarray, " n"]:
    """The mask of the rows to fit on. ValueError for numbers, another length, and where either side would be empty."""
    values = _array(given)
    if values is None or values.dtype != np.bool_ or values.shape != (n,):
        what = f"{values.dtype.name} of shape {values.shape}" if values is not None else f"a {type(given).__name__}"
        raise ValueError(
            f"train: {what} was given. Wanted is a mask of True and False for {n} rows, e.g. of hold_out(groups); "
            "np.isin(np.arange(n), rows) makes one of row numbers."
        )
    if values.all() or not values.any():
        raise ValueError(
            f"train: {'all' if values.all() else 'none'} of {n} rows are to be fitted on. Wanted are some of both."
        )
    return values


def row_groups(given: Any, n: int) -> Int[np.ndarray, " n"]:
    """The group of each row; names of problems are numbered in their sorted order."""
    values = _array(given)
    if values is not None and values.dtype.kind in "US":
        values = np.unique(values, return_inverse=True)[1].reshape(values.shape)
    return whole_labels(given if values is None else values, "groups", n)


def groups_of_equal_rows(
    features: Iterable[Float[Tensor, "n _"]], train: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """For callers that name no groups: rows that agree in all features are one input, and one group.

    ValueError where an input stands on both sides.
    """
    number = np.arange(len(train))
    rounded = []
    for rows in features:
        mantissa, exponent = torch.frexp(rows.double())
        rounded.append(((mantissa * AGREE).round() * 2.0**exponent).cpu().numpy() + 0.0)
    known: dict[bytes, int] = {}
    for row in range(len(train)):
        number[row] = known.setdefault(b"".join(part[row].tobytes() for part in rounded), row)
    crossing = np.intersect1d(number[train], number[~train])
    if len(crossing):
        shown = np.isin(number[~train], crossing)
        alike = np.flatnonzero(number == crossing[0]).tolist()
        raise ValueError(
            f"{int(shown.sum())} of {len(shown)} test rows hold the features of a training row too (rows {alike[:6]}), "
            "and no groups were given: the test would ask for what the probe was shown. Give groups, the problem of "
            "each row, and train = hold_out(groups); or, where different problems look alike here, Target(types=...), "
            "the input of each row."
        )
    return number


def _array(given: Any) -> np.ndarray | None:
    """As an array; None where no array can be made of it."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.float() if given.dtype == torch.bfloat16 else given
        values: np.ndarray = given.numpy()
        return values
    try:
        found = np.asarray(given)
    except (TypeError, ValueError):
        return None
    return found if found.ndim else None
