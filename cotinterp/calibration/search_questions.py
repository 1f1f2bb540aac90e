"""Questions about search on a scripted generator whose error rate is known: what it should come to was worked out.

Every total that it writes is right, given the one before, with probability P and one too high otherwise. What a method
makes of it follows: the share of problems that it should solve, and the shares that others should, which do nearly the
same. The answer is the account whose share the measured one agrees with; a method that is off by a draw, counts what is
no answer or follows the wrong score has another one.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from math import log, prod, sqrt
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.behavior.search.answers import Answers
from cotinterp.behavior.search.methods import METHODS
from cotinterp.behavior.search.scoring import Oracle, Scorer, Texts
from cotinterp.behavior.search.spent import Spent
from cotinterp.behavior.search.writer import Search
from cotinterp.calibration.ground_truth import GroundTruth, InstrumentAnswer, Question, by_kind, percent
from cotinterp.models.decoding import LanguageModel
from cotinterp.tasks import Task, get_task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("z6")
P, Q = 0.6, 0.4
"""How often a total of the scripted generator is right, and wrong."""
MALFORMED = 0.4


class Erring:
    """A scripted generator of regime `totals`: right, given the total before, with probability `right`.

    Otherwise it writes the state after the right one. It repeats the last total once it is through its operands. With
    probability `malformed` it answers `;`. A function of tokens, not a network; operands and states of one symbol.
    """

    def __init__(self, right: float, malformed: float = 0.0, task: Task = TASK) -> None:
        self.task, self.vocabulary = task, Vocabulary.of(task)
        self.right, self.malformed = right, malformed
        self.known: dict[str, Tensor] = {}

    def __call__(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        rows, back = tokens.unique(dim=0, return_inverse=True)
        texts = ["".join(self.vocabulary.symbols[token] for token in row) for row in rows.tolist()]
        width = range(1, tokens.shape[1] + 1)
        return torch.stack([torch.stack([self._logits(text[:n]) for n in width]) for text in texts])[back]

    @property
    def cfg(self) -> None:
        """It has no sizes."""

    def hooks(self, *_: Any, **__: Any) -> AbstractContextManager[Any]:
        """ValueError: it has nothing inside that could be hooked."""
        raise ValueError("a scripted generator has nothing inside: ask what it writes")

    run_with_cache = hooks

    def _logits(self, text: str) -> Float[Tensor, " d_vocab"]:
        if text not in self.known:
            logits = torch.full((len(self.vocabulary),), -40.0)
            for symbol, share in self._next(text).items():
                logits[self.vocabulary.token(symbol)] = log(share) if share else -40.0
            self.known[text] = logits
        return self.known[text]

    def _next(self, text: str) -> dict[str, float]:
        prompt, _, written = text.partition(">")
        operands = [int(symbol) for symbol in prompt[1::2]]
        if not written or ">" not in text:
            return {"{": 1.0}
        trace, brace, answer = written[1:].partition("}")
        done = [int(total) for total in trace.split(";") if total.isdigit()]
        last = (done or operands)[-1 if done else 0]
        if brace:
            end = {str(last): 1 - self.malformed, ";": self.malformed}
            return {"#": 1.0} if answer else end
        if trace and trace[-1] != ";":
            return {";" if len(done) < len(operands) - 1 else "}": 1.0}
        if len(done) >= len(operands) - 1:
            return {str(last): 1.0}
        total = (last + operands[len(done) + 1]) % self.task.n_states
        return {str(total): self.right, str((total + 1) % self.task.n_states): 1 - self.right}


@dataclass(frozen=True)
class ErringOracle:
    """The oracle, whose verdict is turned round with a known probability."""

    error: float
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    name: str = "erring"

    def __call__(self, model: LanguageModel, texts: Texts) -> Float[Tensor, " texts"]:
        turned = torch.from_numpy(self.rng.random(len(texts)) < self.error)
        verdict = Oracle()(model, texts)
        return torch.where(turned, 1 - verdict, verdict)

    def cost(self, model: LanguageModel, texts: Texts) -> tuple[Spent, ...]:  # noqa: ARG002
        return (Spent(),) * len(texts)


def copies(*operands: int, n: int) -> Batch:
    """One problem `n` times: `<1*2>{3}3#` has one written total and 5 tokens, `<1*2*3>{3;0}0#` two and 7."""
    (problem,) = solve(TASK, np.array([operands]))
    return collate([render(TASK, problem, "totals")] * n, Vocabulary.of(TASK))


def accuracy(answers: Answers) -> float:
    """The share of problems that are answered right."""
    return float(np.mean([answer.correct for answer in answers.answers]))


def agrees(found: float, expected: float, n: int, errors: float = 4.0) -> bool:
    """Whether a share of `n` problems is within so many standard errors of what it should be."""
    return abs(found - expected) <= errors * sqrt(max(expected * (1 - expected), 1e-9) / n)


@lru_cache
def vote_of_three(right: float, malformed: float, *, counted: bool) -> float:
    """How often a vote of three answers is right: `right` of those that are answers, each malformed so often.

    `counted`: as if what is no answer had a vote too. Of answers with as many votes the first has it.
    """
    shares = {"right": (1 - malformed) * right, "wrong": (1 - malformed) * (1 - right), "": malformed}
    expected = 0.0
    for drawn in product(shares, repeat=3):
        votes = [one for one in drawn if one or counted]
        won = bool(votes) and max(votes, key=lambda one: (votes.count(one), -votes.index(one))) == "right"
        expected += won * prod(shares[one] for one in drawn)
    return expected


@dataclass(frozen=True)
class World:
    """What a method is given, and the share of right answers that several accounts of it come to.

    Attributes:
        accounts: By words; the first is so.
    """

    method: str
    operands: tuple[int, ...]
    budget: int
    accounts: Mapping[str, float]
    search: Search = Search()
    oracle_errs: float = 0.0
    malformed: float = 0.0

    def answers(self, n: int, right: float = P) -> Answers:
        """The method on `n` copies of the problem; the generator's totals are right so often."""
        scorer: Scorer | None = ErringOracle(self.oracle_errs) if METHODS[self.method].scored else None
        return METHODS[self.method](
            Erring(right, self.malformed),
            TASK,
            copies(*self.operands, n=n),
            scorer,
            self.budget,
            rng=np.random.default_rng(0),
            search=self.search,
        )

    def answer(self, model: GroundTruth, quick: bool) -> InstrumentAnswer:
        """The only account within three standard errors of what is measured; else `none`, or all that are."""
        n = 1000 if quick else 2000
        found = accuracy(self.answers(n, cast(Erring, model.model).right))
        fitting = [words for words, share in self.accounts.items() if agrees(found, share, n, errors=3.0)]
        shares = ", ".join(f"{words} {percent(share)}" for words, share in self.accounts.items())
        return InstrumentAnswer(" or ".join(fitting) or "none", f"{percent(found)} of {n} right; {shares}")


R = P**2
"""A response with two written totals is right."""

WORLDS = (
    World("greedy", (1, 2, 3), 7, {"the likeliest": 1.0, "one sample": R}),
    World("sample", (1, 2, 3), 7, {"one sample": R, "the likeliest": 1.0, "the better of two": 1 - (1 - R) ** 2}),
    World(
        "vote",
        (1, 2),
        15,
        {
            "most of three that are answers": vote_of_three(P, MALFORMED, counted=False),
            "most of three": vote_of_three(P, MALFORMED, counted=True),
            "any of three": 1 - (1 - P * (1 - MALFORMED)) ** 3,
        },
        malformed=MALFORMED,
    ),
    World(
        "best-of-n",
        (1, 2, 3),
        21,
        {f"any of {n}": 1 - (1 - R) ** n for n in (3, 2, 4)} | {"one sample": R},
    ),
    World(
        "best-of-n",
        (1, 2),
        10,
        {"by a verdict that is right in 7 of 10": P**2 + 2 * P * Q * 0.7, "any of two": 1 - Q**2, "one sample": P},
        oracle_errs=0.3,
    ),
    World(
        "beam",
        (1, 2, 3),
        14,
        {"the better of two at each step": (1 - Q**2) ** 2, "the better of two": 1 - (1 - R) ** 2, "one sample": R},
        Search(width=1, branches=2),
    ),
    World(
        "mcts",
        (1, 2, 3),
        18,
        # Two responses from the prompt, then one behind the first child: it was right if it came first, or was drawn
        # twice, and the two were not right.
        {
            "two, and one behind the better": 1 - (1 - R) ** 2 + P * ((P * Q) ** 2 + P * Q * Q),
            "any of two": 1 - (1 - R) ** 2,
            "any of three": 1 - (1 - R) ** 3,
        },
        Search(branches=2),
    ),
)


def _question(world: World) -> Question:
    so = next(iter(world.accounts))
    chosen = " by an oracle that errs" if world.oracle_errs else ""
    text = f"whose accuracy has {world.method}{chosen} with {world.budget} tokens?"
    return Question(f"search: {world.method}", text, by_kind(scripted=so), world.answer)


SEARCH_QUESTIONS = tuple(map(_question, WORLDS))


def scripted() -> GroundTruth:
    """The scripted generator as a ground truth: it can be asked about search, and has nothing inside."""
    return GroundTruth(
        name="scripted (totals)",
        kind="scripted",
        mechanism=f"each total from the previous written total and the next operand, one too high in {Q:.0%}",
        model=Erring(P),
        task=TASK,
        regime="totals",
        trained_on=(),
        only="search",
    )
