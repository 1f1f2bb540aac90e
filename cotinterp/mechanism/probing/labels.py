"""A probe's target and the label sets that mean nothing, which are fitted beside it."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from cotinterp.mechanism.probing.controls import random_labels
from cotinterp.mechanism.probing.coordinates import Coordinate


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
