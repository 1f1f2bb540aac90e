"""Linear probes on any activations: what a notebook hands over is features, labels, and who is who."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.probing.cells import Fitting, Question, Readable, answer, check_amount
from cotinterp.mechanism.probing.controls import check_split
from cotinterp.mechanism.probing.coordinates import Coordinate
from cotinterp.mechanism.probing.labels import LabelSets
from cotinterp.mechanism.probing.place import ProbedAt
from cotinterp.mechanism.probing.place import as_place as as_place
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.mechanism.sites import Site

Name = TypeVar("Name", bound=str | Site | ProbedAt)


def fit_probes(
    features: Mapping[Name, Float[Tensor, "n _"]],
    targets: Mapping[str, Int[np.ndarray, " n"]],
    train: Bool[np.ndarray, " n"],
    *,
    groups: Int[np.ndarray, " n"] | None = None,
    types: Mapping[str, Int[np.ndarray, " n"]] | None = None,
    coordinates: Mapping[str, Coordinate] | None = None,
    renamed: Mapping[str, Int[np.ndarray, "draws n"]] | None = None,
    n_controls: int = 1,
    n_shuffles: int = 1,
    penalty: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
    max_bytes: int | None = None,
    keep: bool = False,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> ProbeResult:
    """Multinomial logistic probes for every target on every set of features, each beside its controls.

    Args:
        features: Activations, one row per example, by site or by any name.
        targets: Class of each example (any integers), by the target's name.
        train: Rows to fit on; the others are the test.
        groups: Problem of each row; a problem on both sides is refused. By default every row is its own.
        types: For a target, the type of input of each row, which gets one label in the control task (`random_labels`):
            all that the target is made of and the features could show. By default the group. Types that recur on both
            sides are allowed: what the probe gains by storing them is in the control's accuracy.
        coordinates: Then targets are state indices, and each is probed in every one of these coordinates, on the same
            control draws. Those with a circle are fitted by ridge regression onto it, with the same penalty.
        renamed: For a target, other labelings that an ignorant model must not tell from the true one
            (`null.renamed_totals`), the same number for every target: for `ProbeResult.scan`.
        n_controls, n_shuffles: How many control tasks, and shuffles of the labels over groups, are averaged. Where
            every group is a type of its own the two are the same thing and are fitted once.
        penalty: Strength of the L2 penalty, one over scikit-learn's `C`; features are standardized on training rows.
        tolerance, max_iterations: The gradient test of convergence, and when to give up (`fit_logistic`).
        max_bytes: How much the fits that run together may take (`fit_designs`).
        keep: Put the fitted probe, a `LinearProbe`, into each cell.
        seed: Of the controls; the same for all features, so that sites are compared on the same controls.
        labels: Constant columns of the table (task, regime, seed).

    Raises:
        ValueError: Groups on both sides; fewer training rows than 40, or than two a class; fewer than 10 test rows; one
            class only; features that are not finite.
        ProbeNotConverged: Names the cell.
    """
    groups = np.arange(len(train)) if groups is None else groups
    check_split(groups, train)
    asked = label_sets(
        targets,
        train,
        groups,
        types or {},
        coordinates=coordinates,
        renamed=renamed or {},
        n_controls=n_controls,
        n_shuffles=n_shuffles,
        seed=seed,
    )
    questions = [
        Question(where, one)
        for key, rows in features.items()
        for where in [Readable.of(as_place(key), rows, train, keep=keep)]
        for one in asked
    ]
    fitting = Fitting(penalty=penalty, tolerance=tolerance, max_iterations=max_iterations, max_bytes=max_bytes)
    return ProbeResult(tuple(answer(questions, train, groups, fitting)), labels or {})


def label_sets(
    targets: Mapping[str, Int[np.ndarray, " n"]],
    train: Bool[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    types: Mapping[str, Int[np.ndarray, " n"]],
    *,
    coordinates: Mapping[str, Coordinate] | None,
    renamed: Mapping[str, Int[np.ndarray, "draws n"]],
    n_controls: int,
    n_shuffles: int,
    seed: int,
) -> list[LabelSets]:
    """Every target in every coordinate with its controls; the arguments and errors are those of `fit_probes`."""
    if n_controls < 1:
        raise ValueError(f"n_controls={n_controls}: an accuracy without a control says nothing; use 1 or more")
    found = []
    for target, truth in targets.items():
        drawn = LabelSets.deal(
            target,
            truth,
            groups,
            types.get(target),
            n_controls=n_controls,
            n_shuffles=n_shuffles,
            seed=seed,
            renamed=renamed.get(target),
        )
        found += [drawn] if coordinates is None else [drawn.through(one) for one in coordinates.values()]
    for one in found:
        check_amount(one.name, one.stacked[0], train)
    return found
