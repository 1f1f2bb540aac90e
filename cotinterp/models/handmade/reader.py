"""The total reader: at every step it reads the total that was written last and the next operand, and adds them up.

An iteration head (Cabannes et al. 2024, arXiv 2406.02128), by hand, for any task whose states are its operands.

| part | what it does |
| --- | --- |
| L0H0 "prompt end" | from everywhere finds `>` and copies its position: the number of operands, into "k" |
| MLP 0 | position and k decide what comes next: a constant symbol, or which places layer 1 is to read |
| L1H0 "total" | reads the token at the wanted place into "total": the previous total as it was last written |
| L1H1 "operand" | the same into "operand": the next operand as it was last written |
| MLP 1 | a neuron for each (total, operand) writes step(total, operand); a value that is only copied goes through |

In `totals` step j reads TOTAL j-1 and OPERAND j; in `cot` it reads PREVIOUS_TOTAL j and STEP_OPERAND j, and these are
copies of TOTAL j-1 and OPERAND j. Step 1 starts from OPERAND 0. The answer is a copy of the last TOTAL. A head that has
nothing to read rests on `<`, which is worth nothing.

Places are found by position: the trace may be edited where no token moves; a trace cut short or drawn out is outside
of what the model was made for.
"""

import numpy as np
import torch

from cotinterp.models.build import Bridge
from cotinterp.models.handmade.blueprint import (
    LOGIT,
    BasisDirection,
    Blueprint,
    Layer,
    Neuron,
    Vector,
    all_of,
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
    require_fold,
    require_trace,
)
from cotinterp.tasks.task import FoldTask, Task
from cotinterp.transcripts.regimes import Regime, Token
from cotinterp.transcripts.vocabulary import Vocabulary


def reader(
    task: str | Task,
    regime: str | Regime = "totals",
    k_range: tuple[int, int] = (2, 5),
    *,
    decoy: bool = False,
    backup: bool = False,
    n_ctx: int | None = None,
    device: str | torch.device = "cpu",
) -> Bridge:
    """A model that computes every total from the written one before it: exact on all problems of `k_range`.

    Whatever valid total is written in place of another, it goes on from there. Arguments and errors are those of
    `reader_blueprint`, which says what its heads and directions are.
    """
    return write(reader_blueprint(task, regime, k_range, decoy=decoy, backup=backup, n_ctx=n_ctx), device=device)


def reader_blueprint(
    task: str | Task,
    regime: str | Regime = "totals",
    k_range: tuple[int, int] = (2, 5),
    *,
    decoy: bool = False,
    backup: bool = False,
    n_ctx: int | None = None,
) -> Blueprint:
    """What is written into the weights of `reader`.

    Args:
        task: A task whose states are its operands, one symbol each, and whose first total is the first operand.
        regime: "totals" or "cot".
        k_range: Fewest and most operands, both included.
        decoy: Adds L1H2, which attends exactly as L1H0 does and copies the same total into the subspace "decoy", which
            nothing reads: a second copy that can be decoded and is not used.
        backup: Adds one more head of layer 1, which attends exactly as L1H0 does and copies the same total into the
            subspace "backup", which MLP 1 reads as it reads "total": either of the two suffices, and neither is needed
            where the other is right. Where they hold different totals, both are answered.
        n_ctx: Longest sequence; None for the longest transcript.

    Raises:
        ValueError: The task, the regime, the range or the context does not fit.
    """
    fold, name = require_fold(task, "reader"), require_trace(regime, "reader")
    places, n_ctx = fitting_layouts(fold, name, k_range, n_ctx)
    symbols = tuple(fold.operands)
    scratch = {
        "k": range(k_range[0], k_range[1] + 1),
        "wanted total": range(n_ctx),
        "wanted operand": range(n_ctx),
        "copy": (1,),
        "total": symbols,
        "operand": symbols,
        **({"decoy": symbols} if decoy else {}),
        **({"backup": symbols} if backup else {}),
    }
    plan = next_token_neurons(places, _next)
    heads = (
        wanted_head("total", "wanted total", range(n_ctx), copies("token", "total", symbols)),
        wanted_head("operand", "wanted operand", range(n_ctx), copies("token", "operand", symbols)),
        *([wanted_head("decoy", "wanted total", range(n_ctx), copies("token", "decoy", symbols))] if decoy else []),
        *([wanted_head("backup", "wanted total", range(n_ctx), copies("token", "backup", symbols))] if backup else []),
    )
    layers = (Layer((prompt_end_head(prompt_ends(places)),), plan), Layer(heads, _step_neurons(fold, backup=backup)))
    return Blueprint(Vocabulary.of(fold), n_ctx, scratch, layers)


def _next(place: Layout, at: int, token: Token) -> Vector:
    """What MLP 0 says about the token after position `at`: the symbol itself, or the places to read it from."""
    total, operand = place.sources(at, token)
    if total is None and operand is None:
        return unit("logit", token.symbol, LOGIT)
    named = {("wanted total", total): 1.0, ("wanted operand", operand): 1.0}
    wanted: Vector = {direction: one for direction, one in named.items() if direction[1] is not None}
    return wanted if len(wanted) == 2 else {**wanted, ("copy", 1): 1.0}


def _step_neurons(task: FoldTask, *, backup: bool) -> tuple[Neuron, ...]:
    """MLP 1: the transition table, one neuron an entry, and one neuron a symbol for each of the two copies.

    With a backup each neuron that reads the total comes three times: for either source, and against both at once.
    """
    symbols = tuple(task.operands)
    total, operand = (axis.ravel() for axis in np.indices((task.n_states, task.n_operands)))
    table = zip(total.tolist(), operand.tolist(), task.step(total, operand).tolist(), strict=True)
    both = ("total", "backup")
    sources = ((("total",), LOGIT), (("backup",), LOGIT), (both, -LOGIT)) if backup else ((("total",), LOGIT),)
    entries: list[tuple[str, BasisDirection, str]] = [
        (symbols[a], ("operand", symbols[b]), symbols[c]) for a, b, c in table
    ]
    entries += [(symbol, ("copy", 1), symbol) for symbol in symbols]
    read = (
        all_of([*((source, total) for source in some), gate], unit("logit", answer, amount))
        for some, amount in sources
        for total, gate, answer in entries
    )
    passed = (all_of([("operand", symbol), ("copy", 1)], unit("logit", symbol, LOGIT)) for symbol in symbols)
    return (*read, *passed)
