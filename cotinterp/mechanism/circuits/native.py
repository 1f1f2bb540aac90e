"""Edges of native models, from their weights: what every node writes and reads is a tensor, and nothing is hooked.

`kept` recomputes a whole circuit. `patched` changes one edge of the recipient and starts where it enters, so that no
earlier layer and no earlier position is computed again. `gradients` is one pass with an input of its own for every
reader.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge.sources.native.model import NativeLayerNormPre

from cotinterp.mechanism.activations import at_positions
from cotinterp.mechanism.circuits.graph import Edge, Graph, Node
from cotinterp.models.native.parts import Block, LayerState, Map, Mlp, NativeParts, attend, forward, future_keys
from cotinterp.models.native.resume import resume

# Where an activation has no slope of its own, f(x) / x is taken just below 0.
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class NativeEdges:
    """The graph of a native model over its weights."""

    parts: NativeParts
    graph: Graph

    def row_bytes(self, n: int) -> int:
        """What one sequence of `n` tokens holds in a run of `kept` or `gradients`, about."""
        width = 2 * len(self.graph.sources) + 18 * self.graph.n_heads
        return self.parts.w_e.element_size() * n * self.parts.w_e.shape[1] * width

    @torch.no_grad()
    def written(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "source batch pos d_model"]:
        """What every source writes."""
        return self._written(forward(self.parts, tokens)[1])

    @torch.no_grad()
    def readout(self, tokens: Int[Tensor, "batch pos"], at: Int[Tensor, " batch"]) -> Float[Tensor, "batch d_vocab"]:
        """Logits of an ordinary run where they are read."""
        return at_positions(forward(self.parts, tokens)[0], at)

    @torch.no_grad()
    def kept(
        self,
        clean: Int[Tensor, "batch pos"],
        corrupted: Int[Tensor, "batch pos"],
        at: Int[Tensor, " batch"],
        masks: Bool[Tensor, "run reader source"],
    ) -> Float[Tensor, "run batch d_vocab"]:
        """Logits at the readout of runs in which every edge outside of its mask carries its corrupted value."""
        states = forward(self.parts, corrupted)[1]
        theirs = self._written(states)
        batch, n = corrupted.shape
        positions = torch.arange(n, device=corrupted.device)
        # What each source writes in the run, minus what it writes in the corrupted one.
        differs = theirs.new_zeros(len(masks), *theirs.shape)
        differs[:, 0] = self.parts.embed(clean, positions[None]) - theirs[0]
        weights, heads, future = masks.to(theirs), self.graph.n_heads, future_keys(positions[None], n)
        row = column = 0

        def received(readers: int) -> Float[Tensor, "run reader batch pos d_model"]:
            summed: Tensor = weights[:, row : row + readers, :column] @ differs[:, :column].flatten(2)
            found: Tensor = rearrange(summed, "run reader (batch pos d) -> run reader batch pos d", batch=batch, pos=n)
            return found

        column = 1
        for block, state in zip(self.parts.blocks, states, strict=True):
            q, k, v = self._qkv(block, state.resid_pre + received(3 * heads), positions)
            z, _ = attend(q, k, v, future, slopes=self.parts.slopes, scale=self.parts.scale)
            z = rearrange(z, "(run batch) pos head d -> run batch pos head d", run=len(masks))
            out = einsum(z, self.w_o(block), "run batch pos head d_head, head d_head d -> run head batch pos d")
            differs[:, column : column + heads] = out - theirs[column : column + heads]
            row, column = row + 3 * heads, column + heads
            if block.mlp is not None:
                mid = state.resid_pre + state.attn_out + received(1)[:, 0]
                differs[:, column] = block.mlp(mid) - theirs[column]
                row, column = row + 1, column + 1
        rows = torch.arange(batch, device=at.device)
        last = einsum(weights[:, row], differs[:, :, rows, at], "run source, run source batch d -> run batch d")
        return self.parts.logits(_last(states, theirs)[rows, at] + last)

    @torch.no_grad()
    def patched(
        self,
        recipient: Int[Tensor, "batch pos"],
        donor: Int[Tensor, "batch pos"],
        at: Int[Tensor, " batch"],
        edges: Sequence[Edge],
        where: Bool[Tensor, "batch pos"],
        *,
        runs: int,
    ) -> Iterator[tuple[int, Float[Tensor, "batch d_vocab"]]]:
        """Logits at the readout of recipients in which one edge carries the donor's value, where its input is read at
        `where`; the number of the edge with them. Edges that carry the same in both runs are left out: they change
        nothing. `runs`: how many go at once.
        """
        states = forward(self.parts, recipient)[1]
        differs = (self._written(forward(self.parts, donor)[1]) - self._written(states)) * where[..., None]
        differs = differs * (torch.arange(recipient.shape[1], device=at.device) <= at[:, None])[..., None]
        changed = differs.ne(0).any(dim=-1)
        column = {node: i for i, node in enumerate(self.graph.sources)}
        moved = changed.flatten(1).any(dim=1).tolist()
        live = sorted((i for i in range(len(edges)) if moved[column[edges[i].src]]), key=lambda i: edges[i])
        start = int(changed.any(dim=1).any(dim=0).nonzero()[0, 0]) if live else 0
        single = _OneEdge(self, states, at, min(start, int(at.min())))
        for (_, which), group in groupby(live, key=lambda i: (edges[i].dest.stage, edges[i].input)):
            members = list(group)
            for first in range(0, len(members), runs):
                some = members[first : first + runs]
                change = differs[[column[edges[i].src] for i in some]]
                found = single.run(which, [edges[i].dest for i in some], change)
                yield from zip(some, found, strict=True)

    def gradients(
        self,
        recipient: Int[Tensor, "batch pos"],
        donor: Int[Tensor, "batch pos"],
        amount: float,
        at: Int[Tensor, " batch"],
        score: Callable[[Float[Tensor, "batch d_vocab"]], Float[Tensor, " batch"]],
        *,
        linear: bool = False,
    ) -> Float[Tensor, "reader batch pos d_model"]:
        """d score[i] / d input of every reader, in a run in which `embed` writes `amount` of the way to the donor's.

        `linear`: backwards by the rules of RelP: norms with their scale as a constant (LN rule), activations as x times
        the constant f(x) / x (identity rule), attention with its pattern as a constant (AH rule), so that queries and
        keys have no gradient.
        """
        n, heads = recipient.shape[1], self.graph.n_heads
        positions = torch.arange(n, device=recipient.device)
        own, other = (self.parts.embed(tokens, positions[None]).detach() for tokens in (recipient, donor))
        resid = own + amount * (other - own)
        future, parts, rows = future_keys(positions[None], n), self.parts, torch.arange(len(at), device=at.device)
        added: list[Tensor] = []

        def read(stream: Tensor, readers: int) -> Tensor:
            added.append(torch.zeros(readers, *resid.shape, dtype=resid.dtype, device=resid.device, requires_grad=True))
            return stream + added[-1]

        with torch.enable_grad():
            stream = resid
            for block in parts.blocks:
                q, k, v = self._qkv(block, read(stream, 3 * heads)[None], positions, linear=linear)
                z, pattern = attend(q, k, v, future, slopes=parts.slopes, scale=parts.scale)
                if linear:
                    z = einsum(pattern.detach(), v, "batch head query key, batch key head d -> batch query head d")
                stream = stream + parts.attn_out(block, z)
                if block.mlp is not None:
                    mid = read(stream, 1)[0]
                    stream = stream + (_linear_mlp(block.mlp, mid) if linear else block.mlp(mid))
            final = read(stream, 1)[0][rows, at]
            normed = _constant_scale(parts.norm, final) if linear else parts.norm(final)
            total = score(nn.functional.linear(normed, parts.w_u)).sum()
            found = torch.autograd.grad(total, added, allow_unused=True)
        return torch.cat([torch.zeros_like(a) if g is None else g for g, a in zip(found, added, strict=True)]).detach()

    def _qkv(
        self,
        block: Block,
        inputs: Float[Tensor, "run reader batch pos d_model"],
        positions: Int[Tensor, " pos"],
        *,
        linear: bool = False,
    ) -> Iterator[Float[Tensor, "rows pos head d_head"]]:
        """Queries, keys and values of every head, each from an input of its own; rows are all examples of all runs."""
        normed = _constant_scale(block.norm, inputs) if linear else block.norm(inputs)
        by_kind = rearrange(normed, "run (qkv head) batch pos d -> qkv run head batch pos d", qkv=3)
        for which, (own, weight, bias) in enumerate(zip(by_kind, *self.w_qkv(block), strict=True)):
            made = einsum(own, weight, "run head batch pos d, head d_head d -> run batch pos head d_head") + bias
            made = rearrange(made, "run batch pos head d_head -> (run batch) pos head d_head")
            yield made if which == 2 else self.parts.rotated(made, positions)

    def w_qkv(self, block: Block) -> tuple[Float[Tensor, "qkv head d_head d_model"], Float[Tensor, "qkv head d_head"]]:
        heads = self.graph.n_heads
        weight = rearrange(block.w_qkv, "(qkv head d_head) d -> qkv head d_head d", qkv=3, head=heads)
        return weight, rearrange(block.b_qkv, "(qkv head d_head) -> qkv head d_head", qkv=3, head=heads)

    def w_o(self, block: Block) -> Float[Tensor, "head d_head d_model"]:
        weight: Tensor = rearrange(block.w_o, "d (head d_head) -> head d_head d", head=self.graph.n_heads)
        return weight

    def _written(self, states: Sequence[LayerState]) -> Float[Tensor, "source batch pos d_model"]:
        found = [states[0].resid_pre[None]]
        for block, state in zip(self.parts.blocks, states, strict=True):
            found.append(einsum(state.z, self.w_o(block), "batch pos head d_head, head d_head d -> head batch pos d"))
            if state.mlp_out is not None:
                found.append(state.mlp_out[None])
        return torch.cat(found)


@dataclass(frozen=True, eq=False)
class _OneEdge:
    """Runs of one input changed in the recipient, computed from `start` on."""

    edges: NativeEdges
    states: Sequence[LayerState]
    at: Int[Tensor, " batch"]
    start: int

    def run(
        self, which: str, dests: Sequence[Node], change: Float[Tensor, "run batch pos d_model"]
    ) -> Float[Tensor, "run batch d_vocab"]:
        """Logits at the readout where `change` is added to this input of each run's destination, all of one stage."""
        parts, layer = self.edges.parts, dests[0].layer
        rows = torch.arange(len(self.at), device=self.at.device)
        if which == "logits":
            return parts.logits((self.states[-1].resid_post + change)[:, rows, self.at])
        state, block = self.states[layer], parts.blocks[layer]
        last = layer == len(self.states) - 1
        query = torch.arange(self.start, change.shape[2], device=self.at.device).expand(len(self.at), -1)
        query = self.at[:, None] if last else query
        here = rows[:, None], query
        mid = (state.resid_pre + state.attn_out)[here]
        if which == "mlp":
            assert block.mlp is not None
            post = mid + block.mlp(mid + change[:, here[0], query])
        else:
            moved = mid + self._attended(state, block, which, [dest.head for dest in dests], change, query)
            post = block.after_attention(moved, torch.zeros_like(moved))
        if last:
            return parts.logits(post[:, :, 0])
        repeated = {"rows": rows.repeat(len(dests)), "at": self.at.repeat(len(dests))}
        resid = post.flatten(0, 1)
        logits = resume(parts, self.states, layer=layer + 1, start=self.start, resid=resid, **repeated)
        found: Tensor = rearrange(logits, "(run batch) d_vocab -> run batch d_vocab", run=len(dests))
        return found

    def _attended(
        self,
        state: LayerState,
        block: Block,
        which: str,
        heads: Sequence[int],
        change: Float[Tensor, "run batch pos d_model"],
        query: Int[Tensor, "batch query"],
    ) -> Float[Tensor, "run batch query d_model"]:
        """What the head of each run writes more than the recipient's does; each run is one head of an attention."""
        parts, number = self.edges.parts, "qkv".index(which)
        weight, bias = (each[number][list(heads)] for each in self.edges.w_qkv(block))
        rows, n = torch.arange(len(query), device=query.device)[:, None], change.shape[2]
        made = einsum(
            block.norm(state.resid_pre + change), weight, "run batch pos d, run d_head d -> batch pos run d_head"
        )
        made = made + bias
        if which != "v":
            made = parts.rotated(made, torch.arange(n, device=query.device))
        own = {"q": state.q, "k": state.k, "v": state.v}
        held = {name: value[:, :, list(heads)] for name, value in own.items()} | {which: made}
        slopes = None if parts.slopes is None else parts.slopes[list(heads)]
        future = future_keys(query, n)
        z, _ = attend(held["q"][rows, query], held["k"], held["v"], future, slopes=slopes, scale=parts.scale)
        more = z - state.z[:, :, list(heads)][rows, query]
        return einsum(
            more, self.edges.w_o(block)[list(heads)], "batch query run d_head, run d_head d -> run batch query d"
        )


def _last(states: Sequence[LayerState], written: Tensor) -> Tensor:
    return states[-1].resid_post if states else written[0]


def _linear_mlp(mlp: Mlp, mid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """`mlp_out`, backwards by the LN rule and the identity rule."""
    pre = nn.functional.linear(_constant_scale(mlp.norm, mid), mlp.w_in, mlp.b_in)
    with torch.no_grad():
        safe = torch.where(pre.abs() < _TINY, -_TINY, pre)
        slope = mlp.act(safe) / safe
    return nn.functional.linear(pre * slope, mlp.w_out, mlp.b_out)


def _constant_scale(norm: Map, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """`norm(x)`, whose scale has no gradient; the mean that LayerNorm takes off does."""
    if isinstance(norm, nn.Identity):
        return x
    centered = x - x.mean(dim=-1, keepdim=True) if isinstance(norm, (nn.LayerNorm, NativeLayerNormPre)) else x
    scale = (centered.detach().pow(2).mean(dim=-1, keepdim=True) + _eps(norm)).rsqrt()
    weight, bias = getattr(norm, "weight", 1.0), getattr(norm, "bias", None)
    normed: Tensor = centered * scale * weight
    return normed if bias is None else normed + bias


def _eps(norm: Any) -> float:
    return float(norm.eps)
