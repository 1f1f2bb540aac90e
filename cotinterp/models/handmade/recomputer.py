"""The recomputer: writes the reader's transcript, and computes every total from the prompt's operands alone.

Behavior on unedited traces cannot tell it from `reader`. Nothing that it wrote is ever read: every value of the trace
and the answer is the sum, modulo the number of states, of a set of prompt operands. TOTAL j is that of operands 0..j,
PREVIOUS_TOTAL j that of 0..j-1, STEP_OPERAND j that of j alone, the answer that of all.

| part | what it does |
| --- | --- |
| L0H0 "prompt end" | from everywhere finds `>` and copies its position: the number of operands, into "k" |
| MLP 0 | position and k decide what comes next: a constant symbol, or the set of operands to add up, in "wanted" |
| L1H0, L1H1, ... "operand i" | attends to operand i of the prompt where wanted, else to `<`; adds it to "sum" |
| MLP 1 | bumps turn the integer sum into the logit of its residue |

With `decoy` one more head of layer 1 attends exactly as the total head of the reader does, to the previous written
total, and copies it into a subspace that nothing reads: the running total can be decoded there, the attention pattern
is that of a reader, and no logit depends on either.

With `back` some of what it writes is read after all: one more head of layer 1, "written", attends to a total that it
wrote and adds it to "sum" like an operand. So there are models between a reader and a recomputer, which a claim about
either must not be taken in by: one that only copies its answer from the last total (`answer_copied`), one that reads at
every other step (`every_other_step`), one that reads the total before the last and adds two operands
(`two_steps_back`).
"""

from collections.abc import Callable
from functools import partial

import torch

from cotinterp.models.build import Bridge
from cotinterp.models.handmade.blueprint import (
    GAP,
    LOGIT,
    REST,
    Blueprint,
    Head,
    Layer,
    Vector,
    bumps,
    copies,
    next_token_neurons,
    prompt_end_head,
    unit,
    wanted_head,
    write,
)
from cotinterp.models.handmade.layout import (
    Layout,
    fitting_layouts,
    prompt_ends,
    require_sum,
    require_trace,
)
from cotinterp.tasks.task import Task
from cotinterp.transcripts.regimes import Regime, Token
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

Back = Callable[[Token], int | None]
"""The step of the written total that a value is made of, with the operands since then; None: of operands alone."""


def answer_copied(token: Token) -> int | None:
    """The answer is a copy of the last written total."""
    return token.step if token.role is Role.ANSWER else None


def every_other_step(token: Token) -> int | None:
    """Totals of even steps are computed from the one written before, and the answer is a copy of the last."""
    reads = token.role is Role.TOTAL and token.step % 2 == 0
    return token.step - 1 if reads else answer_copied(token)


def two_steps_back(token: Token) -> int | None:
    """A total is computed from the last but one and two operands, where there is such; the answer is a copy."""
    reads = token.role is Role.TOTAL and token.step > 2
    return token.step - 2 if reads else answer_copied(token)


def recomputer(
    task: str | Task,
    regime: str | Regime = "totals",
    k_range: tuple[int, int] = (2, 5),
    *,
    decoy: bool = False,
    back: Back | None = None,
    n_ctx: int | None = None,
    device: str | torch.device = "cpu",
) -> Bridge:
    """A model that computes every total from the prompt: exact on all problems of `k_range`, deaf to what it wrote.

    No edit of the written values changes a later logit, but for what `back` says. Arguments and errors are those of
    `recomputer_blueprint`, which says what its heads and directions are.
    """
    return write(recomputer_blueprint(task, regime, k_range, decoy=decoy, back=back, n_ctx=n_ctx), device=device)


def recomputer_blueprint(
    task: str | Task,
    regime: str | Regime = "totals",
    k_range: tuple[int, int] = (2, 5),
    *,
    decoy: bool = False,
    back: Back | None = None,
    n_ctx: int | None = None,
) -> Blueprint:
    """What is written into the weights of `recomputer`.

    Args:
        task: A cyclic group or parity: the step is addition modulo the number of states.
        regime: "totals" or "cot".
        k_range: Fewest and most operands, both included.
        decoy: Adds the head "decoy" (the last of layer 1), which copies the previous written total into the subspace
            "decoy", which nothing reads.
        back: Which values are made of a written total; adds the head "written" (before "decoy").
        n_ctx: Longest sequence; None for the longest transcript.

    Raises:
        ValueError: The task, the regime, the range or the context does not fit.
    """
    fold, name = require_sum(task, "recomputer"), require_trace(regime, "recomputer")
    places, n_ctx = fitting_layouts(fold, name, k_range, n_ctx)
    symbols, order = tuple(fold.operands), fold.n_states
    scratch = {
        "k": range(k_range[0], k_range[1] + 1),
        "wanted": range(k_range[1]),
        "compute": (1,),
        "sum": (1,),
        **({"wanted written": range(n_ctx)} if back else {}),
        **({"wanted decoy": range(n_ctx), "decoy": symbols} if decoy else {}),
    }
    plan = next_token_neurons(places, partial(_next, decoy=decoy, back=back))
    heads = (
        *(_operand_head(places, i, symbols) for i in range(k_range[1])),
        *([wanted_head("written", "wanted written", range(n_ctx), _integer(symbols))] if back else []),
        *([wanted_head("decoy", "wanted decoy", range(n_ctx), copies("token", "decoy", symbols))] if decoy else []),
    )
    residues: list[Vector] = [unit("logit", symbols[n % order], LOGIT) for n in range((order - 1) * k_range[1] + 1)]
    layers = (
        Layer((prompt_end_head(prompt_ends(places)),), plan),
        Layer(heads, bumps(unit("sum", 1), [("compute", 1)], residues)),
    )
    return Blueprint(Vocabulary.of(fold), n_ctx, scratch, layers)


def _operand_head(places: tuple[Layout, ...], i: int, symbols: tuple[str, ...]) -> Head:
    """Reads operand i of the prompt as an integer, where it is wanted."""
    position: Vector = {("position", place.where(Role.OPERAND, i)): 1.0 for place in places if i < place.k}
    return Head(f"operand {i}", (REST, (unit("wanted", i, 2 * GAP), position)), _integer(symbols))


def _integer(symbols: tuple[str, ...]) -> tuple[tuple[Vector, Vector], ...]:
    """Adds the number of the symbol that is attended to."""
    return (({("token", symbol): float(x) for x, symbol in enumerate(symbols)}, unit("sum", 1)),)


def _next(place: Layout, at: int, token: Token, *, decoy: bool, back: Back | None) -> Vector:
    """What MLP 0 says about the next token: the symbol itself, or the operands that it is the sum of.

    With `back` also the written total that stands for the first of them. With a decoy also where the reader would look
    for the total that the next token is made of.
    """
    step = back(token) if back else None
    match token.role:
        case Role.TOTAL | Role.ANSWER:
            wanted = range(0 if step is None else step + 1, token.step + 1)
        case Role.PREVIOUS_TOTAL:
            wanted = range(token.step)
        case Role.STEP_OPERAND:
            wanted = range(token.step, token.step + 1)
        case _:
            return unit("logit", token.symbol, LOGIT)
    total, _ = place.sources(at, token)
    looked_at = unit("wanted decoy", total) if decoy and total is not None else {}
    read = {} if step is None else unit("wanted written", place.where(Role.TOTAL, step))
    return {("compute", 1): 1.0, **{("wanted", i): 1.0 for i in wanted}, **read, **looked_at}
