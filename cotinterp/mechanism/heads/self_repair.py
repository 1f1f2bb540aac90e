"""What the other heads write once one is ablated: direct attribution, before and after.

Self-repair (McGrath et al. 2023, arXiv 2307.15771) shows as a rise of what later heads write toward the answer.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations, at_positions
from cotinterp.mechanism.fast import exact_parts
from cotinterp.mechanism.heads.ablation import NO_DONOR, Method, Rows, question, substitutes, until_readout
from cotinterp.mechanism.heads.attention_edits import HeadOutput
from cotinterp.mechanism.heads.attribution import LogitContrast
from cotinterp.mechanism.heads.edited_runs import EditedRuns
from cotinterp.mechanism.heads.readout import frozen_readout, weight
from cotinterp.mechanism.interventions import run_with, watch
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
    by_hooks: bool = False,
) -> Float[Tensor, "ablated head batch"]:
    """How the direct attribution of each head changes when one is ablated, in logits, mean of draws.

    On the diagonal what the ablated head itself no longer writes. The readout direction is that of the clean run, with
    the scale of the final norm frozen: only what the heads write changes. NaN for examples without a donor. `by_hooks`:
    native models too are run through hooks, with the same numbers up to float32 rounding.
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
    parts = None if by_hooks else exact_parts(model, tokens)

    def written(z: Sequence[Tensor], rows: Rows) -> Float[Tensor, "head some"]:
        return torch.stack(
            [
                einsum(
                    z[site.layer][:, site.head].to(direction),
                    outputs[site.layer][site.head].to(direction),
                    direction[rows],
                    "b d_head, d_head d_model, b d_model -> b",
                )
                for site in heads
            ]
        )

    for rows in known.split(len(known) if batch_size is None else batch_size):
        draws = [draw[rows] for draw in torch.from_numpy(donors)] if method == "resample" else [rows]
        if parts is None:
            reading = _through_hooks(model, tokens[rows], contrast.at[rows], [own[site][rows] for site in whole])
        else:
            reading = _from_weights(EditedRuns.of(parts, tokens[rows], contrast.at[rows]))
        for index, head in enumerate(heads):
            total = torch.zeros(len(heads), len(rows), dtype=direction.dtype, device=direction.device)
            for source in draws:
                edit = HeadOutput(head, *(head.of(z[head.whole][some]) for z, some in ((given, source), (own, rows))))
                after, before = reading(edit)
                total += written(after, rows) - written(before, rows)
            changes[index][:, rows] = (total / len(draws)).float().cpu()
    return changes


Reading = Callable[[HeadOutput], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""z of every layer at the readout, `batch head d_head`, with an edit and without it."""


def _through_hooks(
    model: HookedModel, tokens: Int[Tensor, "some pos"], at: Int[Tensor, " some"], own: Sequence[Tensor]
) -> Reading:
    whole = residual_sites(model, "z")
    clean = [at_positions(z, at) for z in own]

    def reading(edit: HeadOutput) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        seen: dict[Site, Tensor] = {}
        run_with(model, tokens, [*edit.hooked(), *(watch(site, seen) for site in whole)])
        return [at_positions(seen[site], at) for site in whole], clean

    return reading


def _from_weights(runs: EditedRuns) -> Reading:
    def reading(edit: HeadOutput) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        edited, clean = runs.edited([edit])
        return edited.z, clean.z

    return reading
