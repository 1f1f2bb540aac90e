"""What of an answer does a model know? Its class in a coarser automaton, where the whole state is still a guess.

A quotient of a fold is a partition of its states that every step respects: states of one class stay in one class,
whatever the next operand is. So there is a smaller automaton whose states are the classes, and a model may have learned
that one alone. In s3 the even and the odd permutations are such classes, and their automaton is a parity, which one
layer can do; an automaton that solves its quotients one after the other is how shallow shortcuts are built (Krohn &
Rhodes 1965; Liu et al. 2022, arXiv 2210.10749). A model that knows the class and guesses within it is right in one of
three, on every length, and neither a table nor an algorithm for the whole task.

This says what a model answers, not how: that the class is computed by a circuit of its own is not shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Int

from cotinterp.behavior.accuracy import AccuracyResult
from cotinterp.figures.lines import lines
from cotinterp.results.intervals import wilson
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import FoldTask
from cotinterp.transcripts.parsing import final_answer

MOST_STATES = 128
"""Every pair of states is tried: of 128 there are 8,128, some seconds."""


@dataclass(frozen=True, eq=False)
class Quotient:
    """A partition of the states that every step respects.

    Attributes:
        name: Its classes, for people: `034|125`.
        of: The class of each state.
    """

    name: str
    of: Int[np.ndarray, " states"]


def quotients(task: FoldTask) -> tuple[Quotient, ...]:
    """The finest partitions that put two given states into one class, for every two states; coarsest first.

    Neither the states themselves nor all states together are among them, so that a fold without a coarser automaton
    has none. What several of them join is respected too, and is not listed unless two states give it.

    Raises:
        ValueError: The task has more than MOST_STATES states, or steps that lead out of them.
    """
    n = task.n_states
    if n > MOST_STATES:
        raise ValueError(f"task {task.name!r} has {n} states; quotients are looked for among at most {MOST_STATES}")
    state, operand = (axis.ravel() for axis in np.indices((n, task.n_operands)))
    after = np.asarray(task.step(state, operand)).reshape(n, task.n_operands)
    if outside := np.argwhere((after < 0) | (after >= n)).tolist():
        ((one, other), *_) = outside
        raise ValueError(
            f"the states of task {task.name!r} are no automaton: operand {task.operands[other]!r} leads from "
            f"{task.states[one]!r} out of its {n} states, so that no partition is respected by every step"
        )
    found: dict[bytes, Int[np.ndarray, " states"]] = {}
    for one, other in combinations(range(n), 2):
        classes = _closed(after, one, other)
        if classes.max() > 0:
            found.setdefault(classes.tobytes(), classes)
    ordered = sorted(found.values(), key=lambda classes: (classes.max(), classes.tolist()))
    return tuple(Quotient(_name(task, classes, number), classes) for number, classes in enumerate(ordered, start=1))


def _closed(after: Int[np.ndarray, "states operands"], one: int, other: int) -> Int[np.ndarray, " states"]:
    """The finest partition that joins two states and that every step respects, numbered by first appearance."""
    classes, waiting = np.arange(len(after)), [(one, other)]
    while waiting:
        a, b = (classes[state] for state in waiting.pop())
        if a != b:
            classes[classes == max(a, b)] = min(a, b)
            first, second = after[min(a, b)], after[max(a, b)]
            waiting += [pair for pair in zip(first.tolist(), second.tolist(), strict=True) if pair[0] != pair[1]]
    return np.unique(classes, return_inverse=True)[1].reshape(-1)


def _name(task: FoldTask, classes: Int[np.ndarray, " states"], number: int) -> str:
    """`034|125`; its number and that of its classes where that would be long."""
    gap = "" if all(len(state) == 1 for state in task.states) else " "
    text = "|".join(
        gap.join(task.states[s] for s in np.flatnonzero(classes == one)) for one in range(classes.max() + 1)
    )
    return text if len(text) <= 40 else f"{number}: {classes.max() + 1} classes"


@dataclass(frozen=True, eq=False)
class QuotientResult(Result):
    """How often the answer's class is right, and the whole answer where it is."""

    cells: pd.DataFrame
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each split, quotient and k.

        task, regime, run_seed, split, quotient, classes, k, n, then `accuracy`, the share of problems whose answer is
        in the right class, with a Wilson interval over problems (`ci_low`, `ci_high`; no answer is in no class),
        `chance`, that of always naming the most frequent class of these problems, `whole`, the share that is right
        altogether, and `within`, the same among those whose class is right (NaN where there are none), beside
        `within_chance`, one over the mean size of the class.
        """
        return with_labels(self.cells, self.labels)

    def figure(self) -> go.Figure:
        """Share of right classes by number of operands, one line a quotient, held-out problems."""
        held = self.frame().query("split == 'heldout'")
        return lines(
            held if len(held) else self.frame(),
            x="k",
            y="accuracy",
            low="ci_low",
            high="ci_high",
            color="quotient",
            bounds=(0.0, 1.0),
            title="Answers in the right class, by quotient",
            x_title="operands K",
            y_title="share of problems",
        )


def accuracy_by_quotient(task: FoldTask, accuracy: AccuracyResult) -> QuotientResult:
    """The same outputs judged by class instead of by state.

    Raises:
        ValueError: The accuracy is of another task, or the task has no quotient.
    """
    if accuracy.labels.get("task") != task.name:
        raise ValueError(f"the accuracy was measured on task {accuracy.labels.get('task')!r}, not on {task.name!r}")
    known = quotients(task)
    if not known:
        raise ValueError(
            f"task {task.name!r} has no quotient: no partition of its states is respected by every step, so that there "
            "is no part of an answer to be known alone"
        )
    answers = [final_answer(task, output.text) if output.ended else None for output in accuracy.outputs]
    given = np.array([-1 if answer is None else answer for answer in answers])
    truth = np.array([output.problem.answer for output in accuracy.outputs])
    where = pd.DataFrame({"split": [x.split for x in accuracy.outputs], "k": [x.problem.k for x in accuracy.outputs]})
    rows = []
    for (split, k), cell in where.groupby(["split", "k"], sort=True):
        mine, true = given[cell.index], truth[cell.index]
        for quotient in known:
            right = (mine >= 0) & (quotient.of[mine] == quotient.of[true])
            interval = wilson(int(right.sum()), len(right))
            sizes = np.bincount(quotient.of)[quotient.of[true]]
            rows.append(
                {
                    "split": split,
                    "quotient": quotient.name,
                    "classes": int(quotient.of.max()) + 1,
                    "k": k,
                    "n": len(right),
                    "accuracy": right.mean(),
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "chance": np.bincount(quotient.of[true]).max() / len(true),
                    "whole": (mine == true).mean(),
                    "within": (mine == true)[right].mean() if right.any() else np.nan,
                    "within_chance": 1 / sizes.mean(),
                }
            )
    return QuotientResult(pd.DataFrame(rows), accuracy.labels)
