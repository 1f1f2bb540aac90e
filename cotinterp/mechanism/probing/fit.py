"""Linear probes on any activations: what a notebook hands over is features, labels, and who is who."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.probing.controls import check_split, random_labels
from cotinterp.mechanism.probing.coordinates import Coordinate
from cotinterp.mechanism.probing.linear_probe import CircleFit, ProbedAt, as_probe, fit_circle
from cotinterp.mechanism.probing.linear_probe import as_place as as_place
from cotinterp.mechanism.probing.result import ProbeCell, ProbeResult
from cotinterp.mechanism.probing.solver import Design, LogisticFit, Partitions, solve
from cotinterp.mechanism.sites import Site


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelSets:
    """A target (row 0), its control tasks, its shuffles and its renamed labelings: all to be fitted on one design.

    Attributes:
        types: Type of input of each row, to which a control task gives one label.
        control, shuffled, renamed: Which rows are which. Where every problem is a type of its own, controls and
            shuffles are the same thing and are the same rows.
    """

    name: str
    stacked: Int[np.ndarray, "sets n"]
    types: Int[np.ndarray, " n"]
    control: slice
    shuffled: slice
    renamed: slice
    coordinate: Coordinate | None = None

    @classmethod
    def deal(
        cls,
        name: str,
        truth: Int[np.ndarray, " n"],
        groups: Int[np.ndarray, " n"],
        types: Int[np.ndarray, " n"] | None,
        *,
        n_controls: int,
        n_shuffles: int,
        seed: int,
        renamed: Int[np.ndarray, "draws n"] | None = None,
    ) -> "LabelSets":
        """Draw them. The draws depend on the seed and the inputs alone, so that all features see the same ones."""
        # Another stream than that of the split (`hold_out`), which may have the same seed.
        rng = np.random.default_rng([seed, 1])
        types = groups if types is None else types
        if _same_partition(groups, types):
            n_controls = max(n_controls, n_shuffles)
            partitions, shuffled = [types] * n_controls, slice(1, 1 + n_shuffles)
        else:
            partitions = [types] * n_controls + [groups] * n_shuffles
            shuffled = slice(1 + n_controls, 1 + n_controls + n_shuffles)
        dealt = [random_labels(truth, partition, rng=rng) for partition in partitions]
        others = np.empty((0, len(truth)), dtype=truth.dtype) if renamed is None else renamed
        return cls(
            name=name,
            stacked=np.concatenate([np.stack([truth, *dealt]), others]),
            types=types,
            control=slice(1, 1 + n_controls),
            shuffled=shuffled,
            renamed=slice(1 + len(dealt), None),
        )

    def through(self, coordinate: Coordinate) -> "LabelSets":
        """The same draws of states, seen in one coordinate."""
        return replace(
            self, name=coordinate.named(self.name), stacked=coordinate.of(self.stacked), coordinate=coordinate
        )

    def unnamed(self) -> "LabelSets":
        """The same without the renamed labelings."""
        return replace(self, stacked=self.stacked[: self.renamed.start], renamed=slice(self.renamed.start, None))

    def codes(self, train: Bool[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " classes"], Int[np.ndarray, "sets train"]]:
        """Classes that some label set has in the training rows, and each training row's place among them."""
        if self.coordinate is not None and self.coordinate.circle is not None:
            return np.arange(len(self.coordinate.circle)), self.stacked[:, train]
        classes, index = np.unique(self.stacked[:, train], return_inverse=True)
        return classes, index.reshape(len(self.stacked), -1)


def _same_partition(one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> bool:
    both = len(np.unique(np.stack([one, other], axis=1), axis=0))
    return both == len(np.unique(one)) == len(np.unique(other))


MIN_TRAIN = 40
MIN_TRAIN_PER_CLASS = 2
MIN_TEST = 10


@dataclass(frozen=True, eq=False)
class Readable:
    """Features made ready: standardized and rotated once, whatever is asked of them."""

    at: ProbedAt
    design: Design
    tested: Float[Tensor, "m d_feature"]
    features: Float[Tensor, "n d_feature"] | None
    """The training rows as they were, where the probes are to be kept."""

    @classmethod
    def of(
        cls, at: ProbedAt, features: Float[Tensor, "n d_feature"], train: Bool[np.ndarray, " n"], *, keep: bool = False
    ) -> "Readable":
        """The training rows alone make the design."""
        kept = torch.from_numpy(train).to(features.device)
        own = features[kept]
        return cls(at, Design.of(own), features[~kept], own if keep else None)

    @property
    def n_bytes(self) -> int:
        """What it holds."""
        held = (self.tested, self.design.distinct, self.design.place, self.design.rotation, self.features)
        return sum(part.nbytes for part in held if part is not None)


@dataclass(frozen=True, eq=False)
class Question:
    """One cell: may these labels be read off those features?"""

    where: Readable
    labels: LabelSets

    @property
    def name(self) -> str:
        """For errors."""
        at = self.where.at
        return f"{at.model} {at.row} at {at.column}, target {self.labels.name}"


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How every cell of a sweep is fitted (`fit_logistic`, `fit_circle`)."""

    penalty: float = 1.0
    tolerance: float = 1e-4
    max_iterations: int = 2000
    max_bytes: int | None = None


def answer(
    questions: Sequence[Question], train: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"], fitting: Fitting
) -> list[ProbeCell]:
    """The cell of each question, in order. All that are fitted by the same means are solved together."""
    cells: dict[int, ProbeCell] = {}
    coded = {
        id(labels): (labels, labels.codes(train)) for labels in {id(q.labels): q.labels for q in questions}.values()
    }
    parts: dict[tuple[int, torch.device], Partitions] = {}
    together: defaultdict[Any, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        design, coordinate = question.where.design, question.labels.coordinate
        classes, codes = coded[id(question.labels)][1]
        device = design.distinct.device
        if coordinate is not None and coordinate.circle is not None:
            labels, points = (torch.from_numpy(x).to(device) for x in (codes, coordinate.circle))
            found = fit_circle(design, labels, points, penalty=fitting.penalty)
            cells[number] = _cell(question, found, classes, train, groups)
        else:
            key = id(question.labels), device
            if key not in parts:
                parts[key] = Partitions.of(torch.from_numpy(codes).to(device), len(classes))
            together[device, design.distinct.dtype].append(number)
    for (device, _), numbers in together.items():
        solved = solve(
            [questions[i].where.design for i in numbers],
            [parts[id(questions[i].labels), device] for i in numbers],
            penalty=fitting.penalty,
            tolerance=fitting.tolerance,
            max_iterations=fitting.max_iterations,
            names=[questions[i].name for i in numbers],
            max_bytes=fitting.max_bytes,
        )
        for place, fit in solved:
            question = questions[numbers[place]]
            cells[numbers[place]] = _cell(question, fit, coded[id(question.labels)][1][0], train, groups)
    return [cells[number] for number in range(len(questions))]


def answer_as_read(
    questions: Iterable[Question],
    train: Bool[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    fitting: Fitting,
    *,
    max_bytes: int,
) -> list[ProbeCell]:
    """`answer` for questions that are made on the way: no more features are held at a time than `max_bytes`.

    Questions about the same features must follow one another.
    """
    cells: list[ProbeCell] = []
    waiting: list[Question] = []
    held = 0
    for question in questions:
        if not waiting or question.where is not waiting[-1].where:
            if waiting and held + question.where.n_bytes > max_bytes:
                cells += answer(waiting, train, groups, fitting)
                waiting, held = [], 0
            held += question.where.n_bytes
        waiting.append(question)
    return cells + answer(waiting, train, groups, fitting)


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


def _cell(
    question: Question,
    fit: LogisticFit | CircleFit,
    classes: Int[np.ndarray, " classes"],
    train: Bool[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
) -> ProbeCell:
    where, labels = question.where, question.labels
    predicted = classes[fit.predict(where.tested).cpu().numpy()]
    tested, trained = labels.stacked[:, ~train], labels.stacked[0, train]
    present, counts = np.unique(trained, return_counts=True)
    r_squared = control_r_squared = float("nan")
    if isinstance(fit, CircleFit):
        each = fit.r_squared(where.tested, torch.from_numpy(tested).to(where.tested.device)).cpu().numpy()
        r_squared, control_r_squared = float(each[0]), float(each[labels.control].mean())
    return ProbeCell(
        at=where.at,
        target=labels.name,
        n_train=int(train.sum()),
        n_classes=len(present),
        truth=tested[0],
        predicted=predicted[0],
        control_truth=tested[labels.control],
        control_predicted=predicted[labels.control],
        shuffled_truth=tested[labels.shuffled],
        shuffled_predicted=predicted[labels.shuffled],
        renamed_accuracy=np.asarray((predicted == tested)[labels.renamed].mean(1), dtype=np.float64),
        groups=groups[~train],
        majority=int(present[counts.argmax()]),
        seen=float(np.isin(labels.types[~train], labels.types[train]).mean()),
        r_squared=r_squared,
        control_r_squared=control_r_squared,
        probe=None
        if where.features is None
        else as_probe(fit, classes, where.features, trained, at=where.at, target=labels.name),
    )


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
