"""One vocabulary for the places in a model where activations live.

`Site` alone spells hook names and head axes: `Site("z", layer=1, head=3)` is printed `L1H3.z` and is hooked at
`blocks.1.attn.hook_z`. Heads lie on axis -2 of q, k, v and z and on axis 1 of the attention pattern; indexing the wrong
axis is silent whenever the sizes happen to allow it, which is why nobody else indexes them.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import total_ordering
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from cotinterp.mechanism.model import HookedModel, require_hooked

Kind = Literal["resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "mlp_out", "resid_post"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HEAD_AXIS: dict[str, int] = {"q": -2, "k": -2, "v": -2, "z": -2, "pattern": 1}
Positions = Shaped[Tensor, "..."]
"""One position for each example (whole numbers `batch`), or a mask `batch pos`; `check_positions` refuses all else."""

_LABEL = re.compile(r"L(?P<layer>\d+)(?:H(?P<head>\d+))?\.(?P<kind>\w+)")


def as_kind(name: str) -> Kind:
    """The kind of this name. ValueError with the nearest names, or with the reason why edits there are refused."""
    if name in KINDS:
        return name
    if name in ("attn_scores", "scores"):
        raise ValueError(
            "attn_scores is not a site: on native models TransformerLens discards what is written there. "
            "Read and knock out attention at 'pattern' instead (interventions.knock_out renormalizes it)."
        )
    near = difflib.get_close_matches(name, KINDS, n=3, cutoff=0.5)
    raise ValueError(f"unknown kind {name!r}{f'; did you mean {near}' if near else ''}. Kinds: {list(KINDS)}.")


@total_ordering
@dataclass(frozen=True)
class Site:
    """A place where activations live: `Site("z", layer=1, head=3)`, printed `L1H3.z`.

    Sites sort in the order in which a forward pass reaches them. `resid_mid` can be read but not written (see
    `refuse_write`). A site without a head, of a kind that has heads, means all heads together.
    """

    kind: Kind
    layer: int
    head: int | None = None

    def __post_init__(self) -> None:
        as_kind(self.kind)
        _check_number("layer", self.layer, self.kind)
        if self.head is not None and self.kind not in HEAD_AXIS:
            raise ValueError(f"{self.kind} has no heads (head={self.head} given); kinds with heads: {list(HEAD_AXIS)}.")
        if self.head is not None:
            _check_number("head", self.head, self.kind)

    @property
    def hook(self) -> str:
        """Name of the hook point in TransformerLens."""
        return f"blocks.{self.layer}.{'attn.' if self.kind in HEAD_AXIS else ''}hook_{self.kind}"

    @property
    def label(self) -> str:
        """`L1H3.z`, `L2.resid_pre`: what tables and axes say."""
        return f"{self.block}.{self.kind}"

    @property
    def block(self) -> str:
        """`L1H3` or `L2`: the label without its kind."""
        return f"L{self.layer}" if self.head is None else f"L{self.layer}H{self.head}"

    @property
    def whole(self) -> "Site":
        """The same hook with all of its heads."""
        return Site(self.kind, self.layer)

    @classmethod
    def parse(cls, label: str) -> "Site":
        """The site that prints as `label`. ValueError where it is not of the form L1H3.z or L2.resid_pre."""
        match = _LABEL.fullmatch(label)
        if match is None:
            raise ValueError(f"{label!r} is not a site label; labels look like 'L2.resid_pre' or 'L1H3.z'.")
        head = match["head"]
        return cls(as_kind(match["kind"]), int(match["layer"]), None if head is None else int(head))

    def __str__(self) -> str:
        return self.label

    def __lt__(self, other: "Site") -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[int, int, int]:
        return self.layer, KINDS.index(self.kind), -1 if self.head is None else self.head

    def check(self, model: HookedModel) -> "Site":
        """This site, if the model has it. ValueError that says how many layers or heads there are."""
        n_layers, n_heads = int(model.cfg.n_layers), self.n_heads(model)
        if self.layer >= n_layers:
            raise ValueError(f"{self} is outside the model: it has layers 0 to {n_layers - 1}.")
        if self.head is not None and self.head >= n_heads:
            raise ValueError(f"{self} is outside the model: its {self.kind} has heads 0 to {n_heads - 1}.")
        return self

    def n_heads(self, model: HookedModel) -> int:
        """How many heads this kind has: fewer for k and v under grouped-query attention."""
        grouped = getattr(model.cfg, "n_key_value_heads", None) if self.kind in ("k", "v") else None
        return int(grouped or model.cfg.n_heads)

    def of(self, activation: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch *rest"]:
        """The part of a hook's activation that belongs to this site (a view): one head, or everything.

        Layouts: `batch pos d_model`; one head of q, k, v, z: `batch pos d_head`; one head of pattern:
        `batch query key`; all heads: `batch pos head d_head` and `batch head query key`.
        """
        return activation if self.head is None else activation.select(HEAD_AXIS[self.kind], self.head)

    def by_position(self, part: Float[Tensor, "batch *axes"]) -> Float[Tensor, "batch pos *rest"]:
        """`self.of(activation)` as a view with positions on axis 1; for patterns these are the query positions."""
        return part.movedim(2, 1) if self.kind == "pattern" and self.head is None else part

    def at(self, part: Float[Tensor, "batch *axes"], positions: Positions) -> Float[Tensor, "batch *rest"]:
        """`self.of(activation)` at one position of each example. ValueError for positions outside it."""
        here = self.by_position(part)
        return here[torch.arange(len(here), device=here.device), _checked_positions(positions, here, self)]

    def write(
        self,
        activation: Float[Tensor, "batch *axes"],
        value: Float[Tensor, "*value"],
        positions: Positions | None = None,
    ) -> Float[Tensor, "batch *axes"]:
        """A copy of `activation` in which this site holds `value`; nothing else is touched.

        `value` has the layout of `self.of(activation)`, or broadcasts to it (see `fit`). `positions`: None writes
        everywhere, one position per example (then `value` has no position axis), or a mask of positions (`value` is
        read at the same positions). For patterns the positions are those of the queries. ValueError where shapes do not
        fit.
        """
        written = activation.clone()
        natural = self.of(written)
        target = self.by_position(natural)
        value = value.to(written)
        if positions is None or positions.dtype == torch.bool:
            source = self.by_position(self.fit(value, natural.shape))
            if positions is None:
                target.copy_(source)
            else:
                mask = _checked_positions(positions, target, self)
                target.copy_(torch.where(mask.reshape(*mask.shape, *[1] * (target.ndim - 2)), source, target))
            return written
        rows = torch.arange(len(target), device=target.device)
        index = _checked_positions(positions, target, self)
        target[rows, index] = self.fit(value, target[rows, index].shape)
        return written

    def fit(self, value: Float[Tensor, "*value"], shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """`value` broadcast to what this site takes: a number, one vector for all places, or every axis given.

        Axes that are left out are those in front. ValueError where the shapes do not fit, and where a value without all
        axes fits because two sizes happen to be equal: rows of a batch must not be taken for positions, or for heads.
        """
        try:
            fitted: Tensor = value.broadcast_to(tuple(shape))
        except RuntimeError:
            raise ValueError(
                f"a value of shape {tuple(value.shape)} does not fit {self}, which takes {tuple(shape)}."
            ) from None
        left_out = len(shape) - value.ndim
        if 1 < value.ndim < len(shape) and value.shape[0] > 1 and value.shape[0] in tuple(shape)[:left_out]:
            raise ValueError(
                f"a value of shape {tuple(value.shape)} fits {self}, which takes {tuple(shape)}, in two ways, because "
                f"two axes have the size {value.shape[0]}. Give every axis, of size 1 where all of it is the same."
            )
        return fitted


def site_columns(site: Site | str) -> dict[str, str | int]:
    """What tables say of a site: its label as `site`, `kind`, `layer`, and `head` (-1 for all of them together).

    A row that is of no site (a baseline) has its name as `site` and `kind`, and -1 for layer and head.
    """
    if isinstance(site, str):
        return {"site": site, "kind": site, "layer": -1, "head": -1}
    return {"site": site.label, "kind": site.kind, "layer": site.layer, "head": -1 if site.head is None else site.head}


def refuse_write(site: Site) -> None:
    """ValueError for the one site that can be read but not written.

    In TransformerLens 4 `hook_resid_mid` is the input of the second norm: what is written there reaches the MLP, but
    the residual stream goes around it unchanged, so an "edit of resid_mid" would in fact be an edit of mlp_out.
    """
    if site.kind == "resid_mid":
        raise ValueError(
            f"{site} cannot be written: TransformerLens hooks it on the MLP's branch, so the residual stream would "
            "keep its old value. Write attn_out or mlp_out of the layer, or resid_pre / resid_post."
        )


def residual_sites(model: HookedModel, kind: str = "resid_pre") -> tuple[Site, ...]:
    """The residual stream (or attn_out, mlp_out, ...) at every layer, first to last."""
    require_hooked(model)
    return tuple(Site(as_kind(kind), layer) for layer in range(int(model.cfg.n_layers)))


def head_sites(model: HookedModel, kind: str = "z") -> tuple[Site, ...]:
    """Every head of every layer: `L0H0.z`, `L0H1.z`, ... ValueError for kinds that have no heads."""
    require_hooked(model)
    known = as_kind(kind)
    heads = range(Site(known, 0).n_heads(model))
    return tuple(Site(known, layer, head) for layer in range(int(model.cfg.n_layers)) for head in heads)


def mask_of(mask: Any, shape: Sequence[int], noun: str) -> Bool[Tensor, "..."]:
    """`mask`, if it is one of this shape. ValueError for other shapes and for 0/1 numbers, which would be indices."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise ValueError(
            f"{noun} must be a boolean tensor, True where meant; got {_described(mask)}: give mask.bool()."
        )
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(f"{noun} has shape {tuple(mask.shape)}, expected {tuple(shape)}.")
    return mask


def check_positions(positions: Any, site: Site) -> None:
    """ValueError unless positions are one whole number for each example, or a mask of two axes."""
    whole = isinstance(positions, Tensor) and not (positions.is_floating_point() or positions.is_complex())
    if not whole or positions.ndim != (2 if positions.dtype == torch.bool else 1):
        raise ValueError(
            f"positions of {site} are one whole number for each example, or a boolean mask batch pos; got "
            f"{_described(positions)} (a mask of 0/1 numbers becomes one by .bool())."
        )


def _described(given: Any) -> str:
    return f"{given.dtype} of shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__


def _check_number(noun: str, number: Any, kind: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise ValueError(f"{noun} {number!r} of {kind} is no whole number: {noun}s count 0, 1, 2, ...")
    if number < 0:
        raise ValueError(f"{noun} {number} of {kind} is negative: {noun}s count from 0.")


def _checked_positions(positions: Tensor, target: Tensor, site: Site) -> Tensor:
    batch, n = target.shape[:2]
    check_positions(positions, site)
    expected = (batch, n) if positions.dtype == torch.bool else (batch,)
    if tuple(positions.shape) != expected:
        hint = " A mask is of True and False: mask.bool()." if positions.dtype != torch.bool else ""
        raise ValueError(f"positions of shape {tuple(positions.shape)} do not fit {site}: expected {expected}.{hint}")
    if positions.dtype != torch.bool and len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < n:
        raise ValueError(f"positions {positions.tolist()} leave the {n} positions of {site} (counted from 0).")
    return positions.to(target.device)
