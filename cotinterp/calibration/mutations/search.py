"""Mistakes of search: what is no answer votes, budgets and trees of other problems are used, scores stand elsewhere."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from cotinterp.behavior.search import methods, spent, trees, writer
from cotinterp.behavior.search.answers import Answers
from cotinterp.behavior.search.methods import METHODS
from cotinterp.behavior.search.scoring import Likelihood
from cotinterp.behavior.search.spent import Spent
from cotinterp.behavior.search.trees import Node
from cotinterp.behavior.search.writer import Draft, Search, Writer
from cotinterp.calibration.mutations.trial import Mutation, instead, require
from cotinterp.calibration.search_questions import TASK, WORLDS, Erring, P, accuracy, agrees, copies
from cotinterp.models.flops import Cost
from cotinterp.tasks import Task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

N = 600


def check_world(method: str) -> None:
    """A method solves as many problems of the scripted generator as was worked out by hand."""
    world = next(one for one in WORLDS if one.method == method)
    words, expected = next(iter(world.accounts.items()))
    found = accuracy(world.answers(N))
    require(agrees(found, expected, N), f"{method} solves {found:.1%}, and {words} is {expected:.1%}")


def counted(task: Task, text: str) -> int:
    """The answer, and a number for what is none."""
    found = final_answer(task, text)
    return -1 if found is None else found


def asked(method: str, batch: Batch, budget: int, **search: float | int) -> Answers:
    """A method on problems of the scripted generator."""
    settings = Search(trees=True, **search)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    return METHODS[method](Erring(P), TASK, batch, Likelihood(), budget, rng=rng, search=settings)


def check_budget() -> None:
    """No method writes more for a problem than its budget."""
    for method in METHODS:
        for budget in (1, 2, 6, 7, 8, 40):
            found = asked(method, copies(1, 2, 3, n=20), budget, temperature=1.5)
            most = max(answer.spent.written for answer in found.answers)
            require(most <= budget, f"{method} writes {most} tokens for a budget of {budget}")


LEFT, SCORE, WRITING, BACK_UP = Writer.left, Writer.score, spent.writing, trees.back_up


def one_more(self: Writer, row: int) -> int:
    """What is left of a budget that is compared with the wrong sign."""
    return LEFT(self, row) + 1


def check_alone() -> None:
    """The tree of a problem is what it is without the other problems."""
    problems = solve(TASK, np.array([[1, 2, 3, 4], [3, 4, 5, 1], [5, 5, 5, 5]]))
    batch = collate([render(TASK, problem, "totals") for problem in problems], Vocabulary.of(TASK))
    together, alone = (asked("mcts", rows, 200, branches=2).answers[0].tree for rows in (batch, batch[:1]))
    means = [f"{tree[1].score:.3f}" for tree in (alone, together)]
    require(together == alone, f"alone the first step is worth {means[0]}, beside other problems {means[1]}")


def pooled(leaf: Node, score: float | None, seen: dict[str, list[float]]) -> None:
    """All trees learn from the responses of each."""
    BACK_UP(leaf, score)
    values = seen.setdefault("values", [])
    values += [] if score is None else [score]
    for node in leaf.path():
        node.values = values


def of_parents(self: Writer, drafts: Sequence[Draft]) -> list[float]:
    """The scores of what was written before the last step of each."""
    parents = []
    for draft in drafts:
        ends = [n for n, token in enumerate(draft.tokens[:-1], start=1) if token in self.ends and n > draft.n_prompt]
        parents.append(draft.cut(ends[-1] if ends else draft.n_prompt, unread=0))
    return SCORE(self, parents)


def check_read() -> None:
    """Three responses of 7 tokens behind a prompt of 7 are read as 7 tokens once, and three times 6."""
    (answer,) = asked("vote", copies(1, 2, 3, n=1), 21).answers
    require(answer.spent.read == 7 + 3 * 6, f"{answer.spent.read} tokens are read, not 25")


def without_prompt(cost: Cost | None, prefix: int, unread: int, lengths: Sequence[int]) -> Spent:  # noqa: ARG001
    """As if what a prompt says were known."""
    return WRITING(cost, prefix, 0, lengths)


SEARCH_MUTATIONS = (
    Mutation(
        "a vote that counts what is no answer",
        "accuracy of a vote over a scripted generator, by hand",
        instead(methods, "final_answer", counted),
        partial(check_world, "vote"),
    ),
    Mutation(
        "a budget that is off by one",
        "no method writes more than its budget",
        instead(Writer, "left", one_more),
        check_budget,
    ),
    Mutation(
        "a tree that uses the statistics of another problem",
        "a tree is the same without the other problems",
        instead(trees, "back_up", partial(pooled, seen={})),
        check_alone,
    ),
    Mutation(
        "a beam that scores the prefix before a step in its place",
        "accuracy of a beam over a scripted generator, by hand",
        instead(Writer, "score", of_parents),
        partial(check_world, "beam"),
    ),
    Mutation(
        "a cost that forgets the prompt",
        "tokens read behind one prompt, by hand",
        instead(writer, "writing", without_prompt),
        check_read,
    ),
)
