"""Run 3 of path patching on native models: one input of one receiver changed, everything after it free.

Several paths that arrive at one block run side by side, each in a slot of its own, from the first position that any of
them changes; the same slots with the recipient's own values give the run that they are compared with. In the last block
nothing but the position that is read is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.patching.path_direct import head_output
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.forward import LayerState
from cotinterp.models.native.parts import NativeParts
from cotinterp.models.native.resume import resume


@dataclass(frozen=True, eq=False)
class Arrival:
    """What one path changes at its receiver.

    Attributes:
        path: Which path, by its index.
        site: A head's q, k or v, whose values become `value`; or a stream, to which `value` is added: attn_out (the
            stream between attention and MLP) or resid_pre (the input of a block; of the block behind the last, the
            output of the model's blocks).
        row, position: Where `value` stands.
        reach: Where, up to the readout, the stream may become another by it.
    """

    path: int
    site: Site
    row: Int[Tensor, " changed"]
    position: Int[Tensor, " changed"]
    value: Float[Tensor, "changed width"]
    reach: Bool[Tensor, "batch pos"]

    @property
    def stream(self) -> Site:
        """The stream that it changes first."""
        return Site("attn_out", self.site.layer) if self.site.head is not None else self.site


@dataclass(frozen=True, eq=False)
class Receivers:
    """The recipients' states, and where each is read."""

    parts: NativeParts
    states: Sequence[LayerState]
    at: Int[Tensor, " batch"]

    def only_read(self, stream: Site) -> bool:
        """Whether the change of this stream matters at the readout alone."""
        return stream.layer >= len(self.states) - (stream.kind == "attn_out")

    def logits(self, stream: Site, start: int, slots: Sequence[Arrival | None]) -> Float[Tensor, "run d_vocab_out"]:
        """Logits at the readout, the slots one after the other; None stands for the recipient itself.

        Slots change `stream`, at positions from `start` on.
        """
        row, position = self._grid(start, only_read=self.only_read(stream))
        own = repeat(self._own(stream)[row, position], "batch pos d -> slot batch pos d", slot=len(slots)).clone()
        for slot, arrival in enumerate(slots):
            if arrival is not None:
                own[slot] += self._change(arrival, row, position)
        resid = own
        if stream.kind == "attn_out":
            block = self.parts.blocks[stream.layer]
            resid = own if block.mlp is None else own + block.mlp(own)
        if self.only_read(stream):
            return self.parts.logits(resid.flatten(0, 2))
        rows, at = torch.arange(len(self.at), device=row.device).repeat(len(slots)), self.at.repeat(len(slots))
        layer = stream.layer + (stream.kind == "attn_out")
        return resume(self.parts, self.states, layer=layer, start=start, rows=rows, resid=resid.flatten(0, 1), at=at)

    def itself(self, arrival: Arrival) -> Arrival:
        """The same arrival with the recipient's own values."""
        site, here = arrival.site, (arrival.row, arrival.position)
        if site.head is None:
            return replace(arrival, value=torch.zeros_like(arrival.value))
        return replace(arrival, value=site.of(getattr(self.states[site.layer], site.kind))[here])

    def _own(self, stream: Site) -> Float[Tensor, "batch pos d_model"]:
        if stream.layer == len(self.states):
            return self.states[-1].resid_post
        state = self.states[stream.layer]
        return state.resid_pre + state.attn_out if stream.kind == "attn_out" else state.resid_pre

    def _grid(self, start: int, *, only_read: bool) -> tuple[Int[Tensor, "batch 1"], Int[Tensor, "batch query"]]:
        batch, n = self.states[0].resid_pre.shape[:2]
        rows = torch.arange(batch, device=self.at.device)[:, None]
        if only_read:
            return rows, self.at[:, None]
        return rows, torch.arange(start, n, device=self.at.device).expand(batch, -1)

    def _change(
        self, arrival: Arrival, row: Int[Tensor, "batch 1"], position: Int[Tensor, "batch query"]
    ) -> Float[Tensor, "batch query d_model"]:
        """What is added to the stream at some positions of each example."""
        site = arrival.site
        if site.head is None:
            change = torch.zeros_like(self.states[0].resid_pre)
            change[arrival.row, arrival.position] = arrival.value
            return change[row, position]
        state = self.states[site.layer]
        own = {kind: Site(kind, site.layer, site.head).of(getattr(state, kind)) for kind in ("q", "k", "v")}
        written = own[site.kind].clone()
        written[arrival.row, arrival.position] = arrival.value
        z, moved = (
            _attended(each["q"][row, position], each["k"], each["v"], position, scale=self.parts.scale)
            for each in (own, {**own, site.kind: written})
        )
        change = (moved - z) * arrival.reach[row, position][..., None]
        return change @ head_output(self.parts, site)


def _attended(
    q: Float[Tensor, "batch query d_head"],
    k: Float[Tensor, "batch pos d_head"],
    v: Float[Tensor, "batch pos d_head"],
    position: Int[Tensor, "batch query"],
    *,
    scale: float,
) -> Float[Tensor, "batch query d_head"]:
    """z of one head's causal attention, of queries at `position`."""
    future = torch.arange(k.shape[1], device=k.device) > position[..., None]
    scores = (q @ k.transpose(1, 2) / scale).masked_fill(future, -torch.inf)
    return scores.softmax(dim=-1) @ v
