"""Which heads of two models are the same: one-to-one matches, and what of them holds on problems not matched on.

The number of a head means nothing between two models, and the basis of what it writes neither. Heads are matched (one
to one, so that the sum of similarities is largest; Kuhn 1955) by where they look, which needs no basis, or by what they
write on each problem, turned into the basis of the other model by the rotation of `align_streams`.

Matching maximizes, so that matches are alike by construction on the problems that they were made on; their similarity
is reported on other problems, beside the same heads paired off at random and beside an untrained model. What it does
not establish: that matched heads are used for the same thing (`head_table` of both, `compare_ablations`), or that heads
without a match have no counterpart: a computation may be divided among heads in another way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.model import HookedModel, require_causal, require_model, weight
from cotinterp.mechanism.probing.alignment import fit_alignment
from cotinterp.mechanism.probing.controls import distinct_rows, hold_out
from cotinterp.mechanism.sites import Site, head_sites, residual_sites
from cotinterp.results import Result, with_labels
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Place

MatchBy = Literal["pattern", "output"]
"""What makes two heads alike: `pattern`, attention that falls on the same tokens; `output`, what is written."""

LEVEL = 0.05
"""A match holds where fewer random pairings than this have any pair as alike as it."""
DRAWS = 2000


@dataclass(frozen=True, eq=False)
class HeadMatches(Result):
    """The heads of one model and their matches in another.

    Attributes:
        by: What made two heads alike.
        model, other: Names of the models.
        heads, others: The heads, in order.
        match: For each head which of `others` it was given.
        fitted: Similarity of all pairs on the problems that heads were matched on. `pattern`: shared attention, from 0
            to 1; `output`: cosine of what two heads write, centered, from -1 to 1.
        held: The same on the other problems.
        n: Of the latter.
    """

    by: MatchBy
    model: str
    other: str
    heads: tuple[Site, ...]
    others: tuple[Site, ...]
    match: Int[np.ndarray, " head"]
    fitted: Float[np.ndarray, "head other"]
    held: Float[np.ndarray, "head other"]
    n: int
    seed: int = 0
    labels: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def similarity(self) -> Float[np.ndarray, " head"]:
        """Of each head and its match, on problems that it was not matched on."""
        return np.asarray(self.held[np.arange(len(self.heads)), self.match])

    def null(self) -> Float[np.ndarray, "draw head"]:
        """The same under random pairings in which no head has its match."""
        rng, rows = np.random.default_rng(self.seed), np.arange(len(self.heads))
        drawn: list[np.ndarray] = []
        while len(drawn) < DRAWS:
            given = rng.permutation(len(self.others))[: len(rows)]
            given = np.where(given == self.match, given[(rows + 1) % len(rows)], given)
            drawn.append(self.held[rows, given])
        return np.stack(drawn)

    @property
    def p(self) -> Float[np.ndarray, " head"]:
        """For each match the share of random pairings whose best pair is as alike; the true one counts among them.

        Never below one over the number of pairings: of two heads no match can be told from chance.
        """
        best = self.null().max(axis=1)
        found = (1 + (best[:, None] >= self.similarity[None]).sum(axis=0)) / (1 + len(best))
        return np.asarray(np.maximum(found, 1 / math.perm(len(self.others), len(self.heads))))

    def matched(self, head: Site) -> Site | None:
        """The head of the other model that holds as a match of this one; None where none does.

        KeyError for a head that is not there.
        """
        names = [one.block for one in self.heads]
        if head.block not in names:
            raise KeyError(f"no head {head.block}; there are {names}")
        row = names.index(head.block)
        return self.others[self.match[row]] if self.p[row] <= LEVEL else None

    def frame(self) -> pd.DataFrame:
        """One row per head with its match, their similarity and that of random pairings.

        `next_best`: the highest similarity of the head with any other head on the held-out problems.
        """
        null, p, rows = self.null(), self.p, []
        for row, head in enumerate(self.heads):
            beside = np.delete(self.held[row], self.match[row])
            rows.append(
                {
                    "model": self.model,
                    "other": self.other,
                    "by": self.by,
                    "head": head.block,
                    "match": self.others[self.match[row]].block,
                    "similarity": float(self.similarity[row]),
                    "next_best": float(beside.max()) if len(beside) else np.nan,
                    "random_mean": float(null[:, row].mean()),
                    "p": float(p[row]),
                    "holds": bool(p[row] <= LEVEL),
                    "n": self.n,
                }
            )
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """Similarity of every pair on the held-out problems, the heads of the other model in the order of matches."""
        rest = [index for index in range(len(self.others)) if index not in set(self.match.tolist())]
        table = pd.DataFrame(
            [
                {
                    "head": self.heads[row].block,
                    "other": self.others[column].block,
                    "similarity": self.held[row, column],
                }
                for column in [*self.match.tolist(), *rest]
                for row in range(len(self.heads))
            ]
        )
        kind = "attention" if self.by == "pattern" else "output"
        return heatmap(
            table,
            x="other",
            y="head",
            value="similarity",
            midpoint=None if self.by == "pattern" else 0.0,
            title=f"Heads of {self.model} and of {self.other} by their {kind}: matches on the diagonal",
            x_title=f"heads of {self.other}",
            y_title=f"heads of {self.model}",
            hover=(),
        )


def match_heads(
    model: HookedModel,
    other: HookedModel,
    batch: Batch,
    dests: Sequence[Place],
    *,
    by: MatchBy = "output",
    names: tuple[str, str] = ("model", "other"),
    test: float = 0.5,
    batch_size: int | None = None,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> HeadMatches:
    """Heads of `model` matched with heads of `other`, at the places `dests` of the same transcripts.

    Args:
        batch: Transcripts that all have these places, such as those of one length.
        dests: Role and step (-1 where it has none) of the tokens at which heads are compared, of values of several
            characters the last.
        by: `output`, or `pattern`.
        test: Share of the problems that nothing is matched or aligned on.
        seed: Of the split and of random pairings.

    Raises:
        KeyError: Some transcript lacks a place.
        ValueError: Models that look ahead; for outputs of different widths; fewer heads in `other`; one head alone.
    """
    if by not in get_args(MatchBy):
        raise ValueError(f"by={by!r}: there are {list(get_args(MatchBy))}.")
    if not dests:
        raise ValueError("dests: none were given. Wanted are places, such as [(Role.EQUALS, 2)].")
    heads, others = head_sites(model), head_sites(other)
    if not 2 <= len(heads) <= len(others):
        raise ValueError(f"{len(heads)} heads cannot be matched one to one with {len(others)}; two at least are needed")
    positions = torch.stack([batch.where(role, None if step < 0 else step, part=-1) for role, step in dests], dim=1)
    train = torch.from_numpy(hold_out(distinct_rows(batch.operands.cpu().numpy()), fraction=test, seed=seed))
    for one in (model, other):
        require_model(one)
        require_causal(one, "a head would see what stands behind the places compared, padding too")
    if by == "pattern":
        fitted, held = _shared([_looks(one, batch, positions, batch_size) for one in (model, other)], train)
    else:
        widths = [int(one.cfg.d_model) for one in (model, other)]
        if widths[0] != widths[1]:
            raise ValueError(f"models of different widths, {widths}: compare their heads by='pattern'")
        mine, theirs = (_outputs(one, batch, positions, train, batch_size) for one in (model, other))
        turned = theirs @ _rotation(other, model, batch, positions, train, batch_size).to(theirs)
        fitted, held = (_cosine(mine[:, rows], turned[:, rows]) for rows in (train, ~train))
    match = linear_sum_assignment(fitted, maximize=True)[1]
    return HeadMatches(by, *names, heads, others, match, fitted, held, int((~train).sum()), seed, dict(labels or {}))


def _looks(
    model: HookedModel, batch: Batch, positions: Int[Tensor, "batch place"], batch_size: int | None
) -> Float[Tensor, "head batch place src"]:
    """Attention of every head from each place."""
    sites = residual_sites(model, "pattern")
    found = activations(model, batch.tokens, sites, positions=positions, batch_size=batch_size)
    # With positions the places come first, then the heads.
    patterns = torch.stack([found[site] for site in sites]).double()
    return rearrange(patterns, "layer batch place head src -> (layer head) batch place src")


def _shared(
    patterns: Sequence[Float[Tensor, "heads batch place src"]], train: Bool[Tensor, " batch"]
) -> tuple[Float[np.ndarray, "head other"], Float[np.ndarray, "head other"]]:
    """Attention that two heads have in common, 1 less their total variation distance: on training and other rows."""
    mine, theirs = patterns
    each = torch.stack([torch.minimum(one[None], theirs).sum(dim=-1).mean(dim=-1) for one in mine])
    return each[..., train].mean(dim=-1).cpu().numpy(), each[..., ~train].mean(dim=-1).cpu().numpy()


def _outputs(
    model: HookedModel,
    batch: Batch,
    positions: Int[Tensor, "batch place"],
    train: Bool[Tensor, " batch"],
    batch_size: int | None,
) -> Float[Tensor, "head batch place d_model"]:
    """What every head writes at each place, less its mean over training problems there."""
    sites = residual_sites(model, "z")
    found = activations(model, batch.tokens, sites, positions=positions, batch_size=batch_size)
    z = torch.stack([found[site] for site in sites]).double()
    output = weight(model, "W_O").double()
    written = einsum(z, output, "layer batch place head d, layer head d d_model -> layer head batch place d_model")
    flat = rearrange(written, "layer head batch place d_model -> (layer head) batch place d_model")
    return flat - flat[:, train].mean(dim=1, keepdim=True)


def _rotation(
    model: HookedModel,
    into: HookedModel,
    batch: Batch,
    positions: Int[Tensor, "batch place"],
    train: Bool[Tensor, " batch"],
    batch_size: int | None,
) -> Float[Tensor, "d_model d_model"]:
    """One rotation of the whole stream into that of another model, fitted on what leaves every block of both."""
    layers = [int(one.cfg.n_layers) for one in (model, into)]
    streams = []
    for one, depth in zip((model, into), layers, strict=True):
        leaving = range(depth) if layers[0] == layers[1] else [depth - 1]
        sites = [Site("resid_post", layer) for layer in leaving]
        found = activations(one, batch.tokens, sites, positions=positions, batch_size=batch_size)
        streams.append(torch.cat([found[site][train] for site in sites], dim=1))
    return fit_alignment(*streams).rotation


def _cosine(
    mine: Float[Tensor, "head batch place d_model"], theirs: Float[Tensor, "other batch place d_model"]
) -> Float[np.ndarray, "head other"]:
    """0 for a head that writes the same in all problems."""
    sizes = [side.flatten(start_dim=1).norm(dim=1).clamp_min(torch.finfo(side.dtype).tiny) for side in (mine, theirs)]
    units = [side.flatten(start_dim=1) / size[:, None] for side, size in zip((mine, theirs), sizes, strict=True)]
    return np.asarray((units[0] @ units[1].T).cpu())
