"""How often a model is right when it is left alone, by number of operands and side of the split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Int
from torch import Tensor

from cotinterp.behavior.tools import with_its_tool
from cotinterp.figures.behavior import accuracy_figure
from cotinterp.models.decoding import (
    Decoding,
    LanguageModel,
    context_length,
    reading,
    require_vocabulary,
    verified_greedy,
)
from cotinterp.results.intervals import wilson
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.training.checkpoints import Run, write_evaluation
from cotinterp.training.data import problems_of
from cotinterp.transcripts.batch import Batch, collate, label_places
from cotinterp.transcripts.examples import Shots
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import MAX_PER_K as MAX_PER_K
from cotinterp.transcripts.problems import EmptySplitError, Problem, require_solved, sample_problems
from cotinterp.transcripts.regimes import Regime, get_regime
from cotinterp.transcripts.render import Transcript, longest_transcript, render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary


def labels_of(task: Task, regime: str | Regime, run_seed: int) -> dict[str, str | int]:
    """The columns task, regime and run_seed that every table of behavior begins with."""
    return {"task": task.name, "regime": get_regime(regime).name, "run_seed": run_seed}


def longest_k(model: LanguageModel, task: Task, regime: str | Regime) -> int:
    """Most operands that the model can be asked about: every right transcript of so many fits its context.

    `task.max_k` where the model names no `cfg.n_ctx`. ValueError where not even the shortest problems fit.
    """
    n_ctx, fits = context_length(model), task.min_k - 1
    while fits < task.max_k and (n_ctx is None or longest_transcript(task, fits + 1, regime) <= n_ctx):
        fits = task.max_k if n_ctx is None else fits + 1
    if fits < task.min_k:
        raise ValueError(
            f"a {get_regime(regime).name!r} transcript of task {task.name!r} with {task.min_k} operands, the fewest, "
            f"takes up to {longest_transcript(task, task.min_k, regime)} tokens, and the model's n_ctx is {n_ctx}"
        )
    return fits


def require_room(
    model: LanguageModel, task: Task, transcripts: Sequence[Transcript], max_new: int | None = None
) -> None:
    """ValueError unless the model can write each of these right transcripts: what is cut off would count as wrong."""
    n_ctx = context_length(model)
    longest = max(transcripts, key=len)
    k, regime = longest.problem.k, longest.regime
    if n_ctx is not None and len(longest) > n_ctx:
        examples = sum(token.role is Role.EXAMPLE for token in longest.tokens)
        if examples:
            raise ValueError(
                f"{examples} symbols of examples and a question and answer of {len(longest) - examples} take "
                f"{len(longest)} tokens, and the model's n_ctx is {n_ctx}: show fewer, or shorter ones"
            )
        raise ValueError(
            f"a right {regime!r} transcript of task {task.name!r} with {k} operands takes {len(longest)} tokens, and "
            f"the model's n_ctx is {n_ctx}: it would be cut off and count as wrong. This model can be asked up to "
            f"k = {longest_k(model, task, regime)}"
        )
    longest = max(transcripts, key=lambda one: len(one) - one.n_prompt)
    if max_new is not None and len(longest) - longest.n_prompt > max_new:
        raise ValueError(
            f"max_new is {max_new}, and a right {regime!r} response to {longest.problem.k} operands takes "
            f"{len(longest) - longest.n_prompt} symbols: it would be cut off and count as wrong. Leave max_new out, or "
            "raise it"
        )


def require_lengths(
    model: LanguageModel, task: Task, regime: str | Regime, problems: Sequence[Problem], max_new: int | None = None
) -> None:
    """`require_room` for any trace of that many operands, for those who show or draw others than the right one."""
    require_solved(task, problems)
    k, n_ctx = max(problem.k for problem in problems), context_length(model)
    needed = longest_transcript(task, k, regime)
    if n_ctx is not None and needed > n_ctx:
        raise ValueError(
            f"a {get_regime(regime).name!r} transcript of task {task.name!r} with {k} operands takes up to {needed} "
            f"tokens, and the model's n_ctx is {n_ctx}: what is cut off would count as no answer. This model can be "
            f"asked up to k = {longest_k(model, task, regime)}"
        )
    require_room(model, task, [render(task, problem, regime) for problem in problems], max_new)


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
        """One row for each split and k: task, regime, run_seed, split, k, n, correct, accuracy, ci_low, ci_high."""
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
        """Accuracy by number of operands; held-out problems solid, training problems dotted."""
        return accuracy_figure(self.frame())


def accuracy_by_k(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Mapping[str, Sequence[Problem]],
    *,
    run_seed: int = 0,
    decoding: Decoding = Decoding(),
    shots: Shots | None = None,
) -> AccuracyResult:
    """Lets `model` answer the problems of each split and compares its answers with the task's.

    In a regime whose answer is a label (`Regime.reads`) nothing is written: the label is the likeliest symbol of the
    whole vocabulary where the prompt ends, or the trace, which is then given and right. A model that was taught
    `label-after-trace` is asked without its trace in the regime `label`.

    Args:
        problems: Problems by split, for instance from `evaluation_problems`. Distinct ones are used once.
        run_seed: Label of the trained model in the tables.
        shots: Solved examples before every problem; the columns `shots` and `examples` then say how many and in which
            regime. None asks without any.

    Raises:
        ValueError: A split without problems, problems that the task did not solve, a model of another vocabulary, or
            problems whose right response the model has no room for (`longest_k` says which it has).
    """
    empty = [split for split, chosen in problems.items() if not chosen]
    if empty or not problems:
        raise ValueError(f"no problems to measure accuracy on in {', '.join(empty) or 'any split'}; sample some first")
    asked = [(split, problem) for split, chosen in problems.items() for problem in dict.fromkeys(chosen)]
    require_solved(task, (problem for _, problem in asked))
    transcripts = [render(task, problem, regime) for _, problem in asked]
    labels = labels_of(task, regime, run_seed)
    if shots is not None:
        transcripts = list(shots.before(task, transcripts))
        labels |= {"shots": shots.n, "examples": get_regime(shots.regime).name}
    require_room(model, task, transcripts, decoding.max_new)
    batch = collate(transcripts, Vocabulary.of(task))
    if get_regime(regime).reads == "response":
        texts = verified_greedy(model, batch, max_new=decoding.max_new, batch_size=decoding.batch_size)
    else:
        texts = _labeled(model, batch, label_places(batch, regime), decoding.batch_size)
    outputs = []
    for (split, problem), expected, text in zip(asked, transcripts, texts, strict=True):
        correct = final_answer(task, text) == problem.answer
        outputs.append(Output(problem, split, text, "#" in text, correct, text == expected.response))
    return AccuracyResult(outputs=tuple(outputs), labels=labels)


def _labeled(model: LanguageModel, batch: Batch, n_read: Int[Tensor, " batch"], batch_size: int) -> tuple[str, ...]:
    """What stands after each prompt with the label that the model names at the last token read; no row is padded."""
    require_vocabulary(model, batch.vocabulary)
    texts = [""] * len(batch)
    with reading(model, causal=False) as read:
        for n in n_read.unique().tolist():
            for rows in (n_read == n).nonzero()[:, 0].split(batch_size):
                named = read(batch.tokens[rows, :n])[:, -1].argmax(-1).cpu()
                for row, token in zip(rows.tolist(), named.tolist(), strict=True):
                    given = batch.symbols(row)[int(batch.n_prompt[row]) : n]
                    texts[row] = "".join([*given, batch.vocabulary.symbols[token], "#"])
    return tuple(texts)


def evaluate_run(
    run: Run, *, max_per_k: int = MAX_PER_K, seed: int = 0, decoding: Decoding = Decoding()
) -> AccuracyResult:
    """Free-running accuracy of a run on its own training problems and on held-out ones, every output kept.

    A run that asks a tool is measured with it (`tools.right_tool`).

    Args:
        max_per_k: Most problems of one length and side.
        seed: Draws the held-out problems where there are more; not the run's seed, so that runs of one task are
            measured on the same ones.
    """
    spec = run.spec
    problems = evaluation_problems(
        run.task,
        (spec.k_min, spec.k_max),
        problems_of(spec, run.task),
        rng=np.random.default_rng(seed),
        max_per_k=max_per_k,
    )
    model = with_its_tool(run.model, run.task, spec.regime)
    return accuracy_by_k(model, run.task, spec.regime, problems, run_seed=spec.seed, decoding=decoding)


def evaluation_record(
    result: AccuracyResult, weight_hash: str, *, problems_per_k: int | None = None, tags: pd.DataFrame | None = None
) -> dict[str, Any]:
    """What evaluation.json holds: the hash of the weights that were measured, n outputs in all, the accuracy table.

    A reader compares the hash with that of the weights beside it: a record of other weights says nothing.

    Args:
        problems_per_k: `max_per_k` of the evaluation; stands in the record where it is given.
        tags: The same columns for the states that a run of the regime `tagging` reads at its operands, where measured.
    """
    record = {"weight_hash": weight_hash, "n": len(result.outputs), "accuracy": _rows(result.frame())}
    record |= {} if problems_per_k is None else {"problems_per_k": problems_per_k}
    return record | ({} if tags is None else {"tags": _rows(tags)})


def store_evaluation(
    run: Run, result: AccuracyResult, *, problems_per_k: int | None = None, tags: pd.DataFrame | None = None
) -> Path:
    """Writes evaluation.json beside the weights of `run`, whole or not at all; the arguments of `evaluation_record`.

    Raises:
        ValueError: `result` was measured on another task, regime or seed.
    """
    if result.labels != run.labels:
        raise ValueError(f"the result is labeled {dict(result.labels)}, the run is {run.labels}")
    record = evaluation_record(result, run.weight_hash, problems_per_k=problems_per_k, tags=tags)
    return write_evaluation(run.directory, record)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {str(name): values for name, values in table.to_dict(orient="list").items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def evaluation_problems(
    task: Task,
    k_range: tuple[int, int],
    trained_on: Sequence[Problem],
    *,
    rng: np.random.Generator,
    max_per_k: int = MAX_PER_K,
) -> dict[str, tuple[Problem, ...]]:
    """Distinct problems to be measured on: `train` out of the sample `trained_on`, `heldout` never trained on.

    At most `max_per_k` of each number of operands in `k_range` (inclusive), all there are where fewer exist. A length
    of which the held-out side has none is left out of that side.

    Raises:
        EmptySplitError: A side has no problem of any length.
    """
    low, high = k_range
    heldout: list[Problem] = []
    for k in range(low, high + 1):
        try:
            heldout.extend(sample_problems(task, k, max_per_k, split="heldout", rng=rng))
        except EmptySplitError:
            continue
    if not heldout:
        raise EmptySplitError(f"task {task.name!r} has no held-out problem with {low} to {high} operands")
    distinct = list(dict.fromkeys(trained_on))
    train: list[Problem] = []
    for k in range(low, high + 1):
        of_length = [problem for problem in distinct if problem.k == k]
        train.extend(of_length[index] for index in rng.permutation(len(of_length))[:max_per_k])
    if not train:
        raise EmptySplitError(f"the training sample has no problem with {low} to {high} operands")
    return {"train": tuple(train), "heldout": tuple(heldout)}
