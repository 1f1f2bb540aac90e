"""The generic path beside TransformerLens's own: the same patches, on models of several architectures."""

import numpy as np
import pandas as pd
import torch

from cotinterp.calibration.mutations.subjects import random_model
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.das_agreement import das_agreement
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.peer_agreement import peer_agreement
from cotinterp.mechanism.sites import Site
from cotinterp.models.foreign import FOREIGN, foreign_model

EXAMPLES, LENGTH = 4, 6


def peer_table(seed: int = 0) -> pd.DataFrame:
    """Largest difference from `get_act_patch_*` and from interchange after `fit_das`, in logits.

    On a native model, a GPT-2 and a Llama of random weights.
    """
    models: dict[str, HookedModel] = {"native": random_model()}
    models |= {name: foreign_model(name, seed=seed) for name in FOREIGN}
    tables = []
    for name, model in models.items():
        contrast, place = _contrast(model, seed), torch.full((EXAMPLES,), 3)
        tables.append(peer_agreement(model, contrast, name=name))
        tables.append(das_agreement(model, contrast.clean, contrast.corrupted, place, Site("resid_pre", 1), name=name))
    return pd.concat(tables, ignore_index=True)


def _contrast(model: HookedModel, seed: int) -> Contrast:
    """Random prompts, of which the corrupted differ in one token, read at the end."""
    rng = np.random.default_rng(seed)
    vocabulary = int(model.cfg.d_vocab)
    clean = rng.integers(1, vocabulary, size=(EXAMPLES, LENGTH))
    corrupted = clean.copy()
    corrupted[:, 2] = (clean[:, 2] + rng.integers(1, vocabulary - 1, size=EXAMPLES)) % vocabulary
    answer = rng.integers(vocabulary, size=EXAMPLES)
    foil = (answer + rng.integers(1, vocabulary, size=EXAMPLES)) % vocabulary
    at = np.full(EXAMPLES, LENGTH - 1)
    return Contrast.by_position(*(torch.from_numpy(each) for each in (clean, corrupted, at, answer, foil)))
