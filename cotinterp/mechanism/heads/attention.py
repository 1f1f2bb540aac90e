"""How much attention each head pays, from tokens of one kind to tokens of another.

Where a head looks, not what it does with it: attention weight alone is not evidence that a token is used (Jain and
Wallace 2019, arXiv 1902.10186). `table.py` sets the ablation of the head beside it before it calls any head a reader.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.figures.attention import AttentionView
from cotinterp.figures.labels import RunKey
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.reads import role_masks
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, mask_of, residual_sites, site_columns
from cotinterp.results import Result, bootstrap_means, with_labels
from cotinterp.transcripts.batch import Batch


def attention(
    model: HookedModel, batch: Batch, *, index: int = 0, labels: Mapping[str, str | int] | None = None
) -> AttentionView:
    """Every head's pattern on one transcript of `batch`, for a notebook: CircuitsVis draws it, without a network.

    One example shows what a pattern is like, not how often it is so; `attention_by_role` counts.

    Args:
        index: Which transcript.
        labels: `run.labels` (task, regime, run_seed), for the title.

    Raises:
        IndexError: There is no transcript of that number.
    """
    if not 0 <= index < len(batch):
        raise IndexError(f"index={index}: the batch has {len(batch)} transcripts, the first is 0.")
    one, labels = batch[[index]], labels or {}
    sites = residual_sites(model, "pattern")
    read = activations(model, one.tokens, sites)
    tokens = one.transcripts[0].tokens
    return AttentionView(
        run=RunKey(str(labels.get("task", "")), str(labels.get("regime", "")), int(labels.get("run_seed", -1))),
        tokens=tuple(token.symbol for token in tokens),
        roles=tuple(str(token.role) for token in tokens),
        steps=tuple(token.step for token in tokens),
        patterns=np.stack([read[site][0].cpu().numpy() for site in sites]),
    )


@dataclass(frozen=True)
class AttentionResult(Result):
    """Attention mass from each group of tokens to each group of tokens, per head and example.

    Attributes:
        groups: Names of the groups, in reading order.
        mass: Sum of attention over the source tokens, averaged over the destination tokens; between 0 and 1, and NaN
            where the example holds no such destination. Where the groups cover all tokens that can be attended to, each
            destination's masses sum to 1.
        chance: The same for a head that attends evenly to everything up to the destination.
    """

    groups: tuple[str, ...]
    mass: Float[Tensor, "layer head dest src batch"]
    chance: Float[Tensor, "dest src batch"]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per head, destination and source: mean over the n examples that hold the destination."""
        n_heads = self.mass.shape[0] * self.mass.shape[1]
        places = pd.DataFrame([site_columns(site) for site in pattern_sites(*self.mass.shape[:2])])
        places = places.loc[places.index.repeat(len(self.groups))].reset_index(drop=True)
        rows = []
        for index, dest in enumerate(self.groups):
            held = ~self.mass[0, 0, index, 0].isnan()
            values = self.mass[:, :, index][..., held].double().numpy()
            low, high = bootstrap_means(values.reshape(-1, values.shape[-1]))
            rows.append(
                places.assign(
                    dest=dest,
                    src=list(self.groups) * n_heads,
                    attention=values.mean(axis=-1).ravel(),
                    ci_low=low,
                    ci_high=high,
                    chance=np.tile(self.chance[index][:, held].double().mean(dim=-1).numpy(), n_heads),
                    n=int(held.sum()),
                )
            )
        table = pd.concat(rows).sort_values(["layer", "head"], kind="stable", ignore_index=True)
        return with_labels(table, self.labels)

    def figure(self, layer: int | None = None, head: int | None = None) -> go.Figure:
        """A heat map of destination against source for every head, or for the heads of one layer, or for one head."""
        table = self.frame()
        if layer is not None:
            table = table[table["layer"] == layer]
        if head is not None:
            table = table[table["head"] == head]
        if table.empty:
            raise ValueError(
                f"no head {head} in layer {layer}: there are {tuple(self.mass.shape[:2])} layers and heads."
            )
        return heatmap(
            table,
            x="src",
            y="dest",
            value="attention",
            facet="site",
            bounds=(0.0, 1.0),
            title="Attention from each role (rows) to each role (columns)",
        )


def attention_by_role(
    model: HookedModel,
    contrast: Contrast,
    groups: Mapping[str, Shaped[Tensor, "..."]] | None = None,
    *,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> AttentionResult:
    """Attention of every head on the clean tokens of `contrast`, from each role to each role.

    `groups`: other groups of tokens, masks `batch pos` by name, for tokens without roles. `batch_size` bounds how many
    examples' patterns are held at once. Chance supposes a causal model. ValueError where a mask does not fit the tokens
    or marks nothing, and for a contrast that has neither roles nor groups.
    """
    contrast.check(model)
    tokens = contrast.clean
    groups = role_masks(contrast) if groups is None else groups
    _check_groups(groups, tokens)
    members = torch.stack([mask.to(tokens.device) for mask in groups.values()], dim=1).float()
    averaging = members / members.sum(dim=-1, keepdim=True)
    averaging = torch.where(members.any(dim=-1, keepdim=True), averaging, torch.nan)
    found = [
        einsum(averaging[rows], pattern, members[rows], "b dest q, layer b head q k, b src k -> layer head dest src b")
        for rows, pattern in patterns(model, tokens, batch_size)
    ]
    even = uniform_attention(tokens.shape[1]).to(tokens.device)
    return AttentionResult(
        groups=tuple(groups),
        mass=torch.cat(found, dim=-1).cpu(),
        chance=einsum(averaging, even, members, "b dest q, q k, b src k -> dest src b").cpu(),
        labels=dict(labels or {}),
    )


def patterns(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], batch_size: int | None = None
) -> Iterator[tuple[slice, Float[Tensor, "layer batch head dest src"]]]:
    """The attention patterns of all layers, some examples at a time, with the rows that they belong to."""
    size = len(tokens) if batch_size is None else batch_size
    sites = residual_sites(model, "pattern")
    for start in range(0, len(tokens), size):
        rows = slice(start, start + size)
        found = activations(model, tokens[rows], sites)
        yield rows, torch.stack([found[site] for site in sites])


def pattern_sites(n_layers: int, n_heads: int) -> list[Site]:
    """The pattern of every head, layer by layer."""
    return [Site("pattern", layer, head) for layer in range(n_layers) for head in range(n_heads)]


def uniform_attention(n_pos: int) -> Float[Tensor, "dest src"]:
    """The pattern of a causal head that attends evenly to everything up to and including itself."""
    causal = torch.ones(n_pos, n_pos).tril()
    return causal / causal.sum(dim=-1, keepdim=True)


def _check_groups(groups: Mapping[str, Shaped[Tensor, "..."]], tokens: Int[Tensor, "batch pos"]) -> None:
    if not groups:
        raise ValueError("no groups of tokens were given; name at least one mask, such as role_masks(contrast).")
    for name, mask in groups.items():
        if not bool(mask_of(mask, tokens.shape, f"the mask of {name!r}").any()):
            raise ValueError(f"the mask of {name!r} marks no token.")
