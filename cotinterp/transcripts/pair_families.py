"""Pairs that tell a reader of the written trace from a model that works from the prompt again, and their control.

Behavior alone cannot tell the two apart: both write the same transcript. Change the prompt under a fixed trace, and a
reader keeps its answer while a recomputer goes over to the foil; change the trace under a fixed prompt, and it is the
other way round. Change what cannot matter, and neither moves.

All of this is for tasks whose steps follow the operands in order; others are refused.

A reader is a model that copies or computes each value from the last values written before it, and looks up in the
prompt only operands that the response has not repeated (`prompt_lookups`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.pairs import (
    Change,
    Comparison,
    Corruption,
    Family,
    NoPairsError,
    Pairs,
    check_index,
    other_operands,
    search_pairs,
)
from cotinterp.transcripts.problems import Problem, solve, substitute_total, wrong_totals
from cotinterp.transcripts.regimes import Regime, get_regime
from cotinterp.transcripts.render import Transcript, prompt, render
from cotinterp.transcripts.roles import Place, Role
from cotinterp.transcripts.vocabulary import Vocabulary


def prompt_lookups(transcript: Transcript, place: Place) -> frozenset[int]:
    """Which operands a reader of the trace looks up in the prompt to write the value at `place`.

    At total 2 of `totals` operand 2 (total 1 stands written), of `cot` none: its step has repeated the operand. At the
    first step of `totals` operands 0 and 1, at the answer of `direct` all of them. ValueError for a place that is no
    value of the transcript.
    """
    role, step = place
    places = [(token.role, token.step) for token in transcript.tokens]
    values = (Role.PREVIOUS_TOTAL, Role.STEP_OPERAND, Role.TOTAL, Role.ANSWER)
    if place not in places or role not in values:
        known = [f"{role} {step}" for role, step in dict.fromkeys(places) if role in values]
        raise ValueError(f"{role} {step} is no value of {transcript.text!r}; values there: {known}")
    written = set(places[: places.index(place)])

    def total(last: int) -> frozenset[int]:
        """What it takes to have the total of step `last`."""
        return frozenset() if (Role.TOTAL, last) in written else frozenset(range(last + 1))

    if role is Role.STEP_OPERAND:
        return frozenset({step})
    if role is Role.PREVIOUS_TOTAL:
        return total(step - 1)
    if role is Role.ANSWER:
        return total(step)
    before = frozenset[int]() if (Role.PREVIOUS_TOTAL, step) in written else total(step - 1)
    return before if (Role.STEP_OPERAND, step) in written else before | {step}


def prompt_operand_pairs(
    task: Task,
    problems: Sequence[Problem],
    regime: str | Regime,
    *,
    index: int,
    rng: np.random.Generator,
    readout: Place | None = None,
    first_symbol: bool = False,
) -> Pairs:
    """Pairs whose prompt operand `index` differs and nothing else: the response is kept as it was written.

    The answer is what a reader of the unchanged trace writes at the readout, the foil what a model writes that works
    from the changed prompt again. By default the readout is the first value at which the two come apart: in `totals`
    the total after the one that takes the operand up (the answer, for the last operand), in `cot` the total of the
    operand's own step, which repeats it. A model without a gap here did not look: that is a finding, not a failure.

    Raises:
        ValueError: The regime writes no totals, or a reader looks the changed operand up in the prompt at the readout.
    """
    _require_totals(task, regime)
    check_index(problems, index, 0, "operand")
    if readout is not None and index in prompt_lookups(render(task, problems[0], regime), readout):
        raise ValueError(
            f"at {readout[0]} {readout[1]} a reader of the trace looks operand {index} up in the prompt as well: "
            "reader and recomputer write the same there. Take a later readout, or an earlier operand"
        )

    def changes(problem: Problem) -> Iterable[Change]:
        for changed in other_operands(task, problem, index):
            yield Change(replace(problem, operands=changed.operands), changed)

    def looked_up(clean: Transcript, place: Place) -> bool:
        return index in prompt_lookups(clean, place)

    corruption = Corruption("prompt_operand", index, changes)
    return search_pairs(task, problems, regime, corruption, Comparison(readout, first_symbol, looked_up), rng)


def unrelated_pairs(task: Task, related: Pairs, *, index: int, rng: np.random.Generator) -> Pairs:
    """The same problems, question, answer and foil as `related`, with a change that cannot matter: a later operand.

    Prompt operand `index`, which only steps after the readout take up, is replaced, and nothing else; the readout's
    true value is the same in both runs (the task's own solution is asked). The pair has no gap of its own: `reference`
    is the corrupted side of `related`, and effects are in units of its gap. 0 is what a correct mechanism shows.

    Raises:
        ValueError: The readout depends on that operand.
    """
    task.require_order("a pair with an unrelated operand")
    related.clean.require(task)
    problems = related.clean.problems
    check_index(problems, index, 0, "operand")
    candidates = [other_operands(task, problem, index) for problem in problems]
    if not all(candidates):
        raise NoPairsError(
            f"operand {index} has a single value in {sum(not found for found in candidates)} of {len(problems)} "
            f"problems of task {task.name!r}: there is no other one to put in its place",
            tried=len(problems),
        )
    drawn = [changed[int(rng.integers(len(changed)))] for changed in candidates]
    differs = sum(
        _true_value(problem, related) != _true_value(x, related) for problem, x in zip(problems, drawn, strict=True)
    )
    role, step = related.readout
    if differs or index <= step:
        raise ValueError(
            f"operand {index} is not unrelated to {role} {step}, which depends on operands 0 to {step}; change a later "
            f"one (up to {min(problem.k for problem in problems) - 1} here), or exchange two with exchanged_pairs"
        )
    return _under_fixed_trace(task, related, "unrelated", index, drawn)


def exchanged_pairs(task: Task, related: Pairs, *, index: int) -> Pairs:
    """The same problems and question as `related`, with prompt operands `index` and `index + 1` exchanged.

    For tasks in which order cannot matter, where no operand comes after the readout (the answer of `direct`). The
    response is kept, the readout's true value is the same; unlike an `unrelated` operand both are inputs of the
    readout, so a model that is right may hold other values on the way, and single cells need not be 0: the whole change
    is. Problems whose two operands are equal are dropped. `reference` is as in `unrelated_pairs`.

    Raises:
        ValueError: The task's order matters to the readout, or every problem repeats the operand.
    """
    task.require_order("a pair with two operands exchanged")
    related.clean.require(task)
    problems = related.clean.problems
    check_index(problems, index, 0, "operand")
    check_index(problems, index + 1, 0, "operand")
    swapped: list[Problem] = []
    for problem in problems:
        operands = list(problem.operands)
        operands[index : index + 2] = operands[index + 1], operands[index]
        swapped.extend(solve(task, np.array([operands])))
    if any(
        _true_value(problem, related) != _true_value(x, related) for problem, x in zip(problems, swapped, strict=True)
    ):
        role, step = related.readout
        raise ValueError(
            f"exchanging operands {index} and {index + 1} of {task.name!r} changes what is read at {role} {step}: "
            "order matters there. Change an operand after the readout instead (unrelated_pairs)"
        )
    moved = [row for row, problem in enumerate(problems) if problem.operands != swapped[row].operands]
    if not moved:
        said = f"operands {index} and {index + 1} are equal in all {len(problems)} problems"
        raise NoPairsError(said, tried=len(problems))
    kept = replace(
        related,
        clean=related.clean[moved],
        corrupted=related.corrupted[moved],
        at=related.at[moved],
        answer=related.answer[moved],
        foil=related.foil[moved],
        dropped=related.dropped + len(problems) - len(moved),
    )
    return _under_fixed_trace(task, kept, "exchanged", index, [swapped[row] for row in moved])


def pair_families(
    task: Task,
    problems: Sequence[Problem],
    regime: str | Regime,
    *,
    step: int,
    rng: np.random.Generator,
    index: int = 0,
    unrelated: int | None = None,
    first_symbol: bool = True,
) -> dict[str, Pairs]:
    """One question under four changes, row by row on the same problems: the total of `step`, which comes from where?

    - prompt_operand: operand `index` of the prompt, the trace as it was. A recomputer follows, a reader stays.
    - written_total: the total of `step - 1` (in `cot` with its copy), the prompt as it was. A reader follows, a
      recomputer stays. The wrong total is the one that the changed operand would have given.
    - both: that operand and everything after it, consistently. Whoever is right follows.
    - unrelated: operand `unrelated` of the prompt (by default the next after `step`). Nobody follows.

    All four have one clean side, one answer and one foil, and all effects are in units of the gap of `both`.

    Raises:
        ValueError: The regime writes no totals, or not index < step < unrelated.
    """
    _require_totals(task, regime)
    check_index(problems, step, 2, "step")
    unrelated = step + 1 if unrelated is None else unrelated
    shortest = min(problem.k for problem in problems)
    if not 0 <= index < step < unrelated < shortest:
        raise ValueError(
            f"operand {index} must come before step {step} and operand {unrelated} after it, in problems of "
            f"{shortest} operands: index < step < unrelated < {shortest}"
        )

    def changes(problem: Problem) -> Iterable[Change]:
        allowed = wrong_totals(task, problem, step - 1)
        for changed in other_operands(task, problem, index):
            total = changed.totals[step - 2]
            if total in allowed:
                yield Change(changed, changed)

    compared = Comparison((Role.TOTAL, step), first_symbol)
    both = search_pairs(task, problems, regime, Corruption("both", index, changes), compared, rng)
    changed = both.corrupted.problems
    edited = [
        render(task, substitute_total(task, problem, step - 1, other.totals[step - 2]), regime)
        for problem, other in zip(both.clean.problems, changed, strict=True)
    ]
    return {
        "prompt_operand": _under_fixed_trace(task, both, "prompt_operand", index, changed),
        "written_total": _corrupted_by(task, both, "written_total", step - 1, edited),
        "both": both,
        "unrelated": unrelated_pairs(task, both, index=unrelated, rng=rng),
    }


def _under_fixed_trace(task: Task, related: Pairs, family: Family, step: int, shown: Sequence[Problem]) -> Pairs:
    """`related`, corrupted by the prompts of `shown` before the clean responses."""
    rows = zip(related.clean.transcripts, shown, strict=True)
    return _corrupted_by(task, related, family, step, [_new_prompt(task, clean, other) for clean, other in rows])


def _corrupted_by(task: Task, related: Pairs, family: Family, step: int, shown: Sequence[Transcript]) -> Pairs:
    """`related` with other corrupted transcripts, and its own as the reference."""
    corrupted = collate(shown, Vocabulary.of(task))
    return replace(related, corrupted=corrupted, family=family, step=step, reference=related.corrupted)


def _new_prompt(task: Task, clean: Transcript, other: Problem) -> Transcript:
    problem = replace(clean.problem, operands=other.operands)
    asked = [*prompt(task, problem)][:-1]  # the last symbol of a prompt is the regime's
    return replace(clean, problem=problem, tokens=(*asked, *clean.tokens[clean.n_prompt - 1 :]))


def _true_value(problem: Problem, pairs: Pairs) -> int:
    """What the task itself has at the readout."""
    role, step = pairs.readout
    if role is Role.STEP_OPERAND:
        return problem.step_operands[step - 1]
    return (problem.previous if role is Role.PREVIOUS_TOTAL else problem.totals)[step - 1]


def _require_totals(task: Task, regime: str | Regime) -> None:
    task.require_order("telling a reader of the trace from a model that starts from the prompt again")
    if not get_regime(regime).writes_totals:
        raise ValueError(
            f"regime {get_regime(regime).name!r} writes no totals, so there is no trace to read; use 'cot' or 'totals' "
            "(without a trace: operand_pairs, and exchanged_pairs where order cannot matter)"
        )
