"""How much of a logit difference is lost when heads are given the output that they have on another problem.

Resample ablation (Zhang & Nanda 2023, arXiv 2309.16042, prefer it to means and zeros): z of the head, at all positions,
is taken from another example that has the same template, so the head keeps its usual values and loses only what it
knows of this problem. A necessity test with two limits: what is the same in all examples of a template is not removed,
and other heads may compensate for a head that is, so ablate several together before calling any of them idle.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.attribution import LogitContrast
from cotinterp.mechanism.interventions import Edit, derangement, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.transcripts.batch import Batch

NO_DONOR = -1


def templates(batch: Batch) -> Int[np.ndarray, " batch"]:
    """A number for each transcript, equal where role, step and part agree at every position."""
    layout = torch.stack([batch.role, batch.step, batch.part], dim=-1).flatten(start_dim=1)
    return np.unique(layout.cpu().numpy(), axis=0, return_inverse=True)[1].reshape(-1)


def draw_donors(
    templates: Int[np.ndarray, " batch"], n_draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw batch"]:
    """For every draw and example, another example of its template; `NO_DONOR` for the only one of its kind.

    Within a draw every example gives and receives once. ValueError if no example has a companion.
    """
    donors = np.full((n_draws, len(templates)), NO_DONOR)
    for template in np.unique(templates):
        members = np.flatnonzero(templates == template)
        if len(members) > 1:
            for draw in donors:
                draw[members] = members[derangement(len(members), rng)]
    if (donors == NO_DONOR).all():
        raise ValueError(
            f"no two of the {len(templates)} examples share a template, so there is no donor to resample from: "
            "give more problems, or problems with one number of operands."
        )
    return donors


def ablate_heads(
    model: HookedModel,
    contrast: LogitContrast,
    head_sets: Sequence[Sequence[Site]],
    donors: Int[np.ndarray, "draw batch"],
    *,
    batch_size: int | None = None,
) -> Float[Tensor, "set batch"]:
    """Logit difference lost by each example when the heads of a set are resampled together, in logits, mean of draws.

    Positive: the heads carried something in favor of the answer. NaN for examples without a donor. `donors[draw]`
    names, for each example, the example whose z it receives; naming itself changes nothing.
    """
    foreign = [site.label for heads in head_sets for site in heads if site.kind != "z" or site.head is None]
    if foreign:
        raise ValueError(f"heads are ablated at their z, as Site('z', layer, head); got {foreign}.")
    tokens = _until_readout(model, contrast)
    z = activations(model, tokens, residual_sites(model, "z"), batch_size=batch_size)
    known = np.flatnonzero((donors != NO_DONOR).all(axis=0))
    lost = torch.full((len(head_sets), len(contrast.clean)), torch.nan)
    size = len(known) if batch_size is None else batch_size
    for rows in (torch.from_numpy(known[start : start + size]) for start in range(0, len(known), size)):
        clean = _logit_difference(model, tokens, contrast, rows, [])
        for index, heads in enumerate(head_sets):
            draws = [
                clean
                - _logit_difference(model, tokens, contrast, rows, [_resampled(site, z, draw[rows]) for site in heads])
                for draw in torch.from_numpy(donors)
            ]
            lost[index, rows] = torch.stack(draws).mean(dim=0)
    return lost


def _resampled(site: Site, z: dict[Site, Tensor], donors: Int[Tensor, " some"]) -> Edit:
    # A head whose z is the same on all problems is unmoved, and its effect of 0 is then the true answer.
    return Edit(site, site.of(z[site.whole][donors.to(z[site.whole].device)]), expect_change=False)


def _until_readout(model: HookedModel, contrast: LogitContrast) -> Int[Tensor, "batch pos"]:
    """The clean tokens that can reach some readout: in a causal model, none behind the last of them."""
    causal = getattr(model.cfg, "attention_dir", "causal") == "causal"
    return contrast.clean[:, : int(contrast.at.max()) + 1] if causal else contrast.clean


def _logit_difference(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    contrast: LogitContrast,
    rows: Int[Tensor, " some"],
    edits: Sequence[Edit],
) -> Float[Tensor, " some"]:
    logits = run_with(model, tokens[rows], edits)
    return logit_diff(logits, contrast.at[rows], contrast.answer[rows], contrast.foil[rows]).float().cpu()
