"""Steps that a model wrote, each labeled right or wrong: what verifiers are fitted on and judged by.

Two kinds of labels of a step. The task's oracle: a step is right where everything up to its end is how the right
response begins, so that from the first error on every step is wrong, whether or not it follows from what was written
(as Lightman et al. 2023, arXiv 2305.20050, whose own labels end with that first error: `until_first_error`). And
rollouts: the share of continuations from its end that come to the right answer (Wang et al. 2024, Math-Shepherd, arXiv
2312.08935), which needs no knowledge of the steps, depends on who continues, and calls a wrong step good where a model
recovers. The label of a whole response is its answer.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.behavior.search.scoring import STEP_ENDS, Oracle, Texts
from cotinterp.models.decoding import LanguageModel, Prefixes, prefixes, text_of
from cotinterp.models.sampling import Samples, sample_continuations
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.regimes import require_totals

LabelName = Literal["right", "reached", "outcome"]
_STEP = re.compile(r"[^;}#]*[;}#]|[^;}#]+$")


def written_steps(response: str) -> list[str]:
    """The steps of what is written after a prompt, each up to and including its `;`, `}` or `#`; the last may lack it.

    The answer and its `#` are the last step.
    """
    return _STEP.findall(response)


@dataclass(frozen=True, eq=False)
class LabeledSteps:
    """Steps, one a row: the text up to the end of the step, and what is known of it.

    Attributes:
        texts: Prompt and what is written up to the step's end.
        trace: Number of the sampled response that the step is of.
        step: Number of the step in it, from 1; that of the answer is the last.
        right: By the task's oracle: no error up to here.
        outcome: Whether the whole response answers right.
        reached: Share of rollouts from here that answer right, of a finished response 0 or 1; NaN without rollouts.
    """

    texts: Texts
    trace: Int[np.ndarray, " step"]
    step: Int[np.ndarray, " step"]
    right: Bool[np.ndarray, " step"]
    outcome: Bool[np.ndarray, " step"]
    reached: Float[np.ndarray, " step"]

    def __len__(self) -> int:
        return len(self.trace)

    @property
    def problem(self) -> Int[np.ndarray, " step"]:
        """A number for the prompt of each step: steps of one problem are not independent of each other."""
        prompts = np.array([transcript.prompt for transcript in self.texts.batch.transcripts])
        numbers: Int[np.ndarray, " step"] = np.unique(prompts, return_inverse=True)[1][self.texts.row.numpy()]
        return numbers

    def labels(self, name: LabelName) -> Bool[np.ndarray, " step"]:
        """Good or not: `right`, `outcome`, or `reached` by any rollout (the hard estimate of Math-Shepherd).

        ValueError for another name, and for `reached` where no rollouts were made.
        """
        if name not in get_args(LabelName):
            raise ValueError(f"unknown labels {name!r}: {', '.join(get_args(LabelName))}")
        if name == "reached" and np.isnan(self.reached).any():
            raise ValueError("these steps have no rollouts: label_steps(..., n_rollouts=8) makes them")
        found: Bool[np.ndarray, " step"] = getattr(self, name) > 0
        return found

    def select(self, keep: Bool[np.ndarray, " step"]) -> "LabeledSteps":
        """Some of the steps."""
        rows = torch.from_numpy(np.flatnonzero(keep))
        texts, places = self.texts, ("row", "tokens", "length", "ended", "log_prob")
        chosen = replace(texts, **{name: getattr(texts, name)[rows] for name in places})
        arrays = ("trace", "step", "right", "outcome", "reached")
        return LabeledSteps(chosen, *(getattr(self, name)[keep] for name in arrays))

    def until_first_error(self) -> "LabeledSteps":
        """Without the steps behind the first error of each response: what follows an error is wrong by definition, and
        often easy to tell."""
        wrong_before = np.zeros(len(self), dtype=bool)
        first = {}
        for row in np.lexsort((self.step, self.trace)).tolist():
            trace = int(self.trace[row])
            wrong_before[row] = trace in first
            if not self.right[row]:
                first[trace] = row
        return self.select(~wrong_before)

    def shuffled(self, rng: np.random.Generator) -> "LabeledSteps":
        """The same texts with all three labels dealt out anew, those of one step together: there is nothing to find."""
        order = rng.permutation(len(self))
        return replace(self, right=self.right[order], outcome=self.outcome[order], reached=self.reached[order])


def label_steps(
    model: LanguageModel,
    task: Task,
    batch: Batch,
    *,
    rng: np.random.Generator,
    temperature: float | None = 1.0,
    n_samples: int = 4,
    n_rollouts: int = 0,
    max_new: int | None = None,
    batch_size: int = 256,
) -> LabeledSteps:
    """The steps of `n_samples` responses to each problem, drawn from `model`; a beginning of a step is left out.

    Args:
        batch: Right transcripts, in the regime that the model was trained in.
        temperature: Of the responses; rollouts are drawn at 1, or at 0 where this is 0 or None.
        n_rollouts: Continuations from the end of each distinct prefix; 0 for none.

    Raises:
        ValueError: A regime without written totals or separators, a batch of another task, and what
            `sample_continuations` and `prefixes` refuse.
    """
    batch.require(task)
    for name in sorted({transcript.regime for transcript in batch.transcripts}):
        if not require_totals(name).separator:
            raise ValueError(f"regime {name!r} has nothing between its steps; 'cot', 'totals' and 'noisy' have")
    start = prefixes(model, batch, max_new=max_new)
    sampled = sample_continuations(
        model,
        start,
        stop=batch.vocabulary.end,
        rng=rng,
        temperature=temperature,
        n_samples=n_samples,
        batch_size=batch_size,
    )
    texts, trace, step = _step_texts(batch, start, sampled)
    right = Oracle()(model, texts).numpy() > 0
    answers = np.array([_answers_right(task, batch, row, text) for row, text in _responses(batch, sampled)])
    outcome = answers[trace].astype(bool)
    reached = np.full(len(trace), np.nan)
    found = LabeledSteps(texts, trace, step, right, outcome, reached)
    if not n_rollouts or not len(found):
        return found
    at = 1.0 if temperature else 0.0
    shares = _rollouts(model, task, found, start.limit, rng=rng, temperature=at, n=n_rollouts, batch_size=batch_size)
    return replace(found, reached=shares)


def _responses(batch: Batch, sampled: Samples) -> list[tuple[int, str]]:
    """The problem and the whole text of each response."""
    n_prefixes, n_samples = sampled.length.shape
    bounds = zip(sampled.tokens.flatten(0, 1).tolist(), sampled.length.flatten().tolist(), strict=True)
    texts = (text_of(batch.vocabulary, tuple(tokens[:n])) for tokens, n in bounds)
    return list(zip(np.arange(n_prefixes).repeat(n_samples).tolist(), texts, strict=True))


def _answers_right(task: Task, batch: Batch, row: int, text: str) -> bool:
    return final_answer(task, text) == batch.transcripts[row].problem.answer


def _step_texts(
    batch: Batch, start: Prefixes, sampled: Samples
) -> tuple[Texts, Int[np.ndarray, " step"], Int[np.ndarray, " step"]]:
    """A text for every step that ended, the response that it is of, and its number."""
    stops = torch.tensor([batch.vocabulary.token(symbol) for symbol in STEP_ENDS])
    written, n_written = sampled.tokens.flatten(0, 1), sampled.length.flatten()
    n_samples = sampled.length.shape[1]
    there = torch.arange(written.shape[1]) < n_written[:, None]
    ends = torch.isin(written, stops) & there
    trace, last = ends.nonzero().T
    step = ends.cumsum(1)[trace, last]
    row = trace // n_samples
    given = start.given[row]
    length = given + last + 1
    width = int(length.max()) if len(length) else 0
    place = torch.arange(width).expand(len(row), -1)
    before = start.tokens[row].gather(1, place.clamp(max=start.tokens.shape[1] - 1))
    own = written[trace].gather(1, (place - given[:, None]).clamp(0, max(written.shape[1] - 1, 0)))
    tokens = torch.where(place < given[:, None], before, own).masked_fill(place >= length[:, None], 0)
    log_prob = sampled.log_prob.flatten(0, 1).cumsum(1)[trace, last]
    ended = written[trace, last] == batch.vocabulary.end
    texts = Texts(batch=batch, row=row, tokens=tokens, length=length, ended=ended, log_prob=log_prob)
    return texts, trace.numpy(), step.numpy()


def _rollouts(
    model: LanguageModel,
    task: Task,
    steps: LabeledSteps,
    limit: Int[Tensor, " problem"],
    *,
    rng: np.random.Generator,
    temperature: float,
    n: int,
    batch_size: int,
) -> Float[np.ndarray, " step"]:
    """Share of continuations that answer right, of equal texts once; 0 where a text has no room left to answer."""
    texts = steps.texts
    keys = [(row, text) for row, text in zip(texts.row.tolist(), texts.responses, strict=True)]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    room = limit[texts.row]
    open_rows = [row for row in first.values() if not texts.ended[row] and texts.length[row] < room[row]]
    share = np.where(texts.ended.numpy(), steps.outcome, 0.0)
    if open_rows:
        at = torch.tensor(open_rows)
        start = Prefixes(texts.tokens[at], texts.length[at], guessed=texts.length[at], limit=room[at])
        stop = texts.batch.vocabulary.end
        drawn = sample_continuations(
            model, start, stop=stop, rng=rng, temperature=temperature, n_samples=n, batch_size=batch_size
        )
        good = np.array(
            [
                _answers_right(task, texts.batch, keys[open_rows[number]][0], keys[open_rows[number]][1] + rest)
                for number, rest in _responses(texts.batch, drawn)
            ]
        )
        share[open_rows] = good.reshape(len(open_rows), n).mean(1)
    return np.array([share[first[key]] for key in keys])
