"""Run 2 of path patching on native models: what a sender does to the stream, position by position.

With every later head held, nothing moves between positions. So the change of one position passes through norms and
MLPs by itself, and the positions at which the sender writes the same in both runs need no computation at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.sites import Site
from cotinterp.models.native.forward import LayerState
from cotinterp.models.native.parts import NativeParts


@dataclass(frozen=True, eq=False)
class Sent:
    """What one sender writes otherwise in the donor's run, and what the stream holds there then.

    Attributes:
        site: The sender.
        row, position: Where it differs, in reading order.
        stream: The stream with the donor's contribution: the block's input for a resid_pre, the stream between
            attention and MLP for z and attn_out, the block's output for mlp_out.
        own: The recipient's stream there.
    """

    site: Site
    row: Int[Tensor, " changed"]
    position: Int[Tensor, " changed"]
    stream: Float[Tensor, "changed d_model"]
    own: Float[Tensor, "changed d_model"]

    @classmethod
    def of(
        cls,
        parts: NativeParts,
        site: Site,
        own: LayerState,
        donor: LayerState,
        place: Bool[Tensor, "batch pos"],
    ) -> "Sent | None":
        """The donor's value of `site` at `place`; None where it is the recipient's, bit for bit."""
        theirs, ours = site.of(getattr(donor, site.kind)), site.of(getattr(own, site.kind))
        row, position = ((theirs != ours).any(dim=-1) & place).nonzero().unbind(dim=1)
        if not len(row):
            return None
        here = row, position
        if site.kind == "resid_pre":
            return cls(site, row, position, theirs[here], ours[here])
        stream = own.resid_post[here] if site.kind == "mlp_out" else own.resid_pre[here] + own.attn_out[here]
        written = theirs[here] - ours[here]
        if site.kind == "z":
            written = written @ head_output(parts, site)
        return cls(site, row, position, stream + written, stream)


def head_output(parts: NativeParts, site: Site) -> Float[Tensor, "z d_model"]:
    """W_O of the site's head; of all of them, below each other, for a site without a head."""
    weights = parts.blocks[site.layer].w_o.T
    return weights if site.head is None else weights.unflatten(0, (parts.n_heads, -1))[site.head]


@dataclass(frozen=True, eq=False)
class Direct:
    """What stands at the rows of a `Sent` after run 2.

    Attributes:
        inputs: What each asked site would hold at all of them.
        read: Which of them are read out.
        stream: The stream behind the last block, there; as far as it was followed where nobody asks for it.
    """

    inputs: dict[Site, Float[Tensor, "changed *axes"]]
    read: Int[Tensor, " read"]
    stream: Float[Tensor, "read d_model"]


def direct(
    parts: NativeParts,
    states: Sequence[LayerState],
    sent: Sent,
    stream: Float[Tensor, "changed d_model"],
    asked: frozenset[Site],
    at: Int[Tensor, " batch"],
    *,
    through_mlps: bool,
    to_the_end: bool,
) -> Direct:
    """Run 2 from `stream` (`sent.stream`, or `sent.own` for what it is compared with): everything else is held.

    `asked` are whole sites: q, k, v, and mlp_out, which is what the MLP would write, whether or not it is held. Behind
    the last of them only what is read at `at` goes on, and that only `to_the_end`.
    """
    row, position = sent.row, sent.position
    read = (position == at[row]).nonzero()[:, 0]
    found: dict[Site, Tensor] = {}
    start, final = sent.site.layer, max(asked, default=None)
    narrow = False
    for layer in range(start, len(states)):
        block, state = parts.blocks[layer], states[layer]
        if layer > start or sent.site.kind == "resid_pre":
            inputs = Site("q", layer), Site("k", layer), Site("v", layer)
            if not asked.isdisjoint(inputs):
                each = parts.qkv(block, stream, position).unbind(dim=-3)
                found |= dict(zip(inputs, each, strict=True))
            stream = stream + state.attn_out[row, position]
        if not narrow and (final is None or final < Site("mlp_out", layer)):
            narrow, row, position, stream = True, row[read], position[read], stream[read]
        if narrow and not to_the_end:
            break
        if block.mlp is None or (layer == start and sent.site.kind == "mlp_out"):
            continue
        if through_mlps or Site("mlp_out", layer) in asked:
            found[Site("mlp_out", layer)] = block.mlp(stream)
        assert state.mlp_out is not None
        stream = stream + (found[Site("mlp_out", layer)] if through_mlps else state.mlp_out[row, position])
    if not narrow:
        stream = stream[read]
    return Direct({site: value for site, value in found.items() if site in asked}, read, stream)
