"""Edits of what attention does in one block, each told twice: as hooks of any model, and as tensors of a native one.

Replacing what a head writes, what it moves along some paths, or where it looks. `hooked` is for `run_with`; `applied`
and `start` are for `edited_runs`, which computes the same from a native model's weights.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.interventions import Edit, InertEditError, knock_out_pairs, spread_without
from cotinterp.mechanism.sites import Site
from cotinterp.mechanism.value_edits import replace_values
from cotinterp.models.native.forward import LayerState


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
        if self.expect_change and not bool((state.pattern[:, heads] * self.mask[:, None]).any()):
            raise InertEditError(
                f"the cut of {Site('pattern', self.layer, self.head)} changes no value: no destination attends to what "
                "is marked for it (expect_change=False allows that)."
            )
        return _first(self.mask.any(dim=-1))

    def applied(self, held: Attention) -> Float[Tensor, "run query head d_head"]:
        """z with the cut pattern; queries without a marked source keep theirs bit for bit."""
        some = slice(None) if self.head is None else slice(self.head, self.head + 1)
        gone = held.rows_of(self.mask)
        pattern = spread_without(held.pattern[:, some], gone[:, None])
        z = held.z.clone()
        moved = torch.einsum("bhqk,bkhd->bqhd", pattern, held.v[:, :, some])
        z[:, :, some] = torch.where(gone.any(dim=-1)[..., None, None], moved, z[:, :, some])
        return z


def _first(where: Bool[Tensor, "run pos"]) -> int:
    columns = where.any(dim=0)
    return int(columns.nonzero()[0, 0]) if bool(columns.any()) else where.shape[1]
