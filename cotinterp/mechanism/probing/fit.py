"""Linear probes on any activations: what a notebook hands over is features, labels, and who is who."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.probing.controls import Controls, check_split, random_labels
from cotinterp.mechanism.probing.coordinates import Coordinate
from cotinterp.mechanism.probing.linear_probe import CircleFit, ProbedAt, as_probe, fit_circle
from cotinterp.mechanism.probing.result import ProbeCell, ProbeResult
from cotinterp.mechanism.probing.rows import (
    Features,
    Labels,
    feature_rows,
    groups_of_equal_rows,
    row_groups,
    training_rows,
    whole_labels,
)
from cotinterp.mechanism.probing.solver import Design, FitOptions, LogisticFit, Partitions, solve
from cotinterp.mechanism.sites import Site

MIN_TRAIN = 40
MIN_TRAIN_PER_CLASS = 2
MIN_TEST = 10
Name = TypeVar("Name", bound=str | Site | ProbedAt)


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """What is to be read off, and what is known of where it comes from.

    Attributes:
        truth: Class of each row, any integers.
        types: Type of input of each row, which gets one label in the control task (`random_labels`): all that the
            target is made of and the features could show. By default the group. Types that recur on both sides are
            allowed: what the probe gains by storing them is in the control's accuracy.
        renamed: Other labelings that an ignorant model must not tell from the true one (`controls.renamed_totals`), the
            same number for every target: for `ProbeResult.scan`. Where totals stand written no other labels are fair:
            use `probe_totals`, which renames the text.
    """

    truth: Int[np.ndarray, " n"]
    types: Int[np.ndarray, " n"] | None = None
    renamed: Int[np.ndarray, "draws n"] | None = None

    def __post_init__(self) -> None:
        """The truth as whole numbers, whatever kind was given."""
        object.__setattr__(self, "truth", whole_labels(self.truth, "truth"))

    def checked(self, name: str, n: int) -> "Target":
        """The same as whole numbers, one for each of `n` rows. ValueError that names what is not."""
        renamed = self.renamed
        if renamed is not None:
            renamed = np.stack([whole_labels(one, f"{name}, renamed", n) for one in renamed])
        types = None if self.types is None else whole_labels(self.types, f"{name}, types", n)
        return Target(truth=whole_labels(self.truth, name, n), types=types, renamed=renamed)

    def of_rows(self, rows: Int[np.ndarray, " some"]) -> "Target":
        """Some of the rows."""
        types = None if self.types is None else self.types[rows]
        renamed = None if self.renamed is None else self.renamed[:, rows]
        return Target(truth=self.truth[rows], types=types, renamed=renamed)


@dataclass(frozen=True, eq=False)
class TrainTestSplit:
    """The rows that a probe is fitted on and those that it is tested on; others take no part.

    Attributes:
        rows: Numbers of the rows that take part, ascending.
        train: Which of them are fitted on.
        groups: Problem of each of them.
    """

    rows: Int[np.ndarray, " n"]
    train: Bool[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]


def fit_probes(
    features: Mapping[Name, Features],
    targets: Mapping[str, Labels | Target],
    train: Bool[np.ndarray, " n"],
    *,
    groups: Labels | None = None,
    coordinates: Mapping[str, Coordinate] | None = None,
    controls: Controls = Controls(),
    fit: FitOptions = FitOptions(),
    labels: Mapping[str, str | int] | None = None,
) -> ProbeResult:
    """Multinomial logistic probes for every target on every set of features, each beside its controls.

    Args:
        features: Activations, one row per example, by site or by any name.
        targets: By the target's name, the class of each example, or a `Target` that knows more of it.
        train: Rows to fit on; the others are the test.
        groups: Problem of each row; a problem on both sides is refused. By default every row is its own, but for rows
            with the same features: they are one problem, which is refused on both sides unless the targets say what the
            input of each row is (`Target.types`).
        coordinates: Then targets are state indices, and each is probed in every one of these coordinates, on the same
            control draws. Those with a circle are fitted by ridge regression onto it, with the same penalty.
        controls: What the probes are compared with; untrained models and renamings are those of `probe_totals`.
        fit: Penalty, tolerance, and whether the probes are kept.
        labels: Constant columns of the table: task, regime, run_seed.

    Raises:
        ValueError: Groups on both sides; fewer training rows than 40, or than two a class; fewer than 10 test rows; one
            class only; features that are not finite.
        ProbeNotConverged: Names the cell.
    """
    if not features or not targets:
        raise ValueError(
            f"features: {len(features)} and targets: {len(targets)} were given. Wanted is one or more each."
        )
    n = len(next(iter(features.values())))
    train = training_rows(train, n)
    given = {key: feature_rows(rows, f"features {str(key)!r}", n) for key, rows in features.items()}
    known = {
        name: one.checked(f"target {name!r}", n)
        if isinstance(one, Target)
        else Target(truth=whole_labels(one, f"target {name!r}", n))
        for name, one in targets.items()
    }
    if groups is None:
        told = all(target.types is not None for target in known.values())
        groups = np.arange(n) if told else groups_of_equal_rows(given.values(), train)
    else:
        groups = row_groups(groups, n)
        check_split(groups, train)
    split = TrainTestSplit(np.arange(n), train, groups)
    asked = label_sets(known, split, controls.of_features_alone(), coordinates)
    for one in asked:
        check_test(one.label, one.stacked[0], train)
    planned = [
        PlannedCell(prepared, one)
        for key, rows in given.items()
        for prepared in [PreparedFeatures.of(ProbedAt.of(key), rows, split, keep=fit.keep)]
        for one in asked
    ]
    return ProbeResult(tuple(fit_cells(planned, fit)), labels or {})


def label_sets(
    targets: Mapping[str, Target],
    split: TrainTestSplit,
    controls: Controls,
    coordinates: Mapping[str, Coordinate] | None = None,
) -> list["LabelSets"]:
    """Every target in every coordinate with its controls. ValueError where there is too little to fit or to test."""
    found = []
    for name, target in targets.items():
        drawn = LabelSets.draw(name, target, split, controls)
        found += [drawn] if coordinates is None else [drawn.through(one) for one in coordinates.values()]
    for one in found:
        check_amount(one.label, one.stacked[0], split.train)
    return found


def check_test(target: str, truth: Int[np.ndarray, " n"], train: Bool[np.ndarray, " n"]) -> None:
    """ValueError where the test rows have one class: what names nothing else would be right on all of them."""
    classes = np.unique(truth[~train])
    if len(classes) < 2:
        raise ValueError(
            f"target {target!r} has one class, {classes.tolist()}, in {int((~train).sum())} test rows: an accuracy "
            "there cannot tell a probe from a constant. Hold out other rows, e.g. hold_out(groups, seed=...)"
        )


def check_amount(target: str, truth: Int[np.ndarray, " n"], train: Bool[np.ndarray, " n"]) -> None:
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


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelSets:
    """A target (row 0), its control tasks, its shuffles and its renamed labelings: all to be fitted on one design.

    Attributes:
        split: Whose rows the columns of `stacked` are.
        types: Type of input of each row, to which a control task gives one label.
        control, shuffled, renamed: Which sets are which. Where every problem is a type of its own, controls and
            shuffles are the same thing and are the same sets.
    """

    name: str
    split: TrainTestSplit
    stacked: Int[np.ndarray, "sets n"]
    types: Int[np.ndarray, " n"]
    control: slice
    shuffled: slice
    renamed: slice
    coordinate: Coordinate | None = None

    @property
    def label(self) -> str:
        """The target in its coordinate: `s_2`, `parity of s_2`."""
        return self.name if self.coordinate is None else self.coordinate.named(self.name)

    @classmethod
    def draw(cls, name: str, target: Target, split: TrainTestSplit, controls: Controls) -> "LabelSets":
        """Draw them. The draws depend on the seed and the inputs alone, so that all features see the same ones."""
        # Another stream than that of the split (`hold_out`), which may have the same seed.
        rng = np.random.default_rng([controls.seed, 1])
        own = target.of_rows(split.rows)
        types = split.groups if own.types is None else own.types
        n_controls, n_shuffles = controls.n_controls, controls.n_shuffles
        if _same_partition(split.groups, types):
            n_controls = max(n_controls, n_shuffles)
            partitions, shuffled = [types] * n_controls, slice(1, 1 + n_shuffles)
        else:
            partitions = [types] * n_controls + [split.groups] * n_shuffles
            shuffled = slice(1 + n_controls, 1 + n_controls + n_shuffles)
        drawn = [random_labels(own.truth, partition, rng=rng) for partition in partitions]
        others = np.empty((0, len(own.truth)), dtype=own.truth.dtype) if own.renamed is None else own.renamed
        return cls(
            name=name,
            split=split,
            stacked=np.concatenate([np.stack([own.truth, *drawn]), others]),
            types=types,
            control=slice(1, 1 + n_controls),
            shuffled=shuffled,
            renamed=slice(1 + len(drawn), None),
        )

    def through(self, coordinate: Coordinate) -> "LabelSets":
        """The same draws of states, seen in one coordinate."""
        return replace(self, stacked=coordinate.of(self.stacked), coordinate=coordinate)

    def truth_alone(self) -> "LabelSets":
        """The same without controls, shuffles and other labelings."""
        none = slice(1, 1)
        return replace(self, stacked=self.stacked[:1], control=none, shuffled=none, renamed=none)

    def codes(self) -> tuple[Int[np.ndarray, " classes"], Int[np.ndarray, "sets train"]]:
        """Classes that some label set has in the training rows, and each training row's place among them."""
        own = self.stacked[:, self.split.train]
        if self.coordinate is not None and self.coordinate.circle is not None:
            return np.arange(len(self.coordinate.circle)), own
        classes, index = np.unique(own, return_inverse=True)
        return classes, index.reshape(len(self.stacked), -1)


def _same_partition(one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> bool:
    both = len(np.unique(np.stack([one, other], axis=1), axis=0))
    return both == len(np.unique(one)) == len(np.unique(other))


@dataclass(frozen=True, eq=False)
class PreparedFeatures:
    """The features of one split made ready: standardized and rotated once, whatever is read off them."""

    at: ProbedAt
    design: Design
    tested: Float[Tensor, "m d_feature"]
    fitted: Float[Tensor, "n d_feature"] | None
    """The training rows as they were, where the probes are to be kept."""

    @classmethod
    def of(
        cls, at: ProbedAt, features: Float[Tensor, "n d_feature"], split: TrainTestSplit, *, keep: bool = False
    ) -> "PreparedFeatures":
        """The training rows alone make the design."""
        fitted, tested = (
            features[torch.from_numpy(rows).to(features.device)]
            for rows in (split.rows[split.train], split.rows[~split.train])
        )
        return cls(at, Design.of(fitted), tested, fitted if keep else None)

    @property
    def n_bytes(self) -> int:
        """What it holds."""
        held = (self.tested, self.design.distinct, self.design.place, self.design.rotation, self.fitted)
        return sum(part.nbytes for part in held if part is not None)


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """A cell that is yet to be fitted: these labels, on those features of the same split."""

    features: PreparedFeatures
    labels: LabelSets

    @property
    def name(self) -> str:
        """For errors."""
        at = self.features.at
        return f"{at.model} {at.label} at {at.place}, target {self.labels.label}"


def fit_cells(planned: Sequence[PlannedCell], fit: FitOptions) -> list[ProbeCell]:
    """The fitted cells, in order. All of one split that are fitted by the same means are solved together."""
    cells: dict[int, ProbeCell] = {}
    label_sets = {id(one.labels): one.labels for one in planned}
    coded = {key: labels.codes() for key, labels in label_sets.items()}
    parts: dict[tuple[int, torch.device], Partitions] = {}
    together: defaultdict[Any, list[int]] = defaultdict(list)
    for number, one in enumerate(planned):
        design, coordinate = one.features.design, one.labels.coordinate
        classes, codes = coded[id(one.labels)]
        device = design.distinct.device
        if coordinate is not None and coordinate.circle is not None:
            labels, points = (torch.from_numpy(x).to(device) for x in (codes, coordinate.circle))
            cells[number] = _cell(one, fit_circle(design, labels, points, penalty=fit.penalty), classes)
        else:
            key = id(one.labels), device
            if key not in parts:
                parts[key] = Partitions.of(torch.from_numpy(codes).to(device), len(classes))
            together[one.labels.split, device, design.distinct.dtype].append(number)
    for (_, device, _), numbers in together.items():
        solved = solve(
            [planned[i].features.design for i in numbers],
            [parts[id(planned[i].labels), device] for i in numbers],
            penalty=fit.penalty,
            tolerance=fit.tolerance,
            max_iterations=fit.max_iterations,
            names=[planned[i].name for i in numbers],
            max_bytes=fit.max_bytes,
        )
        for index, found in solved:
            one = planned[numbers[index]]
            cells[numbers[index]] = _cell(one, found, coded[id(one.labels)][0])
    return [cells[number] for number in range(len(planned))]


def fit_cells_as_read(planned: Iterable[PlannedCell], fit: FitOptions, *, held_bytes: int) -> list[ProbeCell]:
    """`fit_cells` for cells that are planned on the way: at most `held_bytes` of features wait to be fitted at a time.

    Cells of the same features must follow one another.
    """
    cells: list[ProbeCell] = []
    waiting: list[PlannedCell] = []
    held = 0
    for one in planned:
        if not waiting or one.features is not waiting[-1].features:
            if waiting and held + one.features.n_bytes > held_bytes:
                cells += fit_cells(waiting, fit)
                waiting, held = [], 0
            held += one.features.n_bytes
        waiting.append(one)
    return cells + fit_cells(waiting, fit)


def _cell(planned: PlannedCell, fit: LogisticFit | CircleFit, classes: Int[np.ndarray, " classes"]) -> ProbeCell:
    features, labels, train = planned.features, planned.labels, planned.labels.split.train
    predicted = classes[fit.predict(features.tested).cpu().numpy()]
    tested, trained = labels.stacked[:, ~train], labels.stacked[0, train]
    present, counts = np.unique(trained, return_counts=True)
    r_squared = control_r_squared = float("nan")
    if isinstance(fit, CircleFit):
        each = fit.r_squared(features.tested, torch.from_numpy(tested).to(features.tested.device)).cpu().numpy()
        controls = each[labels.control]
        r_squared, control_r_squared = float(each[0]), float(controls.mean()) if len(controls) else float("nan")
    return ProbeCell(
        at=features.at,
        target=labels.label,
        n_train=int(train.sum()),
        n_classes=len(present),
        truth=tested[0],
        predicted=predicted[0],
        control_truth=tested[labels.control],
        control_predicted=predicted[labels.control],
        shuffled_truth=tested[labels.shuffled],
        shuffled_predicted=predicted[labels.shuffled],
        renamed_accuracy=np.asarray((predicted == tested)[labels.renamed].mean(1), dtype=np.float64),
        groups=labels.split.groups[~train],
        majority=np.full(len(tested[0]), present[counts.argmax()]),
        seen=float(np.isin(labels.types[~train], labels.types[train]).mean()),
        r_squared=r_squared,
        control_r_squared=control_r_squared,
        probe=None
        if features.fitted is None
        else as_probe(fit, classes, features.fitted, trained, at=features.at, target=labels.label),
    )
