"""Which heads could listen to which earlier ones, by their weights alone: composition scores.

What an earlier head writes (its W_V W_O) may reach the query, the key or the value of a later one. The score is the
size of the product of the two matrices as a share of the product of their sizes, ||A B|| / (||A|| ||B||) in Frobenius
norms: 1 where both are of rank one and the second reads what the first writes, 0 where it reads nothing of that (Elhage
et al. 2021, transformer-circuits.pub/2021/framework).

What it does not establish: that anything passes there on some input. A score knows neither what stands in the residual
stream, nor attention, nor norms beyond their gain, nor paths through MLPs; `attention_routes` and `path_sweep` do. Two
matrices that have nothing to do with one another score 1 / sqrt(d_model) in the quadratic mean (one of them turned at
random), which is the `chance` beside the scores; at small widths that is high.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.heads.attribution import NORM_FAMILIES, norm_parameters
from cotinterp.mechanism.model import HookedModel, require_finite_weights, require_model, weight
from cotinterp.mechanism.sites import Site
from cotinterp.results import Result, with_labels

Input = Literal["q", "k", "v"]
INPUTS: tuple[Input, ...] = get_args(Input)
"""What of the later head the earlier one reaches: its query, key or value (Q-, K- and V-composition)."""


@dataclass(frozen=True, eq=False)
class CompositionResult(Result):
    """Composition score of every head with every head of a later layer; 0 for all other pairs.

    `scores`: between 0 and 1. `chance`: what unrelated matrices of this width score.
    """

    scores: Float[Tensor, "input layer head later later_head"]
    chance: float
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def of(self, head: Site, later: Site, through: Input) -> float:
        """The score of one pair. KeyError for a pair that is not in order, or not there."""
        n_layers, n_heads = self.scores.shape[1:3]
        known = all(one.head is not None and one.head < n_heads for one in (head, later))
        if not (known and head.layer < later.layer < n_layers):
            raise KeyError(f"no pair {head.block}, {later.block}: layers 0 to {n_layers - 1} of {n_heads}, in order")
        return float(self.scores[INPUTS.index(through), head.layer, head.head, later.layer, later.head])

    def frame(self) -> pd.DataFrame:
        """One row per pair of heads in order and input of the later one."""
        n_layers, n_heads = self.scores.shape[1:3]
        rows = [
            {
                "earlier": Site("z", layer, head).block,
                "later": Site("z", after, other).block,
                "input": name,
                "score": float(self.scores[index, layer, head, after, other]),
                "chance": self.chance,
            }
            for layer, head, after, other in np.ndindex(n_layers, n_heads, n_layers, n_heads)
            if layer < after
            for index, name in enumerate(INPUTS)
        ]
        columns = ["earlier", "later", "input", "score", "chance"]
        return with_labels(pd.DataFrame(rows, columns=columns), self.labels)

    def figure(self) -> go.Figure:
        """Earlier heads against later ones, a panel for each input; the middle of the scale is chance."""
        return heatmap(
            self.frame(),
            x="later",
            y="earlier",
            value="score",
            facet="input",
            midpoint=self.chance,
            title=f"Composition scores; unrelated matrices have {self.chance:.2f}",
            x_title="later head",
            y_title="earlier head",
            hover=["chance"],
        )


def composition_scores(
    model: HookedModel, *, norms: bool = True, labels: Mapping[str, str | int] | None = None
) -> CompositionResult:
    """Q-, K- and V-composition of every pair of heads.

    `norms`: whether what the later head reads is seen through the norm before it, the mean taken out and the gain
    multiplied in, as in a model whose norms are folded into its weights. Without, the bare weights are multiplied.

    Raises:
        ValueError: A model without the accessors W_Q, W_K, W_V and W_O, or with NaN in its weights.
    """
    require_model(model)
    require_finite_weights(model)
    n_heads = int(model.cfg.n_heads)
    w_q, w_k, w_v, w_o = (weight(model, f"W_{name}").double() for name in "QKVO")
    w_k, w_v = (w.repeat_interleave(n_heads // w.shape[1], dim=1) for w in (w_k, w_v))
    d_model = w_o.shape[-1]
    if norms:
        w_q, w_k, w_read = (_through_norms(model, w) for w in (w_q, w_k, w_v))
    else:
        w_read = w_v
    # W_V of the writer counts through its own norm as well: what it is given is what the norm leaves.
    writes = _joined(w_read, w_o)
    qk = _joined(w_q, rearrange(w_k, "layer head d_model d_head -> layer head d_head d_model"))
    read = {"q": qk, "k": rearrange(qk, "layer head left right -> layer head right left"), "v": writes}
    layers = torch.arange(w_o.shape[0], device=w_o.device)
    in_order = rearrange(layers, "layer -> layer 1 1 1") < rearrange(layers, "later -> later 1")
    scores = torch.stack([_scores(writes, read[name]) * in_order for name in INPUTS])
    return CompositionResult(scores.float().cpu(), float(1 / np.sqrt(d_model)), dict(labels or {}))


def _through_norms(
    model: HookedModel, weights: Float[Tensor, "layer head d_model d_head"]
) -> Float[Tensor, "layer head d_model d_head"]:
    layers = []
    for layer, own in enumerate(weights):
        norm = getattr(model.blocks[layer], "ln1", None)  # type: ignore[attr-defined]
        gain, _ = norm_parameters(norm, model.cfg, own.shape[-2], own.device)
        folded = gain[:, None] * own
        if NORM_FAMILIES.get(model.cfg.normalization_type) == "layer norm":
            folded = folded - folded.mean(dim=-2, keepdim=True)
        layers.append(folded)
    return torch.stack(layers)


def _joined(
    left: Float[Tensor, "layer head d_model d_head"], right: Float[Tensor, "layer head d_head d_model"]
) -> Float[Tensor, "layer head d_model d_model"]:
    return einsum(left, right, "layer head left d, layer head d right -> layer head left right")


def _scores(
    writes: Float[Tensor, "layer head d_model d_model"], reads: Float[Tensor, "layer head d_model d_model"]
) -> Float[Tensor, "layer head later later_head"]:
    """||A B|| / (||A|| ||B||); 0 where one of them is 0."""
    writing, reading = (torch.linalg.matrix_norm(matrix) for matrix in (writes, reads))
    # ||A B||^2 = <A^T A, B B^T>, so that no product of two full matrices is made for each pair.
    left = einsum(writes, writes, "layer head x i, layer head x j -> layer head i j")
    right = einsum(reads, reads, "layer head i x, layer head j x -> layer head i j")
    square = einsum(left, right, "layer head i j, later other i j -> layer head later other").clamp_min(0)
    product = einsum(writing, reading, "layer head, later other -> layer head later other")
    return torch.where(product > 0, square.sqrt() / product.clamp_min(torch.finfo(product.dtype).tiny), 0.0)
