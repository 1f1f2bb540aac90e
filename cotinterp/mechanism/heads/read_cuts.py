"""Which attention a knock-out cuts: from the readout, or from everywhere, to named tokens or to random ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.heads.attention import patterns
from cotinterp.mechanism.heads.knock_out_result import ABSENT_READ, RANDOM_SOURCES
from cotinterp.mechanism.heads.reads import ReadMask
from cotinterp.mechanism.model import HookedModel

Sources = Bool[Tensor, "batch pos"]
DESTS = ("readout", "everywhere")


@dataclass(frozen=True, eq=False)
class Cut:
    """One read, cut: `mask` is True where a destination may not see a source; `control` as in `KnockOut`."""

    read: str
    control: str
    dest: str
    mask: ReadMask


def cuts(
    sources: Mapping[str, Sources],
    absent: Mapping[str, Sources],
    at: Int[Tensor, " batch"],
    tokens: Int[Tensor, "batch pos"],
    dests: Sequence[str],
    rng: np.random.Generator,
) -> Iterator[Cut]:
    """Every read and control, from every kind of destination.

    For each read that is not `absent`, as many random tokens before the readout are cut as well, of those that no read
    of `sources` names. ValueError for a read without a source at or before the readout `at` in some example, or where
    no read is named.
    """
    if not sources:
        raise ValueError("no reads to knock out: name at least one mask of source tokens.")
    position = torch.arange(tokens.shape[1], device=tokens.device)
    before = position <= at.to(tokens.device)[:, None]
    named = torch.stack(list(sources.values())).any(dim=0)
    unnamed = before & ~named & (position != at.to(tokens.device)[:, None])
    for name, mask in {**sources, **absent}.items():
        marked = mask & before
        empty = int((~marked.any(dim=1)).sum())
        if empty:
            raise ValueError(f"read {name!r} has no source at or before the readout in {empty} of {len(at)} examples.")
        control = ABSENT_READ if name in absent else ""
        others = _random_tokens(marked.sum(dim=1), unnamed, rng)
        for dest in dests:
            yield Cut(name, control, dest, _paths(marked, at, dest))
            if not control:
                yield Cut(name, RANDOM_SOURCES, dest, _paths(others, at, dest))


def _paths(sources: Sources, at: Int[Tensor, " batch"], dest: str) -> ReadMask:
    """Which destination may not see which source: the readout alone, or all that follow and are no sources."""
    position = torch.arange(sources.shape[1], device=sources.device)
    at = at.to(sources.device)[:, None]
    reading = position == at if dest == "readout" else (position <= at) & ~sources
    return reading[:, :, None] & sources[:, None, :] & (position[None, :] <= position[:, None])


def _random_tokens(n: Int[Tensor, " batch"], pool: Sources, rng: np.random.Generator) -> Sources:
    """`n` tokens of the pool in each example; all of them where there are fewer."""
    score = torch.from_numpy(rng.random(tuple(pool.shape))).to(pool.device).masked_fill(~pool, -1.0)
    rank = score.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < n[:, None]) & pool


def attention_on(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], masks: Sequence[ReadMask], batch_size: int | None
) -> Float[Tensor, "cut layer head batch"]:
    """Attention along each mask, averaged over the destinations of each example."""
    found = []
    for rows, pattern in patterns(model, tokens, batch_size):
        marked = torch.stack([mask[rows] for mask in masks]).to(pattern)
        n_dest = marked.any(dim=-1).sum(dim=-1).clamp_min(1)
        total = einsum(pattern, marked, "layer b head dest src, cut b dest src -> cut layer head b")
        found.append((total / n_dest[:, None, None]).cpu())
    return torch.cat(found, dim=-1)
