"""The same patches by TransformerLens's own functions: how far its numbers are from ours, example by example.

`transformer_lens.patching.get_act_patch_*` runs every cell by itself, on the whole batch, and with hooks of its own.
Ours stacks cells and skips those that cannot matter. Agreement says that the two write the same value at the same place
of the same head; it does not say that patching answers a question well.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import patching as peer

from cotinterp.mechanism.activations import activations, run_and_read
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import patch, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.sweep import DIRECTIONS, patch_sweep
from cotinterp.mechanism.sites import Kind, Site, residual_sites


@dataclass(frozen=True)
class Peer:
    """One of `get_act_patch_*`: the kind it patches, whether by head and by position, and what of ours is its equal."""

    kind: Kind
    heads: bool
    by_position: bool
    ours: str


PEERS: Mapping[str, Peer] = {
    "resid_pre": Peer("resid_pre", heads=False, by_position=True, ours="patch_sweep"),
    "attn_out": Peer("attn_out", heads=False, by_position=True, ours="patch_sweep"),
    "mlp_out": Peer("mlp_out", heads=False, by_position=True, ours="patch_sweep"),
    "attn_head_out_by_pos": Peer("z", heads=True, by_position=True, ours="patch_sweep"),
    "attn_head_out_all_pos": Peer("z", heads=True, by_position=False, ours="patch_sweep"),
    "attn_head_q_by_pos": Peer("q", heads=True, by_position=True, ours="run_with"),
    "attn_head_k_by_pos": Peer("k", heads=True, by_position=True, ours="run_with"),
    "attn_head_v_by_pos": Peer("v", heads=True, by_position=True, ours="run_with"),
    "attn_head_v_all_pos": Peer("v", heads=True, by_position=False, ours="run_with"),
    "attn_head_pattern_by_pos": Peer("pattern", heads=True, by_position=True, ours="run_with"),
    "attn_head_pattern_all_pos": Peer("pattern", heads=True, by_position=False, ours="run_with"),
}
"""By the end of the name. Sweeps take no q, k, v or pattern head by head: those stand beside `run_with` and `patch`."""

Changes = Float[np.ndarray, "cells batch"]


def peer_agreement(
    model: HookedModel, contrast: Contrast, *, name: str = "model", checks: Sequence[str] = tuple(PEERS)
) -> pd.DataFrame:
    """One row per `get_act_patch_*` and direction: the largest difference from ours over all cells and examples.

    Compared is the change of logit[answer] - logit[foil], in logits and not normalized, at every position and at all of
    them together; the places of `contrast` are not used. `largest_change` is the largest such change, for scale.
    Columns: model, check, ours, direction, cells, examples, largest_difference, largest_change. The peer runs one pass
    for each cell and direction: keep the tokens short.

    KeyError for an unknown check; ValueError where a kind cannot be written in this model, or the two runs of the
    contrast are not told apart.
    """
    unknown = [check for check in checks if check not in PEERS]
    if unknown:
        raise KeyError(f"no checks {unknown}; there are {list(PEERS)}")
    by_position = _causal(model, Contrast.by_position(*_question(contrast)))
    everywhere = torch.ones_like(by_position.clean, dtype=torch.bool)
    at_once = Contrast(*_question(by_position), places={"everywhere": everywhere})
    rows: list[dict[str, Any]] = []
    for direction, check in product(DIRECTIONS, checks):
        spec = PEERS[check]
        theirs = _theirs(model, by_position, check, direction)
        instrument = _swept if spec.ours == "patch_sweep" else _written
        ours = instrument(model, by_position if spec.by_position else at_once, spec, direction)
        rows.append(
            {
                "model": name,
                "check": f"get_act_patch_{check}",
                "ours": spec.ours,
                "direction": direction,
                "cells": len(ours),
                "examples": ours.shape[1],
                "largest_difference": float(np.abs(ours - theirs).max()),
                "largest_change": float(np.abs(theirs).max()),
            }
        )
    return pd.DataFrame(rows)


def _theirs(model: HookedModel, contrast: Contrast, check: str, direction: str) -> Changes:
    """Cells in our order: layer, head where there are some, position where there are several."""
    spec, (donor, recipient) = PEERS[check], _runs(contrast, direction)
    _, cache = model.run_with_cache(donor, names_filter=[site.hook for site in residual_sites(model, spec.kind)])
    function: Callable[..., Any] = getattr(peer, f"get_act_patch_{check}")
    with redirect_stderr(StringIO()):  # it shows a progress bar
        found = function(model, recipient, cache, _metric(contrast), reduce="none", baseline=True)
    effect = found.effect().double().cpu()
    if spec.heads and spec.by_position and spec.kind != "pattern":
        effect = effect.transpose(1, 2)
    values: Changes = effect.flatten(0, -2).numpy()
    return values


def _swept(model: HookedModel, contrast: Contrast, spec: Peer, direction: str) -> Changes:
    kinds = () if spec.heads else (spec.kind,)
    sweep = patch_sweep(model, contrast, kinds=kinds, heads=spec.heads, direction=direction, metrics=("logit_diff",))
    values: Changes = sweep.measured.changes["logit_diff"]
    return values


def _written(model: HookedModel, contrast: Contrast, spec: Peer, direction: str) -> Changes:
    donor, recipient = _runs(contrast, direction)
    measure = _metric(contrast)
    whole = residual_sites(model, spec.kind)
    held = activations(model, donor, whole)
    unpatched = measure(run_and_read(model, recipient, whole[:1])[0])
    changes = []
    for site in whole:
        for head, mask in product(range(site.n_heads(model)), contrast.places.values()):
            one = Site(spec.kind, site.layer, head)
            edit = patch(one, one.of(held[site]), mask, expect_change=False)
            changes.append(measure(run_with(model, recipient, [edit])) - unpatched)
    return torch.stack(changes).double().cpu().numpy()


def _runs(contrast: Contrast, direction: str) -> tuple[Tensor, Tensor]:
    """Donor and recipient."""
    runs = contrast.clean, contrast.corrupted
    return runs if direction == "denoise" else runs[::-1]


def _metric(contrast: Contrast) -> Callable[[Tensor], Tensor]:
    return lambda logits: logit_diff(logits, contrast.at, contrast.answer, contrast.foil)


def _question(contrast: Contrast) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return contrast.clean, contrast.corrupted, contrast.at, contrast.answer, contrast.foil


def _causal(model: HookedModel, contrast: Contrast) -> Contrast:
    """Nothing after the readout can matter to a causal model, and a sweep leaves it out."""
    return contrast.until_readout() if getattr(model.cfg, "attention_dir", "causal") == "causal" else contrast
