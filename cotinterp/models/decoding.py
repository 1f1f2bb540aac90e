"""What a model writes when it is left alone: exact greedy decoding, step by step and verified.

`greedy` is the definition: read the sequence, append the likeliest symbol, again until the stop symbol. `verified`
gives the same output from fewer passes. It guesses the whole continuation, reads it in one pass, accepts it as far as
each symbol is the argmax given the ones before it, corrects the first symbol that is not, and takes the argmaxes
after that as its next guess (block verification: Stern et al. 2018, arXiv 1811.03115; Jacobi decoding: Santilli et al.
2023, arXiv 2305.10427). A guess never decides what is written, only how many passes it takes: one where it was right.
The two can part only where the two largest logits are closer than the rounding of a pass.

A native model is read from its weights, without hooks: every distinct prefix of the guesses once, and where the model
departs from its guess, the rest with the keys and values of what is accepted.

Ties go to the first symbol of the vocabulary. Right padding stands after every real position and attention is causal,
so it changes no logit that is read here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cotinterp.models.native.cache import Cache, extend, joined
from cotinterp.models.native.parts import NativeParts, native_parts
from cotinterp.models.native.prefix_tree import PrefixTree, prefix_trees, read_tree
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

Written = tuple[tuple[int, ...], ...]
"""Tokens written after each prefix."""


@runtime_checkable
class LanguageModel(Protocol):
    """Anything causal that maps tokens to the logits of the symbol after each position."""

    def __call__(self, tokens: Int[Tensor, "batch pos"], /) -> Float[Tensor, "batch pos d_vocab"]: ...


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How much a model may write, and how much of it is done at once.

    Attributes:
        max_new: Symbols after which a response is given up; None allows twice what belongs there plus eight.
        batch_size: Most sequences in one pass. It changes the time and memory that are needed and no result.
    """

    max_new: int | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        for name, value in (("max_new", self.max_new), ("batch_size", self.batch_size)):
            if (name, value) != ("max_new", None) and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise ValueError(f"{name} must be 1 or more, got {value!r}")


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
        ValueError: `max_new` below 1, a prefix that leaves no room in the context, a model of another vocabulary, or
            one without a tool where the totals are a tool's to write.
    """
    require_vocabulary(model, batch.vocabulary)
    if not hasattr(model, "tool") and bool((batch.mask(Role.TOTAL) & ~batch.scored).any()):
        raise ValueError(
            "the totals of these transcripts are written by a tool, and the model alone never learned to: give "
            "`behavior.tools.WithTool(model, task)` in its place"
        )
    start, length = (batch.n_prompt if given is None else given).cpu(), batch.length.cpu()
    limit = writing_limit(model, start, length, max_new)
    return Prefixes(tokens=batch.tokens.cpu(), given=start, guessed=torch.minimum(length, limit), limit=limit)


def writing_limit(
    model: LanguageModel, given: Int[Tensor, " batch"], expected: Int[Tensor, " batch"], max_new: int | None
) -> Int[Tensor, " batch"]:
    """Symbols at which each sequence is given up, by `max_new` or its expected length, and the model's context.

    Raises:
        ValueError: `max_new` below 1, or given symbols that leave no room in the context.
    """
    if max_new is not None and max_new < 1:
        raise ValueError(f"max_new must be 1 or more, got {max_new}")
    limit = given + (2 * (expected - given).clamp(min=0) + 8 if max_new is None else max_new)
    n_ctx = context_length(model)
    if n_ctx is None:
        return limit
    if bool((given >= n_ctx).any()):
        raise ValueError(
            f"a prefix of {int(given.max())} symbols leaves no room to answer in a context of {n_ctx}; "
            "use problems with fewer operands or a model with a larger n_ctx"
        )
    return limit.clamp(max=n_ctx)


def context_length(model: LanguageModel) -> int | None:
    """Longest sequence that the model takes, by its `cfg.n_ctx`; None where it names none."""
    n_ctx = getattr(getattr(model, "cfg", None), "n_ctx", None)
    return None if n_ctx is None else int(n_ctx)


def require_vocabulary(model: LanguageModel, vocabulary: Vocabulary) -> None:
    """ValueError where the model, by its `cfg.d_vocab`, has another number of tokens: it is a model of another task."""
    d_vocab = getattr(getattr(model, "cfg", None), "d_vocab", None)
    if isinstance(d_vocab, int) and d_vocab != len(vocabulary):
        raise ValueError(
            f"the model has d_vocab = {d_vocab}, and the task's transcripts are written in {len(vocabulary)} symbols "
            f"({''.join(vocabulary.symbols)!r}): it is a model of another task"
        )


def greedy(model: LanguageModel, start: Prefixes, *, stop: int, batch_size: int = 256) -> Written:
    """What the model writes after each prefix, one symbol a pass: the reference that `verified` is held to.

    The stop symbol is included where it came before the limit; where it did not, the sequence never ended.
    """
    buffer, accepted = _buffer(start)
    buffer[torch.arange(buffer.shape[1]) >= start.given[:, None]] = 0
    running = accepted < start.limit
    with reading(model) as read:
        while running.any():
            for rows in _chunks(accepted, running, batch_size):
                at = accepted[rows]
                symbol = read(buffer[rows, : int(at.max())]).argmax(-1).cpu()[torch.arange(len(rows)), at - 1]
                buffer[rows, at] = symbol
                accepted[rows] = at + 1
                running[rows] = (symbol != stop) & (at + 1 < start.limit[rows])
    return _written(buffer, start.given, accepted)


def verified(model: LanguageModel, start: Prefixes, *, stop: int, batch_size: int = 256) -> Written:
    """What `greedy` returns, in one pass for a sequence whose guess is right and a few for another.

    Every pass accepts at least one symbol of each sequence that it reads, so none takes more passes than with `greedy`.
    A native model is read from its weights (`accept_all`): what sequences begin with in common is computed once,
    and what was read is not read again. Any other model is called on whole sequences.
    """
    buffer, accepted = _buffer(start)
    guesses = Guesses(buffer, accepted, start.guessed.clone(), start.limit, accepted < start.limit, stop)
    if (parts := native_parts(model)) is not None:
        with torch.inference_mode():
            accept_all(parts, guesses, batch_size=batch_size)
        return _written(buffer, start.given, accepted)
    with reading(model) as read:
        while guesses.running.any():
            for rows in _chunks(guesses.guessed, guesses.running, batch_size):
                guesses.accept(rows, read(buffer[rows, : int(guesses.to_read(rows).max())]).argmax(-1).cpu())
    return _written(buffer, start.given, accepted)


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
def reading(model: LanguageModel, *, causal: bool = True) -> Iterator[Callable[[Tensor], Tensor]]:
    """Calls of a model for its logits: in eval mode (put back after), without gradients, on the model's own device.

    What it yields raises ValueError where the model gives NaN. With `causal` a model is refused in which a position can
    look at later ones: what it would write next depends on what is already there.
    """
    direction = getattr(getattr(model, "cfg", None), "attention_dir", "causal")
    if causal and direction != "causal":
        raise ValueError(
            f"the model is {direction}: it names labels and writes nothing, so nothing that it writes can be measured. "
            "`accuracy_by_k` asks for its label in the regimes 'label' and 'label-after-trace'"
        )
    module = model if isinstance(model, nn.Module) else None
    was_training = module is not None and module.training
    parameter = None if module is None else next(module.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device

    def read(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        logits = model(tokens.to(device))
        if not isinstance(logits, Tensor) or logits.shape[:-1] != tokens.shape:
            raise ValueError(
                f"a model maps tokens of shape {tuple(tokens.shape)} to logits of shape ({len(tokens)}, "
                f"{tokens.shape[1]}, d_vocab); this one gave {type(logits).__name__} "
                f"{tuple(getattr(logits, 'shape', ()))}"
            )
        return not_nan(logits)

    if module is not None:
        module.eval()
    try:
        with torch.inference_mode():
            yield read
    finally:
        if module is not None:
            module.train(was_training)


def not_nan(logits: Float[Tensor, "*places d_vocab"]) -> Float[Tensor, "*places d_vocab"]:
    """The logits. ValueError where some are NaN."""
    if bool(logits.isnan().any()):
        raise ValueError("the model gives NaN logits; nothing that it writes can be judged")
    return logits


def _buffer(start: Prefixes) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
    """A copy of the tokens with room up to every limit, and the number of accepted symbols."""
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


def _written(
    buffer: Int[Tensor, "batch pos"], given: Int[Tensor, " batch"], accepted: Int[Tensor, " batch"]
) -> Written:
    bounds = zip(buffer.tolist(), given.tolist(), accepted.tolist(), strict=True)
    return tuple(tuple(row[first:last]) for row, first, last in bounds)


@dataclass(frozen=True, eq=False)
class Guesses:
    """Guessed continuations and how far they are known to be right, on the CPU. `accept` changes the tensors in place.

    Attributes:
        buffer: Accepted symbols of each sequence, then its guess.
        accepted: Number of accepted symbols, the given ones among them.
        guessed: Number of accepted and guessed symbols.
        limit: Number of symbols at which a sequence that has not stopped is given up.
        running: Whether there is more to accept.
        stop: Token that ends a sequence.
    """

    buffer: Int[Tensor, "batch pos"]
    accepted: Int[Tensor, " batch"]
    guessed: Int[Tensor, " batch"]
    limit: Int[Tensor, " batch"]
    running: Bool[Tensor, " batch"]
    stop: int

    def to_read(self, rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """Symbols of each row that are worth reading. What would follow a guessed stop symbol is never asked."""
        last = self.buffer[rows, self.guessed[rows] - 1]
        return torch.maximum(self.accepted[rows], self.guessed[rows] - (last == self.stop).long())

    def accept(
        self, rows: Int[Tensor, " rows"], argmax: Int[Tensor, "rows read"], first: Int[Tensor, " rows"] | None = None
    ) -> None:
        """Takes up what a pass over some rows found; accepts at least one symbol of each.

        `argmax` holds the likeliest symbol after each of the places that were read, from `first` (or 0) on, which is at
        most the last accepted one. A guessed symbol that is the argmax is accepted, the first that is not is corrected,
        and the argmaxes after that are the next guess.
        """
        first = torch.zeros_like(rows) if first is None else first
        accepted, guessed, limit = self.accepted[rows, None], self.guessed[rows, None], self.limit[rows, None]
        place = first[:, None] + torch.arange(1, argmax.shape[1] + 1)
        known = (place <= self.to_read(rows)[:, None]) & (place < limit) & (place >= accepted)
        here = place.clamp(max=self.buffer.shape[1] - 1)
        there = self.buffer[rows[:, None], here]
        departs = known & ~((there == argmax) & (place < guessed))
        before = torch.where(departs.any(1), departs.int().argmax(1), argmax.shape[1])[:, None]
        ends = known & (argmax == self.stop) & (torch.arange(argmax.shape[1]) <= before)
        ended = ends.any(1)
        final = torch.where(known, place, 0).amax(1)
        at = torch.where(ended, ends.int().argmax(1), before[:, 0])
        new = torch.where(at < argmax.shape[1], first + 1 + at, final)
        self.buffer[rows[:, None].expand_as(here)[known], here[known]] = argmax[known]
        self.accepted[rows] = new + 1
        self.guessed[rows] = torch.minimum(torch.maximum(self.guessed[rows], final + 1), self.limit[rows])
        self.running[rows] = ~ended & (new + 1 < self.limit[rows])


WINDOW = 8
"""Guessed symbols that are read at once after a departure: the rest of a guess is seldom right to its end."""

NODES_ON_CPU, NODES_ELSEWHERE = 2048, 65_536
"""Distinct prefixes that are read at once: as many as a processor's caches hold, or as keep an accelerator busy."""


def accept_all(parts: NativeParts, guesses: Guesses, *, batch_size: int) -> None:
    """Accepts every running sequence, at most `batch_size` in one pass. ValueError where the model gives NaN logits."""
    waiting: list[tuple[Tensor, Cache]] = []
    for tree in trees_of(parts, guesses, batch_size=batch_size):
        rows = torch.as_tensor(tree.rows)
        reading = read_tree(parts, tree)
        guesses.accept(rows, reading.at_rows(not_nan(reading.logits).argmax(-1)).cpu())
        left = guesses.running[rows].nonzero()[:, 0]
        if len(left):
            device = parts.w_e.device
            length = guesses.accepted[rows[left]] - 1
            cache = reading.cache(parts, left.to(device), length.to(device), int(guesses.limit[rows[left]].max()))
            waiting.append((rows[left], cache))
        if sum(len(some) for some, _ in waiting) >= batch_size:
            _write_on(parts, guesses, waiting)
            waiting = []
    if waiting:
        _write_on(parts, guesses, waiting)


def trees_of(parts: NativeParts, guesses: Guesses, *, batch_size: int) -> Iterator[PrefixTree]:
    """The running sequences as far as they are worth reading, with logits from the last accepted symbol on."""
    rows = guesses.running.nonzero()[:, 0]
    trees = trees_for(
        parts, guesses.buffer[rows], guesses.to_read(rows), guesses.accepted[rows] - 1, batch_size=batch_size
    )
    for tree in trees:
        yield replace(tree, rows=rows.numpy()[tree.rows])


def trees_for(
    parts: NativeParts,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    first_read: Int[Tensor, " batch"],
    *,
    batch_size: int,
) -> Iterator[PrefixTree]:
    """`prefix_trees` of a size that suits the model's device."""
    device = parts.w_e.device
    max_nodes = NODES_ON_CPU if device.type == "cpu" else NODES_ELSEWHERE
    of = (tokens.numpy(), length.numpy(), first_read.numpy())
    return prefix_trees(*of, max_rows=batch_size, max_nodes=max_nodes, device=device)


def _write_on(parts: NativeParts, guesses: Guesses, waiting: list[tuple[Tensor, Cache]]) -> None:
    """Accepts the sequences that departed from their guess, from what is known of the part that is accepted."""
    rows = torch.cat([some for some, _ in waiting])
    cache = joined([cache for _, cache in waiting])
    while len(rows):
        first = guesses.accepted[rows] - 1
        n_new = (guesses.to_read(rows) - first).clamp(max=WINDOW)
        places = first[:, None] + torch.arange(int(n_new.max()))
        tokens = guesses.buffer[rows[:, None], places.clamp(max=guesses.buffer.shape[1] - 1)]
        device = parts.w_e.device
        resid, cache = extend(parts, cache.cut(first.to(device)), tokens.to(device), n_new.to(device))
        guesses.accept(rows, not_nan(parts.logits(resid)).argmax(-1).cpu(), first)
        left = guesses.running[rows].nonzero()[:, 0]
        if len(left) < len(rows):
            rows, cache = rows[left], cache.rows(left.to(device))
