"""What L-BFGS remembers of its last steps, for many label sets in step, and the direction that follows from it.

The product of the inverse Hessian's estimate with the gradient is that of Liu & Nocedal's two loops (1989), in the
compact form of Byrd, Nocedal & Schnabel (1994, theorem 2.2): two products with all steps instead of forty with one.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.probing.curvature import Curvature

MEMORY = 10


class History:
    """Steps, the gradients' changes over them, and those seen through the initial inverse Hessian.

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

    def reseen(self, curvature: Curvature) -> None:
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

    def taken(self, at: tuple[Tensor, Tensor]) -> None:
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
