"""What a model writes: greedy decoding against TransformerLens's `generate`, and sampling.

Greedy. Timed: from the rendered transcripts to what the model writes after each prompt. The peer takes prompts of one
length at a time, with or without its key/value cache, whichever is faster here. Equal: the same symbols, each up to END
or the limit. Floor: one pass over every right transcript, which is what a model without errors needs.

Sampled, with keys and values kept, against reading everything again for every symbol. Timed: from the rendered prompts
to drawn responses and their log-probabilities. The peer is the generic way of the same function, which any model takes
that somebody has attached a hook to. Both draw at the same uniform numbers. Equal: the same symbols. Floor: one pass
over transcripts as long as the right ones, since every symbol has to be read once.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from benchmarks.comparison import Agreement, Comparison, matmul_floor
from benchmarks.workload import Amounts, Workload, mixed_problems
from cotinterp.models.decoding import prefixes, text_of, verified_greedy
from cotinterp.models.sampling import sample_responses
from cotinterp.transcripts.batch import Batch

AT_ONCE = 256


def greedy_decodings(workload: Workload, amounts: Amounts) -> Iterator[Comparison]:
    """All held-out problems at once, as an evaluation does it."""
    batch = workload.batch(mixed_problems(workload, amounts.decoded))
    yield greedy_decoding(workload, batch, f"greedy decoding of {len(batch)} held-out {workload.spec.regime} problems")


def greedy_decoding(workload: Workload, batch: Batch, work: str) -> Comparison:
    """Ours against the faster way of `generate`, found out on the first problems."""
    cached = _is_faster_with_cache(workload, batch[:AT_ONCE])
    return Comparison(
        work=work,
        peer=f"TransformerLens generate, {'with' if cached else 'without'} its cache",
        ours=partial(verified_greedy, workload.model, batch, batch_size=AT_ONCE),
        theirs=partial(generated, workload, batch, cached=cached),
        agree=same_texts,
        floor=matmul_floor(workload.cost.forward(batch.length.cpu().numpy())),
    )


def generated(workload: Workload, batch: Batch, *, cached: bool) -> tuple[str, ...]:
    """What `generate` writes after each prompt, cut where ours would stop."""
    limit = prefixes(workload.model, batch).limit
    texts = [""] * len(batch)
    for given in batch.n_prompt.unique().tolist():
        for rows in (batch.n_prompt == given).nonzero()[:, 0].cpu().split(AT_ONCE):
            written: Any = workload.model.generate(
                batch.tokens[rows.to(batch.tokens.device), :given],
                max_new_tokens=int(limit[rows].max()) - given,
                do_sample=False,
                eos_token_id=batch.vocabulary.end,
                use_past_kv_cache=cached,
                return_type="tokens",
                verbose=False,
            )
            for row, tokens in zip(rows.tolist(), written[:, given:], strict=True):
                texts[row] = text_of(batch.vocabulary, until(tokens[: int(limit[row]) - given], batch.vocabulary.end))
    return tuple(texts)


def same_texts(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Agreement:
    """Equal where every text is the same, symbol for symbol."""
    differ = sum(our != their for our, their in zip(ours, theirs, strict=True))
    return Agreement(differ == 0, f"{differ} of {len(ours)} outputs differ")


def until(tokens: Int[Tensor, " pos"], end: int) -> tuple[int, ...]:
    ends = (tokens == end).nonzero()[:, 0]
    return tuple(tokens[: int(ends[0]) + 1 if len(ends) else len(tokens)].tolist())


def _is_faster_with_cache(workload: Workload, batch: Batch) -> bool:
    seconds = {}
    with torch.no_grad():
        generated(workload, batch[:2], cached=True)
        for cached in (False, True):
            began = time.perf_counter()
            generated(workload, batch, cached=cached)
            seconds[cached] = time.perf_counter() - began
    return seconds[True] < seconds[False]


SEED = 0


def sampled_decodings(workload: Workload, amounts: Amounts) -> Iterator[Comparison]:
    """One response to each of so many held-out problems, at temperature 1."""
    batch = workload.batch(mixed_problems(workload, amounts.sampled))
    yield Comparison(
        work=f"one sampled response to each of {len(batch)} held-out problems",
        peer="the same, everything read again for every symbol",
        ours=partial(_drawn, workload, batch),
        theirs=partial(_drawn_anew, workload, batch),
        agree=same_texts,
        floor=matmul_floor(workload.cost.forward(batch.length.cpu().numpy())),
    )


def _drawn(workload: Workload, batch: Batch) -> tuple[str, ...]:
    responses = sample_responses(workload.model, batch, rng=np.random.default_rng(SEED))
    return tuple(one.text for (one,) in responses)


def _drawn_anew(workload: Workload, batch: Batch) -> tuple[str, ...]:
    with workload.hooked():
        return _drawn(workload, batch)
