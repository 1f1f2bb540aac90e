"""What becomes of a run's outputs: how many fall into each category of `diagnosis`, and at which step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from cotinterp.behavior.accuracy import Output
from cotinterp.behavior.diagnosis import Category as Category
from cotinterp.behavior.diagnosis import Diagnosis, categories, diagnose
from cotinterp.behavior.diagnosis import classify as classify
from cotinterp.behavior.labels import described, labels_of
from cotinterp.results.plots import stacked_bars
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.regimes import Regime


@dataclass(frozen=True)
class ErrorResult(Result):
    """What became of each output of one run on one side of the split, by number of operands.

    Shares are of all outputs with that number of operands, so the categories of each k sum to 1 and accuracy is
    `correct` plus `correct_with_faulty_trace`. A category says where the text first goes wrong, not which computation
    inside the model failed.
    """

    outputs: tuple[Output, ...]
    diagnoses: tuple[Diagnosis, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each k and category of the regime, zeros too: task, regime, seed, k, category, count, share."""
        examples = self.examples()
        rows = []
        for k, group in examples.groupby("k"):
            counts = group["category"].value_counts()
            for category in categories(str(self.labels["regime"])):
                count = int(counts.get(category.value, 0))
                rows.append((k, category.value, count, count / len(group)))
        return with_labels(pd.DataFrame(rows, columns=["k", "category", "count", "share"]), self.labels)

    def by_step(self) -> pd.DataFrame:
        """Where the first faults stand: task, regime, seed, k, category, fault, step, count, share of that k's outputs.

        `fault` differs from `category` where the answer is right all the same and where the output never ended. Cells
        without a fault have no row.
        """
        examples = self.examples()
        n_of_k = examples["k"].value_counts()
        faulty = examples.dropna(subset=["fault"])
        table = faulty.groupby(["k", "category", "fault", "step"]).size().rename("count").reset_index()
        table["share"] = table["count"] / table["k"].map(n_of_k)
        return with_labels(table, self.labels)

    def examples(self) -> pd.DataFrame:
        """One row for each output: k, operands, text, category, fault, step, n_steps."""
        rows = [
            (
                output.problem.k,
                output.problem.operands,
                output.text,
                diagnosis.category.value,
                None if diagnosis.fault is None else diagnosis.fault.category.value,
                None if diagnosis.fault is None else diagnosis.fault.step,
                diagnosis.n_steps,
            )
            for output, diagnosis in zip(self.outputs, self.diagnoses, strict=True)
        ]
        columns = ["k", "operands", "text", "category", "fault", "step", "n_steps"]
        return pd.DataFrame(rows, columns=columns).astype({"step": "Int64"})

    def figure(self) -> go.Figure:
        """Outputs stacked by category over k: all of them, and beside it the faulty ones alone on their own scale."""
        table = self.frame()
        table = table[table.groupby("category")["count"].transform("sum") > 0]
        panels = {"all outputs": table, "all but correct": table[table["category"] != Category.CORRECT.value]}
        shown = pd.concat([part.assign(shown=name) for name, part in panels.items() if len(part)])
        present = set(shown["category"])
        return stacked_bars(
            shown.assign(
                category=pd.Categorical(
                    shown["category"].map(_words), [_words(one.value) for one in Category if one.value in present]
                ),
            ),
            x="k",
            y="share",
            color="category",
            facet="shown",
            title=f"What became of each output: {described(self.labels)}",
            x_title="number of operands (K)",
            y_title="share of outputs",
            hover=["count"],
        )


def _words(category: str) -> str:
    return category.replace("_", " ")


def error_taxonomy(task: Task, regime: str | Regime, outputs: Sequence[Output], *, seed: int = 0) -> ErrorResult:
    """Diagnoses outputs of one run, for instance `accuracy.of_split("heldout")`.

    Raises:
        ValueError: No outputs.
    """
    if not outputs:
        raise ValueError("no outputs to diagnose; let the model answer some problems first (accuracy_by_k)")
    diagnoses = tuple(diagnose(task, output.problem, regime, output.text) for output in outputs)
    return ErrorResult(outputs=tuple(outputs), diagnoses=diagnoses, labels=labels_of(task, regime, seed))
