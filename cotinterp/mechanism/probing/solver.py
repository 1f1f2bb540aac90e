"""Multinomial logistic regression for many feature sets and many label sets at once, solved to a gradient test.

A probing sweep fits thousands of small, full-batch, L2-regularized softmax regressions. What the label sets of one set
of features share is done once (`Design`): standardization, and the eigenvectors of the features' Gram matrix, in which
the L2 penalty is unchanged and the curvature nearly diagonal, which is where L-BFGS does well to start. Label sets that
differ in the names of their classes alone are one regression (`Partitions`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.probing.lbfgs import RunningFits


@dataclass(frozen=True, eq=False)
class Partitions:
    """The label sets of one design without repetition, classes numbered by their first training row.

    A fit depends on how its labels part the training rows, not on what the classes are called. A control task permutes
    the labels over the types of input. Where a type is a written total, that only renames the classes, and the
    control's regression is the target's with its columns exchanged: it is fitted once.
    """

    codes: Int[Tensor, "distinct n"]
    same: Int[Tensor, " sets"]
    """Which of the distinct ones each label set is."""
    column: Int[Tensor, "sets classes"]
    """Which of the numbers in `codes` each class has; those that a label set lacks come last."""
    present: Int[Tensor, " sets"]
    """How many classes each label set has."""

    @classmethod
    def of(cls, labels: Int[Tensor, "sets n"], n_classes: int) -> "Partitions":
        """Two label sets are one partition if a renaming of the classes turns one into the other."""
        sets, n = labels.shape
        first = labels.new_full((sets, n_classes), n)
        first.scatter_reduce_(1, labels, torch.arange(n, device=labels.device).expand(sets, n), "amin")
        column = first.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        codes = column.gather(1, labels)
        known: dict[bytes, int] = {}
        same = [known.setdefault(row.tobytes(), len(known)) for row in codes.cpu().numpy()]
        kept = [same.index(number) for number in range(len(known))]
        return cls(codes[kept], torch.tensor(same, device=labels.device), column, (first < n).sum(1))

    @property
    def sizes(self) -> Int[Tensor, " distinct"]:
        """How many classes each partition has."""
        return self.codes.amax(1) + 1

    @property
    def n_classes(self) -> int:
        """Classes of the label set that has most."""
        return int(self.present.max())

    def counts(self, place: Int[Tensor, " n"], n_places: int, n_classes: int) -> Int[Tensor, "distinct classes places"]:
        """How many training rows of each class stand at each place, `place` being that of each row."""
        flat = self.codes * n_places + place
        empty = flat.new_zeros(len(flat), n_classes * n_places)
        return empty.scatter_add_(1, flat, torch.ones_like(flat)).reshape(len(flat), n_classes, n_places)

    def expanded(
        self, weight: Float[Tensor, "distinct axes found"], bias: Float[Tensor, "distinct found"]
    ) -> tuple[Float[Tensor, "sets axes classes"], Float[Tensor, "sets classes"]]:
        """The regressions of all label sets in their own classes; 0 and minus infinity for one that a set lacks."""
        absent = self.column >= self.present[:, None]
        column = self.column.masked_fill(absent, 0)
        own = weight[self.same].gather(2, column[:, None].expand(-1, weight.shape[1], -1))
        levels = bias[self.same].gather(1, column)
        return own.masked_fill(absent[:, None], 0.0), levels.masked_fill(absent, -torch.inf)


CPU_BYTES, DEVICE_BYTES = 2**25, 2**30
# Below these sizes padding costs less than another round of small operations.
FEW_ROWS, FEW_AXES = 128, 32
LEAK = 1e-12


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How probes are fitted, and what that may take.

    Attributes:
        penalty: Strength of the L2 penalty, one over scikit-learn's `C`; features are standardized on training rows.
        tolerance, max_iterations: The gradient test of convergence, and when to give up (`fit_logistic`).
        max_bytes: About how much memory a call may take at a time. `probe_totals` shares it between activations,
            features made ready and the fits that run together, however many sites there are (by default 512 MiB; less
            makes the model run more often). Where features are given it bounds the fits (`fit_designs`).
        batch_size: Most sequences that the model runs at once, where it has to be run.
        keep: Put each fitted probe, a `LinearProbe`, into its cell.
    """

    penalty: float = 1.0
    tolerance: float = 1e-4
    max_iterations: int = 2000
    max_bytes: int | None = None
    batch_size: int | None = 256
    keep: bool = False

    def __post_init__(self) -> None:
        """ValueError for an option that could not be followed."""
        for name in ("penalty", "tolerance"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                why = ": with as many features as rows any target fits exactly" if name == "penalty" else ""
                raise ValueError(f"{name}={value!r}: a finite number that is positive is wanted{why}.")
        for name in ("max_iterations", "max_bytes", "batch_size"):
            value = getattr(self, name)
            if value is None and name != "max_iterations":
                continue
            if whole_number(name, value) < 1:
                raise ValueError(
                    f"{name}={value}: 1 or more is wanted{'' if name == 'max_iterations' else ', or None'}."
                )


def whole_number(name: str, value: object) -> int:
    """`value` as a number of something. ValueError that names the field for a fraction, a boolean, less than none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"{name}={value!r}: a whole number from 0 up is wanted.")
    return int(value)


class ProbeNotConverged(RuntimeError):
    """A probe's gradient did not fall below the tolerance: its accuracy says nothing and must not be reported."""


@dataclass(frozen=True, eq=False)
class Design:
    """Training features made ready for fitting: standardized on these rows alone, in their principal axes.

    Features that are constant on the training rows are given the value 0 wherever they are used, so that no weight and
    no test row can make anything of them. Equal rows (early places see few different inputs) are held once.
    """

    mean: Float[Tensor, " d_feature"]
    scale: Float[Tensor, " d_feature"]
    """One over the (population) standard deviation; 0 for a feature that is constant on the training rows."""
    rotation: Float[Tensor, "d_feature axes"]
    """Principal axes that carry more than 1e-10 of the variance; under the penalty no weight would go to the others."""
    distinct: Float[Tensor, "distinct axes"]
    """The standardized training rows in their principal axes, equal ones once."""
    place: Int[Tensor, " n"]
    """Which of the distinct rows each training row is."""

    @property
    def rows(self) -> Float[Tensor, "n axes"]:
        """The standardized training rows in their principal axes."""
        return self.distinct[self.place]

    @classmethod
    def of(cls, features: Float[Tensor, "n d_feature"], dtype: torch.dtype = torch.float32) -> "Design":
        """Standardize `features` (training rows only) and rotate them to principal axes. Raises on NaN or infinity."""
        if not torch.isfinite(features).all():
            bad = int((~torch.isfinite(features)).any(1).sum())
            raise ValueError(f"{bad} of {len(features)} training rows hold NaN or infinite features; nothing to probe")
        wide = features.double()
        mean, deviation = wide.mean(0), wide.std(0, unbiased=False)
        size = wide.abs()
        # What varies a trillion times less than the largest entry is no part of the computation: standardized, an
        # attention leak of 1e-14 would weigh as much as a state that is written out.
        floor = torch.maximum(10 * torch.finfo(features.dtype).eps * size.amax(0), LEAK * size.amax())
        constant = deviation <= floor
        scale = torch.where(constant, 0.0, 1.0 / deviation.masked_fill(constant, 1.0))
        standard = (wide - mean) * scale
        variance, rotation = torch.linalg.eigh(standard.T @ standard)
        rotation = rotation[:, variance > 1e-10 * variance.sum()]
        first, place = _equal_rows(standard)
        return cls(mean.to(dtype), scale.to(dtype), rotation.to(dtype), (standard[first] @ rotation).to(dtype), place)

    def standardized(self, features: Float[Tensor, "m d_feature"]) -> Float[Tensor, "m d_feature"]:
        """Any rows in the training rows' units: mean 0 and standard deviation 1 on the training rows."""
        return (features.to(self.mean) - self.mean) * self.scale


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """Converged softmax regressions, one for each label set, in the units of the standardized features."""

    design: Design
    weight: Float[Tensor, "sets d_feature classes"]
    bias: Float[Tensor, "sets classes"]
    """Minus infinity for a class that does not occur in that label set's training rows."""
    gradient_norm: Float[Tensor, " sets"]
    iterations: int
    """Steps of the label set that took most."""
    flops: float
    """Arithmetic of the two matrix products with the rows in each step: the least that these steps could cost."""

    def predict(self, features: Float[Tensor, "m d_feature"]) -> Int[Tensor, "sets m"]:
        """The most probable class of each row under each label set's regression."""
        return (self.design.standardized(features) @ self.weight + self.bias[:, None]).argmax(-1)


def fit_logistic(
    design: Design,
    labels: Int[Tensor, "sets n"],
    n_classes: int,
    *,
    penalty: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
    name: str = "probe",
) -> LogisticFit:
    """The minimizers of `sum_i cross_entropy_i + penalty / 2 * ||weight||^2` for every label set; the bias is free.

    `penalty` is one over scikit-learn's `C` (whose default 1.0 on standardized features this matches; with two classes
    scikit-learn fits one coefficient vector, and agrees at half its `C`). A fit has converged when the Euclidean norm
    of the gradient of the objective divided by `n` is at most `tolerance`; the weights are unique, so which solver
    found them does not matter. Raises `ProbeNotConverged` naming `name` otherwise, ValueError for labels outside
    `0..n_classes-1`.
    """
    fits = fit_designs(
        [design],
        labels[None],
        n_classes,
        penalty=penalty,
        tolerance=tolerance,
        max_iterations=max_iterations,
        names=[name],
    )
    return fits[0]


def fit_designs(
    designs: Sequence[Design],
    labels: Int[Tensor, "designs sets n"],
    n_classes: int,
    *,
    penalty: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
    names: Sequence[str] = (),
    max_bytes: int | None = None,
) -> list[LogisticFit]:
    """`fit_logistic` for every design and its label sets, as many at once as fit into about `max_bytes`.

    The answers are those of one design after another, to within the tolerance; what is saved is the time between small
    operations: little on a CPU, most of it on a GPU. Designs are put together with others that have nearly as many
    axes, so little is spent on padding. All have equally many rows. `max_bytes` is by default 32 MiB on a CPU (more no
    longer fits its caches) and 1 GiB elsewhere. `names` are the designs', for the error of one that does not converge.
    """
    names = list(names) or [f"probe {number}" for number in range(len(designs))]
    if labels.numel() == 0 or int(labels.min()) < 0 or int(labels.max()) >= n_classes:
        raise ValueError(f"{names[0]}: labels {tuple(labels.shape[1:])} must be there and lie in 0..{n_classes - 1}")
    if penalty <= 0:
        raise ValueError(f"{names[0]}: penalty {penalty} must be positive: a separable target has no solution else")
    found = dict(
        solve(
            designs,
            [Partitions.of(own, n_classes) for own in labels],
            penalty=penalty,
            tolerance=tolerance,
            max_iterations=max_iterations,
            names=names,
            max_bytes=max_bytes,
        )
    )
    return [found[number] for number in range(len(designs))]


def solve(
    designs: Sequence[Design],
    parts: Sequence[Partitions],
    *,
    penalty: float,
    tolerance: float,
    max_iterations: int,
    names: Sequence[str],
    max_bytes: int | None,
) -> Iterator[tuple[int, LogisticFit]]:
    """`fit_designs` for label sets that are partitions already, of any number of classes; each fit with its number,
    as soon as it is there."""
    if max_bytes is None:
        max_bytes = CPU_BYTES if designs[0].distinct.device.type == "cpu" else DEVICE_BYTES
    for batch in _batches(designs, parts, max_bytes):
        classes = max(parts[i].n_classes for i in batch)
        rows = [designs[i].distinct for i in batch]
        counts = [parts[i].counts(designs[i].place, len(designs[i].distinct), classes) for i in batch]
        fits = RunningFits(rows, counts, penalty)
        while fits.record(tolerance):
            if fits.n_steps == max_iterations or not fits.finite():
                where, norm, left = fits.worst()
                raise ProbeNotConverged(
                    f"{names[batch[where]]}: gradient norm {norm:.1e} after {fits.n_steps} iterations, above the "
                    f"tolerance {tolerance:.1e}, for {left} of {len(parts[batch[where]].codes)} label sets. Raise "
                    f"max_iterations or the penalty ({penalty:g}), or loosen the tolerance and say so."
                )
            fits.step()
        for place, number in enumerate(batch):
            design, part = designs[number], parts[number]
            weight, bias = part.expanded(*fits.solution(place, design.distinct.shape[1]))
            # Forward and back, a multiplication and an addition each, for every row, axis (and bias) and class.
            each = 4.0 * len(design.distinct) * (design.distinct.shape[1] + 1)
            yield (
                number,
                LogisticFit(
                    design=design,
                    weight=design.rotation @ weight,
                    bias=bias,
                    gradient_norm=fits.norms[place][part.same],
                    iterations=int(fits.steps[place].max()),
                    flops=each * float((fits.steps[place] * part.sizes).sum()),
                ),
            )


def _batches(designs: Sequence[Design], parts: Sequence[Partitions], max_bytes: int) -> list[list[int]]:
    """Numbers of the designs to be solved together: as many different label sets, of similar size, within the bytes."""

    def size(number: int) -> list[int]:
        n, axes = designs[number].distinct.shape
        return [len(parts[number].codes), max(n, FEW_ROWS), max(axes, FEW_AXES), parts[number].n_classes]

    batches: list[list[int]] = []
    largest = [0, 0, 0, 0]
    for number in sorted(range(len(designs)), key=size, reverse=True):
        own = size(number)
        sets, n, axes, classes = both = [max(pair) for pair in zip(own, largest, strict=True)]
        each = RunningFits.n_bytes(sets, n, axes, classes, designs[number].distinct.element_size())
        alike = own[0] == largest[0] and all(4 * one >= 3 * top for one, top in zip(own, both, strict=True))
        if alike and (len(batches[-1]) + 1) * each <= max_bytes:
            batches[-1].append(number)
            largest = both
        else:
            batches.append([number])
            largest = own
    return batches


def _equal_rows(rows: Float[Tensor, "n d"]) -> tuple[Int[Tensor, " distinct"], Int[Tensor, " n"]]:
    """The number of one row of each kind, and the kind of each row. Rows are one kind only if all entries are equal."""
    n, width = rows.shape
    number = torch.arange(n, device=rows.device)
    mixed = (rows * torch.arange(1, width + 1, device=rows.device).sqrt()).sum(1)
    kinds, place = mixed.unique(return_inverse=True)
    first = number.new_full((len(kinds),), n).scatter_reduce_(0, place, number, "amin")
    return (first, place) if bool((rows[first[place]] == rows).all()) else (number, number)
