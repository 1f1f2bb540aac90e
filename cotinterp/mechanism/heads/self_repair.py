"""What the other heads write once one is ablated: direct attribution, before and after.

Self-repair (McGrath et al. 2023, arXiv 2307.15771) shows as a rise of what later heads write toward the answer.
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations, at_positions
from cotinterp.mechanism.heads.ablation import NO_DONOR, Method, Rows, question, substitutes, until_readout
from cotinterp.mechanism.heads.attribution import LogitContrast
from cotinterp.mechanism.heads.readout import frozen_readout, weight
from cotinterp.mechanism.interventions import Edit, run_with, watch
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, residual_sites


def direct_change(
    model: HookedModel,
    contrast: LogitContrast,
    heads: Sequence[Site],
    donors: Int[np.ndarray, "draw batch"],
    *,
    method: Method = "resample",
    templates: Int[np.ndarray, " batch"] | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "ablated head batch"]:
    """How the direct attribution of each head changes when one is ablated, in logits, mean of draws.

    On the diagonal what the ablated head itself no longer writes. The readout direction is that of the clean run, with
    the scale of the final norm frozen: only what the heads write changes. NaN for examples without a donor.
    """
    tokens, whole = until_readout(model, contrast), residual_sites(model, "z")
    own = activations(model, tokens, whole, batch_size=batch_size)
    last = Site("resid_post", len(whole) - 1)
    final = activations(model, tokens, [last], positions=contrast.at, batch_size=batch_size)[last]
    direction = frozen_readout(model, final, contrast.answer, contrast.foil).direction
    outputs = weight(model, "W_O")
    _, groups = question(contrast, templates)
    given = {site: substitutes(method, z, groups) for site, z in own.items()}
    known = torch.from_numpy(np.flatnonzero((donors != NO_DONOR).all(axis=0)))
    changes = torch.full((len(heads), len(heads), len(tokens)), torch.nan)

    def written(z: dict[Site, Tensor], rows: Rows) -> Float[Tensor, "head some"]:
        return torch.stack(
            [
                einsum(
                    at_positions(site.of(z[site.whole]), contrast.at[rows]).to(direction),
                    outputs[site.layer][site.head].to(direction),
                    direction[rows],
                    "b d_head, d_head d_model, b d_model -> b",
                )
                for site in heads
            ]
        )

    for rows in known.split(len(known) if batch_size is None else batch_size):
        clean = written({site: z[rows] for site, z in own.items()}, rows)
        draws = [draw[rows] for draw in torch.from_numpy(donors)] if method == "resample" else [rows]
        for index, head in enumerate(heads):
            total = torch.zeros_like(clean)
            for source in draws:
                seen: dict[Site, Tensor] = {}
                edit = Edit(head, head.of(given[head.whole][source]), expect_change=False)
                run_with(model, tokens[rows], [edit, *(watch(site, seen) for site in whole)])
                total += written(seen, rows) - clean
            changes[index][:, rows] = (total / len(draws)).float().cpu()
    return changes
