"""Writing on, many prefixes of many problems in one call, within a budget that is counted exactly.

A **step** of a response is its text up to and including a separator (`;`), the last one of a trace up to and including
`}`, and the answer after it up to the stop symbol. A trace without separators (regime `chain`) is one step.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np
import torch

from cotinterp.behavior.search.scoring import STEP_ENDS, Scorer, Texts
from cotinterp.behavior.search.spent import Spent, cost_of, side_by_side, writing
from cotinterp.models.decoding import Decoding, LanguageModel, Prefixes, prefixes, text_of
from cotinterp.models.sampling import sample_continuations
from cotinterp.tasks.task import Task, whole_number
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.problems import widest_problem
from cotinterp.transcripts.render import Transcript, render


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a method spends its budget.

    Attributes:
        temperature: What logits are divided by before a symbol is drawn; 0 or None takes the likeliest.
        draws: Most responses that `vote` and `best-of-n` draw; None draws as many as the budget pays for.
        branches: Steps drawn behind a prefix by `beam` and `mcts`.
        width: Prefixes that `beam` continues side by side.
        exploration: Weight of what is seldom visited in `mcts` (c of UCT), in units of the range of values seen.
        threshold: Score that is good enough, for `best-of-n`, `beam` and `mcts`: a finished response that has it is
            taken at once, and `beam` gives up a prefix that has less and goes back. None spends the whole budget.
        least_steps: Steps that a trace must have in `force`: a closing brace that comes sooner is made a separator.
        most_steps: Steps after which `force` closes the trace; None leaves that to the budget.
        trees: Keep the tree of every problem (`Answers.tree`); `beam` and `mcts` have one.
        decoding: Most symbols of one response, and most sequences in one pass.
    """

    temperature: float | None = 1.0
    draws: int | None = None
    branches: int = 3
    width: int = 2
    exploration: float = 2**0.5
    threshold: float | None = None
    least_steps: int = 0
    most_steps: int | None = None
    trees: bool = False
    decoding: Decoding = Decoding()

    def __post_init__(self) -> None:
        for name in ("draws", "branches", "width", "most_steps"):
            if (value := getattr(self, name)) is not None:
                whole_number(value, name, "a number of things to try", least=1)
        whole_number(self.least_steps, "least_steps", "the number of steps that a trace must have", least=0)


@dataclass(eq=False)
class Draft:
    """Prompt of a problem and what is written after it. Two drafts of one prefix that are one object share its reading.

    Attributes:
        row: The problem, as a row of the batch.
        tokens: All tokens.
        log_probs: Natural log of the model's own probability of each written token; NaN where it was not the model's.
        unread: Tokens at the end that the model has not read; `Writer.write` sets it to 0.
    """

    row: int
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    unread: int = 0

    @property
    def n_prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.tokens) - len(self.log_probs)

    @property
    def written(self) -> tuple[int, ...]:
        """Tokens after the prompt."""
        return self.tokens[self.n_prompt :]

    def cut(self, n: int, unread: int) -> "Draft":
        """The first `n` tokens."""
        return Draft(self.row, self.tokens[:n], self.log_probs[: n - self.n_prompt], unread)


class Lengths(NamedTuple):
    """Most tokens of a right response to so many operands, in whole and by step, whatever the operands are."""

    response: int
    step: int
    answer: int


@dataclass(eq=False)
class Writer:
    """A model that writes on the problems of a batch, and the account of each problem.

    What is drawn for a problem depends on the seed, its place in the batch and what was drawn for it before: not on the
    other problems. It never writes more than a problem has left.
    """

    model: LanguageModel
    task: Task
    batch: Batch
    scorer: Scorer | None
    budget: int
    rng: np.random.Generator
    search: Search
    spent: list[Spent] = field(init=False)

    def __post_init__(self) -> None:
        self.batch.require(self.task)
        whole_number(self.budget, "budget", "the number of tokens that may be written for one problem", least=1)
        start = prefixes(self.model, self.batch, max_new=self.search.decoding.max_new)
        self.limit = [int(n) for n in start.limit]
        self.spent = [Spent()] * len(self.batch)
        self.cost = cost_of(self.model)
        self.rngs = self.rng.spawn(len(self.batch))
        vocabulary = self.batch.vocabulary
        self.stop, self.close, self.separator = vocabulary.end, vocabulary.token("}"), vocabulary.token(";")
        known: dict[tuple[str, int], Lengths] = {}
        self.lengths: list[Lengths] = []
        for one in self.batch.transcripts:
            key = (one.regime, one.problem.k)
            if key not in known:
                known[key] = _lengths(render(self.task, widest_problem(self.task, one.problem.k), one.regime))
            self.lengths.append(known[key])

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a step."""
        return self.separator, self.close, self.stop

    def roots(self) -> list[Draft]:
        """Every problem with nothing written."""
        rows = zip(self.batch.tokens.tolist(), self.batch.n_prompt.tolist(), strict=True)
        return [Draft(row, tuple(tokens[:n]), (), n) for row, (tokens, n) in enumerate(rows)]

    def left(self, row: int) -> int:
        """Tokens that may still be written for a problem."""
        return self.budget - self.spent[row].written

    def ended(self, draft: Draft) -> bool:
        """Whether the stop symbol was written: the draft is a complete response."""
        return draft.tokens[-1] == self.stop

    def room(self, draft: Draft) -> int:
        """Most tokens that the next step of a draft may have: those of the longest right one, and what fits."""
        lengths = self.lengths[draft.row]
        step = lengths.answer if self.close in draft.written else lengths.step
        return min(step, self.limit[draft.row] - len(draft.tokens))

    def goes_on(self, draft: Draft) -> bool:
        """Whether another step may follow: nothing is written yet, or the last step is whole and not the answer."""
        if not draft.log_probs:
            return True
        return draft.tokens[-1] in (self.separator, self.close) and self.limit[draft.row] > len(draft.tokens)

    def text(self, draft: Draft) -> str:
        """What is written in a draft."""
        return text_of(self.batch.vocabulary, draft.written)

    def write(self, asked: Sequence[tuple[Draft, int]], *, stop: tuple[int, ...] | None = None) -> list[Draft]:
        """Each draft continued once, by at most so many tokens; one that is named twice is drawn twice.

        All are written in one call. Each problem pays for what is distinct.

        Args:
            stop: Tokens that end a continuation; the stop symbol alone by default.

        Raises:
            ValueError: A problem is asked to write more than it has left, or a draft more than fits.
        """
        if not asked:
            return []
        wanted: dict[int, int] = defaultdict(int)
        for draft, most in asked:
            wanted[draft.row] += most
            if most < 1 or len(draft.tokens) + most > self.limit[draft.row]:
                raise ValueError(f"{most} tokens behind {len(draft.tokens)}: the limit is {self.limit[draft.row]}")
        for row, most in wanted.items():
            if most > self.left(row):
                raise ValueError(f"problem {row} may write {self.left(row)} more tokens, and {most} were asked for")
        widest = max(most for _, most in asked)
        uniform = np.zeros((len(asked), widest))
        for index, (draft, most) in enumerate(asked):
            uniform[index, :most] = self.rngs[draft.row].random(most)
        tokens, given = _padded([draft.tokens for draft, _ in asked])
        found = sample_continuations(
            self.model,
            Prefixes(tokens, given, given, given + torch.tensor([most for _, most in asked])),
            stop=self.stop if stop is None else stop,
            rng=uniform,
            temperature=self.search.temperature,
            batch_size=self.search.decoding.batch_size,
        )
        columns = (found.tokens[:, 0].tolist(), found.log_prob[:, 0].tolist(), found.length[:, 0].tolist())
        drafts = [
            Draft(draft.row, (*draft.tokens, *new[:n]), (*draft.log_probs, *log_p[:n]), 1)
            for (draft, _), new, log_p, n in zip(asked, *columns, strict=True)
        ]
        self._charge([draft for draft, _ in asked], columns[2])
        return drafts

    def _charge(self, asked: Sequence[Draft], lengths: Sequence[int]) -> None:
        groups: dict[int, list[int]] = defaultdict(list)
        for draft, n in zip(asked, lengths, strict=True):
            groups[id(draft)].append(n)
        works: dict[int, list[Spent]] = defaultdict(list)
        for draft in {id(draft): draft for draft in asked}.values():
            works[draft.row].append(writing(self.cost, len(draft.tokens), draft.unread, groups[id(draft)]))
            draft.unread = 0
        for row, parts in works.items():
            self.spent[row] += side_by_side(parts)

    def texts(self, drafts: Sequence[Draft]) -> Texts:
        """The drafts as a scorer reads them."""
        tokens, length = _padded([draft.tokens for draft in drafts])
        return Texts(
            batch=self.batch,
            row=torch.tensor([draft.row for draft in drafts]),
            tokens=tokens,
            length=length,
            ended=torch.tensor([self.ended(draft) for draft in drafts]),
            log_prob=torch.tensor([sum(draft.log_probs) for draft in drafts], dtype=torch.float64),
        )

    def score(self, drafts: Sequence[Draft]) -> list[float]:
        """What the scorer makes of some drafts, which is charged to their problems."""
        if not drafts:
            return []
        assert self.scorer is not None
        texts = self.texts(drafts)
        scores = [float(score) for score in self.scorer(self.model, texts)]
        works: dict[int, list[Spent]] = defaultdict(list)
        for draft, work in zip(drafts, self.scorer.cost(self.model, texts), strict=True):
            works[draft.row].append(work)
        for row, parts in works.items():
            self.spent[row] += side_by_side(parts)
        return scores

    def good_enough(self, score: float) -> bool:
        """Whether a finished response of this score ends the search."""
        return score >= (inf if self.search.threshold is None else self.search.threshold)


def _lengths(widest: Transcript) -> Lengths:
    """Of the longest right transcript."""
    steps, n = [0], 0
    for symbol in widest.response:
        n += 1
        if symbol in STEP_ENDS:
            steps.append(n)
            n = 0
    return Lengths(len(widest.response), max(steps), steps[-1])


def _padded(rows: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of some drafts, padded on the right, and how many each has."""
    width = max(map(len, rows))
    tokens = torch.tensor([(*row, *[0] * (width - len(row))) for row in rows], dtype=torch.long)
    return tokens, torch.tensor([len(row) for row in rows], dtype=torch.long)
