"""How a run goes: its stages, its learning rate, and when it has learned what it is going to.

A run of a fixed number of updates has a cosine. A run `until: converged` has a warm-up, a stable phase at one rate, and
a decay that begins when that has been decided (Hu et al. 2024, arXiv 2404.06395; Haegele et al. 2024, arXiv
2405.18392): so it can go on without having known its end, and a run with a longer budget shares its stable phase.

What decides are checks on training problems and on the validation side of the split, never on held-out problems. Each
gives a row of signals: accuracy by length on both sides, and both losses. A signal, averaged over the last fifth of all
updates, has *moved* where it is better than the worst that it was since something last moved. Losses are among them
because on the way from a table to an algorithm validation loss falls from its peak before validation accuracy rises
(Power et al. 2022, arXiv 2201.02177); that it rises, as a table's does without end, is no move. At a constant rate the
losses of a table spike, and the way back is no learning: a loss has moved only where it also did so by more than its
checks scatter about their average (root mean square).

A run ends

- `solved`: at SOLVED_CHECKS checks in a row every length is right on SOLVED of the validation problems;
- `settled`: for a share `patience` of its updates nothing has moved, and there were `settle_after` of them at least;
- `budget`: neither, and the updates are used up. Such a model has shown nothing about what it cannot learn.

`settled` is a bet, not a proof: a plateau that outlasts twice the way to it is taken for the end.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from cotinterp.training.spec import Format, OptimizerSpec, RunSpec

Ended = Literal["solved", "settled", "budget"]

SOLVED = 0.95
"""Share of validation problems of each length. The decay that follows raises it; what is left is measured afterward."""
SOLVED_CHECKS = 2
LEAST_CHECKED = 15
"""Validation problems below which a length decides nothing: half of what a held-out length is measured from."""
CHECKED = 100
"""Most problems of a length on either side."""

MOVED = 0.05
"""Least change of an accuracy that counts; where so few problems were asked that it is larger, a standard error."""
MOVED_LOSS = 0.1
"""Share of a loss that counts, of the loss and LOSS_FLOOR nats: what happens far below that is no longer learning."""
LOSS_FLOOR = 0.1
LOSSES = 2
"""Signals at the end of a row that are losses."""
WINDOW = 0.2
"""Share of the updates of a stage over which a signal is averaged."""
DECAY = 0.2
"""Share of all updates that the decay takes, as one minus a square root (Haegele et al. 2024)."""


@dataclass(frozen=True)
class Check:
    """How a model does on problems of each length, of its own training set and of the validation side.

    Attributes:
        step: Updates done.
        lengths: Numbers of operands that have LEAST_CHECKED validation problems, or all where none has.
        train_accuracy, validation_accuracy: Share of the problems of each length whose response is right in every
            token, each predicted from the true ones before it. As greedy decoding stops being right at the first wrong
            token, that is the share whose response would be written without a fault.
        train_loss, validation_loss: Nats per scored token, averaged over lengths.
        problems: Validation problems of each length that were asked.
    """

    step: int
    lengths: tuple[int, ...]
    train_accuracy: tuple[float, ...]
    validation_accuracy: tuple[float, ...]
    train_loss: float
    validation_loss: float
    problems: tuple[int, ...]

    @property
    def signals(self) -> tuple[float, ...]:
        """What may move: more is better, and 1 is the least change that counts."""
        least = [max(MOVED, 0.5 / math.sqrt(n)) for n in self.problems]
        trained = (value / MOVED for value in self.train_accuracy)
        others = (value / change for value, change in zip(self.validation_accuracy, least, strict=True))
        losses = (-math.log(loss + LOSS_FLOOR) / MOVED_LOSS for loss in (self.train_loss, self.validation_loss))
        return (*trained, *others, *losses)

    @property
    def solved(self) -> bool:
        """Whether every length is."""
        return min(self.validation_accuracy) >= SOLVED

    def logged(self) -> dict[str, float]:
        """As metrics.jsonl has it."""
        sides = {"train_accuracy": self.train_accuracy, "validation_accuracy": self.validation_accuracy}
        by_length = {
            f"{side}_{k}": value
            for side, values in sides.items()
            for k, value in zip(self.lengths, values, strict=True)
        }
        return by_length | {"train_loss": self.train_loss, "validation_loss": self.validation_loss}


@dataclass(frozen=True)
class Course:
    """Where a run is, as a value that its state holds: equal courses of equal weights go on equally.

    Attributes:
        stage: Stages that are over; those of the spec are followed by a last one, with all lengths.
        began: Updates done when the present stage began.
        right: Checks in a row, up to now, at which every length was solved.
        moved: Updates done when a signal last moved.
        smooth: The signals, averaged.
        reference: The least that each was since one last moved.
        scatter: Mean square of how far each loss was off its average, over the same updates.
        decay: Updates done when the decay began; -1 before.
        ended: Why it began; empty before, and always in a run of a fixed number of updates.
    """

    stage: int = 0
    began: int = 0
    right: int = 0
    moved: int = 0
    smooth: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    scatter: tuple[float, ...] = (0.0, 0.0)
    decay: int = -1
    ended: Ended | Literal[""] = ""

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> "Course":
        """From JSON; a run of an earlier version has none, and is at its beginning."""
        fields: dict[str, Any] = json.loads(text or "{}")
        fields |= {name: tuple(fields[name]) for name in ("smooth", "reference", "scatter") if name in fields}
        return cls(**fields)

    def seen(self, check: Check, every: int) -> "Course":
        """After a check; `every` is the number of updates between two."""
        now, right = np.array(check.signals), self.right + 1 if check.solved else 0
        if len(self.smooth) != len(now):
            return replace(self, right=right, moved=check.step, smooth=check.signals, reference=check.signals)
        # The average over the last WINDOW of the updates of this stage, by recursion: each check weighs its share.
        weight = min(1.0, every / (WINDOW * (check.step - self.began)))
        smooth = np.array(self.smooth) * (1 - weight) + now * weight
        off = now[-LOSSES:] - self.smooth[-LOSSES:]
        scatter = (1 - weight) * (self.scatter + weight * off**2)
        least = np.ones(len(now))
        least[-LOSSES:] = np.maximum(1, np.sqrt(scatter))
        moved = bool((smooth - self.reference > least).any())
        return replace(
            self,
            right=right,
            moved=check.step if moved else self.moved,
            smooth=tuple(smooth.tolist()),
            reference=tuple((smooth if moved else np.minimum(smooth, self.reference)).tolist()),
            scatter=tuple(scatter.tolist()),
        )

    def decided(self, spec: RunSpec, step: int) -> "Course":
        """With what follows from it after `step` updates; to decide twice is to decide once."""
        course, optimizer = self, spec.optimizer
        converges = optimizer.until == "converged"
        while course.stage < len(spec.stages):
            over = step - course.began >= spec.stages[course.stage].steps
            if not over and not (converges and course.right >= SOLVED_CHECKS):
                return course
            course = Course(stage=course.stage + 1, began=step)
        if not converges or course.decay >= 0:
            return course
        ended = course._ended(optimizer, step)
        return replace(course, decay=step, ended=ended) if ended else course

    def _ended(self, optimizer: OptimizerSpec, step: int) -> Ended | Literal[""]:
        done = step - self.began
        if self.right >= SOLVED_CHECKS:
            return "solved"
        if done >= optimizer.settle_after and step - self.moved >= optimizer.patience * done:
            return "settled"
        return "budget" if step >= self._latest(optimizer) else ""

    def _latest(self, optimizer: OptimizerSpec) -> int:
        """Updates after which the decay begins for want of more."""
        return max(self.began, math.floor((1 - DECAY) * self.most(optimizer)))

    def most(self, optimizer: OptimizerSpec) -> int:
        """Updates of the whole run if nothing ends it earlier; only in the last stage is it known."""
        return self.began + optimizer.steps

    def last(self, spec: RunSpec) -> int:
        """Updates of the whole run, as far as it is known: a stage, a stable phase may end sooner."""
        rest = sum(stage.steps for stage in spec.stages[self.stage :])
        if self.decay < 0:
            return self.most(spec.optimizer) + rest
        return min(self.most(spec.optimizer), self.decay + max(1, math.ceil(self.decay * DECAY / (1 - DECAY))))

    def began_by(self, spec: RunSpec, step: int) -> bool:
        """Whether a run of this spec would have come to this course: whether its budget lets it go on so far."""
        return self.decay < 0 and step <= self._latest(spec.optimizer)

    def lengths(self, spec: RunSpec) -> range:
        """Numbers of operands of the problems that are shown now."""
        k_max = spec.stages[self.stage].k_max if self.stage < len(spec.stages) else None
        return range(spec.k_min, (spec.k_max if k_max is None else k_max) + 1)

    def mix(self, spec: RunSpec) -> tuple[Format, ...]:
        """How responses are written now."""
        shown = spec.stages[self.stage].mix if self.stage < len(spec.stages) else spec.mix
        return shown or (Format(regime=spec.regime),)

    def rate(self, spec: RunSpec, step: int) -> float:
        """Learning rate of update `step` (from 0)."""
        optimizer = spec.optimizer
        if self.stage < len(spec.stages):
            high = spec.stages[self.stage].lr or optimizer.lr
            return high * _risen(optimizer, step)
        if optimizer.until == "steps":
            return learning_rate(optimizer, step - self.began, risen=self.began > 0)
        if self.decay < 0:
            return optimizer.lr * _risen(optimizer, step)
        gone = math.sqrt((step - self.decay + 1) / (self.last(spec) - self.decay))
        return optimizer.lr * (1 - (1 - optimizer.final_lr_fraction) * gone)


BEGINNING = Course()


def learning_rate(optimizer: OptimizerSpec, step: int, *, risen: bool = False) -> float:
    """Rate of update `step` (from 0): linear rise over the warm-up, then half a cosine down to the final fraction.

    The last step of the warm-up and the first after it have the highest rate, the last update has the lowest.

    Args:
        risen: Without the warm-up, which was in a stage before.
    """
    warmup = 0 if risen else optimizer.warmup
    if step < warmup:
        return optimizer.lr * _risen(optimizer, step)
    span = optimizer.steps - 1 - warmup
    progress = (step - warmup) / span if span > 0 else 0.0
    shape = 0.5 * (1 + math.cos(math.pi * progress))
    return optimizer.lr * (optimizer.final_lr_fraction + (1 - optimizer.final_lr_fraction) * shape)


def _risen(optimizer: OptimizerSpec, step: int) -> float:
    """Share of the highest rate that update `step` has in the warm-up; 1 after it."""
    return (step + 1) / optimizer.warmup if step < optimizer.warmup else 1.0
