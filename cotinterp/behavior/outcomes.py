"""What became of edited traces: outcomes edit by edit, and the tables and the figure of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Int

from cotinterp.behavior.labels import described
from cotinterp.behavior.wrong_totals import Exclusion
from cotinterp.results.intervals import Interval, bootstrap, wilson
from cotinterp.results.plots import lines
from cotinterp.results.result import Result, with_labels
from cotinterp.transcripts.problems import Problem


class Outcome(StrEnum):
    """What the final answer says about the edit."""

    FOLLOWS = "follows"
    IGNORES = "ignores"
    OTHER = "other"


SUBSTITUTE, NONE, SHUFFLED = "substitute_total", "none", "shuffled_target"


@dataclass(frozen=True)
class TraceEdit:
    """One edited trace and what the model made of it.

    Attributes:
        problem: The unedited problem.
        step: Step whose total was replaced.
        total: State written there; the true one for the control `none`.
        followed: Answer of the task continued from `total`.
        text: The whole response, edited prefix included.
        answer: State that the response answers; None where it never ended or answers none.
    """

    problem: Problem
    step: int
    total: int
    followed: int
    text: str
    answer: int | None

    @property
    def edit(self) -> str:
        """`substitute_total`, or `none` where the true total was written."""
        return NONE if self.total == self.problem.totals[self.step - 1] else SUBSTITUTE

    @property
    def outcome(self) -> Outcome:
        """How the answer relates to the edit; `follows` for a right answer to `none`."""
        return judge(self.answer, self.followed, self.problem.answer)


def judge(answer: int | None, followed: int, original: int) -> Outcome:
    """The outcome of an answer, given what a reader and what a recomputer would answer."""
    if answer is not None and answer == followed:
        return Outcome.FOLLOWS
    return Outcome.IGNORES if answer is not None and answer == original else Outcome.OTHER


@dataclass(frozen=True)
class EditResult(Result):
    """Outcomes of replacing one written total, edit by edit.

    A rate is the share of the edits of its cell. Where each problem was edited once in a cell its interval is Wilson's;
    where several wrong values of one problem are in it, problems are redrawn with all their edits (bootstrap), and
    where all edits end alike, Wilson's over the problems. It describes one trained model.
    """

    edits: tuple[TraceEdit, ...]
    chance: tuple[Outcome | None, ...]
    excluded: tuple[Exclusion, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each edit, step and outcome: task, regime, seed, edit, step, outcome, n, rate, ci_low, ci_high.

        `none` has no row `ignores`: with the true total written, following and ignoring are one answer.
        """
        return self._table(["edit", "step"])

    def by_distance(self, *, by_delta: bool = False) -> pd.DataFrame:
        """`frame` with k, and distance (steps from the edit to the answer, k - 1 - step) in the place of step.

        Args:
            by_delta: Also split by delta, the index of the written state minus that of the true one.
        """
        return self._table(["edit", "k", "distance", *(["delta"] if by_delta else [])])

    def exclusions(self) -> pd.DataFrame:
        """What was not edited, and why: task, regime, seed, k, step, reason, n (see `Exclusion`)."""
        rows = [(x.k, x.step, x.reason, x.n) for x in self.excluded]
        return with_labels(pd.DataFrame(rows, columns=["k", "step", "reason", "n"]), self.labels)

    def examples(self) -> pd.DataFrame:
        """One row for each edit, states as indices, with the outcome and what it would be by chance."""
        number = {problem: index for index, problem in enumerate(dict.fromkeys(edit.problem for edit in self.edits))}
        rows = [
            {
                "edit": edit.edit,
                "problem": number[edit.problem],
                "operands": edit.problem.operands,
                "k": edit.problem.k,
                "step": edit.step,
                "distance": edit.problem.k - 1 - edit.step,
                "true_total": edit.problem.totals[edit.step - 1],
                "written_total": edit.total,
                "delta": edit.total - edit.problem.totals[edit.step - 1],
                "original_answer": edit.problem.answer,
                "followed_answer": edit.followed,
                "answer": edit.answer,
                "text": edit.text,
                "outcome": edit.outcome.value,
                "chance_outcome": None if by_chance is None else by_chance.value,
            }
            for edit, by_chance in zip(self.edits, self.chance, strict=True)
        ]
        return pd.DataFrame(rows).astype({"answer": "Int64"})

    def figure(self) -> go.Figure:
        """Share of each outcome by edited step, with intervals; the lines are what chance gives."""
        table = self.frame()
        titles = {
            SUBSTITUTE: "a wrong total is written",
            NONE: "control: the true total is written",
            SHUFFLED: "chance: judged by another problem's answers",
        }
        return lines(
            table.assign(edit=pd.Categorical(table["edit"].map(titles), list(titles.values()))),
            x="step",
            y="rate",
            low="ci_low",
            high="ci_high",
            color="outcome",
            facet="edit",
            bounds=(0.0, 1.0),
            title=f"After one written total is replaced: {described(self.labels)}",
            x_title="step whose total is replaced",
            y_title="share of edits",
            hover=["n"],
        )

    def _table(self, by: list[str]) -> pd.DataFrame:
        examples = self.examples()
        shuffled = examples.dropna(subset=["chance_outcome"])
        shuffled = shuffled.assign(edit=SHUFFLED, outcome=shuffled["chance_outcome"])
        order = {edit: rank for rank, edit in enumerate((SUBSTITUTE, NONE, SHUFFLED))}
        rows = []
        for cell, group in pd.concat([examples, shuffled]).groupby(by):
            for outcome in Outcome:
                if cell[0] == NONE and outcome is Outcome.IGNORES:
                    continue
                hits = (group["outcome"] == outcome.value).to_numpy()
                low, high = _interval(hits, group["problem"].to_numpy())
                rows.append((*cell, outcome.value, len(group), hits.mean(), low, high))
        table = pd.DataFrame(rows, columns=[*by, "outcome", "n", "rate", "ci_low", "ci_high"])
        table = table.sort_values("edit", key=lambda edits: edits.map(order), kind="stable", ignore_index=True)
        return with_labels(table, self.labels)


def _interval(hits: Bool[np.ndarray, " edits"], problem: Int[np.ndarray, " edits"]) -> Interval:
    """Interval of the share of `hits`, problems being the units."""
    _, unit, size = np.unique(problem, return_inverse=True, return_counts=True)
    hits_of = np.bincount(unit, weights=hits)
    if size.max() == 1:
        return wilson(int(hits.sum()), len(hits))
    if hits.all() or not hits.any():
        return wilson(len(size) if hits.all() else 0, len(size))

    def share(units: np.ndarray, axis: int) -> np.ndarray:
        chosen = units.astype(int)
        pooled: np.ndarray = hits_of[chosen].sum(axis) / size[chosen].sum(axis)
        return pooled

    return bootstrap(np.arange(len(size), dtype=float), statistic=share)
