"""What a model writes when its symbols are drawn instead of taken greedily, and how probable it held them to be.

Every symbol is drawn by inverting the cumulative distribution at a uniform number that was drawn beforehand for its
sequence and place. What is written therefore depends on the model and the generator alone: not on the batch size, on
what else was asked, or on whether keys and values were kept (native models) or everything read again (any other). Two
ways of computing the same logits can part only where a uniform number falls within rounding of the edge between two
symbols.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.behavior.decoding import LanguageModel, Prefixes, prefixes, reading, text_of
from cotinterp.behavior.guesses import not_nan
from cotinterp.behavior.native_decoding import trees_for
from cotinterp.models.native.cache import extend, joined
from cotinterp.models.native.parts import NativeParts, native_parts
from cotinterp.models.native.prefix_tree import read_tree
from cotinterp.transcripts.batch import Batch

Logits = Generator[Float[Tensor, "rows d_vocab"], Int[Tensor, " left"], None]
"""Logits of the next symbol of some rows. Sent which of them go on (their symbols written), it gives their next."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Continuations drawn for each prefix, on the CPU; zeros after the end of each.

    Attributes:
        tokens: What was written, the stop symbol included where it came before the limit.
        length: Number of written tokens.
        ended: The stop symbol was written.
        log_prob: Natural log of the model's own probability (temperature 1) of each token, given those before it.
            Its sum over the last axis is log P(continuation | prefix), cut at the limit where it did not end.
        drawn_log_prob: The same under the distribution that was drawn from; 0 for temperature 0, where nothing is
            drawn. The two are equal at temperature 1; the difference of their sums is the log of the importance weight
            of a continuation drawn at another temperature.
    """

    tokens: Int[Tensor, "prefix sample new"]
    length: Int[Tensor, "prefix sample"]
    ended: Bool[Tensor, "prefix sample"]
    log_prob: Float[Tensor, "prefix sample new"]
    drawn_log_prob: Float[Tensor, "prefix sample new"]


class SampledResponse(NamedTuple):
    """One drawn response.

    Attributes:
        text: Its symbols, `#` included where it was written.
        ended: The stop symbol was written before the limit.
        log_prob: Natural log of the model's own probability of `text` after the prompt, symbol by symbol.
    """

    text: str
    ended: bool
    log_prob: tuple[float, ...]


def sampled(
    model: LanguageModel,
    start: Prefixes,
    *,
    stop: int,
    rng: np.random.Generator,
    temperature: float | None = 1.0,
    n_samples: int = 1,
    batch_size: int = 256,
) -> Samples:
    """Draws `n_samples` continuations of each prefix. Guesses in `start` are not looked at.

    Args:
        rng: Gives one uniform number for each prefix, sample and place, drawn before the model is asked anything.
        temperature: What logits are divided by before a symbol is drawn; 0 or None takes the likeliest, as `greedy`.

    Raises:
        ValueError: A negative temperature, `n_samples` below 1, or a model that gives NaN logits.
    """
    if n_samples < 1 or (temperature is not None and not 0 <= temperature < float("inf")):
        raise ValueError(
            f"n_samples must be 1 or more and temperature finite and not negative (0 is greedy), got {n_samples} and "
            f"{temperature}"
        )
    given, limit = (of.repeat_interleave(n_samples) for of in (start.given, start.limit))
    n_new = int((limit - given).max()) if len(given) else 0
    uniform = torch.from_numpy(rng.random((len(given), n_new)))
    buffer = start.tokens.new_zeros((len(given), int(limit.max()) if len(given) else 0))
    known = start.tokens[:, : buffer.shape[1]]
    buffer[:, : known.shape[1]] = known.repeat_interleave(n_samples, dim=0)
    at, ended = given.clone(), torch.zeros(len(given), dtype=torch.bool)
    log_p, log_q = torch.zeros(2, len(given), n_new, dtype=torch.float64)
    parts = native_parts(model)
    context: AbstractContextManager[object] = torch.inference_mode() if parts is not None else nullcontext()
    with context:
        for chosen in given.argsort(stable=True).split(batch_size):
            rows, place = chosen, given[chosen]
            source = _called(model, buffer, rows, at) if parts is None else _kept(parts, buffer, rows, at)
            logits = next(source)
            while True:
                new = place - given[rows]
                symbol, p, q = _draw(logits.cpu().double(), uniform[rows, new], temperature)
                buffer[rows, place], log_p[rows, new], log_q[rows, new] = symbol, p, q
                at[rows], ended[rows] = place + 1, symbol == stop
                left = (~ended[rows] & (at[rows] < limit[rows])).nonzero()[:, 0]
                rows = rows[left]
                place = at[rows]
                if not len(rows):
                    source.close()
                    break
                logits = source.send(left)
    columns = given[:, None] + torch.arange(n_new)
    written = torch.where(columns < at[:, None], buffer.gather(1, columns.clamp(max=max(buffer.shape[1] - 1, 0))), 0)

    def by_prefix(of: Tensor) -> Tensor:
        return of.reshape(len(start.given), n_samples, *of.shape[1:])

    return Samples(*map(by_prefix, (written, at - given, ended, log_p, log_q)))


def sampled_responses(
    model: LanguageModel,
    batch: Batch,
    *,
    rng: np.random.Generator,
    temperature: float | None = 1.0,
    n_samples: int = 1,
    max_new: int | None = None,
    batch_size: int = 256,
) -> tuple[tuple[SampledResponse, ...], ...]:
    """`n_samples` free-running responses to each prompt of `batch`; arguments and errors of `sampled` and `prefixes`.

    The responses in the batch are not looked at, but for the limit where `max_new` is None.
    """
    start = prefixes(model, batch, max_new=max_new)
    found = sampled(
        model,
        start,
        stop=batch.vocabulary.end,
        rng=rng,
        temperature=temperature,
        n_samples=n_samples,
        batch_size=batch_size,
    )
    columns = (found.tokens, found.length, found.ended, found.log_prob)
    return tuple(
        tuple(
            SampledResponse(text_of(batch.vocabulary, tuple(tokens[:n])), end, tuple(log_prob[:n]))
            for tokens, n, end, log_prob in zip(*of_prefix, strict=True)
        )
        for of_prefix in zip(*(column.tolist() for column in columns), strict=True)
    )


def _draw(
    logits: Float[Tensor, "rows d_vocab"], uniform: Float[Tensor, " rows"], temperature: float | None
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The symbol of each row, and its log-probability under the model and under what was drawn from."""
    own = logits.log_softmax(-1)
    if not temperature:
        symbol = logits.argmax(-1)
        return symbol, own.gather(1, symbol[:, None])[:, 0], torch.zeros_like(uniform)
    drawn = (logits / temperature).log_softmax(-1)
    edges = drawn.exp().cumsum(-1)
    symbol = (edges[:, :-1] <= uniform[:, None] * edges[:, -1:]).sum(-1)
    return symbol, own.gather(1, symbol[:, None])[:, 0], drawn.gather(1, symbol[:, None])[:, 0]


def _called(
    model: LanguageModel, buffer: Int[Tensor, "batch pos"], rows: Int[Tensor, " rows"], at: Int[Tensor, " batch"]
) -> Logits:
    """Every sequence read anew for every symbol."""
    with reading(model) as read:
        while True:
            last = at[rows]
            logits = read(buffer[rows, : int(last.max())])
            left = yield logits[torch.arange(len(rows)), last.to(logits.device) - 1]
            rows = rows[left]


def _kept(
    parts: NativeParts, buffer: Int[Tensor, "batch pos"], rows: Int[Tensor, " rows"], at: Int[Tensor, " batch"]
) -> Logits:
    """Prefixes read once, those that are alike together; then one symbol at a time."""
    device = parts.w_e.device
    given = at[rows].clone()
    first, caches, order = [], [], []
    for tree in trees_for(parts, buffer[rows], given, given - 1, batch_size=len(rows)):
        read = read_tree(parts, tree)
        own = torch.as_tensor(tree.rows)
        length = given[own].to(device)
        first.append(read.logits_at(length - 1))
        caches.append(read.cache(parts, torch.arange(len(own), device=device), length, buffer.shape[1]))
        order.append(own)
    back = torch.cat(order).argsort().to(device)
    cache, logits = joined(caches).rows(back), torch.cat(first)[back]
    while True:
        left = yield not_nan(logits)
        rows, cache = (rows[left], cache.rows(left.to(device))) if len(left) < len(rows) else (rows, cache)
        resid, cache = extend(parts, cache, buffer[rows, at[rows] - 1][:, None].to(device))
        logits = parts.logits(resid[:, 0])
