"""How often a model is right when it is left alone, by number of operands and side of the split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from cotinterp.behavior.decoding import LanguageModel, verified_greedy
from cotinterp.behavior.labels import described, labels_of
from cotinterp.results.intervals import wilson
from cotinterp.results.plots import lines
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary


@dataclass(frozen=True)
class Output:
    """What the model wrote for one problem, and whether it is right.

    Attributes:
        text: The whole free-running response, stop symbol included where it was written.
        ended: The stop symbol was written before the limit.
        correct: It ended and its answer is the task's, whatever the trace says.
        exact: The response is the expected one, symbol for symbol.
    """

    problem: Problem
    split: str
    text: str
    ended: bool
    correct: bool
    exact: bool


@dataclass(frozen=True)
class AccuracyResult(Result):
    """Free-running accuracy: the share of problems whose whole output ends with the right answer.

    The whole output is the model's own; nothing is teacher-forced. The interval is Wilson's over problems: it says how
    well this one trained model was measured, nothing about another seed. `train` problems are distinct ones out of the
    training sample, `heldout` ones were never trained on; on a commutative task a held-out problem may still have a
    reordered twin in training.
    """

    outputs: tuple[Output, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each split and k: task, regime, seed, split, k, n, correct, accuracy, ci_low, ci_high."""
        counts = self.examples().groupby(["split", "k"], sort=False)["correct"].agg(["size", "sum"]).reset_index()
        intervals = [wilson(int(hits), int(n)) for hits, n in zip(counts["sum"], counts["size"], strict=True)]
        table = pd.DataFrame(
            {
                "split": counts["split"],
                "k": counts["k"],
                "n": counts["size"],
                "correct": counts["sum"],
                "accuracy": counts["sum"] / counts["size"],
                "ci_low": [interval.low for interval in intervals],
                "ci_high": [interval.high for interval in intervals],
            }
        )
        return with_labels(table.sort_values(["split", "k"], kind="stable", ignore_index=True), self.labels)

    def examples(self) -> pd.DataFrame:
        """One row for each problem: split, k, operands, text, ended, correct, exact."""
        rows = [(x.split, x.problem.k, x.problem.operands, x.text, x.ended, x.correct, x.exact) for x in self.outputs]
        return pd.DataFrame(rows, columns=["split", "k", "operands", "text", "ended", "correct", "exact"])

    def of_split(self, split: str) -> tuple[Output, ...]:
        """The outputs of one side of the split. KeyError, with the sides that were measured, where there are none."""
        chosen = tuple(output for output in self.outputs if output.split == split)
        if not chosen:
            measured = sorted({output.split for output in self.outputs})
            raise KeyError(f"split {split!r} was not measured; measured: {', '.join(measured)}")
        return chosen

    def figure(self) -> go.Figure:
        """Accuracy by number of operands; held-out problems solid, training problems dashed."""
        table = self.frame()
        names = {"heldout": "held-out problems", "train": "training problems"}
        return lines(
            table.assign(split=table["split"].map(lambda split: names.get(split, split))),
            x="k",
            y="accuracy",
            low="ci_low",
            high="ci_high",
            dash="split",
            bounds=(0.0, 1.0),
            title=f"Free-running accuracy: {described(self.labels)}",
            x_title="number of operands (K)",
            y_title="share of answers that are right",
            hover=["n"],
        )


def accuracy_by_k(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Mapping[str, Sequence[Problem]],
    *,
    seed: int = 0,
    max_new: int | None = None,
    batch_size: int = 256,
) -> AccuracyResult:
    """Lets `model` answer the problems of each split and compares its answers with the task's.

    Args:
        problems: Problems by split, for instance from `evaluation_problems`.
        seed: Label of the trained model in the tables.
        max_new: Symbols after which a response is given up; None as in `decoding.prefixes`.

    Raises:
        ValueError: A split without problems.
    """
    empty = [split for split, chosen in problems.items() if not chosen]
    if empty or not problems:
        raise ValueError(f"no problems to measure accuracy on in {', '.join(empty) or 'any split'}; sample some first")
    asked = [(split, problem) for split, chosen in problems.items() for problem in chosen]
    transcripts = [render(task, problem, regime) for _, problem in asked]
    batch = collate(transcripts, Vocabulary.of(task))
    texts = verified_greedy(model, batch, max_new=max_new, batch_size=batch_size)
    outputs = []
    for (split, problem), expected, text in zip(asked, transcripts, texts, strict=True):
        correct = final_answer(task, text) == problem.answer
        outputs.append(Output(problem, split, text, "#" in text, correct, text == expected.response))
    return AccuracyResult(outputs=tuple(outputs), labels=labels_of(task, regime, seed))
