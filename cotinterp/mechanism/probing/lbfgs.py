"""L-BFGS for a block of convex softmax regressions that are in step with one another.

All label sets on all designs move together (Liu & Nocedal, 1989), each with a direction, a step length and a history
of its own. The initial inverse Hessian is the exact diagonal curvature in the designs' principal axes, refreshed as
the fit proceeds. The objective is convex, so a step is judged by the slope at its end (the approximate Wolfe test of
Hager & Zhang, 2005) and no function value is ever compared in float32.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

HISTORY = 10
CURVATURE_REFRESH = 20
# Saturated classes have next to no curvature; a tenth of the curvature at zero weights keeps the steps there short.
CURVATURE_FLOOR = 0.1
SLOPE_TEST = 0.5
# Finished label sets are carried along until so many slots are idle that moving the others pays.
BUSY = 0.8
_SLOTTED = ("weight", "logits", "labels", "residual", "gradient", "curvature", "start_curvature")


class Fits:
    """The label sets that have not converged yet, on all designs, and one L-BFGS step for all of them.

    Tensors are `designs axes sets classes` (weights; the last axis of a design is its bias) or `designs n sets classes`
    (logits): each product with the rows is one matrix product a design.
    """

    def __init__(
        self,
        rows: Sequence[Float[Tensor, "n _"]],
        labels: Int[Tensor, "designs sets n"],
        n_classes: int,
        penalty: float,
    ) -> None:
        n, axes = rows[0].shape[0], max(part.shape[1] for part in rows)
        # An axis that a design lacks is a feature that is always 0: its weights stay 0.
        padded = [
            torch.cat([part.new_zeros(n, axes - part.shape[1]), part, part.new_ones(n, 1)], dim=1) for part in rows
        ]
        self.rows = torch.stack(padded)
        self.rows_t = self.rows.transpose(1, 2).contiguous() / n
        self.squares_t = self.rows_t * self.rows.transpose(1, 2)
        self.penalty = self.rows.new_full((axes + 1, 1, 1), penalty / n)
        self.penalty[-1] = 0.0
        designs, sets, n = labels.shape
        present = torch.zeros(designs, sets, n_classes, dtype=torch.bool, device=labels.device)
        self.present = present.scatter_(2, labels, True)
        self.norms = self.rows.new_zeros(designs, sets)
        self.found = self.rows.new_zeros(designs, axes + 1, sets, n_classes)
        self.design = torch.arange(designs, device=labels.device)
        self.index = torch.arange(sets, device=labels.device).expand(designs, sets)
        self.active = torch.ones(designs, sets, dtype=torch.bool, device=labels.device)
        self.weight = torch.zeros_like(self.found)
        # A class without training rows starts, and stays, at logit minus infinity: it takes no probability.
        absent = self.rows.new_zeros(designs, 1, sets, n_classes).masked_fill(~self.present[:, None], -torch.inf)
        self.logits = absent.expand(-1, n, -1, -1)
        self.labels = labels.transpose(1, 2)[..., None]
        self.residual = self._residual(self.logits)
        self.gradient = self._gradient()
        self.history: list[tuple[Tensor, Tensor, Tensor]] = []
        self.curvature = self.start_curvature = self._curvature()

    @staticmethod
    def n_bytes(sets: int, n: int, axes: int, n_classes: int, itemsize: int) -> int:
        """About how much one design takes: logits five times over, weights and their history, rows three times."""
        return itemsize * (sets * n_classes * (5 * n + (2 * HISTORY + 8) * axes) + 3 * n * axes)

    def record(self, tolerance: float) -> bool:
        """Take down what has converged by now and drop it; whether anything is left."""
        norm = torch.linalg.vector_norm(self.gradient, dim=(1, 3))
        done = self.active & (norm <= tolerance)
        if done.any():
            place, slot = done.nonzero(as_tuple=True)
            where = self.design[place], self.index[place, slot]
            self.norms[where] = norm[place, slot]
            self.found[where[0], :, where[1]] = self.weight[place, :, slot]
            self.active = self.active & ~done
            self._compact()
        return bool(self.active.any())

    def finite(self) -> bool:
        """Whether every fit that still runs has a finite gradient."""
        return bool(torch.isfinite(self.gradient).all(3).all(1)[self.active].all())

    def worst(self) -> tuple[int, float, int]:
        """Of the first design with a fit that still runs: its number, its largest gradient norm, how many still run."""
        norm = torch.linalg.vector_norm(self.gradient, dim=(1, 3))
        place = int(self.active.any(1).int().argmax())
        left = norm[place][self.active[place]]
        return int(self.design[place]), float(left.max()), len(left)

    def solution(
        self, place: int, axes: int
    ) -> tuple[Float[Tensor, "sets axes classes"], Float[Tensor, "sets classes"]]:
        """Weights on a design's own axes, and biases: minus infinity for a class that a label set lacks."""
        found = self.found[place].transpose(0, 1)
        return found[:, -1 - axes : -1], found[:, -1].masked_fill(~self.present[place], -torch.inf)

    def step(self, iteration: int) -> None:
        """Move every label set once along its own L-BFGS direction."""
        if iteration % CURVATURE_REFRESH == 0:
            self.curvature = self._curvature() + CURVATURE_FLOOR * self.start_curvature
        direction = self._direction()
        moved = self._search(direction) * direction
        self.weight = self.weight + moved
        gradient = self._gradient()
        turned = gradient - self.gradient
        self.gradient = gradient
        self.history = [*self.history, (moved, turned, _dot(moved, turned))][-HISTORY:]

    def _compact(self) -> None:
        """Drop designs that are done, and slots that no design needs any more, once that frees a fifth of the block."""
        designs, slots = self.active.any(1).nonzero()[:, 0], int(self.active.sum(1).max())
        if not slots or len(designs) * slots > BUSY * self.active.numel():
            return
        order = (~self.active).int().argsort(dim=1, stable=True)[designs, :slots]

        def taken(part: Tensor) -> Tensor:
            return part[designs[:, None], :, order].movedim(1, 2).contiguous()

        for name in _SLOTTED:
            setattr(self, name, taken(getattr(self, name)))
        self.history = [(taken(moved), taken(turned), taken(inner)) for moved, turned, inner in self.history]
        self.index, self.active = self.index[designs[:, None], order], self.active[designs[:, None], order]
        self.design = self.design[designs]
        if len(designs) < len(self.rows):
            self.rows, self.rows_t, self.squares_t = self.rows[designs], self.rows_t[designs], self.squares_t[designs]

    def _residual(self, logits: Float[Tensor, "designs n sets classes"]) -> Float[Tensor, "designs n sets classes"]:
        """Predicted probability minus one at the label: the gradient of the cross-entropy in the logits."""
        return logits.softmax(-1).scatter_add_(3, self.labels, -torch.ones_like(logits[..., :1]))

    def _gradient(self) -> Float[Tensor, "designs axes sets classes"]:
        return _times(self.rows_t, self.residual) + self.penalty * self.weight

    def _curvature(self) -> Float[Tensor, "designs axes sets classes"]:
        """The diagonal of the Hessian, exact. The bias of an absent class has none; its gradient is zero anyway."""
        probability = self.logits.softmax(-1)
        return (_times(self.squares_t, probability * (1 - probability)) + self.penalty).clamp_min(1e-6)

    def _direction(self) -> Float[Tensor, "designs axes sets classes"]:
        """Minus the inverse Hessian's estimate times the gradient, by the two-loop recursion."""
        direction, coefficients = -self.gradient, []
        for moved, turned, inner in reversed(self.history):
            coefficient = _ratio(_dot(moved, direction), inner)
            direction = torch.addcmul(direction, coefficient, turned, value=-1)
            coefficients.append(coefficient)
        direction = direction / self.curvature
        if self.history:
            moved, turned, inner = self.history[-1]
            direction = direction * _ratio(inner, _dot(turned, turned / self.curvature))
        for (moved, turned, inner), coefficient in zip(self.history, reversed(coefficients), strict=True):
            direction = torch.addcmul(direction, coefficient - _ratio(_dot(turned, direction), inner), moved)
        return direction

    def _search(self, direction: Float[Tensor, "designs axes sets classes"]) -> Float[Tensor, "designs 1 sets 1"]:
        """Step lengths whose end does not climb steeply: 1, or nearer by secants. Leaves logits and residual there."""
        along = _times(self.rows, direction)
        n = along.shape[1]
        start = _dot(self.gradient, direction)
        pull = _dot(self.penalty * self.weight, direction)
        bend = _dot(self.penalty * direction, direction)
        length = torch.ones_like(start)
        running: Bool[Tensor, "designs 1 sets 1"] = self.active[:, None, :, None]
        for _ in range(50):
            logits = self.logits + length * along
            residual = self._residual(logits)
            slope = _dot(residual, along) / n + pull + length * bend
            climbs = running & (slope > SLOPE_TEST * start.abs())
            if not climbs.any():
                break
            length = torch.where(climbs, length * start / (start - slope), length)
        self.logits, self.residual = logits, residual
        return length


def _times(
    rows: Float[Tensor, "designs i j"], values: Float[Tensor, "designs j sets classes"]
) -> Float[Tensor, "designs i sets classes"]:
    """One matrix product a design, over all of its label sets and classes."""
    product: Tensor = rows @ values.flatten(2)
    return product.reshape(*product.shape[:2], *values.shape[2:])


def _dot(
    a: Float[Tensor, "designs i sets classes"], b: Float[Tensor, "designs i sets classes"]
) -> Float[Tensor, "designs 1 sets 1"]:
    """Inner products, label set by label set."""
    return (a * b).sum(dim=(1, 3), keepdim=True)


def _ratio(above: Float[Tensor, "designs 1 sets 1"], below: Float[Tensor, "designs 1 sets 1"]) -> Tensor:
    """`above / below`; 0 where rounding has left no positive curvature, so that such a pair is not used."""
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0.0)
