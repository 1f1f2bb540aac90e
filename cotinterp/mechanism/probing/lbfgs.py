"""L-BFGS for a block of convex softmax regressions that take their steps together.

All label sets on all designs move at once (Liu & Nocedal 1989), each with a direction, a step length and a history of
its own, from an initial inverse Hessian that is close to the true one (`Curvature`) and is refreshed as the fit
proceeds. The objective is convex, so a step is judged by the slope at its end (the approximate Wolfe test of Hager &
Zhang 2005), and no function value is ever compared in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TOP = 24
"""Axes, the bias among them, that are inverted together: the last ones. More cost more than they save."""
DAMPING = 0.01
"""Share of a mode's mean weight that is added to each row's: rows that are decided now may not stay so."""
NULL, TINY = 1e-3, 1e-6


@dataclass(frozen=True, eq=False)
class Curvature:
    """An approximate inverse Hessian of each label set, taken at certain probabilities, for nearly a Newton step.

    The Hessian couples all classes with all features. It is taken apart in two ways, and the two inverses are added, as
    in domain decomposition (additive Schwarz: a coarse and a local correction, neither of which is good alone):

    - by modes, the eigenvectors of the classes' mean coupling `diag(p) - p p'`. Where classes are ordered they run from
      slow to fast, with curvatures a hundred times apart. In modes and in the features' principal axes at once the
      Hessian's diagonal is exact (eigenvalue-corrected Kronecker factors: George et al. 2018, arXiv 1806.03884).
    - by classes, each with the rows that are undecided about it, which modes average over all classes.

    In both, the few axes with most of the variance are a whole block, inverted, and the others a diagonal. The products
    of those axes are the same for all label sets of a design, so all blocks of all of them are one matrix product.
    """

    modes: Float[Tensor, "designs sets classes classes"]
    """Columns: orthonormal combinations of classes; 0 in place of the constant and of classes that are absent."""
    share: Float[Tensor, "designs sets classes 1"]
    """One over the number of classes; 0 for those that are absent."""
    rest: Float[Tensor, "two designs sets classes rest"]
    block: Float[Tensor, "two designs sets classes top top"]
    """By modes, then by classes."""

    @classmethod
    def at_start(
        cls,
        rows_t: Float[Tensor, "designs axes n"],
        mass: Float[Tensor, "designs 1 1 n"],
        penalty: Float[Tensor, " axes"],
        present: Bool[Tensor, "designs sets classes"],
    ) -> "Curvature":
        """Where all weights are 0 and all classes equally probable: there the Hessian is diagonal in principal axes."""
        share = (present.to(rows_t) / present.sum(-1, keepdim=True))[..., None]
        variance = (rows_t.square() * mass[:, 0]).sum(-1)[:, None, None]
        inverse = 1 / (variance * share + penalty + TINY)
        top = min(TOP, rows_t.shape[1])
        block = torch.diag_embed(inverse[..., -top:])
        modes = rows_t.new_zeros(*present.shape, present.shape[-1])
        parts = ((torch.zeros_like(part), part) for part in (inverse[..., :-top], block))
        return cls(modes, share, *map(torch.stack, parts))

    @classmethod
    def of(
        cls,
        rows_t: Float[Tensor, "designs axes n"],
        probability: Float[Tensor, "designs sets classes n"],
        mass: Float[Tensor, "designs 1 1 n"],
        penalty: Float[Tensor, " axes"],
        present: Bool[Tensor, "designs sets classes"],
    ) -> "Curvature":
        """`mass` is each row's weight in the objective; `penalty` is added to the diagonal, feature by feature."""
        share = (present.to(probability) / present.sum(-1, keepdim=True))[..., None]
        modes = _modes(probability, mass, present)
        by_mode = (modes.square().mT @ probability - (modes.mT @ probability).square()).clamp_min_(0)
        weights = torch.stack([by_mode, probability - probability.square()], dim=1) * mass[:, None]
        weights += DAMPING * weights.sum(-1, keepdim=True) * mass[:, None]
        top = min(TOP, rows_t.shape[1])
        upper = torch.triu_indices(top, top, device=rows_t.device)
        last = rows_t[:, -top:]
        pairs = last.index_select(1, upper[0]).mul_(last.index_select(1, upper[1]))
        products = torch.cat([pairs, rows_t[:, :-top].square()], dim=1)
        summed = (weights.flatten(1, 3) @ products.mT).reshape(*weights.shape[:4], -1).transpose(0, 1)
        pair = upper.new_empty(top, top)
        pair[upper[0], upper[1]] = pair[upper[1], upper[0]] = torch.arange(upper.shape[1], device=pair.device)
        block = summed[..., pair] + torch.diag(penalty[-top:] + TINY)
        rest = summed[..., upper.shape[1] :] + penalty[:-top] + TINY
        return cls(modes, share, 1 / rest, torch.cholesky_inverse(torch.linalg.cholesky(block)))

    def times(self, vector: Float[Tensor, "designs sets classes axes"]) -> Float[Tensor, "designs sets classes axes"]:
        """The approximate inverse Hessian times a vector whose classes add up to 0, as those of all gradients do."""
        split = self.rest.shape[-1]
        turned = torch.stack([self.modes.mT @ vector, vector])
        last = (turned[..., None, split:] @ self.block)[..., 0, :]
        by_mode, by_class = torch.cat([turned[..., :split] * self.rest, last], dim=-1)
        solved: Tensor = (self.modes @ by_mode).add_(by_class)
        return solved.addcmul_(self.share, by_class.sum(2, keepdim=True), value=-1)

    def select(self, at: tuple[Tensor, Tensor]) -> "Curvature":
        """That of these label sets alone."""
        return Curvature(self.modes[at], self.share[at], self.rest[:, *at], self.block[:, *at])


def _modes(
    probability: Float[Tensor, "designs sets classes n"],
    mass: Float[Tensor, "designs 1 1 n"],
    present: Bool[Tensor, "designs sets classes"],
) -> Float[Tensor, "designs sets classes classes"]:
    weighted = probability * mass
    coupling = torch.diag_embed(weighted.sum(-1)) - weighted @ probability.mT
    found: Tensor = torch.linalg.eigh(coupling.double())[1].to(probability)
    # Combinations of the classes that are there, with the constant taken out, have length 1; all others have 0.
    within = found * present[..., None]
    length = within.square().sum(2) - within.sum(2).square() / present.sum(-1, keepdim=True)
    return within.mul_((length > NULL)[..., None, :])


MEMORY = 10


class History:
    """Steps, the gradients' changes over them, and those seen through the initial inverse Hessian.

    The estimated inverse Hessian times the gradient is that of the two loops of Liu & Nocedal (1989), in the compact
    form of Byrd, Nocedal & Schnabel (1994, theorem 2.2): two products with all steps instead of forty with one.

    Vectors are `designs sets classes axes`; the oldest step makes room for the newest. Every pair is scaled so that
    step and change have inner product 1, which changes no direction. A pair without positive curvature (rounding) is
    left at 0.
    """

    def __init__(self, like: Float[Tensor, "designs sets classes axes"]) -> None:
        designs, sets, classes, axes = like.shape
        self.changes = like.new_zeros(designs, sets, MEMORY, classes * axes)
        # The steps, then the changes as seen: one product with both.
        self.basis = like.new_zeros(designs, sets, 2 * MEMORY, classes * axes)
        small = torch.zeros(designs, sets, MEMORY, MEMORY, dtype=torch.float64, device=like.device)
        # Inverse of the products of each step with the changes that are not older: triangular in the order of age.
        self.inverse, self.gram = small, small.clone()
        self.size = small.new_ones(designs, sets, 1, 1)
        self.count = 0

    def add(
        self,
        step: Float[Tensor, "designs sets classes axes"],
        change: Float[Tensor, "designs sets classes axes"],
        seen: Float[Tensor, "designs sets classes axes"],
    ) -> None:
        """One step more; the oldest is forgotten. `seen` is the initial inverse Hessian times `change`."""
        inner = (step * change).sum((2, 3))
        scale = torch.where(inner > 0, inner, torch.inf).rsqrt()[..., None]
        place = self.count % MEMORY
        latest = change.flatten(2) * scale
        self.changes[:, :, place] = latest
        torch.mul(step.flatten(2), scale, out=self.basis[:, :, place])
        torch.mul(seen.flatten(2), scale, out=self.basis[:, :, MEMORY + place])
        onto = _onto(self.basis, latest[:, :, None])
        self.inverse[:, :, place] = 0.0
        self.inverse[..., place] = -(self.inverse @ onto[:, :, :MEMORY])[..., 0]
        self.inverse[:, :, place, place] = 1.0
        self.gram[..., place] = self.gram[:, :, place] = onto[:, :, MEMORY:, 0]
        self._rescale(place)
        self.count += 1

    def refresh(self, curvature: Curvature) -> None:
        """The same steps under another initial inverse Hessian."""
        shape = (*curvature.modes.shape[:3], -1)
        for place in range(min(self.count, MEMORY)):
            change = self.changes[:, :, place].reshape(shape)
            self.basis[:, :, MEMORY + place] = curvature.times(change).flatten(2)
        self.gram = (self.basis[:, :, MEMORY:] @ self.changes.mT).double()
        self._rescale((self.count - 1) % MEMORY)

    def direction(
        self,
        gradient: Float[Tensor, "designs sets classes axes"],
        seen: Float[Tensor, "designs sets classes axes"],
    ) -> Float[Tensor, "designs sets classes axes"]:
        """Minus the inverse Hessian's estimate times the gradient; `seen` is the initial one times the gradient."""
        onto_steps, onto_seen = _onto(self.basis, gradient.flatten(2)[:, :, None]).split(MEMORY, dim=2)
        first = self.inverse @ onto_steps
        second = self.inverse.mT @ torch.addcmul(first, self.size, self.gram @ first - onto_seen)
        coefficients = torch.cat([-second, self.size * first], dim=2).to(gradient)
        moved = (coefficients.mT @ self.basis).view_as(gradient)
        return moved.addcmul_(seen, -self.size.to(gradient))

    def select(self, at: tuple[Tensor, Tensor]) -> None:
        """Keep these label sets alone."""
        for name in ("changes", "basis", "inverse", "gram", "size"):
            setattr(self, name, getattr(self, name)[at])

    def _rescale(self, place: int) -> None:
        """The size of the initial inverse Hessian that fits the newest step."""
        own = self.gram[:, :, place, place, None, None]
        self.size = torch.where(own > 0, 1 / own, self.size)


def _onto(
    kept: Float[Tensor, "designs sets memory size"], vector: Float[Tensor, "designs sets 1 size"]
) -> Float[Tensor, "designs sets memory 1"]:
    """Inner products; as a row times a matrix, which is ten times faster on CPUs than a matrix times a column."""
    return (vector @ kept.mT).mT.double()


REFRESHED = (6, 18)
REFRESH_EVERY = 60
SLOPE_TEST = 0.5
# Finished label sets are carried along until so many slots are idle that moving the others pays.
BUSY = 0.8
_SLOTTED = ("weight", "logits", "target", "residual", "gradient", "norm", "seen", "present")


class RunningFits:
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
            self.history.refresh(self.curvature)
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
        self.history.select(at)
        self.curvature = self.curvature.select(at)
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
