"""Interventions on a part of an activation: what lies in a linear subspace is exchanged, the rest stays.

An interchange writes `x + P (donor - x)`, P the orthogonal projection onto the subspace (Geiger et al. 2021,
arXiv:2106.02997; Geiger et al. 2023, arXiv:2303.02536). Removing what a subspace holds is the same with another donor:
another example's activation, the mean, or zero. The empty subspace changes nothing, the whole space is an ordinary
patch, and a subspace and its complement exchanged one after the other are one as well.

What an effect does not show: a direction with an effect need not be what the model uses. It may mix a direction that
varies and is never read with one that is read and never varies; writing along the mix then moves what the model reads
to where it never is (Makelov et al. 2023, arXiv:2311.17030). The sign of this is a subspace that does more than the
whole activation; `Subspace.split` takes the two apart where the weights that read are known.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.interventions import Edit
from cotinterp.mechanism.probing.linear_probe import LinearProbe
from cotinterp.mechanism.sites import HEAD_AXIS, Positions, Site

# Directions are taken for linearly dependent where the rest is below this share of the largest: rounding in float32.
DEPENDENT = 1e-5
ORTHONORMAL = 1e-3


@dataclass(frozen=True, eq=False)
class Subspace:
    """A linear subspace of the activations of a site, by an orthonormal basis; of rank 0 where there are no columns.

    ValueError where the columns are not orthonormal; `Subspace.span` makes them so.
    """

    basis: Float[Tensor, "d_site rank"]

    def __post_init__(self) -> None:
        gram = self.basis.T @ self.basis
        error = float((gram - torch.eye(self.rank, device=gram.device)).detach().abs().max()) if self.rank else 0.0
        if not error <= ORTHONORMAL:
            raise ValueError(
                f"the {self.rank} columns of the basis are not orthonormal (off by {error:.2g}); "
                "Subspace.span(directions) makes an orthonormal basis of any directions."
            )

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return self.basis.shape[1]

    @property
    def d_site(self) -> int:
        """Number of dimensions of the space that it lies in."""
        return self.basis.shape[0]

    @classmethod
    def span(cls, directions: Float[Tensor, "d_site n"], *, rank: int | None = None) -> "Subspace":
        """What these directions (columns) span; with `rank` only the most that so many dimensions can hold of them.

        Directions that the others span already add nothing. ValueError where there are fewer than `rank` dimensions.
        """
        left, size, _ = torch.linalg.svd(directions.double(), full_matrices=False)
        found = int((size > DEPENDENT * size.max()).sum()) if size.numel() else 0
        if rank is not None and not 0 <= rank <= found:
            raise ValueError(f"rank {rank} was asked for; these {directions.shape[1]} directions span {found}")
        return cls(left[:, : found if rank is None else rank].float())

    @classmethod
    def of_probe(
        cls, probe: LinearProbe, *, rank: int | None = None, of: Literal["direction", "centers"] = "direction"
    ) -> "Subspace":
        """What a fitted probe reads (`direction`), or where the activations of its classes move (`centers`).

        Two activations that agree in the first get the same prediction, so an interchange in it gives the recipient the
        donor's reading. ValueError for a rank beyond what is there.
        """
        return cls(probe.subspace(rank, of=of).T)

    @classmethod
    def random(
        cls, d_site: int, rank: int, rng: np.random.Generator, *, like: Float[Tensor, "n d_site"] | None = None
    ) -> "Subspace":
        """A random subspace: uniform, or where the activations `like` vary, in proportion to how much they do.

        ValueError where there are not so many dimensions, in the space or in what `like` varies in.
        """
        drawn = torch.from_numpy(rng.standard_normal((d_site if like is None else len(like), rank)))
        if like is not None:
            # Random combinations of the centered rows are normal with their covariance.
            drawn = (like - like.mean(dim=0)).double().cpu().T @ drawn
        return cls.span(drawn, rank=rank)

    def complement(self) -> "Subspace":
        """Everything that is orthogonal to it."""
        whole, _ = torch.linalg.qr(self.basis.double(), mode="complete")
        return Subspace(whole[:, self.rank :].to(self.basis))

    def part(self, rows: Float[Tensor, "*batch d_site"]) -> Float[Tensor, "*batch d_site"]:
        """The component of each row that lies in it."""
        basis = self.basis.to(rows)
        return (rows @ basis) @ basis.T

    def split(self, readers: Float[Tensor, "d_site n"]) -> tuple["Subspace", "Subspace"]:
        """Its two shadows: on what the `readers` (columns of the weights that read this site) see, and on the rest.

        An effect of the second is none of these readers' doing. Between them they may have more dimensions than it has:
        a mixed direction leaves a shadow on both.
        """
        seen = Subspace.span(readers).part(self.basis.T).T
        return Subspace.span(_above_rounding(seen)), Subspace.span(_above_rounding(self.basis - seen))


def exchanged(
    current: Float[Tensor, "*batch d_site"],
    donor: Float[Tensor, "*batch d_site"],
    subspace: Subspace,
    matched_to: Subspace | None = None,
) -> Float[Tensor, "*batch d_site"]:
    """`current` with the donor's component in `subspace`.

    With `matched_to` every row moves in the same direction, but exactly as far as an exchange in that other subspace
    would move it: the norm-matched placebo. Rows on whose difference `subspace` has no component are left alone.
    """
    move = subspace.part(donor - current)
    if matched_to is not None:
        wanted = matched_to.part(donor - current).norm(dim=-1, keepdim=True)
        own = move.norm(dim=-1, keepdim=True)
        move = move * torch.where(own > 0, wanted / own.clamp_min(torch.finfo(own.dtype).tiny), 0.0)
    return current + move


def interchange(
    site: Site,
    donor: Float[Tensor, "*donor"],
    subspace: Subspace,
    positions: Positions | None = None,
    *,
    matched_to: Subspace | None = None,
    expect_change: bool = True,
) -> Edit:
    """Write the donor's component in `subspace` over what is there, and leave the rest (see `exchanged`).

    `donor`: activations as `activations` returned them, with all positions, or already gathered where `positions` is
    one position per example; or anything that broadcasts to them, such as one mean for all. The heads of a site without
    a head count as one vector, as they do for probes. ValueError for attention patterns, which are no vectors, and,
    when run, for a subspace of another size than the site.
    """
    if site.kind == "pattern":
        raise ValueError(f"{site} holds attention weights, not vectors with directions; knock_out edits patterns.")
    n_axes = 2 + (site.kind in HEAD_AXIS and site.head is None)
    gathered = positions is not None and positions.dtype != torch.bool and donor.ndim == n_axes
    given = donor[:, None] if gathered else donor
    return Edit(site, lambda current: written(site, current, given, subspace, matched_to), positions, expect_change)


def written(
    site: Site,
    current: Float[Tensor, "batch pos *vector"],
    donor: Float[Tensor, "*donor"],
    subspace: Subspace,
    matched_to: Subspace | None = None,
) -> Float[Tensor, "batch pos *vector"]:
    """What an interchange writes over `current` in the layout of `Site.of`; `donor` broadcasts to it."""
    wide = torch.promote_types(current.dtype, torch.float32)
    rows, others = current.to(wide), donor.to(device=current.device, dtype=wide).expand_as(current)
    if site.kind in HEAD_AXIS and site.head is None:
        rows, others = rows.flatten(2), others.flatten(2)
    if rows.shape[-1] != subspace.d_site:
        raise ValueError(f"a subspace of {subspace.d_site} dimensions does not fit {site}: {rows.shape[-1]}.")
    return exchanged(rows, others, subspace, matched_to).reshape(current.shape)


def _above_rounding(columns: Float[Tensor, "d_site rank"]) -> Float[Tensor, "d_site rank"]:
    """Zero columns in place of those that are there by rounding alone: they are parts of unit vectors."""
    kept: Tensor = columns * (columns.norm(dim=0) > DEPENDENT)
    return kept
