"""Sampling for models that are nearly sure of themselves: what is likeliest is read once for all samples of a prefix.

A trained model draws the same trace again and again. `verified_sampled` takes the greedy continuation of each prefix,
reads it in one pass, and draws every sample along it: as long as a sample draws the symbols of the greedy
continuation, its next distribution is known already. Only what departs is written on symbol by symbol, from its
departure. Each symbol is still drawn from the model's distribution given the symbols before it, so the samples are
distributed as those of `sampling.sampled`, of which this is the fast form (as speculative decoding is: Leviathan et al.
2023, arXiv 2211.17192; here nothing is ever rejected). They are not the same draws.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.behavior.decoding import LanguageModel, Prefixes, Written, verified
from cotinterp.behavior.sampling import Samples, sampled
from cotinterp.behavior.teacher_forcing import forced_logits


def verified_sampled(
    model: LanguageModel,
    start: Prefixes,
    *,
    stop: int,
    rng: np.random.Generator,
    temperature: float = 1.0,
    n_samples: int = 1,
    batch_size: int = 256,
) -> Samples:
    """Draws `n_samples` continuations of each prefix, as `sampling.sampled` does, for less where they are alike.

    Args:
        rng: Gives one uniform number for each prefix, sample and greedy symbol, then what `sampled` needs for the rest.
        temperature: What logits are divided by before a symbol is drawn; above 0, or there would be nothing to draw.

    Raises:
        ValueError: `n_samples` below 1, a temperature that is not above 0, or a model that gives NaN logits.
    """
    if n_samples < 1 or not 0 < temperature < float("inf"):
        raise ValueError(
            f"n_samples must be 1 or more and temperature finite and above 0, got {n_samples} and {temperature}; "
            "decoding.verified writes what is likeliest"
        )
    tokens, length = _written_out(start, verified(model, start, stop=stop, batch_size=batch_size))
    n_new = int((length - start.given).max()) if len(length) else 0
    uniform = torch.from_numpy(rng.random((len(length), n_samples, n_new)))
    room = int((start.limit - start.given).max()) if len(length) else 0
    samples = _nothing_yet(len(length), n_samples, room)
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
        begun = _begun(start, samples, row, sample)
        rest = sampled(model, begun, stop=stop, rng=rng, temperature=temperature, batch_size=batch_size)
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


def _written_out(start: Prefixes, written: Written) -> tuple[Int[Tensor, "prefix pos"], Int[Tensor, " prefix"]]:
    """Prefixes with their greedy continuations behind them, and the length of both together."""
    texts = [(*row[:n], *new) for row, n, new in zip(start.tokens.tolist(), start.given.tolist(), written, strict=True)]
    width = max(map(len, texts), default=0)
    tokens = torch.tensor([(*text, *[0] * (width - len(text))) for text in texts], dtype=torch.long)
    return tokens.reshape(len(texts), width), torch.tensor([len(text) for text in texts], dtype=torch.long)


def _nothing_yet(n_prefixes: int, n_samples: int, room: int) -> Samples:
    symbols, numbers = (n_prefixes, n_samples, room), (n_prefixes, n_samples)
    return Samples(
        tokens=torch.zeros(symbols, dtype=torch.long),
        length=torch.zeros(numbers, dtype=torch.long),
        ended=torch.zeros(numbers, dtype=torch.bool),
        log_prob=torch.zeros(symbols, dtype=torch.float64),
        drawn_log_prob=torch.zeros(symbols, dtype=torch.float64),
    )


def _begun(start: Prefixes, samples: Samples, row: Int[Tensor, " left"], sample: Int[Tensor, " left"]) -> Prefixes:
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
