"""Which state a model names at each operand of a prompt, in one pass.

What a model of the regime `tagging` is trained to do beside its answer: the protocol of Merrill, Petty & Sabharwal
2024 (arXiv 2404.08819), where depth is all that a model can compute with: nothing is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from cotinterp.behavior.accuracy import labels_of
from cotinterp.figures.behavior import tagging_figure
from cotinterp.models.decoding import LanguageModel, context_length, reading, require_vocabulary
from cotinterp.results.intervals import wilson
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import Problem, require_solved
from cotinterp.transcripts.regimes import Regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.tags import NO_TAG, operand_tags
from cotinterp.transcripts.vocabulary import Vocabulary


@dataclass(frozen=True)
class Tags:
    """The states that a model named along one prompt.

    Attributes:
        named: The likeliest symbol of the whole vocabulary at OPERAND 1, 2, ..., k-1.
        right: For each of them whether it is the state there.
    """

    problem: Problem
    split: str
    named: tuple[str, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class TagResult(Result):
    """How often the states of a problem are named right at its operands, without anything being written.

    Two readings for problems of exactly k operands: `tags`, the state after all k operands (which is the answer), and
    `all`, every state from the second operand to the k-th, the criterion of whole sequences. At most `tags`.

    The beginnings of longer training prompts have their states as targets only where the split does not hold them out
    (`training_tags`), so no held-out state was ever shown. The interval is Wilson's over problems of this one model.
    """

    tags: tuple[Tags, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each split, reading and k: split, reading, k, n, correct, accuracy, ci_low, ci_high."""
        rows = []
        for (split, k), part in self.examples().groupby(["split", "k"], sort=True):
            for name in ("tags", "all"):
                hits, n = int(part[name].sum()), len(part)
                rows.append((split, name, k, n, hits, hits / n, *wilson(hits, n)))
        columns = ["split", "reading", "k", "n", "correct", "accuracy", "ci_low", "ci_high"]
        return with_labels(pd.DataFrame(rows, columns=columns), self.labels)

    def examples(self) -> pd.DataFrame:
        """One row for each problem: split, k, operands, named, and whether `tags` and `all` hold."""
        rows = [
            (x.split, x.problem.k, x.problem.operands, "".join(x.named), x.right[-1], all(x.right)) for x in self.tags
        ]
        return pd.DataFrame(rows, columns=["split", "k", "operands", "named", "tags", "all"])

    def figure(self) -> go.Figure:
        """Accuracy by number of operands; held-out problems solid, training problems dashed."""
        return tagging_figure(self.frame())


def tag_accuracy(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Mapping[str, Sequence[Problem]],
    *,
    run_seed: int = 0,
    batch_size: int = 256,
) -> TagResult:
    """Which states `model` names at the operands of the problems of each split: the argmax over all symbols.

    Args:
        regime: What the model was trained on, for the tables; only `tagging` teaches a model to name states.
        run_seed: Label of the trained model in the tables.

    Raises:
        ValueError: A split without problems, problems that the task did not solve, prompts that do not fit the model,
            a model of another vocabulary, or a task whose states cannot be named so (`operand_tags`).
    """
    empty = [split for split, chosen in problems.items() if not chosen]
    if empty or not problems:
        raise ValueError(f"no problems to read states on in {', '.join(empty) or 'any split'}; sample some first")
    vocabulary, found = Vocabulary.of(task), []
    require_vocabulary(model, vocabulary)
    asked = [(split, problem) for split, chosen in problems.items() for problem in dict.fromkeys(chosen)]
    require_solved(task, (problem for _, problem in asked))
    n_ctx, longest = context_length(model), max((problem for _, problem in asked), key=lambda problem: problem.k)
    if n_ctx is not None and (n_prompt := render(task, longest, "tagging").n_prompt) > n_ctx:
        raise ValueError(f"a prompt of {longest.k} operands takes {n_prompt} tokens, and the model's n_ctx is {n_ctx}")
    with reading(model) as read:
        for first in range(0, len(asked), batch_size):
            some = asked[first : first + batch_size]
            batch = collate([render(task, problem, "tagging") for _, problem in some], vocabulary)
            tags = operand_tags(task, batch)[:, : int(batch.n_prompt.max())]
            named = read(batch.tokens[:, : tags.shape[1]]).argmax(-1).cpu()
            for (split, problem), wanted, got in zip(some, tags, named, strict=True):
                at = wanted != NO_TAG
                symbols = tuple(vocabulary.symbols[token] for token in got[at].tolist())
                found.append(Tags(problem, split, symbols, tuple((got == wanted)[at].tolist())))
    return TagResult(tuple(found), labels_of(task, regime, run_seed))
