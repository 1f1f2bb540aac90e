"""Problem and regime in, tokens with their roles out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import itemgetter

import numpy as np

from cotinterp.tasks.task import PromptSymbol, Task
from cotinterp.transcripts.problems import Problem, require_own, widest_problem
from cotinterp.transcripts.regimes import Regime, Token, get_regime, sign
from cotinterp.transcripts.roles import PROMPT_ROLES, Role


@dataclass(frozen=True)
class Transcript:
    """A prompt and its response. `<3+4+5+6>` -> `{3+4=7;7+5=12;12+6=18}18#` in the regime `cot`."""

    problem: Problem
    regime: str
    tokens: tuple[Token, ...]

    @cached_property
    def text(self) -> str:
        """All symbols."""
        return "".join(map(itemgetter(0), self.tokens))

    @cached_property
    def n_prompt(self) -> int:
        """Number of symbols that the model is given."""
        return sum(map(PROMPT_ROLES.__contains__, map(itemgetter(1), self.tokens)))

    @property
    def prompt(self) -> str:
        """What the model is given."""
        return self.text[: self.n_prompt]

    @property
    def response(self) -> str:
        """What the model is to write."""
        return self.text[self.n_prompt :]

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"Transcript({self.text!r}, regime={self.regime!r})"


def prompt(task: Task, problem: Problem, regime: str | Regime = "direct") -> Iterator[Token]:
    """The question, the same in every regime but for its last symbol (`Regime.prompt_end`).

    ValueError for a problem that is none of the task (`require_own`).
    """
    require_own(task, problem)
    yield sign("<", Role.PROMPT_START)
    yield from map(_asked, task.prompt(problem.operands))
    yield sign(get_regime(regime).prompt_end, Role.PROMPT_END)


@lru_cache(maxsize=2**16)
def _asked(symbol: PromptSymbol) -> Token:
    return Token(symbol.text, Role(symbol.kind), symbol.number, symbol.part, symbol.value)


def render(task: Task, problem: Problem, regime: str | Regime) -> Transcript:
    """The transcript of `problem` in `regime`. ValueError for a problem that is none of the task (`require_own`)."""
    regime = get_regime(regime)
    return Transcript(problem, regime.name, (*prompt(task, problem, regime), *regime.response(task, problem)))


def render_for_training(task: Task, problem: Problem, regime: str | Regime, rng: np.random.Generator) -> Transcript:
    """The transcript that a model of `regime` is trained on; `render` but for regimes that draw something from `rng`.

    `problem` in the result is the one that was asked, whatever the trace says.
    """
    regime = get_regime(regime)
    response = regime.training_response(task, problem, rng)
    return Transcript(problem, regime.name, (*prompt(task, problem, regime), *response))


def render_all_for_training(
    task: Task,
    problems: Iterable[Problem],
    regime: str | Regime,
    rng_of_row: Callable[[int], np.random.Generator],
) -> tuple[Transcript, ...]:
    """`render_for_training` of every problem, row i with the generator `rng_of_row(i)`.

    A generator is made only where the regime draws something (`Regime.draws`): making thousands takes longer than
    rendering.
    """
    regime = get_regime(regime)
    if not regime.draws:
        return tuple(render(task, problem, regime) for problem in problems)
    return tuple(render_for_training(task, problem, regime, rng_of_row(row)) for row, problem in enumerate(problems))


def without_first_steps(transcript: Transcript, n: int, *, dots: bool = False) -> Transcript:
    """The transcript with the first `n` steps of its trace left out; without braces where no step is left.

    With `dots` a dot stands for each of them, in front of the steps that are left, and the braces stay:
    `{..12+6=18}18#` without the first two (Hao et al. 2024, arXiv 2412.06769).

    `{3+4=7;7+5=12;12+6=18}18#` without its first two is `{12+6=18}18#`, without three `18#`: what stepwise
    internalization shows (Deng et al. 2024, arXiv 2405.14838, who leave out tokens where this leaves out whole steps).
    """
    outside = PROMPT_ROLES | {Role.ANSWER, Role.END}
    left = [token for token in transcript.tokens if token.role in outside or not 1 <= token.step <= n]
    if dots:
        gone = sorted({token.step for token in transcript.tokens if 1 <= token.step <= n and token.role not in outside})
        after = 1 + [token.role for token in left].index(Role.TRACE_START)
        left[after:after] = [sign(".", Role.FILLER, step) for step in gone]
    elif all(token.role in outside | {Role.TRACE_START, Role.TRACE_END} for token in left):
        left = [token for token in left if token.role in outside]
    return Transcript(transcript.problem, transcript.regime, tuple(left))


def longest_transcript(task: Task, k: int, regime: str | Regime) -> int:
    """A tight upper bound on the number of tokens of a transcript with `k` operands, in training as well.

    Every written state is as wide as the widest that the task can reach at its step.
    """
    return len(render(task, widest_problem(task, k), regime)) + get_regime(regime).longest_extra(task, k)
