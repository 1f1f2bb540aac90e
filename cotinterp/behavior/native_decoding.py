"""Verified decoding straight from a native model's weights: what was read stays read.

The guesses are read with every distinct prefix computed once and logits only from the first unsettled place on. Where
the model departs from its guess, the keys and values of what is settled are kept, and a few guessed symbols at a time
are read after them. No hook fires.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from cotinterp.behavior.guesses import Guesses, not_nan
from cotinterp.models.native.cache import Cache, extend, joined
from cotinterp.models.native.parts import NativeParts
from cotinterp.models.native.prefix_tree import PrefixTree, prefix_trees, read_tree

WINDOW = 8
"""Guessed symbols that are read at once after a departure: the rest of a guess is seldom right to its end."""

NODES_ON_CPU, NODES_ELSEWHERE = 2048, 65_536
"""Distinct prefixes that are read at once: as many as a processor's caches hold, or as keep an accelerator busy."""


def settle_all(parts: NativeParts, guesses: Guesses, *, batch_size: int) -> None:
    """Settles every running sequence, at most `batch_size` in one pass. ValueError where the model gives NaN logits."""
    waiting: list[tuple[Tensor, Cache]] = []
    for tree in trees_of(parts, guesses, batch_size=batch_size):
        rows = torch.as_tensor(tree.rows)
        reading = read_tree(parts, tree)
        guesses.settle(rows, reading.at_rows(not_nan(reading.logits).argmax(-1)).cpu())
        left = guesses.running[rows].nonzero()[:, 0]
        if len(left):
            device = parts.w_e.device
            length = guesses.settled[rows[left]] - 1
            cache = reading.cache(parts, left.to(device), length.to(device), int(guesses.limit[rows[left]].max()))
            waiting.append((rows[left], cache))
        if sum(len(some) for some, _ in waiting) >= batch_size:
            _write_on(parts, guesses, waiting)
            waiting = []
    if waiting:
        _write_on(parts, guesses, waiting)


def trees_of(parts: NativeParts, guesses: Guesses, *, batch_size: int) -> Iterator[PrefixTree]:
    """The running sequences as far as they are worth reading, with logits from the last settled symbol on."""
    rows = guesses.running.nonzero()[:, 0]
    trees = trees_for(
        parts, guesses.buffer[rows], guesses.to_read(rows), guesses.settled[rows] - 1, batch_size=batch_size
    )
    for tree in trees:
        yield replace(tree, rows=rows.numpy()[tree.rows])


def trees_for(
    parts: NativeParts,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    first_read: Int[Tensor, " batch"],
    *,
    batch_size: int,
) -> Iterator[PrefixTree]:
    """`prefix_trees` of a size that suits the model's device."""
    device = parts.w_e.device
    max_nodes = NODES_ON_CPU if device.type == "cpu" else NODES_ELSEWHERE
    of = (tokens.numpy(), length.numpy(), first_read.numpy())
    return prefix_trees(*of, max_rows=batch_size, max_nodes=max_nodes, device=device)


def _write_on(parts: NativeParts, guesses: Guesses, waiting: list[tuple[Tensor, Cache]]) -> None:
    """Settles the sequences that departed from their guess, from what is known of the part that is settled."""
    rows = torch.cat([some for some, _ in waiting])
    cache = joined([cache for _, cache in waiting])
    while len(rows):
        first = guesses.settled[rows] - 1
        n_new = (guesses.to_read(rows) - first).clamp(max=WINDOW)
        places = first[:, None] + torch.arange(int(n_new.max()))
        tokens = guesses.buffer[rows[:, None], places.clamp(max=guesses.buffer.shape[1] - 1)]
        device = parts.w_e.device
        resid, cache = extend(parts, cache.cut(first.to(device)), tokens.to(device), n_new.to(device))
        guesses.settle(rows, not_nan(parts.logits(resid)).argmax(-1).cpu(), first)
        left = guesses.running[rows].nonzero()[:, 0]
        if len(left) < len(rows):
            rows, cache = rows[left], cache.rows(left.to(device))
