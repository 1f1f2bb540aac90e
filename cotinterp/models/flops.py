"""Floating-point operations that a work cannot do without: its matrix products, a multiplication and an addition each.

Norms, activations, softmax, optimizers and copies are not counted, so this is a lower bound on what a machine does, not
a time. Padding is not counted either, nor what a causal mask hides, nor logits that nobody reads. Embedding a token is
a look-up and costs nothing.
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

    def reading(self, tokens: float, pairs: float, read: float) -> float:
        """Reading `tokens` positions, each in every block, where queries see `pairs` keys in all and `read` are scored.

        A position sees itself and all before it: n of them in a row make n (n + 1) / 2 pairs.
        """
        block = tokens * (4 * self.projection + self.mlp) + pairs * self.pair
        return self.spec.depth * block + read * self.logits

    def forward(self, lengths: Int[np.ndarray, " rows"], *, read: int | None = None) -> float:
        """One pass over sequences of these lengths; `read` is the number of positions whose logits are wanted."""
        seen = (lengths + 1) / 2 if self.spec.attention == "causal" else lengths
        tokens, pairs = float(lengths.sum()), float((lengths * seen).sum())
        return self.reading(tokens, pairs, tokens if read is None else float(read))

    def answer(self, prompt: Int[np.ndarray, " rows"], response: Int[np.ndarray, " rows"]) -> float:
        """Writing responses of these lengths after prompts of these lengths, one token at a time, with a cache of keys.

        Every token but the last is read once and looks at itself and what stands before it; logits are made where a
        token is written. That is exactly one pass over everything but the last token: with a cache, writing costs as
        much as reading.
        """
        return self.forward(prompt + response - 1, read=int(response.sum()))

    def answer_without_cache(self, prompt: Int[np.ndarray, " rows"], response: Int[np.ndarray, " rows"]) -> float:
        """The same where each written token takes a pass over all that stands before it."""
        lengths = [p + np.arange(r) for p, r in zip(prompt.tolist(), response.tolist(), strict=True)]
        return self.forward(np.concatenate(lengths), read=int(response.sum()))

    def resumed(self, layer: int, start: int, n: int) -> float:
        """Logits at position n - 1 after the stream that enters `layer` was changed at position `start` alone.

        Keys and values before `start` are known; in the last block only the position that is read is computed; at
        `layer` itself queries, keys and values are new at one position only.
        """
        after, total = n - start, float(self.logits)
        for block in range(layer, self.spec.depth):
            last = block == self.spec.depth - 1
            queries = 1 if last else after
            pairs = n if last else sum(range(start + 1, n + 1))
            new_keys = 1 if block == layer else after
            new_queries = queries if block != layer else int(not last or start == n - 1)
            total += self.projection * (2 * new_keys + new_queries + queries) + self.mlp * queries + self.pair * pairs
        return total

    def head_patched(self, layer: int, start: int, n: int) -> float:
        """The same for a patch of one head's z at `start`: 0 in the last block unless it is read there."""
        if layer == self.spec.depth - 1 and start != n - 1:
            return 0.0
        return 2 * self.spec.d_head * self.spec.d_model + self.mlp + self.resumed(layer + 1, start, n)
