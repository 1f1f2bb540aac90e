"""Keys and values of what was read already, so that new tokens are read alone.

Rows may be of different lengths, and a row's new tokens stand where its own length says. A key and a value depend on
nothing that comes later, so what is kept stays right whatever is read next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.models.native.parts import NativeParts, attend, future_keys


@dataclass(frozen=True, eq=False)
class Cache:
    """Keys and values of every block for the first `length[row]` positions of each row.

    The tensors have room for more, which `extend` fills in place: a cache is for one line of decoding, and what it held
    before is still there after (`cut` goes back to it). The last place of the room belongs to no position.
    """

    k: Float[Tensor, "layer batch head places d_head"]
    v: Float[Tensor, "layer batch head places d_head"]
    length: Int[Tensor, " batch"]

    @classmethod
    def empty(cls, parts: NativeParts, n_rows: int, room: int) -> "Cache":
        """Nothing read yet, and room for `room` positions in each row."""
        shape = (len(parts.blocks), n_rows, parts.n_heads, room + 1, _d_head(parts))
        k, v = parts.w_e.new_zeros(2, *shape)
        return cls(k, v, torch.zeros(n_rows, dtype=torch.long, device=parts.w_e.device))

    @property
    def room(self) -> int:
        """Most positions that a row can hold."""
        return int(self.k.shape[3]) - 1

    def rows(self, rows: Int[Tensor, " chosen"]) -> "Cache":
        """A copy that holds some rows, in this order; a row may be taken more than once."""
        used = int(self.length.max()) if len(self.length) else 0
        layers, _, *inner = self.k.shape
        k, v = self.k.new_zeros(2, layers, len(rows), *inner)
        for copied, own in ((k, self.k), (v, self.v)):
            copied[:, :, :, :used] = own[:, rows, :, :used]
        return Cache(k, v, self.length[rows])

    def cut(self, length: Int[Tensor, " batch"]) -> "Cache":
        """The same cache with everything from position `length[row]` on forgotten. Shares its tensors with this one."""
        return replace(self, length=torch.minimum(self.length, length))


def joined(caches: Sequence[Cache]) -> Cache:
    """The rows of several caches of one model in one, with the room of the largest. ValueError for none."""
    if not caches:
        raise ValueError("no caches to join: give at least one")
    if len(caches) == 1:
        return caches[0]
    n_rows, room = sum(len(cache.length) for cache in caches), max(cache.room for cache in caches)
    layers, _, heads, _, d_head = caches[0].k.shape
    k, v = caches[0].k.new_zeros(2, layers, n_rows, heads, room + 1, d_head)
    begin = 0
    for cache in caches:
        rows = slice(begin, begin + len(cache.length))
        k[:, rows, :, : cache.room] = cache.k[:, :, :, : cache.room]
        v[:, rows, :, : cache.room] = cache.v[:, :, :, : cache.room]
        begin = rows.stop
    return Cache(k, v, torch.cat([cache.length for cache in caches]))


def extend(
    parts: NativeParts, cache: Cache, tokens: Int[Tensor, "batch new"], n_new: Int[Tensor, " batch"] | None = None
) -> tuple[Float[Tensor, "batch new d_model"], Cache]:
    """The last block's `resid_post` of new tokens that follow what the cache holds, and the cache with them.

    `parts.logits` makes logits of it, for the places that are read. `n_new` is how many of a row's tokens are real, the
    others being padding on the right; all of them where it is None. What comes out at padding means nothing.
    ValueError where the cache or the context has no room for them.
    """
    n_new = torch.full_like(cache.length, tokens.shape[1]) if n_new is None else n_new
    ends = cache.length + n_new
    longest = int(ends.max()) if len(ends) else 0
    if longest > min(cache.room, parts.n_ctx):
        raise ValueError(
            f"{longest} positions in a cache with room for {cache.room} and a context of {parts.n_ctx}: make the cache "
            "larger, or write less"
        )
    new = torch.arange(tokens.shape[1], device=tokens.device)
    real = new < n_new[:, None]
    positions = torch.where(real, cache.length[:, None] + new, 0)
    places = torch.where(real, positions, cache.room)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    future = future_keys(positions, longest)
    stream = parts.embed(tokens, positions)
    for block, k, v in zip(parts.blocks, cache.k, cache.v, strict=True):
        q, own_k, own_v = parts.qkv(block, stream, positions).unbind(dim=2)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        k[rows, places], v[rows, places] = own_k, own_v
        z, _ = attend(q, k[:, :longest], v[:, :longest], future, slopes=parts.slopes, scale=parts.scale)
        stream = block.after_attention(stream, parts.attn_out(block, z))
    return stream, replace(cache, length=ends)


def _d_head(parts: NativeParts) -> int:
    return len(parts.blocks[0].b_qkv) // (3 * parts.n_heads) if parts.blocks else 0
