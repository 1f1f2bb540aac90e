"""What a method answered, problem by problem, and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from cotinterp.behavior.search.spent import Spent
from cotinterp.behavior.search.writer import Draft, Writer
from cotinterp.figures.search import compute_figure, search_tree_figure
from cotinterp.results.intervals import wilson
from cotinterp.results.result import Result, with_labels
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import Problem


class TreeNode(NamedTuple):
    """One prefix of a search tree.

    Attributes:
        parent: Number of the node before it, -1 for the prompt.
        step: Steps that are written, 0 for the prompt.
        text: The last of them.
        score: `beam`: the scorer's, of the prefix. `mcts`: mean score of the finished responses that went through it.
            NaN where there is none.
        visits: How often the method came by: draws of it (`beam`), responses through it (`mcts`).
        right: Whether what is written is how the right response begins.
        chosen: Whether the answer goes through it.
    """

    parent: int
    step: int
    text: str
    score: float
    visits: int
    right: bool
    chosen: bool


@dataclass(frozen=True)
class SearchTree(Result):
    """The prefixes that a method tried on one problem.

    Attributes:
        nodes: The prompt first, each before its children.
        response: What was chosen.
    """

    nodes: tuple[TreeNode, ...]
    response: str
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each prefix: task, ..., node, parent, step, text, score, visits, right, chosen (`TreeNode`)."""
        table = pd.DataFrame(self.nodes, columns=list(TreeNode._fields))
        table.insert(0, "node", range(len(table)))
        return with_labels(table, self.labels)

    def figure(self) -> go.Figure:
        """The tree from left to right, wrong steps marked."""
        words = ", ".join(filter(None, (str(self.labels[name]) for name in ("task", "method", "scorer"))))
        return search_tree_figure(self.frame(), title=f"{words}: {self.response}")


@dataclass(frozen=True)
class Answer:
    """The response that was chosen for one problem.

    Attributes:
        text: The response, stop symbol included where it was written.
        correct: It ended and its answer is the task's, whatever the trace says.
        drawn: Complete responses that it was chosen from, those without an answer among them.
        score: What it was chosen for: the scorer's number, or the share of the votes; NaN where nothing was chosen.
        spent: Everything that was spent on the problem.
        tree: Nodes of its tree, the prompt first; empty where none was kept.
        votes: Answers that `vote` counted and how many responses gave each, most first; empty for other methods.
    """

    problem: Problem
    text: str
    correct: bool
    drawn: int
    score: float
    spent: Spent
    tree: tuple[TreeNode, ...] = ()
    votes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Answers(Result):
    """Answers to some problems under a budget, and what they cost.

    Accuracy is that of the chosen response; its interval is Wilson's over problems and describes one trained model and
    one run of the method. Costs are means over problems, of everything that was written and read, not of the chosen
    response alone. They are counts of necessary work, no times.
    """

    answers: tuple[Answer, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each k: task, regime, method, scorer, budget, k, n, correct, accuracy, ci_*, then mean costs.

        The costs: written, read, passes, flops (`Spent`).
        """
        rows = []
        for k, group in self.examples().groupby("k"):
            n, hits = len(group), int(group["correct"].sum())
            interval = wilson(hits, n)
            costs = [float(group[name].mean()) for name in COSTS]
            rows.append((k, n, hits, hits / n, interval.low, interval.high, *costs))
        columns = ["k", "n", "correct", "accuracy", "ci_low", "ci_high", *COSTS]
        return with_labels(pd.DataFrame(rows, columns=columns), self.labels)

    def examples(self) -> pd.DataFrame:
        """One row for each problem: k, operands, text, correct, drawn, score, written, read, passes, flops."""
        rows = [
            (x.problem.k, x.problem.operands, x.text, x.correct, x.drawn, x.score)
            + tuple(getattr(x.spent, name) for name in COSTS)
            for x in self.answers
        ]
        columns = ["k", "operands", "text", "correct", "drawn", "score", *COSTS]
        return pd.DataFrame(rows, columns=columns).astype({"flops": float})

    def tree(self, problem: int = 0) -> SearchTree:
        """The search tree of one problem. ValueError where none was kept."""
        answer = self.answers[problem]
        if not answer.tree:
            raise ValueError("no tree was kept: ask `beam` or `mcts` for it with Search(trees=True)")
        return SearchTree(answer.tree, answer.text, self.labels)

    def figure(self) -> go.Figure:
        """Accuracy against the tokens that were written, by number of operands."""
        return compute_figure(self.frame())


COSTS = ["written", "read", "passes", "flops"]


def finished(
    writer: Writer,
    method: str,
    chosen: Sequence[Draft],
    *,
    drawn: Sequence[int],
    scores: Sequence[float] = (),
    trees: Sequence[tuple[TreeNode, ...]] = (),
    votes: Sequence[tuple[tuple[int, int], ...]] = (),
) -> Answers:
    """The answers of a method, once it has chosen a draft for each problem."""
    found = []
    for row, draft in enumerate(chosen):
        problem, text = writer.batch.transcripts[row].problem, writer.text(draft)
        found.append(
            Answer(
                problem=problem,
                text=text,
                correct=final_answer(writer.task, text) == problem.answer,
                drawn=drawn[row],
                score=scores[row] if scores else nan,
                spent=writer.spent[row],
                tree=trees[row] if trees else (),
                votes=votes[row] if votes else (),
            )
        )
    regimes = dict.fromkeys(one.regime for one in writer.batch.transcripts)
    labels: dict[str, str | int] = {"task": writer.task.name, "regime": ", ".join(regimes), "method": method}
    labels |= {"scorer": "" if writer.scorer is None else writer.scorer.name, "budget": writer.budget}
    return Answers(tuple(found), labels)
