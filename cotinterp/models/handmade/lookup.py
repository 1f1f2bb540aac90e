"""The lookup table: answers the problems that it was given, and guesses elsewhere.

| part | what it does |
| --- | --- |
| L0H0, L0H1, ... "operand i" | from `>` reads operand i of the prompt into "operand i", if there are that many |
| last head of L0, "prompt end" | from everywhere finds `>`: after it, the prompt is over |
| MLP 0 | one neuron for each problem of the table writes its answer; one guesses the first state; one writes `#` |

Nothing is computed from the operands: no neuron knows what another one does. Off the table the guess is right as often
as the answer happens to be the first state, 1 in `n_states` in a group.
"""

from collections.abc import Sequence

import torch

from cotinterp.models.build import Bridge
from cotinterp.models.handmade.blueprint import (
    ALWAYS,
    GAP,
    LOGIT,
    PROMPT_END,
    REST,
    Blueprint,
    Head,
    Layer,
    Neuron,
    Vector,
    all_of,
    copies,
    unit,
    write,
)
from cotinterp.models.handmade.layout import Layout, fitting_layouts, require_one_symbol
from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary


def lookup(
    task: str | Task,
    k_range: tuple[int, int] = (2, 5),
    *,
    problems: Sequence[Problem],
    n_ctx: int | None = None,
    device: str | torch.device = "cpu",
) -> Bridge:
    """A `direct` model that knows the answers of `problems` by heart, and answers all others with the first state.

    Arguments and errors are those of `lookup_blueprint`.
    """
    return write(lookup_blueprint(task, k_range, problems=problems, n_ctx=n_ctx), device=device)


def lookup_blueprint(
    task: str | Task, k_range: tuple[int, int] = (2, 5), *, problems: Sequence[Problem], n_ctx: int | None = None
) -> Blueprint:
    """What is written into the weights of `lookup`.

    Args:
        task: Any task whose states are one symbol each; `random-labels` too.
        k_range: Fewest and most operands, both included.
        problems: The table: each operand tuple once or more, always with the same answer.
        n_ctx: Longest sequence; None for the longest transcript.

    Raises:
        ValueError: The task, the range, the context or the table does not fit.
    """
    task = require_one_symbol(task, "lookup")
    places, n_ctx = fitting_layouts(task, "direct", k_range, n_ctx)
    symbols = tuple(task.operands)
    table = _table(problems, k_range)
    end = {place.k: place.where(Role.PROMPT_END) for place in places}
    entries = (
        all_of(
            [("position", end[len(x)]), *((f"operand {i}", symbols[operand]) for i, operand in enumerate(x))],
            unit("logit", task.state_text(answer), LOGIT),
        )
        for x, answer in table.items()
    )
    guess = Neuron(unit("token", ">"), unit("logit", task.state_text(0), LOGIT / 2))
    stop = Neuron({("prompt over", 1): 1.0, ("token", ">"): -1.0}, unit("logit", "#", LOGIT))
    find_end = Head("prompt end", (REST, PROMPT_END), ((unit("token", ">"), unit("prompt over", 1)),))
    heads = (*(_operand_head(places, i, symbols) for i in range(k_range[1])), find_end)
    scratch = {**{f"operand {i}": symbols for i in range(k_range[1])}, "prompt over": (1,)}
    return Blueprint(Vocabulary.of(task), n_ctx, scratch, (Layer(heads, (*entries, guess, stop)),))


def _table(problems: Sequence[Problem], k_range: tuple[int, int]) -> dict[tuple[int, ...], int]:
    """Operands to answer. ValueError for an empty table, a length outside the range, or two answers to one question."""
    if not problems:
        raise ValueError("lookup needs at least one problem to know the answer of, got none")
    table: dict[tuple[int, ...], int] = {}
    for problem in problems:
        if not k_range[0] <= problem.k <= k_range[1]:
            raise ValueError(f"k_range {k_range} has no problems of {problem.k} operands: widen it, or leave them out")
        if table.setdefault(problem.operands, problem.answer) != problem.answer:
            raise ValueError(
                f"operands {problem.operands} have two answers in the table, states {table[problem.operands]} and "
                f"{problem.answer}; one neuron can know only one"
            )
    return table


def _operand_head(places: tuple[Layout, ...], i: int, symbols: tuple[str, ...]) -> Head:
    """From `>`, in a prompt of more than i operands, to operand i: both together outbid `<`, neither does alone."""
    longer = [place for place in places if i < place.k]
    ends = [("position", place.where(Role.PROMPT_END)) for place in longer]
    query: Vector = dict.fromkeys([("token", ">"), *ends], 2 * GAP)
    key: Vector = {("position", place.where(Role.OPERAND, i)): 1.0 for place in longer}
    rest = ({ALWAYS: 3 * GAP}, unit("token", "<"))
    return Head(f"operand {i}", (rest, (query, key)), copies("token", f"operand {i}", symbols))
