"""L-BFGS for a block of convex softmax regressions that are in step with one another.

All label sets on all designs move together (Liu & Nocedal, 1989), each with a direction, a step length and a history
of its own, from an initial inverse Hessian that is close to the true one (`Curvature`) and is refreshed as the fit
proceeds. The objective is convex, so a step is judged by the slope at its end (the approximate Wolfe test of Hager &
Zhang, 2005) and no function value is ever compared in float32.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.probing.curvature import TOP, Curvature
from cotinterp.mechanism.probing.history import MEMORY, History

REFRESHED = (6, 18)
REFRESH_EVERY = 60
SLOPE_TEST = 0.5
# Finished label sets are carried along until so many slots are idle that moving the others pays.
BUSY = 0.8
_SLOTTED = ("weight", "logits", "target", "residual", "gradient", "norm", "seen", "present")


class Fits:
    """The label sets that have not converged yet, on all designs, and one L-BFGS step for all of them.

    Tensors are `designs sets classes axes` (weights; the last axis of a design is its bias) or `designs sets classes n`
    (logits): each product with the rows is one matrix product a design, over all label sets and classes.
    """

    def __init__(
        self,
        rows: Sequence[Float[Tensor, "_ _"]],
        counts: Sequence[Int[Tensor, "sets classes _"]],
        penalty: float,
    ) -> None:
        """`counts[i][s, c, r]`: how many training rows that are row r of design i have class c in label set s."""
        n, axes = (max(part.shape[axis] for part in rows) for axis in (0, 1))
        sets, classes, _ = counts[0].shape
        # An axis that a design lacks is a feature that is always 0: its weights stay 0. A row that it lacks weighs 0.
        self.rows_t = rows[0].new_zeros(len(rows), axes + 1, n)
        self.target = rows[0].new_zeros(len(rows), sets, classes, n)
        for number, (part, count) in enumerate(zip(rows, counts, strict=True)):
            self.rows_t[number, axes - part.shape[1] : axes, : len(part)] = part.T
            self.rows_t[number, axes, : len(part)] = 1.0
            self.target[number, ..., : len(part)] = count
        total = counts[0][0].sum()
        self.target /= total
        self.present = (self.target > 0).any(-1)
        self.mass = self.target[:, :1].sum(2, keepdim=True)
        self.penalty = self.rows_t.new_full((axes + 1,), penalty) / total
        self.penalty[-1] = 0.0
        self.norms = self.rows_t.new_zeros(len(rows), sets)
        self.steps = torch.zeros(len(rows), sets, dtype=torch.long, device=self.rows_t.device)
        self.n_steps = 0
        self.found = self.rows_t.new_zeros(len(rows), sets, classes, axes + 1)
        self.design = torch.arange(len(rows), device=self.rows_t.device)
        self.index = torch.arange(sets, device=self.rows_t.device).expand(len(rows), sets)
        self.active = torch.ones(len(rows), sets, dtype=torch.bool, device=self.rows_t.device)
        self.weight = torch.zeros_like(self.found)
        # A class without training rows starts, and stays, at logit minus infinity: it takes no probability.
        absent = torch.zeros_like(self.target[..., :1]).masked_fill(~self.present[..., None], -torch.inf)
        self.logits = absent.expand_as(self.target).contiguous()
        self.residual = self._residual(self.logits, self.mass, self.target)
        self.gradient = self._gradient()
        self.history = History(self.weight)
        self.curvature = Curvature.at_start(self.rows_t, self.mass, self.penalty, self.present)
        self.seen = self.curvature.times(self.gradient)

    @staticmethod
    def n_bytes(sets: int, n: int, axes: int, n_classes: int, itemsize: int) -> int:
        """About how much one design takes: logits six times over, weights and their history, rows and products."""
        return itemsize * (sets * n_classes * (6 * n + (3 * MEMORY + 10) * axes) + n * (2 * axes + TOP * TOP // 2))

    def record(self, tolerance: float) -> bool:
        """Take down what has converged by now and drop it; whether anything is left."""
        self.norm = norm = self.gradient.flatten(2).norm(dim=2)
        done = self.active & (norm <= tolerance)
        if done.any():
            place, slot = done.nonzero(as_tuple=True)
            where = self.design[place], self.index[place, slot]
            self.norms[where] = norm[place, slot]
            self.steps[where] = self.n_steps
            self.found[where] = self.weight[place, slot]
            self.active = self.active & ~done
            self._compact()
        return bool(self.active.any())

    def finite(self) -> bool:
        """Whether every fit that still runs had a finite gradient when last recorded."""
        return bool((torch.isfinite(self.norm) | ~self.active).all())

    def worst(self) -> tuple[int, float, int]:
        """Of the first design with a fit that still runs: its number, its largest gradient norm, how many still run."""
        place = int(self.active.any(1).int().argmax())
        left = self.norm[place][self.active[place]]
        return int(self.design[place]), float(left.max()), len(left)

    def solution(
        self, place: int, axes: int
    ) -> tuple[Float[Tensor, "sets axes classes"], Float[Tensor, "sets classes"]]:
        """Weights on a design's own axes, and biases; 0 for a class that a label set lacks."""
        found = self.found[place].mT
        return found[:, -1 - axes : -1], found[:, -1]

    def step(self) -> None:
        """Move every label set once along its own L-BFGS direction."""
        if self.n_steps in REFRESHED or (self.n_steps and self.n_steps % REFRESH_EVERY == 0):
            self.curvature = self._curvature()
            self.history.reseen(self.curvature)
            self.seen = self.curvature.times(self.gradient)
        direction = self.history.direction(self.gradient, self.seen)
        # Rounding may turn the remembered steps against the gradient; the curvature alone never is.
        uphill = _dot(self.gradient, direction) >= 0
        direction = torch.where(uphill[..., None, None], -self.seen, direction)
        before, seen = self.gradient, self.seen
        moved = self._search(direction) * direction
        self.seen = self.curvature.times(self.gradient)
        self.history.add(moved, self.gradient - before, self.seen - seen)
        self.n_steps += 1

    def _compact(self) -> None:
        """Drop designs that are done, and slots that no design needs any more, once that frees a fifth of the block."""
        designs, slots = self.active.any(1).nonzero()[:, 0], int(self.active.sum(1).max())
        if not slots or len(designs) * slots > BUSY * self.active.numel():
            return
        order = (~self.active).int().argsort(dim=1, stable=True)[designs, :slots]
        at = designs[:, None], order
        for name in _SLOTTED:
            setattr(self, name, getattr(self, name)[at])
        self.history.taken(at)
        self.curvature = self.curvature.taken(at)
        self.index, self.active = self.index[at], self.active[at]
        self.design = self.design[designs]
        if len(designs) < len(self.rows_t):
            self.rows_t, self.mass = self.rows_t[designs], self.mass[designs]

    @staticmethod
    def _residual(
        logits: Float[Tensor, "*block classes n"],
        mass: Float[Tensor, "*#block 1 n"],
        target: Float[Tensor, "*block classes n"],
    ) -> Float[Tensor, "*block classes n"]:
        """Predicted probability minus the observed one: the gradient of the mean cross-entropy in the logits."""
        return logits.softmax(-2).mul_(mass).sub_(target)

    def _gradient(self) -> Float[Tensor, "designs sets classes axes"]:
        product = (self.residual.flatten(1, 2) @ self.rows_t.mT).view_as(self.weight)
        return product.addcmul_(self.weight, self.penalty)

    def _curvature(self) -> Curvature:
        return Curvature.of(self.rows_t, self.logits.softmax(2), self.mass, self.penalty, self.present)

    def _search(self, direction: Float[Tensor, "designs sets classes axes"]) -> Float[Tensor, "designs sets 1 1"]:
        """Step lengths whose end does not climb steeply: 1, or nearer by secants. Leaves everything else there."""
        start = _dot(self.gradient, direction)
        along = (direction.flatten(1, 2) @ self.rows_t).view_as(self.logits)
        self.logits += along
        self.weight = self.weight + direction
        self.residual = self._residual(self.logits, self.mass, self.target)
        self.gradient = self._gradient()
        slope = _dot(self.gradient, direction)
        length = torch.ones_like(start)
        climbs = self.active & (slope > SLOPE_TEST * start.abs())
        if climbs.any():
            place, slot = climbs.nonzero(as_tuple=True)
            self._shorten((place, slot), direction, along, start, slope, length)
        return length[..., None, None]

    def _shorten(
        self,
        at: tuple[Int[Tensor, " climbing"], Int[Tensor, " climbing"]],
        direction: Float[Tensor, "designs sets classes axes"],
        along: Float[Tensor, "designs sets classes n"],
        start: Float[Tensor, "designs sets"],
        slope: Float[Tensor, "designs sets"],
        length: Float[Tensor, "designs sets"],
    ) -> None:
        """Secants for the label sets that went too far, alone; `length` is changed in place."""
        move, ahead, first = direction[at], along[at], start[at]
        base, weight, mass, target = (
            self.logits[at] - ahead,
            self.weight[at] - move,
            self.mass[at[0], 0],
            self.target[at],
        )
        pull, bend = (_dot(self.penalty * part, move) for part in (weight, move))
        climb, now = slope[at], torch.ones_like(first)
        for _ in range(50):
            steep = climb > SLOPE_TEST * first.abs()
            if not steep.any():
                break
            now = torch.where(steep, now * first / (first - climb), now)
            logits = base + now[:, None, None] * ahead
            residual = self._residual(logits, mass, target)
            climb = _dot(residual, ahead) + pull + now * bend
        self.logits[at], self.residual[at], length[at] = logits, residual, now
        self.weight[at] = weight + now[:, None, None] * move
        self.gradient[at] = residual @ self.rows_t[at[0]].mT + self.penalty * self.weight[at]


def _dot(a: Float[Tensor, "*sets classes i"], b: Float[Tensor, "*sets classes i"]) -> Float[Tensor, "*sets"]:
    """Inner products, label set by label set."""
    return (a * b).sum(dim=(-2, -1))
