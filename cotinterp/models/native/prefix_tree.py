"""Many sequences read at once, each distinct prefix once.

What a causal model holds at a position depends on the tokens up to there and on nothing else. Sequences that begin
alike therefore share everything up to where they part: one question answered many times, a trace edited in many ways.
The distinct prefixes are the nodes of a tree; linear maps, norms and MLPs work on nodes, side by side without any
padding, and only attention sees rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.models.native.cache import Cache
from cotinterp.models.native.parts import NativeParts, attend, future_keys

ROWS_ATTENDED_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class AttentionBatch:
    """Rows whose new positions attend together.

    Attributes:
        keys: Node of each position of each row, up to the longest.
        query: Node of each position from the row's first new one on; any node after its last.
        future: Keys that a query does not see (`future_keys`).
        own: Where `query` is a node of the row's own.
    """

    keys: Int[Tensor, "row key"]
    query: Int[Tensor, "row query"]
    future: Bool[Tensor, "row 1 query key"]
    own: Bool[Tensor, "row query"]


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """The distinct prefixes of some rows.

    Attributes:
        rows: Which sequences these are.
        tokens: Last token of each node.
        position: Its position.
        node: Node of each position of each row; any node from the row's length on.
        groups: How the nodes attend.
        read: Nodes whose logits are asked for, in order.
        read_groups: How those alone attend.
    """

    rows: Int[np.ndarray, " row"]
    tokens: Int[Tensor, " node"]
    position: Int[Tensor, " node"]
    node: Int[Tensor, "row pos"]
    groups: tuple[AttentionBatch, ...]
    read: Int[Tensor, " read"]
    read_groups: tuple[AttentionBatch, ...]


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read of a tree: logits of its nodes `read`, and keys and values of every node and block."""

    tree: PrefixTree
    logits: Float[Tensor, "read d_vocab_out"]
    kv: tuple[Float[Tensor, "node two head d_head"], ...]

    def at_rows(self, of_read: Int[Tensor, " read"]) -> Int[Tensor, "row pos"]:
        """Something that is known of each read node, at every place of every row; 0 where nothing was read."""
        of_node = of_read.new_zeros(len(self.tree.tokens))
        of_node[self.tree.read] = of_read
        return of_node[self.tree.node]

    def logits_at(self, position: Int[Tensor, " row"]) -> Float[Tensor, "row d_vocab_out"]:
        """Logits at one place of each row, which must be among those that were read."""
        rows = torch.arange(len(position), device=position.device)
        index = self.at_rows(torch.arange(len(self.logits), device=position.device))
        return self.logits[index[rows, position]]

    def cache(self, parts: NativeParts, rows: Int[Tensor, " kept"], length: Int[Tensor, " kept"], room: int) -> Cache:
        """The first `length` positions of some rows of the tree, by their place in it, with room for `room`."""
        cache = Cache.empty(parts, len(rows), room)
        width = min(int(length.max()) if len(length) else 0, self.tree.node.shape[1])
        nodes = self.tree.node[rows, :width]
        for kv, k, v in zip(self.kv, cache.k, cache.v, strict=True):
            own_k, own_v = _taken(kv, nodes).transpose(1, 3).unbind(dim=2)
            k[:, :, :width], v[:, :, :width] = own_k, own_v
        return Cache(cache.k, cache.v, length)


def prefix_trees(
    tokens: Int[np.ndarray, "row pos"],
    length: Int[np.ndarray, " row"],
    first_read: Int[np.ndarray, " row"],
    *,
    max_rows: int,
    max_nodes: int,
    device: torch.device | str = "cpu",
) -> Iterator[PrefixTree]:
    """Trees of at most `max_rows` rows and, but for a tree of one row, `max_nodes` nodes.

    The first `length` tokens of each row are read, the logits from position `first_read` on. Rows come sorted by their
    tokens, so that those which share a prefix share a tree.
    """
    padded = np.where(np.arange(tokens.shape[1]) < length[:, None], tokens + 1, 0).astype(">u4")
    keys = [row.tobytes() for row in padded]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    parted = padded[order[1:]] != padded[order[:-1]]
    shared = np.where(parted.any(1), parted.argmax(1), length[order[1:]])
    begin, nodes = 0, 0
    for place, row in enumerate(order.tolist()):
        new = int(length[row]) - (int(shared[place - 1]) if place > begin else 0)
        if place > begin and (place - begin == max_rows or nodes + new > max_nodes):
            chosen = order[begin:place]
            yield _tree(chosen, tokens[chosen], length[chosen], shared[begin : place - 1], first_read[chosen], device)
            begin, nodes, new = place, 0, int(length[row])
        nodes += new
    if len(order):
        chosen = order[begin:]
        yield _tree(chosen, tokens[chosen], length[chosen], shared[begin:], first_read[chosen], device)


def read_tree(parts: NativeParts, tree: PrefixTree) -> Reading:
    """The forward pass over a tree. In the last block what nobody reads has keys and values, and nothing more."""
    stream = parts.embed(tree.tokens, tree.position)
    kept = []
    for number, block in enumerate(parts.blocks):
        kv = parts.projections(block, stream, tree.position, slice(1, 3))
        kept.append(kv)
        last = number == len(parts.blocks) - 1
        at = tree.position[tree.read] if last else tree.position
        stream = stream[tree.read] if last else stream
        q = parts.projections(block, stream, at, slice(0, 1))[:, 0]
        z = _attended(parts, q, kv, tree.read_groups if last else tree.groups)
        stream = block.after_attention(stream, parts.attn_out(block, z))
    return Reading(tree, parts.logits(stream if parts.blocks else stream[tree.read]), tuple(kept))


def _attended(
    parts: NativeParts,
    q: Float[Tensor, "asked head d_head"],
    kv: Float[Tensor, "node two head d_head"],
    groups: tuple[AttentionBatch, ...],
) -> Float[Tensor, "asked head d_head"]:
    z = torch.empty_like(q)
    for group in groups:
        k, v = _taken(kv, group.keys).unbind(dim=2)
        out, _ = attend(_taken(q, group.query), k, v, group.future, slopes=parts.slopes, scale=parts.scale)
        z[group.query[group.own]] = out[group.own]
    return z


def _taken(of: Float[Tensor, "node *values"], index: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos *values"]:
    """`of[index]`, in half the time: whole rows are copied."""
    taken: Tensor = of.index_select(0, index.flatten()).unflatten(0, index.shape)
    return taken


def _tree(
    rows: Int[np.ndarray, " row"],
    tokens: Int[np.ndarray, "row pos"],
    length: Int[np.ndarray, " row"],
    shared: Int[np.ndarray, " others"],
    first_read: Int[np.ndarray, " row"],
    device: torch.device | str,
) -> PrefixTree:
    """The tree of sorted rows; each row but the first shares its first `shared` tokens with the one before it."""
    width = int(length.max())
    start = np.concatenate([[0], shared])
    position = np.arange(width)
    inside = position < length[:, None]
    own = inside & (position >= start[:, None])
    owner = np.maximum.accumulate(np.where(position >= start[:, None], np.arange(len(rows))[:, None], 0), axis=0)
    number = np.where(own, own.cumsum().reshape(own.shape) - 1, 0)
    node = np.where(inside, number[owner, position], 0)
    wanted = np.zeros(int(own.sum()), dtype=bool)
    wanted[node[inside & (position >= first_read[:, None])]] = True
    asked = own & wanted[number]
    first_asked = np.where(asked.any(1), asked.argmax(1), length)
    reading = own & (position >= first_asked[:, None])
    of_read = np.where(reading, reading.cumsum().reshape(own.shape) - 1, 0)

    def placed(array: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=device)

    return PrefixTree(
        rows=rows,
        tokens=placed(tokens[:, :width][own].astype(np.int64)),
        position=placed(np.broadcast_to(position, own.shape)[own]),
        node=placed(node),
        groups=tuple(_groups(node, number, start, length, placed)),
        read=placed(number[reading]),
        read_groups=tuple(_groups(node, of_read, np.maximum(start, first_asked), length, placed)),
    )


def _groups(
    node: Int[np.ndarray, "row pos"],
    number: Int[np.ndarray, "row pos"],
    start: Int[np.ndarray, " row"],
    length: Int[np.ndarray, " row"],
    placed: Callable[[np.ndarray], Tensor],
) -> Iterator[AttentionBatch]:
    """Rows with about as many new positions together."""
    new = np.maximum(length - start, 0)
    order = np.argsort(-new, kind="stable")[: int((new > 0).sum())]
    for begin in range(0, len(order), ROWS_ATTENDED_AT_ONCE):
        rows = order[begin : begin + ROWS_ATTENDED_AT_ONCE]
        position = start[rows, None] + np.arange(new[rows].max())
        own = position < length[rows, None]
        position = np.minimum(position, length[rows, None] - 1)
        keys = node[rows, : int(length[rows].max())]
        future = future_keys(placed(position), keys.shape[1])
        yield AttentionBatch(placed(keys), placed(number[rows[:, None], position]), future, placed(own))
