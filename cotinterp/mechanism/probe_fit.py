"""Linear probes on any activations: what a notebook hands over is features, labels, and who is who."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.probe_controls import check_split, random_labels
from cotinterp.mechanism.probe_result import ProbeCell, ProbedAt, ProbeResult
from cotinterp.mechanism.probe_solver import Design, fit_logistic
from cotinterp.mechanism.sites import Site

Name = TypeVar("Name", bound=str | Site | ProbedAt)

MIN_TRAIN = 40
MIN_TRAIN_PER_CLASS = 2
MIN_TEST = 10


def fit_probes(
    features: Mapping[Name, Float[Tensor, "n _"]],
    targets: Mapping[str, Int[np.ndarray, " n"]],
    train: Bool[np.ndarray, " n"],
    *,
    groups: Int[np.ndarray, " n"] | None = None,
    types: Mapping[str, Int[np.ndarray, " n"]] | None = None,
    n_controls: int = 1,
    n_shuffles: int = 1,
    penalty: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
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
        n_controls, n_shuffles: How many control tasks, and shuffles of the labels over groups, are averaged. Where
            every group is a type of its own the two are the same thing and are fitted once.
        penalty: Strength of the L2 penalty, one over scikit-learn's `C`; features are standardized on training rows.
        tolerance, max_iterations: The gradient test of convergence, and when to give up (`fit_logistic`).
        seed: Of the controls; the same for all features, so that sites are compared on the same controls.
        labels: Constant columns of the table (task, regime, seed).

    Raises:
        ValueError: Groups on both sides; fewer training rows than 40, or than two a class; fewer than 10 test rows; one
            class only; features that are not finite.
        ProbeNotConverged: Names the cell.
    """
    groups = np.arange(len(train)) if groups is None else groups
    if n_controls < 1:
        raise ValueError(f"n_controls={n_controls}: an accuracy without a control says nothing; use 1 or more")
    check_split(groups, train)
    tasks = {}
    for target, truth in targets.items():
        _check_amount(target, truth, train)
        kinds = (types or {}).get(target, groups)
        tasks[target] = _LabelSets.deal(truth, groups, kinds, n_controls, n_shuffles, seed)
    cells = []
    for key, rows in features.items():
        at = as_place(key)
        design = Design.of(rows[torch.from_numpy(train)])
        tested = rows[torch.from_numpy(~train)]
        for target, sets in tasks.items():
            name = f"{at.model} {at.row} at {at.column}, target {target}"
            options = {"penalty": penalty, "tolerance": tolerance, "max_iterations": max_iterations}
            predicted = sets.fit(design, tested, train, name, **options)
            cells.append(_cell(at, target, sets, predicted, groups, train))
    return ProbeResult(tuple(cells), labels or {})


@dataclass(frozen=True, eq=False)
class _LabelSets:
    """A target, its control tasks and its shuffles, which are fitted together on each set of features."""

    stacked: Int[np.ndarray, "sets n"]
    types: Int[np.ndarray, " n"]
    control: slice
    shuffled: slice

    @classmethod
    def deal(
        cls,
        truth: Int[np.ndarray, " n"],
        groups: Int[np.ndarray, " n"],
        types: Int[np.ndarray, " n"],
        n_controls: int,
        n_shuffles: int,
        seed: int,
    ) -> "_LabelSets":
        rng = np.random.default_rng(seed)
        if _same_partition(groups, types):
            n_controls = n_shuffles = max(n_controls, n_shuffles)
            partitions, shuffled = [types] * n_controls, slice(1, 1 + n_shuffles)
        else:
            partitions = [types] * n_controls + [groups] * n_shuffles
            shuffled = slice(1 + n_controls, 1 + n_controls + n_shuffles)
        dealt = [random_labels(truth, partition, rng=rng) for partition in partitions]
        return cls(np.stack([truth, *dealt]), types, slice(1, 1 + n_controls), shuffled)

    def fit(
        self,
        design: Design,
        tested: Float[Tensor, "m _"],
        train: Bool[np.ndarray, " n"],
        name: str,
        **options: Any,
    ) -> Int[np.ndarray, "sets m"]:
        """Class that each label set's probe gives to each test row."""
        classes, index = np.unique(self.stacked[:, train], return_inverse=True)
        codes = torch.from_numpy(index.reshape(len(self.stacked), -1)).to(tested.device)
        fit = fit_logistic(design, codes, len(classes), name=name, **options)
        found: Int[np.ndarray, "sets m"] = classes[fit.predict(tested).cpu().numpy()]
        return found


def _cell(
    at: ProbedAt,
    target: str,
    sets: _LabelSets,
    predicted: Int[np.ndarray, "sets m"],
    groups: Int[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
) -> ProbeCell:
    tested = sets.stacked[:, ~train]
    classes, counts = np.unique(sets.stacked[0, train], return_counts=True)
    return ProbeCell(
        at=at,
        target=target,
        n_train=int(train.sum()),
        n_classes=len(classes),
        truth=tested[0],
        predicted=predicted[0],
        control_truth=tested[sets.control],
        control_predicted=predicted[sets.control],
        shuffled_truth=tested[sets.shuffled],
        shuffled_predicted=predicted[sets.shuffled],
        groups=groups[~train],
        majority=int(classes[counts.argmax()]),
        seen=float(np.isin(sets.types[~train], sets.types[train]).mean()),
    )


def _check_amount(target: str, truth: Int[np.ndarray, " n"], train: Bool[np.ndarray, " n"]) -> None:
    """ValueError where there is too little to fit or to test."""
    n_train, n_test = int(train.sum()), int((~train).sum())
    classes = np.unique(truth[train])
    if len(classes) < 2:
        raise ValueError(
            f"target {target!r} has {len(classes)} class(es) {classes.tolist()} in {n_train} training rows; "
            "a probe needs two"
        )
    needed = max(MIN_TRAIN, MIN_TRAIN_PER_CLASS * len(classes))
    if n_train < needed or n_test < MIN_TEST:
        raise ValueError(
            f"target {target!r} with {len(classes)} classes: {n_train} training and {n_test} test rows, but at least "
            f"{needed} and {MIN_TEST} are needed; give more problems, or fewer classes"
        )


def _same_partition(one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> bool:
    both = len(np.unique(np.stack([one, other], axis=1), axis=0))
    return both == len(np.unique(one)) == len(np.unique(other))


def as_place(key: str | Site | ProbedAt, **where: Any) -> ProbedAt:
    """Where features under this name come from; `where` says more about it (role, step, model, place)."""
    if isinstance(key, ProbedAt):
        return replace(key, **where)
    if isinstance(key, str):
        return ProbedAt(site=key, **where)
    return ProbedAt(site=key.kind if key.head is None else f"{key.kind}.H{key.head}", layer=key.layer, **where)
