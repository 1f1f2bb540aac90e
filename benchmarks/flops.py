"""Floating-point operations that a work cannot do without: its matrix products, a multiplication and an addition each.

Norms, activations, softmax, optimizers and copies are not counted; so a floor is a bound, not a target that anybody
reaches. Padding is not counted either, nor what a causal mask hides, nor logits that nobody reads.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from cotinterp.models.spec import ModelSpec


@dataclass(frozen=True)
class Cost:
    """The matrix products of one model, by what they are applied to."""

    spec: ModelSpec
    d_vocab: int

    @property
    def projection(self) -> int:
        """One of q, k, v or o at one position."""
        return 2 * self.spec.d_model**2

    @property
    def mlp(self) -> int:
        """One MLP at one position."""
        return 4 * self.spec.d_model * self.spec.d_mlp

    @property
    def logits(self) -> int:
        """The logits of one position."""
        return 2 * self.spec.d_model * self.d_vocab

    @property
    def pair(self) -> int:
        """A query that looks at one key, in all heads: its score and its share of z."""
        return 4 * self.spec.d_model

    def forward(self, lengths: Int[np.ndarray, " rows"], *, read: int | None = None) -> float:
        """One pass over sequences of these lengths; `read` is the number of positions whose logits are wanted."""
        tokens, pairs = float(lengths.sum()), float((lengths * (lengths + 1) / 2).sum())
        block = tokens * (4 * self.projection + self.mlp) + pairs * self.pair
        return self.spec.n_layers * block + (tokens if read is None else read) * self.logits

    def resumed(self, layer: int, start: int, n: int) -> float:
        """Logits at position n - 1 after the stream that enters `layer` was changed at position `start` alone.

        Keys and values before `start` are known; in the last block only the position that is read is computed; at
        `layer` itself queries, keys and values are new at one position only.
        """
        after, total = n - start, float(self.logits)
        for block in range(layer, self.spec.n_layers):
            last = block == self.spec.n_layers - 1
            queries = 1 if last else after
            pairs = n if last else sum(range(start + 1, n + 1))
            new_keys = 1 if block == layer else after
            new_queries = queries if block != layer else int(not last or start == n - 1)
            total += self.projection * (2 * new_keys + new_queries + queries) + self.mlp * queries + self.pair * pairs
        return total

    def head_patched(self, layer: int, start: int, n: int) -> float:
        """The same for a patch of one head's z at `start`: 0 in the last block unless it is read there."""
        if layer == self.spec.n_layers - 1 and start != n - 1:
            return 0.0
        return 2 * self.spec.d_head * self.spec.d_model + self.mlp + self.resumed(layer + 1, start, n)
