"""Sampled responses with keys and values kept against reading everything again for every symbol.

Timed: from the rendered prompts to drawn responses and their log-probabilities. The peer is the generic way of the same
function, which any model takes that somebody has attached a hook to. Both draw at the same uniform numbers. Equal: the
same symbols. Floor: one pass over transcripts as long as the right ones, since every symbol has to be read once.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.comparison import Comparison, matmul_floor
from benchmarks.greedy import same_texts
from benchmarks.subjects import Amounts, Subject, mixed_problems
from cotinterp.behavior.sampling import sample_responses
from cotinterp.transcripts.batch import Batch

SEED = 0


def sampled_decodings(subject: Subject, amounts: Amounts) -> Iterator[Comparison]:
    """One response to each of so many held-out problems, at temperature 1."""
    batch = subject.batch(mixed_problems(subject, amounts.sampled))
    yield Comparison(
        work=f"one sampled response to each of {len(batch)} held-out problems",
        peer="the same, everything read again for every symbol",
        ours=partial(_drawn, subject, batch),
        theirs=partial(_drawn_anew, subject, batch),
        agree=same_texts,
        floor=matmul_floor(subject.cost.forward(batch.length.cpu().numpy())),
    )


def _drawn(subject: Subject, batch: Batch) -> tuple[str, ...]:
    responses = sample_responses(subject.model, batch, rng=np.random.default_rng(SEED))
    return tuple(one.text for (one,) in responses)


def _drawn_anew(subject: Subject, batch: Batch) -> tuple[str, ...]:
    with subject.hooked():
        return _drawn(subject, batch)
