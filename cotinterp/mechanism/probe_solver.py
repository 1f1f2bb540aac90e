"""Multinomial logistic regression for many label sets on the same features, solved together to a gradient test.

A probing sweep fits hundreds of small, full-batch, L2-regularized softmax regressions. What they share is done once
(`Design`): standardization, and the eigenvectors of the features' Gram matrix, in which the L2 penalty is unchanged and
the curvature is nearly diagonal. The label sets of one design are then minimized in one batch by L-BFGS (Liu & Nocedal,
1989) whose initial inverse Hessian is the exact diagonal curvature in those coordinates, refreshed as the fit proceeds.
The objective is convex, so a step is judged by the slope at its end (the approximate Wolfe test of Hager & Zhang, 2005)
and no function value is ever compared in float32.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

HISTORY = 10
CURVATURE_REFRESH = 20
# Saturated classes have next to no curvature; a tenth of the curvature at zero weights keeps the steps there short.
CURVATURE_FLOOR = 0.1
SLOPE_TEST = 0.5


class ProbeNotConverged(RuntimeError):
    """A probe's gradient did not fall below the tolerance: its accuracy says nothing and must not be reported."""


@dataclass(frozen=True, eq=False)
class Design:
    """Training features made ready for fitting: standardized on these rows alone, in their principal axes.

    Features that are constant on the training rows are given the value 0 wherever they are used, so that no weight and
    no test row can make anything of them.
    """

    mean: Float[Tensor, " d_feature"]
    scale: Float[Tensor, " d_feature"]
    """One over the (population) standard deviation; 0 for a feature that is constant on the training rows."""
    rotation: Float[Tensor, "d_feature axes"]
    """Principal axes that carry more than 1e-10 of the variance; under the penalty no weight would go to the others."""
    rows: Float[Tensor, "n axes"]
    """The standardized training rows in their principal axes."""

    @classmethod
    def of(cls, features: Float[Tensor, "n d_feature"], dtype: torch.dtype = torch.float32) -> "Design":
        """Standardize `features` (training rows only) and rotate them to principal axes. Raises on NaN or infinity."""
        if not torch.isfinite(features).all():
            bad = int((~torch.isfinite(features)).any(1).sum())
            raise ValueError(f"{bad} of {len(features)} training rows hold NaN or infinite features; nothing to probe")
        wide = features.double()
        mean, deviation = wide.mean(0), wide.std(0, unbiased=False)
        constant = deviation <= 10 * torch.finfo(features.dtype).eps * wide.abs().amax(0)
        scale = torch.where(constant, 0.0, 1.0 / deviation.masked_fill(constant, 1.0))
        standard = (wide - mean) * scale
        variance, rotation = torch.linalg.eigh(standard.T @ standard)
        rotation = rotation[:, variance > 1e-10 * variance.sum()]
        return cls(mean.to(dtype), scale.to(dtype), rotation.to(dtype), (standard @ rotation).to(dtype))

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
    if labels.numel() == 0 or int(labels.min()) < 0 or int(labels.max()) >= n_classes:
        raise ValueError(f"{name}: labels {tuple(labels.shape)} must be there and lie in 0..{n_classes - 1}")
    if penalty <= 0:
        raise ValueError(f"{name}: penalty {penalty} must be positive: without it a separable target has no solution")
    present = torch.zeros(len(labels), n_classes, dtype=torch.bool, device=labels.device).scatter_(1, labels, True)
    fits = _Fits(design, labels, present, penalty)
    solution, norms = torch.empty_like(fits.weight), torch.empty_like(fits.weight[:, 0, 0])
    for iteration in range(max_iterations + 1):
        norm = fits.gradient.flatten(1).norm(dim=1)
        done = norm <= tolerance
        if done.any():
            solution[fits.index[done]], norms[fits.index[done]] = fits.weight[done], norm[done]
            fits.keep(~done)
        if not len(fits.index):
            break
        if iteration == max_iterations or not torch.isfinite(norm).all():
            raise ProbeNotConverged(
                f"{name}: gradient norm {float(norm.max()):.1e} after {iteration} iterations, above the tolerance "
                f"{tolerance:.1e}, for {len(fits.index)} of {len(labels)} label sets. Raise max_iterations or the "
                f"penalty ({penalty:g}), or loosen the tolerance and say so."
            )
        fits.step(iteration)
    bias = solution[:, -1].masked_fill(~present, -torch.inf)
    return LogisticFit(design, design.rotation @ solution[:, :-1], bias, norms, iteration)


class _Fits:
    """The label sets that have not converged yet, and one L-BFGS step for all of them."""

    def __init__(
        self,
        design: Design,
        labels: Int[Tensor, "sets n"],
        present: Bool[Tensor, "sets classes"],
        penalty: float,
    ) -> None:
        rows = design.rows
        n, d_feature = rows.shape
        self.rows = torch.cat([rows, rows.new_ones(n, 1)], dim=1)
        self.rows_t = self.rows.T.contiguous() / n
        self.squares_t = self.rows_t * self.rows.T
        self.penalty = rows.new_full((d_feature + 1, 1), penalty / n)
        self.penalty[-1] = 0.0
        self.index = torch.arange(len(labels), device=rows.device)
        self.weight = rows.new_zeros(len(labels), d_feature + 1, present.shape[1])
        # A class without training rows starts, and stays, at logit minus infinity: it takes no probability.
        absent = torch.zeros_like(self.weight[:, :1]).masked_fill(~present[:, None], -torch.inf)
        self.logits = absent.expand(-1, n, -1)
        self.labels = labels[..., None]
        self.residual = self._residual(self.logits)
        self.gradient = self.rows_t @ self.residual + self.penalty * self.weight
        self.history: list[tuple[Tensor, Tensor, Tensor]] = []
        self.curvature = self.start_curvature = self._curvature()

    def keep(self, kept: Bool[Tensor, " sets"]) -> None:
        """Go on with some of the label sets."""
        for name in ("index", "weight", "logits", "labels", "residual", "gradient", "curvature", "start_curvature"):
            setattr(self, name, getattr(self, name)[kept])
        self.history = [(moved[kept], turned[kept], inner[kept]) for moved, turned, inner in self.history]

    def step(self, iteration: int) -> None:
        """Move every label set once along its own L-BFGS direction."""
        if iteration % CURVATURE_REFRESH == 0:
            self.curvature = self._curvature() + CURVATURE_FLOOR * self.start_curvature
        direction = self._direction()
        length = self._search(direction)
        moved = length * direction
        self.weight = self.weight + moved
        gradient = self.rows_t @ self.residual + self.penalty * self.weight
        turned = gradient - self.gradient
        self.gradient = gradient
        self.history = [*self.history, (moved, turned, _dot(moved, turned))][-HISTORY:]

    def _residual(self, logits: Float[Tensor, "sets n classes"]) -> Float[Tensor, "sets n classes"]:
        """Predicted probability minus one at the label: the gradient of the cross-entropy in the logits."""
        return logits.softmax(-1).scatter_add_(2, self.labels, -torch.ones_like(logits[..., :1]))

    def _curvature(self) -> Float[Tensor, "sets weights classes"]:
        """The diagonal of the Hessian, exact. The bias of an absent class has none; its gradient is zero anyway."""
        probability = self.logits.softmax(-1)
        return (self.squares_t @ (probability * (1 - probability)) + self.penalty).clamp_min(1e-6)

    def _direction(self) -> Float[Tensor, "sets weights classes"]:
        """Minus the inverse Hessian's estimate times the gradient, by the two-loop recursion."""
        direction, coefficients = -self.gradient, []
        for moved, turned, inner in reversed(self.history):
            coefficient = _ratio(_dot(moved, direction), inner)
            direction = direction - coefficient * turned
            coefficients.append(coefficient)
        direction = direction / self.curvature
        if self.history:
            moved, turned, inner = self.history[-1]
            direction = direction * _ratio(inner, _dot(turned, turned / self.curvature))
        for (moved, turned, inner), coefficient in zip(self.history, reversed(coefficients), strict=True):
            direction = direction + (coefficient - _ratio(_dot(turned, direction), inner)) * moved
        return direction

    def _search(self, direction: Float[Tensor, "sets weights classes"]) -> Float[Tensor, "sets 1 1"]:
        """Step lengths whose end does not climb steeply: 1, or nearer by secants. Leaves logits and residual there."""
        along = self.rows @ direction
        n = along.shape[1]
        start = _dot(self.gradient, direction)
        pull = _dot(self.penalty * self.weight, direction)
        bend = _dot(self.penalty * direction, direction)
        length = torch.ones_like(start)
        for _ in range(50):
            logits = self.logits + length * along
            residual = self._residual(logits)
            slope = _dot(residual, along) / n + pull + length * bend
            climbs = slope > SLOPE_TEST * start.abs()
            if not climbs.any():
                break
            length = torch.where(climbs, length * start / (start - slope), length)
        self.logits, self.residual = logits, residual
        return length


def _dot(a: Float[Tensor, "sets i j"], b: Float[Tensor, "sets i j"]) -> Float[Tensor, "sets 1 1"]:
    """Inner products, label set by label set."""
    inner: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return inner[:, None, None]


def _ratio(above: Float[Tensor, "sets 1 1"], below: Float[Tensor, "sets 1 1"]) -> Float[Tensor, "sets 1 1"]:
    """`above / below`; 0 where rounding has left no positive curvature, so that such a pair is not used."""
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0.0)
