"""Texts under a model's own distribution: how probable a given text is, and texts drawn at random.

The probability of a given text takes one pass, every symbol judged given those before it, and is exact up to the
rounding of that pass. The text may be one that the model would never write; its probability is then small.

Every symbol is drawn by inverting the cumulative distribution at a uniform number that was drawn beforehand for its
sequence and place. What is written therefore depends on the model and the generator alone: not on the batch size, on
what else was asked, or on whether keys and values were kept (native models) or everything read again (any other). Two
ways of computing the same logits can part only where a uniform number falls within rounding of the edge between two
symbols.
"""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.models.decoding import (
    LanguageModel,
    Prefixes,
    Written,
    not_nan,
    prefixes,
    reading,
    text_of,
    trees_for,
    verified,
)
from cotinterp.models.native.cache import extend, joined
from cotinterp.models.native.parts import NativeParts, native_parts
from cotinterp.models.native.prefix_tree import read_tree
from cotinterp.transcripts.batch import Batch


class ForcedLogits(NamedTuple):
    """What a model expects at each place of some texts, on the CPU, in double precision.

    Attributes:
        rows: Which texts these are.
        logits: Of the symbol at place `given[row] + i`; anything at all beyond the last symbol of a text.
    """

    rows: Int[Tensor, " rows"]
    logits: Float[Tensor, "rows new d_vocab"]


def forced_logits(
    model: LanguageModel,
    tokens: Int[Tensor, "batch pos"],
    given: Int[Tensor, " batch"],
    length: Int[Tensor, " batch"],
    *,
    batch_size: int = 256,
) -> Iterator[ForcedLogits]:
    """Logits of the symbols `given` to `length - 1` of each text, a block of texts at a time, in any order.

    A native model is read from its weights, and what texts begin with in common is read once.

    Args:
        tokens: The texts, on the CPU, padded on the right.
        given: Symbols that are not asked about, at least 1.
        length: Symbols of each text, more than `given`.

    Raises:
        ValueError: A text with nothing to ask about, or a model that gives NaN logits.
    """
    if len(given) and not bool(((given >= 1) & (given < length)).all()):
        raise ValueError("every text needs one given symbol or more, and one more to ask about")
    parts = native_parts(model)
    if parts is not None:
        yield from _read_once(parts, tokens, given, length, batch_size)
        return
    with reading(model) as read:
        for rows in length.argsort(stable=True).split(batch_size) if len(length) else ():
            logits = read(tokens[rows, : int(length[rows].max()) - 1]).cpu().double()
            places = _places(given[rows], length[rows]).clamp(max=logits.shape[1] - 1)
            yield ForcedLogits(rows, logits[torch.arange(len(rows))[:, None], places])


def continuation_log_prob(
    model: LanguageModel,
    tokens: Int[Tensor, "batch pos"],
    given: Int[Tensor, " batch"],
    length: Int[Tensor, " batch"],
    *,
    batch_size: int = 256,
) -> Float[Tensor, " batch"]:
    """Natural log of P(symbols `given` to `length - 1` | those before them); arguments and errors of `forced_logits`.

    At most 0. Whether the model would stop there is part of the question only where the text ends with the stop symbol.
    """
    found = torch.zeros(len(given), dtype=torch.float64)
    for rows, logits in forced_logits(model, tokens, given, length, batch_size=batch_size):
        places = given[rows, None] + torch.arange(logits.shape[1])
        symbols = tokens[rows].gather(1, places.clamp(max=tokens.shape[1] - 1))
        log_p = logits.log_softmax(-1).gather(2, symbols[..., None])[..., 0]
        found[rows] = torch.where(places < length[rows, None], log_p, 0.0).sum(1)
    return found


def _places(given: Int[Tensor, " rows"], length: Int[Tensor, " rows"]) -> Int[Tensor, "rows new"]:
    """The places that predict each asked symbol, the shorter rows going on beyond theirs."""
    return given[:, None] - 1 + torch.arange(int((length - given).max()))


def _read_once(
    parts: NativeParts,
    tokens: Int[Tensor, "batch pos"],
    given: Int[Tensor, " batch"],
    length: Int[Tensor, " batch"],
    batch_size: int,
) -> Iterator[ForcedLogits]:
    with torch.inference_mode():
        for tree in trees_for(parts, tokens, length - 1, given - 1, batch_size=batch_size):
            rows = torch.as_tensor(tree.rows)
            read = read_tree(parts, tree)
            number = read.at_rows(torch.arange(len(read.logits), device=read.logits.device)).cpu()
            places = _places(given[rows], length[rows]).clamp(max=number.shape[1] - 1)
            yield ForcedLogits(rows, not_nan(read.logits).cpu().double()[number.gather(1, places)])


LogitsGenerator = Generator[Float[Tensor, "rows d_vocab"], Int[Tensor, " left"], None]
"""Logits of the next symbol of some rows. Sent which of them go on (their symbols written), it gives their next."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Continuations drawn for each prefix, on the CPU; zeros after the end of each.

    Attributes:
        tokens: What was written, the stop symbol included where it came before the limit.
        length: Number of written tokens.
        ended: The stop symbol was written (one of them, where there are several).
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


def sample_continuations(
    model: LanguageModel,
    start: Prefixes,
    *,
    stop: int | tuple[int, ...],
    rng: np.random.Generator | Float[np.ndarray, "row new"],
    temperature: float | None = 1.0,
    n_samples: int = 1,
    batch_size: int = 256,
) -> Samples:
    """Draws `n_samples` continuations of each prefix. Guesses in `start` are not looked at.

    Args:
        stop: Token that ends a continuation, or several that do.
        rng: Gives one uniform number for each prefix, sample and place, drawn before the model is asked anything; or
            these numbers themselves, a row for each sample of each prefix in order, as wide as the longest may get.
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
    stops = torch.tensor([stop] if isinstance(stop, int) else stop)
    uniform = torch.from_numpy(rng.random((len(given), n_new)) if isinstance(rng, np.random.Generator) else rng)
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
            source = (
                _logits_by_call(model, buffer, rows, at) if parts is None else _logits_by_cache(parts, buffer, rows, at)
            )
            logits = next(source)
            while True:
                new = place - given[rows]
                symbol, p, q = _draw(logits.cpu().double(), uniform[rows, new], temperature)
                buffer[rows, place], log_p[rows, new], log_q[rows, new] = symbol, p, q
                at[rows], ended[rows] = place + 1, torch.isin(symbol, stops)
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


def sample_responses(
    model: LanguageModel,
    batch: Batch,
    *,
    rng: np.random.Generator,
    temperature: float | None = 1.0,
    n_samples: int = 1,
    max_new: int | None = None,
    batch_size: int = 256,
) -> tuple[tuple[SampledResponse, ...], ...]:
    """`n_samples` free-running responses to each prompt of `batch`.

    Arguments and errors are those of `sample_continuations` and `prefixes`.
    The responses in the batch are not looked at, but for the limit where `max_new` is None.
    """
    start = prefixes(model, batch, max_new=max_new)
    found = sample_continuations(
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


def _logits_by_call(
    model: LanguageModel, buffer: Int[Tensor, "batch pos"], rows: Int[Tensor, " rows"], at: Int[Tensor, " batch"]
) -> LogitsGenerator:
    """Every sequence read anew for every symbol."""
    with reading(model) as read:
        while True:
            last = at[rows]
            logits = read(buffer[rows, : int(last.max())])
            left = yield logits[torch.arange(len(rows)), last.to(logits.device) - 1]
            rows = rows[left]


def _logits_by_cache(
    parts: NativeParts, buffer: Int[Tensor, "batch pos"], rows: Int[Tensor, " rows"], at: Int[Tensor, " batch"]
) -> LogitsGenerator:
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


def sample_around_greedy(
    model: LanguageModel,
    start: Prefixes,
    *,
    stop: int,
    rng: np.random.Generator,
    temperature: float = 1.0,
    n_samples: int = 1,
    batch_size: int = 256,
) -> Samples:
    """Draws `n_samples` continuations of each prefix, sooner than `sample_continuations` where they are much alike.

    A trained model draws the same trace again and again. Here the greedy continuation of each prefix is read in one
    pass, and every sample is drawn along it: as long as it draws the same symbols, its next distribution is known. Only
    what departs is written on symbol by symbol. Each symbol is still drawn from the model's distribution given the
    symbols before it (as in speculative decoding, Leviathan et al. 2023, arXiv 2211.17192; nothing is ever rejected),
    so the samples are distributed as those of `sample_continuations`. They are not the same draws.

    Args:
        rng: Gives one uniform number for each prefix, sample and greedy symbol, then what `sample_continuations` needs.
        temperature: What logits are divided by before a symbol is drawn; above 0, or there would be nothing to draw.

    Raises:
        ValueError: `n_samples` below 1, a temperature that is not above 0, or a model that gives NaN logits.
    """
    if n_samples < 1 or not 0 < temperature < float("inf"):
        raise ValueError(
            f"n_samples must be 1 or more and temperature finite and above 0, got {n_samples} and {temperature}; "
            "decoding.verified writes what is likeliest"
        )
    tokens, length = _with_greedy(start, verified(model, start, stop=stop, batch_size=batch_size))
    n_new = int((length - start.given).max()) if len(length) else 0
    uniform = torch.from_numpy(rng.random((len(length), n_samples, n_new)))
    room = int((start.limit - start.given).max()) if len(length) else 0
    samples = _empty_samples(len(length), n_samples, room)
    for rows, logits in forced_logits(model, tokens, start.given, length, batch_size=batch_size):
        new = torch.arange(logits.shape[1])
        likeliest = tokens[rows].gather(1, (start.given[rows, None] + new).clamp(max=tokens.shape[1] - 1))
        known = (length - start.given)[rows]
        along = _drawn_along(logits, likeliest, known, uniform[rows][..., : len(new)], temperature)
        for column, found in zip((samples.tokens, samples.log_prob, samples.drawn_log_prob), along[1:], strict=True):
            column[rows, :, : len(new)] = found
        samples.length[rows] = along.length
    last = samples.tokens.gather(2, (samples.length[..., None] - 1).clamp(min=0))[..., 0] if room else samples.tokens
    samples.ended[:] = last == stop
    row, sample = (~samples.ended & (start.given[:, None] + samples.length < start.limit[:, None])).nonzero().T
    if len(row):
        begun = _so_far(start, samples, row, sample)
        rest = sample_continuations(model, begun, stop=stop, rng=rng, temperature=temperature, batch_size=batch_size)
        _append(samples, row, sample, rest)
    return samples


class _Along(NamedTuple):
    """Samples up to their first symbol that is not the likeliest, and that one too; zeros after it."""

    length: Int[Tensor, "row sample"]
    tokens: Int[Tensor, "row sample new"]
    log_prob: Float[Tensor, "row sample new"]
    drawn_log_prob: Float[Tensor, "row sample new"]


def _drawn_along(
    logits: Float[Tensor, "row new d_vocab"],
    likeliest: Int[Tensor, "row new"],
    known: Int[Tensor, " row"],
    uniform: Float[Tensor, "row sample new"],
    temperature: float,
) -> _Along:
    """Draws along the `known` first symbols of `likeliest`, whose distributions are those of `logits`."""
    own, drawn = logits.log_softmax(-1), (logits / temperature).log_softmax(-1)
    edges = drawn.exp().cumsum(-1)[:, None]
    symbol = (edges[..., :-1] <= (uniform * edges[..., -1])[..., None]).sum(-1)
    place = torch.arange(logits.shape[1])
    departs = (symbol != likeliest[:, None]) & (place < known[:, None, None])
    length = torch.where(departs.any(-1), departs.int().argmax(-1) + 1, known[:, None])
    kept = place < length[..., None]
    log_p, log_q = (torch.where(kept, of.gather(2, symbol.transpose(1, 2)).transpose(1, 2), 0.0) for of in (own, drawn))
    return _Along(length, torch.where(kept, symbol, 0), log_p, log_q)


def _with_greedy(start: Prefixes, written: Written) -> tuple[Int[Tensor, "prefix pos"], Int[Tensor, " prefix"]]:
    """Prefixes with their greedy continuations behind them, and the length of both together."""
    texts = [(*row[:n], *new) for row, n, new in zip(start.tokens.tolist(), start.given.tolist(), written, strict=True)]
    width = max(map(len, texts), default=0)
    tokens = torch.tensor([(*text, *[0] * (width - len(text))) for text in texts], dtype=torch.long)
    return tokens.reshape(len(texts), width), torch.tensor([len(text) for text in texts], dtype=torch.long)


def _empty_samples(n_prefixes: int, n_samples: int, room: int) -> Samples:
    symbols, numbers = (n_prefixes, n_samples, room), (n_prefixes, n_samples)
    return Samples(
        tokens=torch.zeros(symbols, dtype=torch.long),
        length=torch.zeros(numbers, dtype=torch.long),
        ended=torch.zeros(numbers, dtype=torch.bool),
        log_prob=torch.zeros(symbols, dtype=torch.float64),
        drawn_log_prob=torch.zeros(symbols, dtype=torch.float64),
    )


def _so_far(start: Prefixes, samples: Samples, row: Int[Tensor, " left"], sample: Int[Tensor, " left"]) -> Prefixes:
    """What is there of some samples, as something to continue."""
    known, limit = start.given[row], start.limit[row]
    given = known + samples.length[row, sample]
    place = torch.arange(int(given.max())).expand(len(row), -1)
    own = samples.tokens[row, sample].gather(1, (place - known[:, None]).clamp(0, samples.tokens.shape[2] - 1))
    before = start.tokens[row].gather(1, place.clamp(max=start.tokens.shape[1] - 1))
    return Prefixes(torch.where(place < known[:, None], before, own), given, guessed=given, limit=limit)


def _append(samples: Samples, row: Int[Tensor, " left"], sample: Int[Tensor, " left"], rest: Samples) -> None:
    """Puts what was written on behind what was there, in place."""
    which, place = (torch.arange(rest.tokens.shape[2]) < rest.length[:, 0, None]).nonzero().T
    at = (row[which], sample[which], samples.length[row, sample][which] + place)
    samples.tokens[at] = rest.tokens[which, 0, place]
    samples.log_prob[at] = rest.log_prob[which, 0, place]
    samples.drawn_log_prob[at] = rest.drawn_log_prob[which, 0, place]
    samples.length[row, sample] += rest.length[:, 0]
    samples.ended[row, sample] = rest.ended[:, 0]
