"""The parallel sum: one attention average over all operands and one MLP, with no running total on the way.

| part | what it does |
| --- | --- |
| L0H0 "average" | from `>` attends to all operands alike and writes the mean of their values into "mean" |
| the same head, elsewhere | before `>` rests on `<`, which is worth nothing; after it on `>`, into "prompt over" |
| MLP 0 | for each k bumps on k * mean, open at the position of that `>`, write the residue; after `>`, `#` |

It is right on every problem of its range: a sum needs neither memory nor as many layers as it has operands (a shallow
shortcut; Liu et al. 2022, arXiv 2210.10749). The mean exists at `>` alone; no place holds a part of the sum.

With `decoy` a second head and more bumps compute at every operand the total up to there, and write it into a subspace
that nothing reads: running totals that can be decoded from a model that answers without them.
"""

from collections.abc import Hashable, Sequence

import torch

from cotinterp.models.build import Bridge
from cotinterp.models.handmade.blueprint import (
    GAP,
    LOGIT,
    PROMPT_END,
    REST,
    Blueprint,
    Head,
    Layer,
    Neuron,
    Vector,
    bumps,
    unit,
    write,
)
from cotinterp.models.handmade.layout import Layout, fitting_layouts, require_sum
from cotinterp.tasks.task import FoldTask, Task
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary


def parallel(
    task: str | Task,
    k_range: tuple[int, int] = (2, 5),
    *,
    decoy: bool = False,
    n_ctx: int | None = None,
    device: str | torch.device = "cpu",
) -> Bridge:
    """A `direct` model that averages the operands in one step: exact on all problems of `k_range`.

    Arguments and errors are those of `parallel_blueprint`, which says what its heads and directions are.
    """
    return write(parallel_blueprint(task, k_range, decoy=decoy, n_ctx=n_ctx), device=device)


def parallel_blueprint(
    task: str | Task, k_range: tuple[int, int] = (2, 5), *, decoy: bool = False, n_ctx: int | None = None
) -> Blueprint:
    """What is written into the weights of `parallel`.

    Args:
        task: A cyclic group or parity: the step is addition modulo the number of states.
        k_range: Fewest and most operands, both included.
        decoy: Adds L0H1, which averages the operands up to each operand, and bumps that write the total up to there
            into the subspace "decoy", which nothing reads.
        n_ctx: Longest sequence; None for the longest transcript.

    Raises:
        ValueError: The task, the range or the context does not fit.
    """
    fold = require_sum(task, "parallel")
    places, n_ctx = fitting_layouts(fold, "direct", k_range, n_ctx)
    values: Vector = {("token", symbol): float(x) for x, symbol in enumerate(fold.operands)}
    operands: Vector = dict.fromkeys(values, 1.0)
    average = Head(
        "average",
        (REST, PROMPT_END, (unit("token", ">", 3 * GAP), operands)),
        ((values, unit("mean", 1)), (unit("token", ">"), unit("prompt over", 1))),
    )
    stop = Neuron(unit("prompt over", 1), unit("logit", "#", LOGIT))
    answers = (neuron for place in places for neuron in _answer_neurons(fold, place))
    heads, neurons = [average], [*answers, stop]
    scratch: dict[str, Sequence[Hashable]] = {"mean": (1,), "prompt over": (1,)}
    if decoy:
        so_far = (REST, (dict.fromkeys(operands, 2 * GAP), operands))
        heads.append(Head("decoy", so_far, ((values, unit("mean so far", 1)),)))
        neurons.extend(neuron for j in range(k_range[1]) for neuron in _decoy_neurons(fold, places[-1], j))
        scratch |= {"mean so far": (1,), "decoy": tuple(fold.operands)}
    return Blueprint(Vocabulary.of(fold), n_ctx, scratch, (Layer(tuple(heads), tuple(neurons)),))


def _residues(task: FoldTask, subspace: str, n: int, amount: float) -> list[Vector]:
    """What to write for each possible sum of n operands: the symbol of its residue."""
    order = task.n_states
    return [unit(subspace, task.operands[total % order], amount) for total in range((order - 1) * n + 1)]


def _answer_neurons(task: FoldTask, place: Layout) -> tuple[Neuron, ...]:
    gate = [("position", place.where(Role.PROMPT_END)), ("token", ">")]
    return bumps(unit("mean", 1, float(place.k)), gate, _residues(task, "logit", place.k, LOGIT))


def _decoy_neurons(task: FoldTask, place: Layout, j: int) -> tuple[Neuron, ...]:
    gate = [("position", place.where(Role.OPERAND, j))]
    return bumps(unit("mean so far", 1, j + 1.0), gate, _residues(task, "decoy", j + 1, 1.0))
