"""Edits of attention: what a head writes, what it moves along some paths, where it looks.

Every edit has two forms that must agree: `hooked`, for any model (`run_with`), and `start` and `applied`, by which
`EditedRuns` computes of a native model no more than what the edit can change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.interventions import (
    Edit,
    InertEditError,
    differs,
    knock_out_pairs,
    replace_values,
    spread_without,
)
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import LayerState, NativeParts, attend, forward, future_keys


@dataclass(frozen=True, eq=False)
class Attention:
    """What the heads of one block do at some queries: `position` says which."""

    position: Int[Tensor, "run query"]
    pattern: Float[Tensor, "run head query key"]
    v: Float[Tensor, "run key head d_head"]
    z: Float[Tensor, "run query head d_head"]

    def rows_of(self, values: Tensor) -> Tensor:
        """`values[run, position]`, for what lies at all positions."""
        return values[torch.arange(len(values), device=values.device)[:, None], self.position]


@runtime_checkable
class AttentionEdit(Protocol):
    """One edit of one block's attention, for the examples that are run."""

    @property
    def layer(self) -> int:
        """The block."""
        ...

    def hooked(self) -> tuple[Edit, ...]:
        """The same as edits for `run_with`."""
        ...

    def start(self, state: LayerState, /) -> int:
        """The first query at which it can change anything in the run that `state` is of; their number for none."""
        ...

    def applied(self, held: Attention) -> Float[Tensor, "run query head d_head"]:
        """z of all heads with the edit made."""
        ...


@dataclass(frozen=True, eq=False)
class HeadOutput:
    """z of one head becomes `value`. `own`: what it is in these examples, read the way in which `value` was."""

    site: Site
    value: Float[Tensor, "run pos d_head"]
    own: Float[Tensor, "run pos d_head"]

    @property
    def layer(self) -> int:
        """The head's block."""
        return self.site.layer

    def hooked(self) -> tuple[Edit, ...]:
        """One edit. A head whose z is the same on all problems is unmoved: its effect of 0 is then the true answer."""
        return (Edit(self.site, self.value, expect_change=False),)

    def start(self, _: LayerState) -> int:
        """The first position at which the two values differ."""
        return _first((self.value != self.own).any(dim=-1))

    def applied(self, held: Attention) -> Float[Tensor, "run query head d_head"]:
        """The value where it is another than the example's own."""
        z, differs = held.z.clone(), (self.value != self.own).any(dim=-1, keepdim=True)
        head = self.site.head
        z[:, :, head] = torch.where(held.rows_of(differs), held.rows_of(self.value), z[:, :, head])
        return z


@dataclass(frozen=True, eq=False)
class MovedValues:
    """Where `dest` attends to a marked `src`, heads move `values` instead of the source's own (`replace_values`).

    `own`: the values of these examples, read the way in which `values` were. `head`: None for all of the layer.
    """

    layer: int
    head: int | None
    values: Float[Tensor, "run pos kv_head d_head"]
    own: Float[Tensor, "run pos kv_head d_head"]
    mask: Bool[Tensor, "run dest src"]

    def hooked(self) -> tuple[Edit, ...]:
        """Edits that read pattern and values in the run that is edited."""
        return replace_values(self.layer, self.values, self.mask, self.head)

    def start(self, _: LayerState) -> int:
        """The first destination with a marked source that has other values."""
        differs = (self.values != self.own).flatten(2).any(dim=-1)
        return _first((self.mask & differs[:, None]).any(dim=-1))

    def applied(self, held: Attention) -> Float[Tensor, "run query head d_head"]:
        """z plus what the marked sources' attention makes of the change of their values."""
        some = slice(None) if self.head is None else slice(self.head, self.head + 1)
        differs = (self.values != self.own).any(dim=-1, keepdim=True)
        change = torch.where(differs, self.values - held.v, 0.0)[:, :, some]
        weights = (held.pattern * held.rows_of(self.mask)[:, None])[:, some]
        z = held.z.clone()
        z[:, :, some] += torch.einsum("bhqk,bkhd->bqhd", weights, change)
        return z


@dataclass(frozen=True, eq=False)
class CutAttention:
    """No `dest` attends to the `src` marked for it; the rest of its attention is renormalized (`knock_out_pairs`)."""

    layer: int
    head: int | None
    mask: Bool[Tensor, "run dest src"]
    expect_change: bool = True

    def hooked(self) -> tuple[Edit, ...]:
        """One edit, which raises if it changes nothing and should."""
        return (knock_out_pairs(Site("pattern", self.layer, self.head), self.mask, expect_change=self.expect_change),)

    def start(self, state: LayerState) -> int:
        """The first destination with a marked source. InertEditError where nothing can change, and should."""
        heads = slice(None) if self.head is None else slice(self.head, self.head + 1)
        pattern, site = state.pattern[:, heads], Site("pattern", self.layer, self.head)
        if self.expect_change and not differs(spread_without(pattern, self.mask[:, None]), pattern, site).any():
            raise InertEditError(
                f"the cut of {site} changes no value: no destination attends to what is marked for it, up to rounding "
                "(expect_change=False allows that)."
            )
        return _first(self.mask.any(dim=-1))

    def applied(self, held: Attention) -> Float[Tensor, "run query head d_head"]:
        """z with the cut pattern; queries that pay nothing to a marked source keep theirs bit for bit."""
        some = slice(None) if self.head is None else slice(self.head, self.head + 1)
        pattern = held.pattern[:, some]
        gone = held.rows_of(self.mask)[:, None] & (pattern != 0)
        z = held.z.clone()
        moved = torch.einsum("bhqk,bkhd->bqhd", spread_without(pattern, gone), held.v[:, :, some])
        z[:, :, some] = torch.where(gone.any(dim=-1).transpose(1, 2)[..., None], moved, z[:, :, some])
        return z


def _first(where: Bool[Tensor, "run pos"]) -> int:
    columns = where.any(dim=0)
    return int(columns.nonzero()[0, 0]) if bool(columns.any()) else where.shape[1]


@dataclass(frozen=True, eq=False)
class AtReadout:
    """What a run shows at the position that is read: logits, and z of every block."""

    logits: Float[Tensor, "run d_vocab_out"]
    z: tuple[Float[Tensor, "run head d_head"], ...]


@dataclass(eq=False)
class EditedRuns:
    """Some examples of a native model, run once, and with any edits, from the first block and position that change.

    An edited run is compared with one that is computed in the same way and unedited, so that edits which change nothing
    give the same logits bit for bit.
    """

    parts: NativeParts
    states: Sequence[LayerState]
    at: Int[Tensor, " run"]
    _clean: dict[tuple[int, int], AtReadout] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def of(cls, parts: NativeParts, tokens: Int[Tensor, "run pos"], at: Int[Tensor, " run"]) -> "EditedRuns":
        """The examples unedited."""
        return cls(parts, forward(parts, tokens)[1], at.to(tokens.device))

    @torch.no_grad()
    def edited(self, edits: Sequence[AttentionEdit]) -> tuple[AtReadout, AtReadout]:
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

    def _run(self, edits: Sequence[AttentionEdit], first: int, start: int) -> AtReadout:
        n = self.states[0].resid_pre.shape[1]
        rows = torch.arange(len(self.at), device=self.at.device)
        seen = [state.z[rows, self.at] for state in self.states[:first]]
        if first == len(self.states):
            return AtReadout(self.parts.logits(self.states[-1].resid_post[rows, self.at]), tuple(seen))
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
        return AtReadout(self.parts.logits(stream[:, 0]), tuple(seen))

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
        future = future_keys(query, k.shape[1])
        z, pattern = attend(q, k, v, future, slopes=self.parts.slopes, scale=self.parts.scale)
        return Attention(query, pattern, v, z)


def _own(state: LayerState, query: Int[Tensor, "run query"]) -> Attention:
    """The unedited run's attention at some queries."""
    rows = torch.arange(len(query), device=query.device)[:, None]
    return Attention(query, state.pattern.transpose(1, 2)[rows, query].transpose(1, 2), state.v, state.z[rows, query])
