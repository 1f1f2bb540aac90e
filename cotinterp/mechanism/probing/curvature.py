"""How a softmax regression curves, for every label set of a block: what turns a gradient into nearly a Newton step.

The Hessian couples all classes with all features. It is taken apart in two ways, and the two inverses are added, as in
domain decomposition (additive Schwarz: a coarse and a local correction, neither of which is good alone):

- by modes, the eigenvectors of the classes' mean coupling `diag(p) - p p'`. Where classes are ordered they run from
  slow to fast, with curvatures a hundred times apart. In modes and in the features' principal axes at once the
  Hessian's diagonal is exact (eigenvalue-corrected Kronecker factors: George et al. 2018, arXiv 1806.03884).
- by classes, each with the rows that are undecided about it, which modes average over all classes.

In both, the few axes with most of the variance are a whole block, inverted, and the others a diagonal. The products of
those axes are the same for all label sets of a design, so all blocks of all of them are one matrix product.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TOP = 24
"""Axes, the bias among them, that are inverted together: the last ones. More cost more than they save."""
DAMPING = 0.01
"""Share of a mode's mean weight that is added to each row's: rows that are decided now may not stay so."""
NULL, TINY = 1e-3, 1e-6


@dataclass(frozen=True, eq=False)
class Curvature:
    """An approximate inverse Hessian of each label set, taken at certain probabilities."""

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

    def taken(self, at: tuple[Tensor, Tensor]) -> "Curvature":
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
