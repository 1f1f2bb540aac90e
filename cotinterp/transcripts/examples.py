"""Solved examples in front of a question: an in-context cue for how to respond, beside that of a mode token.

`<3+4>{3+4=7}7#<5+6>{5+6=11}11#` shows one problem with its trace before it asks another. The symbols of an example are
given: they have a role of their own, their number as step, and carry no loss. So `Batch.where` and the loss mask mean
the question and its response, as they do without examples. Few-shot and zero-shot after Wei et al. 2022 (arXiv
2201.11903) and Kojima et al. 2022 (arXiv 2205.11916), on models that were trained on transcripts with examples
(`training.spec.Format.shots`): one that never saw any has not learned what stands at such positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime, Token, get_regime
from cotinterp.transcripts.render import Transcript, longest_transcript, render
from cotinterp.transcripts.roles import Role


@dataclass(frozen=True, kw_only=True)
class Shots:
    """So many solved examples before every question.

    Attributes:
        n: How many.
        regime: How they are written, whatever the question is asked in: with their traces, or without.
        pool: Problems that they are drawn from, such as those of the training. Those of one question are distinct, and
            none of them is the question; it may be a reordering of it.
        seed: Row i of what is asked has the examples that seed, i and pool decide.
    """

    n: int
    regime: str | Regime
    pool: tuple[Problem, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be 1 or more examples, got {self.n}; leave shots out to ask without any")
        if (distinct := len(set(self.pool))) <= self.n:
            raise ValueError(
                f"{self.n} examples other than the question are wanted, and the pool has {distinct} distinct problems: "
                "give it more"
            )

    def before(self, task: Task, transcripts: Sequence[Transcript]) -> tuple[Transcript, ...]:
        """Each transcript with examples of its own in front."""
        return tuple(
            with_examples(one, [render(task, problem, self.regime) for problem in self._drawn(row, one.problem)])
            for row, one in enumerate(transcripts)
        )

    def _drawn(self, row: int, asked: Problem) -> list[Problem]:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(3, row)))
        drawn: list[Problem] = []
        while len(drawn) < self.n:
            one = self.pool[int(rng.integers(len(self.pool)))]
            if one != asked and one not in drawn:
                drawn.append(one)
        return drawn


def with_examples(transcript: Transcript, examples: Sequence[Transcript]) -> Transcript:
    """The transcript after these, whose symbols become EXAMPLE tokens: step is the example's number, from 0."""
    shown = [
        Token(token.symbol, Role.EXAMPLE, number, part, scored=False)
        for number, example in enumerate(examples)
        for part, token in enumerate(example.tokens)
    ]
    return Transcript(transcript.problem, transcript.regime, (*shown, *transcript.tokens))


def longest_with_examples(task: Task, k: int, regime: str | Regime, shots: int, examples: str | Regime) -> int:
    """Most tokens of a transcript after so many examples, all with up to `k` operands (`longest_transcript`)."""
    shown = shots * longest_transcript(task, k, get_regime(examples)) if shots else 0
    return shown + longest_transcript(task, k, regime)
