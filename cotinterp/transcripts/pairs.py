"""Minimal pairs: two transcripts of one layout that differ in one thing.

Corruption is by replacement with a symbol of the same kind, never by noise (Zhang & Nanda 2023, arXiv 2309.16042): same
length, same roles at every position, in distribution, and what the model should write at the readout differs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import Problem, solve, substitute_total, wrong_totals
from cotinterp.transcripts.regimes import Regime, get_regime
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import RESPONSE_ROLES, Role
from cotinterp.transcripts.vocabulary import Vocabulary

Family = Literal["operand", "written_total"]
Place = tuple[Role, int]


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupted transcripts, row by row, and where they are told apart.

    Attributes:
        family: What was changed: a prompt operand (the rest consistent with it), or one written total (prompt fixed).
        step: Index of the changed operand, or the step of the changed total.
        readout: Role and step of the value at which the two are compared.
        at: Position whose logits predict the first symbol in which the readouts differ.
        answer: Token of the clean transcript there.
        foil: Token of the corrupted transcript there.
        dropped: Problems for which no admissible change exists.
    """

    clean: Batch
    corrupted: Batch
    family: Family
    step: int
    readout: Place
    at: Int[Tensor, " batch"]
    answer: Int[Tensor, " batch"]
    foil: Int[Tensor, " batch"]
    dropped: int

    def __len__(self) -> int:
        return len(self.clean)


def operand_pairs(
    task: Task,
    problems: Sequence[Problem],
    regime: str | Regime,
    *,
    index: int,
    rng: np.random.Generator,
    readout: Place | None = None,
    first_symbol: bool = False,
) -> Pairs:
    """Pairs whose prompt operand `index` differs, each response consistent with its own prompt.

    By default the readout is the first value of the response that differs: up to it the two responses are equal, so
    that the prompt operand is the only difference the model has seen. For `direct` this is the answer; for `cot`, the
    step that copies the operand; for `totals`, the first total that depends on it. A later readout sees every
    difference that the operand caused on the way.

    With `first_symbol` only changes are admitted that alter the first symbol of the readout (18 -> 23, not 18 -> 13):
    then all pairs are read at the same place, directly before the readout begins.
    """

    def changes(problem: Problem) -> Iterable[Problem]:
        others = [x for x in range(task.n_operands) if x != problem.operands[index]]
        changed = np.tile(np.array(problem.operands), (len(others), 1))
        changed[:, index] = others
        return solve(task, changed)

    _check_index(problems, index, 0, "operand")
    return _pairs(task, problems, regime, "operand", index, changes, readout, rng, first_symbol=first_symbol)


def written_total_pairs(
    task: Task,
    problems: Sequence[Problem],
    regime: str | Regime,
    *,
    step: int,
    rng: np.random.Generator,
    readout: Place | None = None,
    first_symbol: bool = False,
) -> Pairs:
    """Pairs with one prompt, whose written total at `step` is right in one and a valid wrong value in the other.

    The corrupted trace goes on from its wrong value by the task's own transition. By default the readout is the first
    value after the edited total: in `cot`, the previous total that opens the next step (a copy); in `totals`, the next
    total; after the last step, the answer. With `readout=(Role.TOTAL, step + 1)` in `cot` the copy differs as well, and
    the readout asks what the next step was computed from. `first_symbol` is that of `operand_pairs`.

    Raises:
        ValueError: The regime writes no totals.
    """
    if not get_regime(regime).writes_totals:
        raise ValueError(f"regime {get_regime(regime).name!r} writes no totals to change; use 'cot' or 'totals'")

    def changes(problem: Problem) -> Iterable[Problem]:
        return (substitute_total(task, problem, step, state) for state in wrong_totals(task, problem, step))

    _check_index(problems, step, 1, "step")
    return _pairs(task, problems, regime, "written_total", step, changes, readout, rng, first_symbol=first_symbol)


def _check_index(problems: Sequence[Problem], index: int, low: int, noun: str) -> None:
    if not problems:
        raise ValueError("minimal pairs need at least one problem, got none")
    shortest = min(problem.k for problem in problems)
    if not low <= index < shortest:
        raise ValueError(f"{noun} {index} is not in every problem: the shortest has {noun}s {low} to {shortest - 1}")


def _pairs(
    task: Task,
    problems: Sequence[Problem],
    regime: str | Regime,
    family: Family,
    step: int,
    changes: Callable[[Problem], Iterable[Problem]],
    readout: Place | None,
    rng: np.random.Generator,
    *,
    first_symbol: bool,
) -> Pairs:
    chosen: list[tuple[Transcript, Transcript, Place, int]] = []
    for problem in problems:
        clean = render(task, problem, regime)
        after = step if family == "written_total" else None
        candidates = [
            (clean, corrupted, *found)
            for corrupted in (render(task, change, regime) for change in changes(problem))
            if (found := _first_difference(clean, corrupted, readout, after, first_symbol=first_symbol)) is not None
        ]
        if candidates:
            chosen.append(candidates[int(rng.integers(len(candidates)))])
    if not chosen:
        raise ValueError(
            f"no minimal pair: changing {family} {step} of {len(problems)} problems never gave a transcript of the "
            f"same layout that differs at the readout {readout or 'after it'}; take another readout or other problems"
        )
    readouts = {place for *_, place, _ in chosen}
    if len(readouts) > 1:
        raise ValueError(f"the pairs are read at different places {sorted(readouts)}; name one with `readout`")
    vocabulary = Vocabulary.of(task)
    clean_batch = collate([clean for clean, *_ in chosen], vocabulary)
    corrupted_batch = collate([corrupted for _, corrupted, *_ in chosen], vocabulary)
    target = torch.tensor([position for *_, position in chosen])
    rows = torch.arange(len(chosen))
    return Pairs(
        clean=clean_batch,
        corrupted=corrupted_batch,
        family=family,
        step=step,
        readout=readouts.pop(),
        at=target - 1,
        answer=clean_batch.tokens[rows, target],
        foil=corrupted_batch.tokens[rows, target],
        dropped=len(problems) - len(chosen),
    )


def _first_difference(
    clean: Transcript, corrupted: Transcript, readout: Place | None, edited_step: int | None, *, first_symbol: bool
) -> tuple[Place, int] | None:
    """Place and position of the readout's first differing symbol; None where the layouts differ or nothing does."""
    layout = [token._replace(symbol="", value=-1) for token in clean.tokens]
    if layout != [token._replace(symbol="", value=-1) for token in corrupted.tokens]:
        return None
    for position, (token, other) in enumerate(zip(clean.tokens, corrupted.tokens, strict=True)):
        place = (token.role, token.step)
        edited = token.role is Role.TOTAL and token.step == edited_step
        wanted = place == readout if readout is not None else token.role in RESPONSE_ROLES and not edited
        if wanted and token.symbol != other.symbol:
            return None if first_symbol and token.part else (place, position)
    return None
