"""Many probes at once: every question about every set of features, answered in as few fits as their shapes allow."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.probing.cell import ProbeCell
from cotinterp.mechanism.probing.circle_fit import CircleFit, fit_circle
from cotinterp.mechanism.probing.labels import LabelSets
from cotinterp.mechanism.probing.linear_probe import as_probe
from cotinterp.mechanism.probing.partitions import Partitions
from cotinterp.mechanism.probing.place import ProbedAt
from cotinterp.mechanism.probing.solver import Design, LogisticFit, solve

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
