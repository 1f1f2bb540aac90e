"""Runs of native models with attention edited, from the first block and the first position that an edit changes.

An edited run is compared with one that is computed in the same way and unedited (`EditedRuns.clean`): edits that change
nothing give the same logits bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.heads.attention_edits import Attention, AttentionEdit
from cotinterp.models.native.forward import LayerState, forward
from cotinterp.models.native.parts import NativeParts


@dataclass(frozen=True, eq=False)
class Readout:
    """What a run shows at the position that is read: logits, and z of every block."""

    logits: Float[Tensor, "run d_vocab_out"]
    z: tuple[Float[Tensor, "run head d_head"], ...]


@dataclass(eq=False)
class EditedRuns:
    """Some examples of a native model, run once, and with any edits."""

    parts: NativeParts
    states: Sequence[LayerState]
    at: Int[Tensor, " run"]
    _clean: dict[tuple[int, int], Readout] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def of(cls, parts: NativeParts, tokens: Int[Tensor, "run pos"], at: Int[Tensor, " run"]) -> "EditedRuns":
        """The examples unedited."""
        return cls(parts, forward(parts, tokens)[1], at.to(tokens.device))

    @torch.no_grad()
    def edited(self, edits: Sequence[AttentionEdit]) -> tuple[Readout, Readout]:
        """With the edits, and without them: the two differ by nothing but the edits.

        InertEditError for an edit that should change something and cannot.
        """
        layer, start = self._begin(edits)
        clean = self._clean.get((layer, start))
        if clean is None:
            clean = self._clean[layer, start] = self._run([], layer, start)
        return self._run(edits, layer, start), clean

    def _begin(self, edits: Sequence[AttentionEdit]) -> tuple[int, int]:
        """First block and first position that change; the end of the model where none does."""
        n_layers, n = len(self.states), self.states[0].resid_pre.shape[1]
        starts = {edit: edit.start(self.states[edit.layer]) for edit in edits}
        acting = [edit for edit, start in starts.items() if start < n]
        layer = min((edit.layer for edit in acting), default=n_layers)
        return layer, min([int(self.at.min()), *(starts[edit] for edit in acting)])

    def _run(self, edits: Sequence[AttentionEdit], first: int, start: int) -> Readout:
        n = self.states[0].resid_pre.shape[1]
        rows = torch.arange(len(self.at), device=self.at.device)
        seen = [state.z[rows, self.at] for state in self.states[:first]]
        if first == len(self.states):
            return Readout(self.parts.logits(self.states[-1].resid_post[rows, self.at]), tuple(seen))
        positions = torch.arange(start, n, device=self.at.device).expand(len(rows), -1)
        stream = self.states[first].resid_pre[:, start:]
        for layer in range(first, len(self.states)):
            last = layer == len(self.states) - 1
            query = self.at[:, None] if last else positions
            held = _own(self.states[layer], query) if layer == first else self._held(layer, stream, start, query)
            for edit in edits:
                if edit.layer == layer:
                    held = Attention(held.position, held.pattern, held.v, edit.applied(held))
            if last:
                stream = stream[rows[:, None], query - start]
            seen.append(held.z[rows, 0 if last else self.at - start])
            block = self.parts.blocks[layer]
            stream = block.after_attention(stream, self.parts.attn_out(block, held.z))
        return Readout(self.parts.logits(stream[:, 0]), tuple(seen))

    def _held(
        self, layer: int, stream: Float[Tensor, "run suffix d_model"], start: int, query: Int[Tensor, "run query"]
    ) -> Attention:
        """A block's attention, its input being `stream` from `start` on and the unedited run's before."""
        state, block = self.states[layer], self.parts.blocks[layer]
        positions = torch.arange(start, start + stream.shape[1], device=stream.device)[None]
        k, v = self.parts.projections(block, stream, positions, slice(1, 3)).unbind(dim=2)
        k, v = (torch.cat([own[:, :start], new], dim=1) for own, new in ((state.k, k), (state.v, v)))
        asking = stream[torch.arange(len(stream), device=stream.device)[:, None], query - start]
        q = self.parts.projections(block, asking, query, slice(0, 1))[:, :, 0]
        future = torch.arange(k.shape[1], device=k.device) > query[:, None, :, None]
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / self.parts.scale
        pattern = scores.masked_fill(future, -torch.inf).softmax(dim=-1)
        return Attention(query, pattern, v, torch.einsum("bhqk,bkhd->bqhd", pattern, v))


def _own(state: LayerState, query: Int[Tensor, "run query"]) -> Attention:
    """The unedited run's attention at some queries."""
    rows = torch.arange(len(query), device=query.device)[:, None]
    return Attention(query, state.pattern.transpose(1, 2)[rows, query].transpose(1, 2), state.v, state.z[rows, query])
