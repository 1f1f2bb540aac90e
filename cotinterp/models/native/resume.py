"""Forward passes that begin in the middle: only what a change can reach is computed.

A change that enters a causal model at block `layer` and position `start` reaches no earlier block and no earlier
position. The keys and values of those positions are the recipient's, and in the last block nothing but the position
that is read needs queries, an MLP or logits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.models.native.parts import LayerState, NativeParts, key_bias


@dataclass(frozen=True, eq=False)
class Entry:
    """Runs that part from their recipients at the input of one block (see `resume_all`).

    Attributes:
        rows: Each run's recipient, as a row of the states.
        resid: The block's input at positions start, start + 1, ...; the recipient's where nothing changed.
        run, position: Where queries, keys and values differ from the recipient's: which run, and the position counted
            from the beginning of the sequence.
        qkv: Queries, keys and values there. What no run changed is never computed again.
    """

    rows: Int[Tensor, " run"]
    resid: Float[Tensor, "run suffix d_model"]
    run: Int[Tensor, " changed"]
    position: Int[Tensor, " changed"]
    qkv: Float[Tensor, "changed three head d_head"]


def resume(
    parts: NativeParts,
    states: Sequence[LayerState],
    *,
    layer: int,
    start: int,
    rows: Int[Tensor, " run"],
    resid: Float[Tensor, "run suffix d_model"],
    at: Int[Tensor, " run"],
) -> Float[Tensor, "run d_vocab_out"]:
    """Logits at position at[i] of a run that is recipient rows[i] in everything before `layer` and before position
    `start`, and that enters block `layer` with resid[i] at positions start, start + 1, ... .

    `states` are the recipients' (`forward`). `layer` equal to the number of blocks goes straight to the logits. Causal:
    `resid` may end at the last position that is read. ValueError for a layer outside the model, and for positions that
    the states or `resid` do not have.
    """
    _check(states, layer, start, resid.shape[1], at)
    return _finished(parts, states, layer, _Stream(rows, resid), {}, start=start, at=at)


def resume_all(
    parts: NativeParts,
    states: Sequence[LayerState],
    entries: Mapping[int, Entry],
    *,
    start: int,
    at: Int[Tensor, " run"],
) -> Float[Tensor, "run d_vocab_out"]:
    """`resume` of runs that enter at several blocks, all from `start` on: each joins the batch at the block it changes.

    `entries` by block; runs, and `at`, count through them in the order of the blocks. Entries of the last block may
    have changed positions before `start`. ValueError as for `resume`, and without entries.
    """
    if not entries:
        raise ValueError("no runs to resume: `entries` is empty.")
    first = min(entries)
    none = entries[first]
    for layer, entry in entries.items():
        _check(states, layer, start, entry.resid.shape[1], at)
    nobody = _Stream(none.rows[:0], none.resid[:0])
    return _finished(parts, states, first, nobody, entries, start=start, at=at)


def resume_each(
    parts: NativeParts,
    kept: Sequence[tuple[Float[Tensor, "run head pos d_head"], Float[Tensor, "run head pos d_head"]]],
    *,
    layer: int,
    start: Int[Tensor, " run"],
    resid: Float[Tensor, "run suffix d_model"],
) -> Float[Tensor, "run suffix d_vocab_out"]:
    """Logits at every position of `resid`, where each run parts from its recipient at a position of its own.

    Run i enters block `layer` with resid[i] at positions start[i], start[i] + 1, ...; before them it is its recipient,
    whose keys and values in block `layer` and those behind it are `kept`, at least up to start[i] - 1. Gradients flow
    through `resid`. What comes out behind the end of a sequence, where `resid` is padding, means nothing. ValueError
    for keys and values of more or fewer blocks, and for too few positions.
    """
    n, longest = resid.shape[1], int(start.max()) if len(start) else 0
    if len(kept) != len(parts.blocks) - layer or any(k.shape[2] < longest for k, _ in kept):
        raise ValueError(
            f"runs that enter block {layer} of {len(parts.blocks)} at positions up to {longest} need the keys and "
            f"values of {len(parts.blocks) - layer} blocks up to there; got {[tuple(k.shape) for k, _ in kept]}"
        )
    new = torch.arange(n, device=resid.device)
    places = torch.cat([torch.arange(longest, device=resid.device).expand(len(start), -1), start[:, None] + new], dim=1)
    before = places[:, :longest] >= start[:, None]
    unseen = torch.cat([before[:, None].expand(-1, n, -1), (new > new[:, None]).expand(len(start), -1, -1)], dim=2)
    bias = torch.zeros_like(unseen, dtype=resid.dtype).masked_fill_(unseen, -torch.inf)[:, None]
    if parts.slopes is not None:
        bias = bias + parts.slopes[:, None, None] * places[:, None, None]
    positions = places[:, longest:].clamp(max=parts.n_ctx - 1)
    for block, (own_k, own_v) in zip(parts.blocks[layer:], kept, strict=True):
        q, k, v = (part.transpose(1, 2) for part in parts.qkv(block, resid, positions).unbind(dim=2))
        keys, values = torch.cat([own_k[:, :, :longest], k], dim=2), torch.cat([own_v[:, :, :longest], v], dim=2)
        scores = q @ keys.transpose(2, 3) / parts.scale + bias
        z = (scores.softmax(dim=-1) @ values).transpose(1, 2)
        resid = block.after_attention(resid, parts.attn_out(block, z))
    return parts.logits(resid)


@dataclass(frozen=True, eq=False)
class _Stream:
    """The runs on their way: their recipients, and the input of the next block from `start` on."""

    rows: Int[Tensor, " run"]
    resid: Float[Tensor, "run suffix d_model"]

    def joined(self, entry: Entry | None) -> "_Stream":
        """With the runs of an entry behind those that are on their way."""
        if entry is None:
            return self
        return _Stream(torch.cat([self.rows, entry.rows]), torch.cat([self.resid, entry.resid]))

    def at(self, positions: Int[Tensor, " run"]) -> Float[Tensor, "run d_model"]:
        """The stream at one position of each run, counted from `start`."""
        return self.resid[torch.arange(len(self.resid), device=self.resid.device), positions]


def _finished(
    parts: NativeParts,
    states: Sequence[LayerState],
    layer: int,
    stream: _Stream,
    entries: Mapping[int, Entry],
    *,
    start: int,
    at: Int[Tensor, " run"],
) -> Float[Tensor, "run d_vocab_out"]:
    for number in range(layer, len(states)):
        entry, last = entries.get(number), number == len(states) - 1
        step = _last_block if last else _block
        joined = len(stream.rows) + (0 if entry is None else len(entry.rows))
        if joined:
            stream = step(parts, number, states[number], stream, entry, start=start, at=at[:joined])
    outside = entries.get(len(states))
    through = stream.resid[:, 0] if layer < len(states) else stream.at(at[: len(stream.rows)] - start)
    if outside is not None:
        through = torch.cat([through, _Stream(outside.rows, outside.resid).at(at[len(stream.rows) :] - start)])
    return parts.logits(through)


def _block(
    parts: NativeParts,
    number: int,
    state: LayerState,
    stream: _Stream,
    entry: Entry | None,
    *,
    start: int,
    at: Int[Tensor, " run"],
) -> _Stream:
    """One block that is not the last, at all positions from `start` on."""
    block, on_way, everyone = parts.blocks[number], len(stream.rows), stream.joined(entry)
    end = start + everyone.resid.shape[1]
    positions = torch.arange(end, device=at.device)
    q, k, v = parts.qkv(block, stream.resid, positions[None, start:]).unbind(dim=2)
    if entry is not None:
        q = torch.cat([q, state.q[entry.rows, start:end]])
        q[on_way + entry.run, entry.position - start] = entry.qkv[:, 0]
    keys, values = (_all(own, everyone.rows, new, entry, i, end) for own, new, i in ((state.k, k, 1), (state.v, v, 2)))
    future = positions > positions[start:, None]
    z = _attend(parts, q, keys, values, future[None])
    return _Stream(everyone.rows, block.after_attention(everyone.resid, parts.attn_out(block, z)))


def _last_block(
    parts: NativeParts,
    number: int,
    state: LayerState,
    stream: _Stream,
    entry: Entry | None,
    *,
    start: int,
    at: Int[Tensor, " run"],
) -> _Stream:
    """The last block: keys and values from `start` on, everything else at the position that is read."""
    block, on_way, everyone = parts.blocks[number], len(stream.rows), stream.joined(entry)
    end = start + everyone.resid.shape[1]
    read = everyone.at(at - start)
    positions = torch.arange(end, device=at.device)
    q = parts.projections(block, read[:on_way], at[:on_way], slice(0, 1)).squeeze(-3)
    k, v = parts.projections(block, stream.resid, positions[None, start:], slice(1, 3)).unbind(dim=2)
    if entry is not None:
        q = torch.cat([q, state.q[entry.rows, at[on_way:]]])
        here = entry.position == at[on_way + entry.run]
        q[on_way + entry.run[here]] = entry.qkv[here, 0]
    keys, values = (_all(own, everyone.rows, new, entry, i, end) for own, new, i in ((state.k, k, 1), (state.v, v, 2)))
    future = positions > at[:, None, None]
    z = _attend(parts, q[:, None], keys, values, future)[:, 0]
    return _Stream(everyone.rows, block.after_attention(read, parts.attn_out(block, z))[:, None])


def _all(
    own: Float[Tensor, "batch pos head d_head"],
    rows: Int[Tensor, " run"],
    new: Float[Tensor, "on_way suffix head d_head"],
    entry: Entry | None,
    which: int,
    end: int,
) -> Float[Tensor, "run head end d_head"]:
    """Keys (or values) of every run at all positions: the recipient's, and what was computed anew."""
    # By head before they are repeated for the runs: the products of attention want them so.
    found = own[:, :end].transpose(1, 2).contiguous().index_select(0, rows)
    found[: len(new), :, end - new.shape[1] :] = new.transpose(1, 2)
    if entry is not None:
        found[len(new) + entry.run, :, entry.position] = entry.qkv[:, which]
    return found


def _attend(
    parts: NativeParts,
    q: Float[Tensor, "run query head d_head"],
    k: Float[Tensor, "run head key d_head"],
    v: Float[Tensor, "run head key d_head"],
    future: Bool[Tensor, "#run query key"],
) -> Float[Tensor, "run query head d_head"]:
    """z of attention to the keys that are not `future`."""
    heads = q.shape[2]
    bias = torch.zeros_like(future, dtype=q.dtype).masked_fill_(future, -torch.inf)
    if parts.slopes is not None:
        by_run = bias[:, None] + key_bias(parts.slopes, future.shape[-1])
        bias = by_run.expand(len(q), -1, -1, -1).flatten(0, 1)
    elif len(bias) > 1:
        bias = bias.repeat_interleave(heads, dim=0)
    by_head = q.transpose(1, 2).flatten(0, 1)
    scores = torch.baddbmm(bias, by_head, k.flatten(0, 1).transpose(1, 2), alpha=1 / parts.scale)
    z: Tensor = torch.bmm(scores.softmax(dim=-1), v.flatten(0, 1)).unflatten(0, (len(q), heads)).transpose(1, 2)
    return z


def _check(states: Sequence[LayerState], layer: int, start: int, suffix: int, at: Int[Tensor, " run"]) -> None:
    if not 0 <= layer <= len(states):
        raise ValueError(
            f"layer {layer} of a model of {len(states)}: blocks 0 to {len(states) - 1}, or after them all."
        )
    n = states[0].resid_pre.shape[1] if states else start + suffix
    if not 0 <= start < start + suffix <= n:
        raise ValueError(f"positions {start} to {start + suffix - 1} in states of {n} positions.")
    if len(at) and not start <= int(at.min()) <= int(at.max()) < start + suffix:
        raise ValueError(
            f"logits are read at positions {int(at.min())} to {int(at.max())}; the stream has {start} to "
            f"{start + suffix - 1}. Give it up to the last position that is read; what is read before it cannot change."
        )
