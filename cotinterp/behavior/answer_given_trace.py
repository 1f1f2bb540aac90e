"""How probable an answer is once a trace is written, and the traces that a model writes by itself.

A trace ends with its closing brace. What comes after it, the answer and the stop symbol, is judged by teacher forcing:
P(answer | prompt, trace) is exact. Traces are drawn, so that P(answer | what is shown) is a mean over drawn traces of
exact numbers, which varies less than the share of drawn answers (Rao-Blackwellization: Casella & Robert 1996).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.models.decoding import (
    Decoding,
    LanguageModel,
    Prefixes,
    context_length,
    require_vocabulary,
    text_of,
    verified,
    writing_limit,
)
from cotinterp.models.sampling import continuation_log_prob, sample_around_greedy
from cotinterp.results.intervals import bootstrap
from cotinterp.tasks.task import Task
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime
from cotinterp.transcripts.render import longest_transcript, prompt
from cotinterp.transcripts.vocabulary import Vocabulary

OPEN, CLOSE, STOP = "{", "}", "#"

FLOOR = -20.0
"""Logarithms below this count as this, in nats: 2e-9 and less is the probability of something that never happens."""


class Opening(NamedTuple):
    """A problem, and the beginning of a response that stands under its prompt."""

    problem: Problem
    written: str

    @property
    def closed(self) -> bool:
        """A trace and its closing brace stand there: the answer is next."""
        return self.written.startswith(OPEN) and self.written.endswith(CLOSE)

    def text(self, task: Task) -> str:
        """The prompt and what is written after it."""
        return "".join(token.symbol for token in prompt(task, self.problem)) + self.written


class DrawnTrace(NamedTuple):
    """One continuation up to the closing brace, or to the stop symbol or the limit where those came first.

    Attributes:
        log_weight: Natural log of its probability under the model over that under what it was drawn from; 0 at
            temperature 1. The mean of the weights over draws estimates 1.
    """

    opening: Opening
    log_weight: float


def answer_log_probs(
    model: LanguageModel,
    task: Task,
    openings: Sequence[Opening],
    answers: Sequence[int],
    *,
    batch_size: int = 256,
) -> Float[np.ndarray, " openings"]:
    """Natural log of P(the output answers that state | opening), one for each opening and its answer, exactly.

    After a closed trace this is the probability of the answer's symbols and the stop symbol, in one pass. A response
    that stopped is sure: 0 where it gives that answer, else -inf. One that neither closed its trace nor stopped was
    given up and answers nothing, and neither does one whose answer has no room in the context: -inf.
    """
    asked = dict.fromkeys(zip(openings, answers, strict=True))
    n_ctx = context_length(model)
    found: dict[tuple[Opening, int], float] = {}
    forced = []
    for one in asked:
        place, answer = one
        before, after = place.text(task), f"{task.state_text(answer)}{STOP}"
        if place.closed and (n_ctx is None or len(before + after) <= n_ctx):
            forced.append((one, before, before + after))
        else:
            right = STOP in place.written and final_answer(task, place.written) == answer
            found[one] = 0.0 if right else -np.inf
    if forced:
        vocabulary = Vocabulary.of(task)
        require_vocabulary(model, vocabulary)
        tokens, length = _padded(vocabulary, [whole for *_, whole in forced])
        given = torch.tensor([len(before) for _, before, _ in forced])
        log_p = continuation_log_prob(model, tokens, given, length, batch_size=batch_size)
        found.update(zip((one for one, _, _ in forced), log_p.tolist(), strict=True))
    return np.array([found[one] for one in zip(openings, answers, strict=True)], dtype=np.float64)


def sample_traces(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    openings: Sequence[Opening],
    *,
    rng: np.random.Generator,
    n_traces: int,
    temperature: float = 1.0,
    decoding: Decoding = Decoding(),
) -> tuple[tuple[DrawnTrace, ...], ...]:
    """`n_traces` traces for each opening, as the model goes on from it. Errors of `sample_around_greedy`.

    What is expected of an opening, where `decoding.max_new` is None, is the rest of the longest trace there is.
    """
    vocabulary = Vocabulary.of(task)
    start = _start(model, task, regime, openings, decoding.max_new)
    drawn = sample_around_greedy(
        model,
        start,
        stop=vocabulary.token(CLOSE),
        rng=rng,
        temperature=temperature,
        n_samples=n_traces,
        batch_size=decoding.batch_size,
    )
    gap = (drawn.log_prob - drawn.drawn_log_prob).cumsum(-1)
    found = []
    for one, rows, lengths, gaps in zip(openings, drawn.tokens.tolist(), drawn.length.tolist(), gap, strict=True):
        texts = [_to_the_stop(text_of(vocabulary, tuple(row[:n]))) for row, n in zip(rows, lengths, strict=True)]
        weights = [float(own[len(text) - 1]) for own, text in zip(gaps, texts, strict=True)]
        found.append(
            tuple(
                DrawnTrace(Opening(one.problem, one.written + text), weight)
                for text, weight in zip(texts, weights, strict=True)
            )
        )
    return tuple(found)


def greedy_traces(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    openings: Sequence[Opening],
    *,
    decoding: Decoding = Decoding(),
) -> tuple[Opening, ...]:
    """Each opening with the trace that the model writes when it takes the likeliest symbol each time."""
    vocabulary = Vocabulary.of(task)
    start = _start(model, task, regime, openings, decoding.max_new)
    written = verified(model, start, stop=vocabulary.token(CLOSE), batch_size=decoding.batch_size)
    return tuple(
        Opening(one.problem, one.written + _to_the_stop(text_of(vocabulary, tokens)))
        for one, tokens in zip(openings, written, strict=True)
    )


def log_mean(log_values: Float[np.ndarray, " n"]) -> float:
    """Natural log of the mean of `exp(log_values)`; -inf where all of them are."""
    return float(np.logaddexp.reduce(log_values) - np.log(len(log_values)))


def mean_and_interval(name: str, values: Float[np.ndarray, " n"]) -> dict[str, float]:
    """The mean and its interval; NaN where the number is not there."""
    low, high = bootstrap(values) if np.isfinite(values).all() else (np.nan, np.nan)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


def _to_the_stop(text: str) -> str:
    before, stop, _ = text.partition(STOP)
    return before + stop


def _start(
    model: LanguageModel, task: Task, regime: str | Regime, openings: Sequence[Opening], max_new: int | None
) -> Prefixes:
    """The openings as something to continue, without a guess."""
    require_vocabulary(model, Vocabulary.of(task))
    tokens, given = _padded(Vocabulary.of(task), [one.text(task) for one in openings])
    longest = {k: longest_transcript(task, k, regime) for k in {one.problem.k for one in openings}}
    whole = torch.tensor([longest[one.problem.k] for one in openings], dtype=torch.long)
    return Prefixes(tokens, given, guessed=given, limit=writing_limit(model, given, whole, max_new))


def _padded(vocabulary: Vocabulary, texts: Sequence[str]) -> tuple[Int[Tensor, "text pos"], Int[Tensor, " text"]]:
    """Texts as tokens, padded on the right, and their lengths."""
    width = max(map(len, texts), default=0)
    rows = [[*vocabulary.encode(text), *[vocabulary.pad] * (width - len(text))] for text in texts]
    length = torch.tensor([len(text) for text in texts], dtype=torch.long)
    return torch.tensor(rows, dtype=torch.long).reshape(len(texts), width), length
