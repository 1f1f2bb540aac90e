"""What no number may depend on: the tokens behind a row's end, how many there are, the order of the rows.

`repadded` makes the same question with other tokens as padding, and more of it; `same_numbers` compares the tables that
an instrument makes of the two. A row ends with its transcript; without roles, at its readout.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from cotinterp.mechanism.contrast import Contrast
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.pairs import written_total_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.roles import ROLE_CODE, Role

BESIDE = {"role": ROLE_CODE[Role.PAD], "step": -1, "part": 0, "value": -1, "scored": True}
"""What the other fields of a batch hold at padding."""


def refilled(tokens, length, d_vocab, *, wider=0, seed=0):
    """Tokens with random valid ones behind each row's end, and `wider` more positions of them."""
    generator = torch.Generator().manual_seed(seed)
    n = tokens.shape[1] + wider
    others = torch.randint(0, d_vocab, (len(tokens), n), generator=generator)
    ended = torch.arange(n) >= length[:, None]
    return torch.where(ended, others, functional.pad(tokens, (0, wider)))


def repadded_batch(batch, *, wider=0, seed=0):
    """The same transcripts with other padding."""
    beside = {name: functional.pad(getattr(batch, name), (0, wider), value=value) for name, value in BESIDE.items()}
    tokens = refilled(batch.tokens, batch.length, len(batch.vocabulary), wider=wider, seed=seed)
    return replace(batch, tokens=tokens, **beside)


def repadded(contrast, *, d_vocab, wider=0, seed=0):
    """The same contrast with other padding, on its clean, corrupted and reference side alike."""
    length = contrast.at + 1 if contrast.batch is None else contrast.batch.length
    sides = {"clean": contrast.clean, "corrupted": contrast.corrupted, "reference": contrast.reference}
    sides = {
        name: None if tokens is None else refilled(tokens, length, d_vocab, wider=wider, seed=seed + i)
        for i, (name, tokens) in enumerate(sides.items())
    }
    batch = None if contrast.batch is None else repadded_batch(contrast.batch, wider=wider, seed=seed)
    places = {label: functional.pad(mask, (0, wider)) for label, mask in contrast.places.items()}
    return replace(contrast, places=places, batch=batch, **sides)


def mixed_contrast(*, regime="totals", step=1, readout=None, problems=None):
    """Pairs of several layouts in one contrast: totals of one digit and of two, with padding behind the shorter."""
    task = get_task("digit-sum")
    rows = np.unique(np.random.default_rng(5).integers(10, size=(26, 3)), axis=0) if problems is None else problems
    pairs = written_total_pairs(
        task, solve(task, rows), regime, step=step, rng=np.random.default_rng(0), readout=readout or (Role.TOTAL, 2)
    )
    contrast = Contrast.from_pairs(pairs)
    assert len(set(contrast.batch.length.tolist())) > 1
    return contrast


def same_numbers(one: pd.DataFrame, other: pd.DataFrame, *, atol: float = 1e-5) -> None:
    """AssertionError unless the two tables are the same, numbers up to the rounding of float32."""
    pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=atol, check_exact=False)
