"""What a patch of a native model becomes: the input of a block at the changed positions, and its queries, keys, values.

A patch of resid_pre, k or v changes what its own block does with the positions after it. A patch of q, pattern, z,
attn_out, mlp_out or resid_post changes what its block hands on, at the patched positions alone: it enters the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.sites import Kind, Site
from cotinterp.models.native.forward import LayerState
from cotinterp.models.native.parts import Block, NativeParts
from cotinterp.models.native.resume import Entry

_WITHIN: tuple[Kind, ...] = ("resid_pre", "k", "v")


def enters_at(site: Site) -> int:
    """The first block whose input, keys or values a patch changes; the number of blocks for one behind the last."""
    return site.layer if site.kind in _WITHIN else site.layer + 1


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches that enter at one block: whose run, which of `sites`, and at which positions the donor's value stands."""

    sites: Sequence[Site]
    site: Int[Tensor, " run"]
    row: Int[Tensor, " run"]
    mask: Bool[Tensor, "run pos"]


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Single positions of runs, and the head that is written there (-1 for all of them)."""

    row: Int[Tensor, " changed"]
    position: Int[Tensor, " changed"]
    head: Int[Tensor, " changed"]

    def select(self, some: Int[Tensor, " some"]) -> "_Tokens":
        return _Tokens(self.row[some], self.position[some], self.head[some])

    def of(self, state: Float[Tensor, "batch pos *axes"]) -> Float[Tensor, "changed *axes"]:
        """What the runs hold there."""
        return state[self.row, self.position]

    def written(self, own: Float[Tensor, "batch pos head x"], donor: Tensor) -> Float[Tensor, "changed head x"]:
        """The donor's values in the heads that are written, the recipient's in the others."""
        heads = torch.arange(own.shape[2], device=own.device)
        chosen = (self.head[:, None] == heads) | (self.head[:, None] < 0)
        return torch.where(chosen[..., None], self.of(donor), self.of(own))


def entry(
    parts: NativeParts,
    own: Sequence[LayerState],
    donor: Sequence[LayerState],
    patches: Patches,
    layer: int,
    positions: slice,
) -> Entry:
    """The runs of `patches` at the input of block `layer`, their streams at `positions` (which need not hold what is
    patched). `own` and `donor` are the states of the recipients' and the donors' runs, row by row."""
    run, position = patches.mask.nonzero(as_tuple=True)
    site = patches.site[run]
    head = torch.tensor([-1 if site.head is None else site.head for site in patches.sites], device=run.device)
    tokens = _Tokens(patches.row[run], position, head[site])
    stream = own[layer].resid_pre if layer < len(own) else own[-1].resid_post
    resid = stream[:, positions].index_select(0, patches.row)
    new = tokens.of(stream)
    qkv = new.new_zeros(len(run), 3, *own[-1].q.shape[2:])
    for kind in sorted({site.kind for site in patches.sites}):
        of_kind = torch.tensor([site.kind == kind for site in patches.sites], device=run.device)
        some = of_kind[site].nonzero()[:, 0]
        here = tokens.select(some)
        if not len(some):
            continue
        if kind in _WITHIN:
            qkv[some] = _asked_and_shown(own[layer], donor[layer], here, kind)
            new[some] = here.of(donor[layer].resid_pre if kind == "resid_pre" else stream)
            continue
        changed = _handed_on(parts, parts.blocks[layer - 1], own[layer - 1], donor[layer - 1], here, kind)
        new[some] = changed
        if layer < len(own):
            qkv[some] = parts.qkv(parts.blocks[layer], changed, here.position)
    inside = (position >= positions.start) & (position < positions.stop)
    resid[run[inside], position[inside] - positions.start] = new[inside]
    return Entry(patches.row, resid, run, position, qkv)


def _asked_and_shown(
    own: LayerState, donor: LayerState, tokens: _Tokens, kind: Kind
) -> Float[Tensor, "changed three head d_head"]:
    """Queries, keys and values of a block whose input, keys or values are patched."""
    if kind == "resid_pre":
        return torch.stack([tokens.of(donor.q), tokens.of(donor.k), tokens.of(donor.v)], dim=1)
    k = tokens.written(own.k, donor.k) if kind == "k" else tokens.of(own.k)
    v = tokens.written(own.v, donor.v) if kind == "v" else tokens.of(own.v)
    return torch.stack([tokens.of(own.q), k, v], dim=1)


def _handed_on(
    parts: NativeParts, block: Block, own: LayerState, donor: LayerState, tokens: _Tokens, kind: Kind
) -> Float[Tensor, "changed d_model"]:
    """resid_post of a block in which something is patched that only its own position sees."""
    if kind == "resid_post":
        return tokens.of(donor.resid_post)
    if kind == "mlp_out":
        assert donor.mlp_out is not None
        return tokens.of(own.resid_pre) + tokens.of(own.attn_out) + tokens.of(donor.mlp_out)
    if kind == "attn_out":
        attn_out = tokens.of(donor.attn_out)
    elif kind == "z":
        attn_out = parts.attn_out(block, tokens.written(own.z, donor.z))
    else:
        pattern = _pattern(parts, own, donor, tokens, kind)
        attn_out = parts.attn_out(block, torch.einsum("nhk,nkhd->nhd", pattern, own.v[tokens.row]))
    return block.after_attention(tokens.of(own.resid_pre), attn_out)


def _pattern(
    parts: NativeParts, own: LayerState, donor: LayerState, tokens: _Tokens, kind: Kind
) -> Float[Tensor, "changed head key"]:
    if kind == "pattern":
        return tokens.written(own.pattern.movedim(2, 1), donor.pattern.movedim(2, 1))
    scores = torch.einsum("nhd,nkhd->nhk", tokens.written(own.q, donor.q), own.k[tokens.row]) / parts.scale
    future = torch.arange(scores.shape[-1], device=scores.device) > tokens.position[:, None, None]
    return scores.masked_fill(future, -torch.inf).softmax(dim=-1)
