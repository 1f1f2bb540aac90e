"""Label sets as partitions of the training rows: what a fit depends on. Names of classes do not matter to it.

A control task deals the labels anew to the types of input. Where a type is a written total, that only renames the
classes, and the control's regression is the target's with its columns exchanged: it is fitted once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Partitions:
    """The label sets of one design without repetition, classes numbered by their first training row."""

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
