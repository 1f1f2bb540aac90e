"""Greedy evaluation of held-out problems: `verified_greedy` against TransformerLens's `generate`.

Timed: from the rendered transcripts to what the model writes after each prompt. The peer takes prompts of one length
at a time, with or without its key/value cache, whichever is faster here. Equal: the same symbols, each up to END or the
limit. Floor: one pass over every right transcript, which is what a model without errors needs.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from benchmarks.comparison import Agreement, Comparison, matmul_floor
from benchmarks.subjects import Amounts, Subject, mixed_problems
from cotinterp.behavior.decoding import prefixes, text_of, verified_greedy
from cotinterp.transcripts.batch import Batch

AT_ONCE = 256


def greedy_decodings(subject: Subject, amounts: Amounts) -> Iterator[Comparison]:
    """All held-out problems at once, as an evaluation does it."""
    batch = subject.batch(mixed_problems(subject, amounts.decoded))
    yield greedy_decoding(subject, batch, f"greedy decoding of {len(batch)} held-out {subject.spec.regime} problems")


def greedy_decoding(subject: Subject, batch: Batch, work: str) -> Comparison:
    """Ours against the faster way of `generate`, found out on the first problems."""
    cached = _is_faster_with_cache(subject, batch[:AT_ONCE])
    return Comparison(
        work=work,
        peer=f"TransformerLens generate, {'with' if cached else 'without'} its cache",
        ours=partial(verified_greedy, subject.model, batch, batch_size=AT_ONCE),
        theirs=partial(generated, subject, batch, cached=cached),
        agree=same_texts,
        floor=matmul_floor(subject.cost.forward(batch.length.cpu().numpy())),
    )


def generated(subject: Subject, batch: Batch, *, cached: bool) -> tuple[str, ...]:
    """What `generate` writes after each prompt, cut where ours would stop."""
    limit = prefixes(subject.model, batch).limit
    texts = [""] * len(batch)
    for given in batch.n_prompt.unique().tolist():
        for rows in (batch.n_prompt == given).nonzero()[:, 0].cpu().split(AT_ONCE):
            written: Any = subject.model.generate(
                batch.tokens[rows.to(batch.tokens.device), :given],
                max_new_tokens=int(limit[rows].max()) - given,
                do_sample=False,
                eos_token_id=batch.vocabulary.end,
                use_past_kv_cache=cached,
                return_type="tokens",
                verbose=False,
            )
            for row, tokens in zip(rows.tolist(), written[:, given:], strict=True):
                texts[row] = text_of(batch.vocabulary, _until(tokens[: int(limit[row]) - given], batch.vocabulary.end))
    return tuple(texts)


def same_texts(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Agreement:
    """Equal where every text is the same, symbol for symbol."""
    differ = sum(our != their for our, their in zip(ours, theirs, strict=True))
    return Agreement(differ == 0, f"{differ} of {len(ours)} outputs differ")


def _until(tokens: Int[Tensor, " pos"], end: int) -> tuple[int, ...]:
    ends = (tokens == end).nonzero()[:, 0]
    return tuple(tokens[: int(ends[0]) + 1 if len(ends) else len(tokens)].tolist())


def _is_faster_with_cache(subject: Subject, batch: Batch) -> bool:
    seconds = {}
    with torch.no_grad():
        generated(subject, batch[:2], cached=True)
        for cached in (False, True):
            began = time.perf_counter()
            generated(subject, batch, cached=cached)
            seconds[cached] = time.perf_counter() - began
    return seconds[True] < seconds[False]
