"""Minimal pairs: two transcripts of one layout that differ in one thing.

Corruption is by replacement with a symbol of the same kind, never by noise (Zhang & Nanda 2023, arXiv 2309.16042): same
length, same roles at every position, in distribution, and what the model should write at the readout differs.

The families of pairs, by what the model has been shown otherwise before the readout:

- operand: a prompt operand, and whatever the response says of it on the way (`operand_pairs`);
- written_total: one written total, and whatever the trace goes on to say from it (`written_total_pairs`);
- written_total_alone: that one total and nothing else, in `cot` not even its copy (`continued=False`);
- prompt_operand, both, unrelated, exchanged: `pair_families.py`, where all are read against one gap.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cotinterp.results import rows_html, short_repr
from cotinterp.tasks.task import Task, whole_number
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import Problem, require_solved, solve, substitute_total, wrong_totals
from cotinterp.transcripts.regimes import Regime, require_totals
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import RESPONSE_ROLES, Place, Role
from cotinterp.transcripts.vocabulary import Vocabulary

Family = Literal["operand", "written_total", "written_total_alone", "prompt_operand", "both", "unrelated", "exchanged"]


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupted transcripts, row by row, and where they are told apart.

    Attributes:
        family: What was changed before the readout; see the families above.
        step: Index of the changed operand, or the step of the changed total.
        readout: Role and step of the value at which the two are compared.
        at: Position whose logits predict the first symbol in which answer and foil differ.
        answer: Token of the clean transcript there.
        foil: Token there of a model that follows the change. Of a `prompt_operand` the corrupted transcript holds the
            answer there, not the foil: its response is kept as it was.
        dropped: Problems for which no admissible change exists.
        reference: The corrupted transcripts that define the unit of effects, where those of the pair itself cannot:
            pairs of a change that should not matter. None: the pair's own gap is the unit.
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
    reference: Batch | None = None

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        """The first pairs, for a notebook: both texts, and the symbols that tell them apart at `at`."""
        symbols = self.clean.vocabulary.symbols
        sides = (self.clean.transcripts, self.corrupted.transcripts)
        tokens = (self.at.tolist(), self.answer.tolist(), self.foil.tolist())
        rows = (
            (clean.text, corrupted.text, at, symbols[answer], symbols[foil])
            for clean, corrupted, at, answer, foil in zip(*sides, *tokens, strict=True)
        )
        return rows_html(self, ("clean", "corrupted", "at", "answer", "foil"), rows, n=len(self))

    def __len__(self) -> int:
        return len(self.clean)


class NoPairsError(ValueError):
    """No problem has an admissible change: the task, or the layout, leaves nothing to compare.

    Attributes:
        reason: What was tried and is not there, without the advice that `str` gives to callers of a function.
        tried: In how many problems.
    """

    def __init__(self, reason: str, *, tried: int, advice: str = "") -> None:
        super().__init__("; ".join(filter(None, (reason, advice))))
        self.reason, self.tried = reason, tried


class Change(NamedTuple):
    """One way to corrupt a problem: what the corrupted run is shown, and the problem whose readout is the foil."""

    shown: Problem
    foil: Problem


@dataclass(frozen=True)
class Corruption:
    """What is changed in each problem: the family, its operand or step, and every way in which it can be done."""

    family: Family
    step: int
    changes: Callable[[Problem], Iterable[Change]]


@dataclass(frozen=True)
class Comparison:
    """Where answer and foil are compared: by default at the first value of the response in which they differ.

    Attributes:
        place: Another value, later on.
        first_symbol: Only changes are admitted that alter the first symbol of the value.
        skip: Values that are passed over by default.
    """

    place: Place | None = None
    first_symbol: bool = False
    skip: Callable[[Transcript, Place], bool] | None = None

    def reads(self, clean: Transcript, place: Place) -> bool:
        """Whether the first difference may be read at this value."""
        if self.place is not None:
            return place == self.place
        return self.skip is None or not self.skip(clean, place)


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

    def changes(problem: Problem) -> Iterable[Change]:
        return (Change(changed, changed) for changed in other_operands(task, problem, index))

    check_index(problems, index, 0, "operand")
    corruption = Corruption("operand", index, changes)
    return search_pairs(task, problems, regime, corruption, Comparison(readout, first_symbol), rng)


def written_total_pairs(
    task: Task,
    problems: Sequence[Problem],
    regime: str | Regime,
    *,
    step: int,
    rng: np.random.Generator,
    readout: Place | None = None,
    first_symbol: bool = False,
    continued: bool = True,
) -> Pairs:
    """Pairs with one prompt, whose written total at `step` is right in one and a valid wrong value in the other.

    The corrupted trace goes on from its wrong value by the task's own transition: everything after it differs too. By
    default the readout is the first value after the edited total, where that total is still all that differs: in `cot`,
    the previous total that opens the next step (a copy); in `totals`, the next total; after the last step, the answer.
    With `readout=(Role.TOTAL, step + 1)` in `cot` the copy differs as well, and the readout asks what the next step was
    computed from.

    With `continued=False` (family `written_total_alone`) everything else before the readout is as in the clean
    transcript, and the foil is still what the continued trace has there. At the default readout that is the same pair.
    At `(Role.TOTAL, step + 1)` in `cot` it asks whether the step reads the total itself past an unchanged copy; further
    on, whether the total is read past the unchanged totals in between. `first_symbol` is that of `operand_pairs`.

    Raises:
        ValueError: The regime writes no totals.
    """
    require_totals(regime)

    def changes(problem: Problem) -> Iterable[Change]:
        for state in wrong_totals(task, problem, step):
            edited = substitute_total(task, problem, step, state)
            alone = (*problem.totals[: step - 1], state, *problem.totals[step:])
            yield Change(edited if continued else replace(problem, totals=alone), edited)

    check_index(problems, step, 1, "step")
    family: Family = "written_total" if continued else "written_total_alone"

    def is_edited(_: Transcript, place: Place) -> bool:
        return place == (Role.TOTAL, step)

    corruption = Corruption(family, step, changes)
    return search_pairs(task, problems, regime, corruption, Comparison(readout, first_symbol, is_edited), rng)


def other_operands(task: Task, problem: Problem, index: int) -> tuple[Problem, ...]:
    """The solved problems whose prompt differs from this one's in the symbol of operand `index` alone."""
    others = task.replacements(problem.operands, index)
    changed = np.tile(np.array(problem.operands), (len(others), 1))
    changed[:, index] = others
    return solve(task, changed)


def check_index(problems: Sequence[Problem], index: int, low: int, noun: str) -> None:
    """ValueError unless every problem has an operand, or a step, of this number."""
    whole_number(index, noun, "a number")
    if not problems:
        raise ValueError("minimal pairs need at least one problem, got none")
    shortest = min(problem.k for problem in problems)
    if not low <= index < shortest:
        raise ValueError(f"{noun} {index} is not in every problem: the shortest has {noun}s {low} to {shortest - 1}")


def search_pairs(
    task: Task,
    problems: Sequence[Problem],
    regime: str | Regime,
    corruption: Corruption,
    compared: Comparison,
    rng: np.random.Generator,
) -> Pairs:
    """One admissible change of each problem, drawn at random: same layout, and a foil at the readout.

    NoPairsError where no problem has one.
    """
    require_solved(task, problems)
    chosen: list[tuple[Transcript, Transcript, Transcript, Place, int]] = []
    for problem in problems:
        clean = render(task, problem, regime)
        layout = _layout(clean)
        candidates = []
        for change in corruption.changes(problem):
            foil = render(task, change.foil, regime)
            shown = foil if change.shown is change.foil else render(task, change.shown, regime)
            if _layout(foil) == layout == _layout(shown):
                found = _first_difference(clean, foil, compared)
                candidates += [] if found is None else [(clean, shown, foil, *found)]
        if candidates:
            chosen.append(candidates[int(rng.integers(len(candidates)))])
    if not chosen:
        where = "after it" if compared.place is None else f"{compared.place[0]} {compared.place[1]}"
        raise NoPairsError(
            f"no minimal pair: changing {corruption.family} {corruption.step} of {len(problems)} problems never gave a "
            f"transcript of the same layout that differs at the readout {where}",
            tried=len(problems),
            advice="take another readout or other problems",
        )
    readouts = {place for *_, place, _ in chosen}
    if len(readouts) > 1:
        raise ValueError(f"the pairs are read at different places {sorted(readouts)}; name one with `readout`")
    vocabulary = Vocabulary.of(task)
    clean_batch = collate([clean for clean, *_ in chosen], vocabulary)
    corrupted_batch = collate([shown for _, shown, *_ in chosen], vocabulary)
    target = torch.tensor([position for *_, position in chosen])
    foils = [vocabulary.token(foil.tokens[position].symbol) for _, _, foil, _, position in chosen]
    return Pairs(
        clean=clean_batch,
        corrupted=corrupted_batch,
        family=corruption.family,
        step=corruption.step,
        readout=readouts.pop(),
        at=target - 1,
        answer=clean_batch.tokens[torch.arange(len(chosen)), target],
        foil=torch.tensor(foils),
        dropped=len(problems) - len(chosen),
    )


def _layout(transcript: Transcript) -> list[tuple[Role, int, int]]:
    return [(token.role, token.step, token.part) for token in transcript.tokens]


def _first_difference(clean: Transcript, foil: Transcript, compared: Comparison) -> tuple[Place, int] | None:
    """Place and position of the readout's first differing symbol; None where nothing differs."""
    for position, (token, other) in enumerate(zip(clean.tokens, foil.tokens, strict=True)):
        place = (token.role, token.step)
        if token.symbol == other.symbol or token.role not in RESPONSE_ROLES:
            continue
        if compared.reads(clean, place):
            return None if compared.first_symbol and token.part else (place, position)
    return None
