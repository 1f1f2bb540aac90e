"""Interchange in a subspace beside TransformerLens's own: what `fit_das` learns, written by both libraries.

`fit_das` (distributed alignment search, Geiger et al. 2023, arXiv 2303.02536) learns the subspace; the question is here
whether the two libraries do the same with it, and with the placebo that moves each example as far in random directions.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.tools.analysis import interchange as peer

from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.probing.subspaces import Subspace, interchange
from cotinterp.mechanism.sites import Site


def das_agreement(
    model: HookedModel,
    base: Int[Tensor, "batch pos"],
    source: Int[Tensor, "batch pos"],
    at: Int[Tensor, " batch"],
    site: Site,
    *,
    name: str = "model",
    rank: int = 2,
    epochs: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """The largest difference between our logits and TransformerLens's, at the last position, over all examples.

    The subspace is fitted to turn the answers of `base` into those of `source` at `site` and positions `at` (a few
    epochs: it need not succeed to be compared). Two rows: the interchange in it, and its norm-matched placebo. Columns
    as in `peer_agreement`; `largest_change` is the largest change of a logit, for scale.
    """
    require_eval(model)

    def last(tokens: Tensor) -> Tensor:
        logits: Tensor = model(tokens)
        return logits[:, -1]

    with torch.no_grad():
        unedited, targets = last(base), last(source).argmax(dim=-1)
    options: dict[str, Any] = {"rank": rank, "base_positions": at, "source_positions": at, "epochs": epochs}
    learned = peer.fit_das(model, site.hook, base, source, targets, last, batch_size=len(base), seed=seed, **options)
    donors = peer.collect_activations(model, site.hook, source, last, positions=at)
    subspace, random = Subspace(learned.basis), Subspace.random(donors.shape[-1], rank, np.random.default_rng(seed))
    swap = peer.SubspaceInterchange(learned.basis)
    pairs: dict[str, tuple[Any, Edit]] = {
        "fit_das interchange": (swap, interchange(site, donors, subspace, at)),
        "norm-matched placebo": (
            peer.NormMatchedPlacebo(swap, random.basis),
            interchange(site, donors, random, at, as_far_as=subspace),
        ),
    }
    rows = []
    for check, (step, edit) in pairs.items():
        theirs = peer.intervened_logits(model, site.hook, step, base, donors, last, positions=at)
        rows.append({"model": name, "check": check, **_compared(model, base, edit, theirs, unedited)})
    return pd.DataFrame(rows)


def _compared(model: HookedModel, base: Tensor, edit: Edit, theirs: Tensor, unedited: Tensor) -> dict[str, Any]:
    ours = run_with(model, base, [edit])[:, -1]
    return {
        "ours": "interchange",
        "direction": "denoise",
        "cells": 1,
        "examples": len(base),
        "largest_difference": float((ours - theirs).abs().max()),
        "largest_change": float((theirs - unedited).abs().max()),
    }
