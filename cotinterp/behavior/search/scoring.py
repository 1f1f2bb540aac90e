"""How promising a written prefix looks: what a search follows, and what chooses among finished responses.

A scorer is any object with a name, a call that gives numbers (higher is better), and `cost`, what that call takes.
Two stand here because they need no training: `Oracle`, the task's own judgment, which is the ceiling of every verifier,
and `Likelihood`, the model's own opinion of what it wrote.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.behavior.search.spent import Spent, cost_of, reading_of
from cotinterp.models.decoding import LanguageModel, text_of
from cotinterp.models.sampling import continuation_log_prob
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.problems import Problem

STEP_ENDS = ";}#"
"""The symbols with which a written step ends, the answer among them."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Prompts and what was written after each so far, on the CPU: any number of texts of any of some problems.

    What is written ends where a step ends (`;` or `}`), with the stop symbol, or where there was no room for more.

    Attributes:
        batch: The problems, as right transcripts.
        row: Which of them each text is of.
        tokens: Prompt and what is written, padded on the right.
        length: Tokens of each text, prompt included.
        ended: Whether the stop symbol was written: the text is a complete response.
        log_prob: Natural log of the model's own probability of what it wrote, where it was recorded in sampling; NaN
            where it was not.
    """

    batch: Batch
    row: Int[Tensor, " text"]
    tokens: Int[Tensor, "text pos"]
    length: Int[Tensor, " text"]
    ended: Bool[Tensor, " text"]
    log_prob: Float[Tensor, " text"]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def n_prompt(self) -> Int[Tensor, " text"]:
        """Tokens of each prompt."""
        return self.batch.n_prompt.cpu()[self.row]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problem of each text."""
        return tuple(self.batch.transcripts[row].problem for row in self.row.tolist())

    @property
    def responses(self) -> tuple[str, ...]:
        """What is written in each text, without the prompt."""
        bounds = zip(self.tokens.tolist(), self.n_prompt.tolist(), self.length.tolist(), strict=True)
        return tuple(text_of(self.batch.vocabulary, tuple(tokens[first:last])) for tokens, first, last in bounds)


@runtime_checkable
class Scorer(Protocol):
    """How promising some written prefixes look: higher is better, in natural units (a log probability, a probability).

    `cost` is what scoring each of these texts takes by itself; a method adds it up side by side.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, model: LanguageModel, texts: Texts) -> Float[Tensor, " texts"]: ...

    def cost(self, model: LanguageModel, texts: Texts) -> tuple[Spent, ...]: ...


@dataclass(frozen=True)
class Oracle:
    """1 where what is written is how the right response begins, the whole of it where the text ended; else 0.

    It knows the solution and costs nothing: a ceiling, no verifier that anybody has. A right answer behind a wrong step
    counts as wrong, as does a right step where none belongs.
    """

    name: str = "oracle"

    def __call__(self, model: LanguageModel, texts: Texts) -> Float[Tensor, " texts"]:  # noqa: ARG002
        right = (texts.batch.transcripts[row].response for row in texts.row.tolist())
        found = zip(right, texts.responses, texts.ended.tolist(), strict=True)
        good = [one == text if ended else one.startswith(text) for one, text, ended in found]
        return torch.tensor(good, dtype=torch.float64).reshape(len(texts))

    def cost(self, model: LanguageModel, texts: Texts) -> tuple[Spent, ...]:  # noqa: ARG002
        return (Spent(),) * len(texts)


@dataclass(frozen=True)
class Likelihood:
    """Natural log of the model's own probability of what is written after the prompt, at temperature 1; at most 0.

    Free of cost where it was recorded while the text was sampled, one read of the text where it was not. The longer of
    two texts is the less probable, all else alike: it compares texts of about one length.
    """

    name: str = "likelihood"

    def __call__(self, model: LanguageModel, texts: Texts) -> Float[Tensor, " texts"]:
        found, given = texts.log_prob.double().clone(), texts.n_prompt
        found[texts.length == given] = 0.0
        rows = found.isnan().nonzero()[:, 0]
        if len(rows):
            found[rows] = continuation_log_prob(model, texts.tokens[rows], given[rows], texts.length[rows])
        return found

    def cost(self, model: LanguageModel, texts: Texts) -> tuple[Spent, ...]:
        cost, written = cost_of(model), (texts.length - texts.n_prompt).tolist()
        facts = zip(texts.log_prob.isnan().tolist(), texts.length.tolist(), written, strict=True)
        return tuple(reading_of(cost, n - 1, new) if unknown and new else Spent() for unknown, n, new in facts)


@runtime_checkable
class StepScorer(Scorer, Protocol):
    """A scorer that reads a text once, and can say at every place of it how promising it looked up to there."""

    def at(
        self, model: LanguageModel, texts: Texts, places: Int[Tensor, "text place"]
    ) -> Float[Tensor, "text place"]: ...


@dataclass(frozen=True)
class WorstStep:
    """The lowest score that a verifier of steps gives at the end of any step of a text, or at the text's own end.

    So it judges a whole response (Lightman et al. 2023, arXiv 2305.20050): what is read where a step ends is about that
    step, and may be forgotten at the end of the text. Costs what the verifier takes for the text: one read.
    """

    scorer: StepScorer

    @property
    def name(self) -> str:
        return self.scorer.name

    def __call__(self, model: LanguageModel, texts: Texts) -> Float[Tensor, " texts"]:
        if not len(texts):
            return torch.zeros(0, dtype=torch.float64)
        symbols = torch.tensor([texts.batch.vocabulary.token(symbol) for symbol in STEP_ENDS])
        place, last = torch.arange(texts.tokens.shape[1]), texts.length[:, None] - 1
        ends = torch.isin(texts.tokens, symbols) & (place >= texts.n_prompt[:, None]) & (place <= last)
        # Behind its ends each text has its last place, as often as it takes to make all rows alike.
        places = torch.where(ends, place, last).sort(dim=1).values[:, : int(ends.sum(1).max()) + 1]
        return self.scorer.at(model, texts, places).amin(1)

    def cost(self, model: LanguageModel, texts: Texts) -> tuple[Spent, ...]:
        return self.scorer.cost(model, texts)


SCORERS: dict[str, Scorer] = {"oracle": Oracle(), "likelihood": Likelihood()}
"""Scorers that need no training, by name."""
