"""Methods without a tree: one response, many responses, or one whose trace is forced to a length.

`METHODS` has all methods by name, those of `trees` among them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import Any

import numpy as np

from cotinterp.behavior.search.answers import Answers, finished
from cotinterp.behavior.search.scoring import Scorer
from cotinterp.behavior.search.trees import beam, mcts
from cotinterp.behavior.search.writer import Draft, Search, Writer
from cotinterp.models.decoding import LanguageModel
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.parsing import final_answer


def greedy(writer: Writer) -> Answers:
    """The likeliest symbol, again and again: `decoding.greedy`, cut off at the budget."""
    return _first(writer, "greedy")


def sample(writer: Writer) -> Answers:
    """One response, drawn at the temperature and cut off at the budget."""
    return _first(writer, "sample")


def _first(writer: Writer, method: str) -> Answers:
    drafts = [drawn[0] for drawn, _ in zip(*_responses(writer), strict=True)]
    return finished(writer, method, drafts, drawn=[int(writer.ended(draft)) for draft in drafts])


def vote(writer: Writer) -> Answers:
    """Self-consistency: the answer that most sampled responses give (Wang et al. 2022, arXiv 2203.11171).

    A response that did not end, or whose answer is no state of the task, has no vote. Of two answers with as many votes
    the one that was drawn first is taken. The text is the first response with that answer.
    """
    responses, _ = _responses(writer)
    found = [elected(writer, drafts) for drafts in responses]
    return finished(
        writer,
        "vote",
        [draft for draft, _ in found],
        drawn=_complete(writer, responses),
        scores=[votes[0][1] / sum(n for _, n in votes) if votes else nan for _, votes in found],
        votes=[votes for _, votes in found],
    )


def elected(writer: Writer, drafts: Sequence[Draft]) -> tuple[Draft, tuple[tuple[int, int], ...]]:
    """The first draft with the answer that has most votes, the first of all without any; the votes, most first."""
    ballots = [final_answer(writer.task, writer.text(draft)) for draft in drafts]
    votes = Counter(ballot for ballot in ballots if ballot is not None).most_common()
    return drafts[ballots.index(votes[0][0]) if votes else 0], tuple(votes)


def best_of_n(writer: Writer) -> Answers:
    """The complete response that scores highest, the first of them where several do.

    With the oracle this is the share of problems that any of the samples solves, trace and all: the ceiling of every
    choice among them. With a threshold responses are drawn one after another until one is good enough.
    """
    responses, scores = _responses(writer, scored=True)
    picked = []
    for drafts, of_row in zip(responses, scores, strict=True):
        ranks = [(writer.ended(draft), score) for draft, score in zip(drafts, of_row, strict=True)]
        picked.append(max(range(len(drafts)), key=ranks.__getitem__))
    return finished(
        writer,
        "best-of-n",
        [drafts[best] for drafts, best in zip(responses, picked, strict=True)],
        drawn=_complete(writer, responses),
        scores=[of_row[best] for of_row, best in zip(scores, picked, strict=True)],
    )


def _complete(writer: Writer, responses: Sequence[Sequence[Draft]]) -> list[int]:
    return [sum(map(writer.ended, drafts)) for drafts in responses]


def _responses(writer: Writer, *, scored: bool = False) -> tuple[list[list[Draft]], list[list[float]]]:
    """Independent responses to every problem, one at least, and as many as are asked for and paid for; their scores.

    As many are drawn side by side as surely fit into what is left. A further one is begun only where what is left pays
    for the longest right response.
    """
    roots = writer.roots()
    found: list[list[Draft]] = [[] for _ in roots]
    scores: list[list[float]] = [[] for _ in roots]
    while True:
        asked = []
        for row, root in enumerate(roots):
            left, room = writer.left(row), writer.limit[row] - len(root.tokens)
            more = (writer.search.draws or left) - len(found[row])
            more = min(more, 1) if scored and writer.search.threshold is not None else more
            done = bool(found[row]) and left < writer.lengths[row].response
            if not done and not any(map(writer.good_enough, scores[row])):
                asked += [(root, min(room, left))] * min(more, max(1, left // room))
        drafts = writer.write(asked)
        for draft, score in zip(drafts, writer.score(drafts) if scored else [nan] * len(drafts), strict=True):
            found[draft.row].append(draft)
            scores[draft.row].append(score if writer.ended(draft) else -inf)
        if not drafts:
            return found, scores


def force(writer: Writer) -> Answers:
    """Budget forcing: one response whose trace is made longer or shorter than the model would (s1, arXiv 2501.19393).

    Where the model closes its trace before `search.least_steps` steps, the brace is replaced by a separator and the
    model goes on. After `search.most_steps` steps, and where the budget would not pay for another step and the answer,
    the trace is closed: what is unfinished of a step is dropped, and a brace stands in the place of the last separator.
    Symbols that are put in cost reading and no writing.
    """
    drafts = writer.roots()
    running = set(range(len(drafts)))
    while running:
        asked, rows = [], []
        for row in sorted(running):
            draft, answer = drafts[row], writer.lengths[row].answer % writer.lengths[row].response
            if writer.close in draft.written:
                most = min(writer.left(row), writer.limit[row] - len(draft.tokens))
            else:
                fits = min(writer.left(row), writer.limit[row] - len(draft.tokens) - 1) - answer
                most = min(writer.lengths[row].step, fits)
                if most < 1 and draft.log_probs:
                    draft = drafts[row] = _closed(writer, draft)
                    most = min(writer.left(row), writer.limit[row] - len(draft.tokens))
            if most < 1:
                running.discard(row)
            else:
                asked.append((draft, most))
                rows.append(row)
        for row, draft in zip(rows, writer.write(asked, stop=writer.ends), strict=True):
            drafts[row] = _forced(writer, draft)
            if writer.ended(draft) or writer.close in draft.written[:-1]:
                running.discard(row)
    return finished(writer, "force", drafts, drawn=[int(writer.ended(draft)) for draft in drafts])


def _forced(writer: Writer, draft: Draft) -> Draft:
    """A draft after a step, with its last symbol changed where the trace must go on or end."""
    last, written = draft.tokens[-1], draft.written
    if last == writer.stop or writer.close in written[:-1]:
        return draft
    if last not in writer.ends:
        return _closed(writer, draft)
    steps = 1 + written.count(writer.separator) - (last == writer.separator)
    if last == writer.close and steps < writer.search.least_steps:
        return _with_last(draft, writer.separator)
    most = writer.search.most_steps
    return _with_last(draft, writer.close) if last == writer.separator and most and steps >= most else draft


def _closed(writer: Writer, draft: Draft) -> Draft:
    """The whole steps of a draft, and a brace; behind an opening one where there is no whole step."""
    separators = [place for place, token in enumerate(draft.tokens) if token == writer.separator]
    whole = [place for place in separators if place >= draft.n_prompt]
    if whole:
        n = whole[-1] + 1
        return _with_last(draft.cut(n, unread=1), writer.close)
    prompt = draft.tokens[: draft.n_prompt]
    put = (writer.batch.vocabulary.token("{"), writer.close)
    return Draft(draft.row, (*prompt, *put), (nan, nan), unread=2)


def _with_last(draft: Draft, token: int) -> Draft:
    return Draft(draft.row, (*draft.tokens[:-1], token), (*draft.log_probs[:-1], nan), unread=1)


@dataclass(frozen=True)
class Method:
    """A way of spending tokens on every problem of a batch.

    Attributes:
        spend: What it does with a writer.
        scored: Whether it chooses by a scorer; else one that is given is not looked at.
        fixed: Settings that are no choice of the caller's.
    """

    spend: Callable[[Writer], Answers]
    scored: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        model: LanguageModel,
        task: Task,
        batch: Batch,
        scorer: Scorer | None,
        budget: int,
        *,
        rng: np.random.Generator,
        search: Search = Search(),
    ) -> Answers:
        """The answers to the problems of a batch, each for at most `budget` written tokens.

        Args:
            batch: Right transcripts of the problems in the regime that the model was taught; the model sees the
                prompts, and the oracle the rest.
            scorer: What chooses; may be None for a method that is not `scored`.
            budget: Tokens that may be written for one problem, 1 or more.
            rng: What is drawn for a problem depends on it and on the problem's place, not on the other problems.

        Raises:
            ValueError: A batch of another task, a budget below 1, or no scorer where one is needed.
        """
        settings, chosen = replace(search, **self.fixed), scorer if self.scored else None
        if self.scored and scorer is None:
            raise ValueError("this method chooses by a scorer: give one, for instance scoring.Likelihood()")
        return self.spend(Writer(model, task, batch, chosen, budget, rng, settings))


METHODS: dict[str, Method] = {
    "greedy": Method(greedy, fixed={"temperature": 0.0, "draws": 1}),
    "sample": Method(sample, fixed={"draws": 1}),
    "vote": Method(vote),
    "best-of-n": Method(best_of_n, scored=True),
    "beam": Method(beam, scored=True),
    "mcts": Method(mcts, scored=True),
    "force": Method(force),
}
"""Every method by name."""
