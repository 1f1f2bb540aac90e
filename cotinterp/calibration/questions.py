"""What a calibration question is: an instrument, the truth for each model, and how the answer is read off."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cotinterp.calibration.ground_truth import GroundTruth


class Answer(NamedTuple):
    """What an instrument says, and the numbers that it says so on."""

    answer: str
    evidence: str


Ask = Callable[[GroundTruth, bool], Answer]
"""A model and whether to be quick; the answer."""


@dataclass(frozen=True)
class Question:
    """One question to the bench.

    Attributes:
        instrument: Which instrument answers it.
        text: The question, in words.
        truth: The right answer for a model, from its construction; None where the question does not apply.
        ask: Runs the instrument and reads the answer off by a fixed rule. It may look up which head a name denotes, to
            know what to measure, and never the truth.
        before: The same by the rule of the first version, where it had one: the pairs, the statistic and the reading of
            then, with the instruments of today.
    """

    instrument: str
    text: str
    truth: Callable[[GroundTruth], str | None]
    ask: Ask
    before: Ask | None = None


def by_kind(**truths: str) -> Callable[[GroundTruth], str | None]:
    """A truth that depends on the kind of model alone: `by_kind(reader="follows", recomputer="ignores")`."""

    def truth(model: GroundTruth) -> str | None:
        return truths.get(model.kind)

    return truth


def percent(value: float) -> str:
    """`83.4%`: rates in evidence."""
    return f"{value:.1%}"
