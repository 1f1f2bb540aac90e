"""What a model writes when it is left alone: exact greedy decoding, step by step and verified.

`greedy` is the definition: read the sequence, append the likeliest symbol, again until the stop symbol. `verified`
gives the same output from fewer passes. It guesses the whole continuation, reads it in one pass, keeps it as far as
each symbol is the argmax given the ones before it, corrects the first symbol that is not, and takes the argmaxes
after that as its next guess (block verification: Stern et al. 2018, arXiv 1811.03115; Jacobi decoding: Santilli et al.
2023, arXiv 2305.10427). A guess never decides what is written, only how many passes it takes: one where it was right.
The two can part only where the two largest logits are closer than the rounding of a pass.

Ties go to the first symbol of the vocabulary. Right padding stands after every real position and attention is causal,
so it changes no logit that is read here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cotinterp.behavior.guesses import Guesses, not_nan
from cotinterp.behavior.native_decoding import settle_all
from cotinterp.models.native.parts import native_parts
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.vocabulary import Vocabulary

Written = tuple[tuple[int, ...], ...]
"""Tokens written after each prefix."""


@runtime_checkable
class LanguageModel(Protocol):
    """Anything causal that maps tokens to the logits of the symbol after each position."""

    def __call__(self, tokens: Int[Tensor, "batch pos"], /) -> Float[Tensor, "batch pos d_vocab"]: ...


@dataclass(frozen=True)
class Prefixes:
    """Sequences to be continued, padded on the right, on the CPU.

    Attributes:
        tokens: Given symbols, then a guess of the continuation (only `verified` looks at it), then padding.
        given: Number of given symbols, at least 1: what comes after is the model's.
        guessed: Number of given and guessed symbols, `given` to `limit`.
        limit: Number of symbols at which a sequence that has not stopped is given up, more than `given`.
    """

    tokens: Int[Tensor, "batch pos"]
    given: Int[Tensor, " batch"]
    guessed: Int[Tensor, " batch"]
    limit: Int[Tensor, " batch"]


def prefixes(
    model: LanguageModel, batch: Batch, *, given: Int[Tensor, " batch"] | None = None, max_new: int | None = None
) -> Prefixes:
    """The transcripts of `batch` as something to continue, the rest of each transcript as the guess.

    The context of the model (`cfg.n_ctx`, where it has one) bounds every sequence: one that fills it without the stop
    symbol never ended.

    Args:
        given: Symbols of each transcript that the model is given; None gives it the prompt.
        max_new: Symbols that the model may write before it is given up. None allows twice the rest of the transcript
            plus eight, which leaves room for a trace with too many steps. The limit of an example depends on that
            example alone, not on its batch.

    Raises:
        ValueError: `max_new` below 1, or a prefix that leaves no room in the context.
    """
    if max_new is not None and max_new < 1:
        raise ValueError(f"max_new must be 1 or more, got {max_new}")
    start = (batch.n_prompt if given is None else given).cpu()
    length = batch.length.cpu()
    limit = start + (2 * (length - start) + 8 if max_new is None else max_new)
    n_ctx = context_length(model)
    if n_ctx is not None:
        if bool((start >= n_ctx).any()):
            raise ValueError(
                f"a prefix of {int(start.max())} symbols leaves no room to answer in a context of {n_ctx}; "
                "use problems with fewer operands or a model with a larger n_ctx"
            )
        limit = limit.clamp(max=n_ctx)
    return Prefixes(tokens=batch.tokens.cpu(), given=start, guessed=torch.minimum(length, limit), limit=limit)


def context_length(model: LanguageModel) -> int | None:
    """Longest sequence that the model takes, by its `cfg.n_ctx`; None where it names none."""
    n_ctx = getattr(getattr(model, "cfg", None), "n_ctx", None)
    return None if n_ctx is None else int(n_ctx)


def greedy(model: LanguageModel, start: Prefixes, *, stop: int, batch_size: int = 256) -> Written:
    """What the model writes after each prefix, one symbol a pass: the reference that `verified` is held to.

    The stop symbol is included where it came before the limit; where it did not, the sequence never ended.
    """
    buffer, settled = _buffer(start)
    buffer[torch.arange(buffer.shape[1]) >= start.given[:, None]] = 0
    running = settled < start.limit
    with reading(model) as read:
        while running.any():
            for rows in _chunks(settled, running, batch_size):
                at = settled[rows]
                symbol = read(buffer[rows, : int(at.max())]).argmax(-1).cpu()[torch.arange(len(rows)), at - 1]
                buffer[rows, at] = symbol
                settled[rows] = at + 1
                running[rows] = (symbol != stop) & (at + 1 < start.limit[rows])
    return _written(buffer, start.given, settled)


def verified(model: LanguageModel, start: Prefixes, *, stop: int, batch_size: int = 256) -> Written:
    """What `greedy` returns, in one pass for a sequence whose guess is right and a few for another.

    Every pass settles at least one symbol of each sequence that it reads, so none takes more passes than with `greedy`.
    A native model is read from its weights (`native_decoding`): what sequences begin with in common is computed once,
    and what was read is not read again. Any other model is called on whole sequences.
    """
    buffer, settled = _buffer(start)
    guesses = Guesses(buffer, settled, start.guessed.clone(), start.limit, settled < start.limit, stop)
    if (parts := native_parts(model)) is not None:
        with torch.inference_mode():
            settle_all(parts, guesses, batch_size=batch_size)
        return _written(buffer, start.given, settled)
    with reading(model) as read:
        while guesses.running.any():
            for rows in _chunks(guesses.guessed, guesses.running, batch_size):
                guesses.settle(rows, read(buffer[rows, : int(guesses.to_read(rows).max())]).argmax(-1).cpu())
    return _written(buffer, start.given, settled)


def verified_greedy(
    model: LanguageModel, batch: Batch, *, max_new: int | None = None, batch_size: int = 256
) -> tuple[str, ...]:
    """Free-running greedy response to each prompt of `batch`, the stop symbol included where the model wrote it.

    The responses in the batch are guesses that save passes; the text is the model's own. A response without the stop
    symbol ran into `max_new` or the context (see `prefixes`) and counts as never ended.
    """
    start = prefixes(model, batch, max_new=max_new)
    ids = verified(model, start, stop=batch.vocabulary.end, batch_size=batch_size)
    return tuple(text_of(batch.vocabulary, written) for written in ids)


def text_of(vocabulary: Vocabulary, tokens: tuple[int, ...]) -> str:
    """Written symbols as they are. Padding is kept: a model that writes it has written something wrong."""
    return "".join(vocabulary.symbols[token] for token in tokens)


@contextmanager
def reading(model: LanguageModel) -> Iterator[Callable[[Tensor], Tensor]]:
    """Calls of a model for its logits: in eval mode (put back after), without gradients, on the model's own device.

    What it yields raises ValueError where the model gives NaN.
    """
    module = model if isinstance(model, nn.Module) else None
    was_training = module is not None and module.training
    parameter = None if module is None else next(module.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device

    def read(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        return not_nan(model(tokens.to(device)))

    if module is not None:
        module.eval()
    try:
        with torch.inference_mode():
            yield read
    finally:
        if module is not None:
            module.train(was_training)


def _buffer(start: Prefixes) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
    """A copy of the tokens with room up to every limit, and the number of settled symbols."""
    n, width = start.tokens.shape
    buffer = start.tokens.new_zeros((n, max(width, int(start.limit.max()) if n else 0)))
    buffer[:, :width] = start.tokens
    return buffer, start.given.clone()


def _chunks(
    length: Int[Tensor, " batch"], running: Bool[Tensor, " batch"], batch_size: int
) -> tuple[Int[Tensor, " rows"], ...]:
    """Running rows, those of similar length together so that little padding is read."""
    rows = running.nonzero()[:, 0]
    chunks: tuple[Tensor, ...] = rows[length[rows].argsort(stable=True)].split(batch_size)
    return chunks


def _written(buffer: Int[Tensor, "batch pos"], given: Int[Tensor, " batch"], settled: Int[Tensor, " batch"]) -> Written:
    bounds = zip(buffer.tolist(), given.tolist(), settled.tolist(), strict=True)
    return tuple(tuple(row[first:last]) for row, first, last in bounds)
