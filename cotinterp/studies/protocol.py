"""Which pairs, families of pairs and places are studied in every model of a regime, declared before any was run.

Command, script, report and verdict all take them from here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from cotinterp.studies.subject import Effort, Subject
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.pairs import NoPairsError, Pairs, operand_pairs, written_total_pairs
from cotinterp.transcripts.problems import EmptySplitError, Problem
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import Place, Role

FAMILIES_STEP = 2
"""The total that families ask about: the first one that a written total stands before."""
FAMILIES_K = FAMILIES_STEP + 2
"""Fewest operands of `standard_families`: the unrelated one comes after the step."""


Asked = dict[str, Pairs | NoPairsError]
"""Declared pairs by name; where the task has none of a kind, the error that says so."""


def declared_pairs(subject: Subject, n: int, *, k: int) -> Asked:
    """The minimal pairs that every model of a regime is patched on, by a name for each, declared before any was run.

    A prompt operand is changed in every regime, and read where the response first differs; at the answer for a task
    whose steps do not follow its operands in order. Where totals are written, one written total is changed as well:
    read where the next total is computed, and the last one read where the answer is copied. Where a task has none of
    these (a state that is never left, operands that do not matter), any operand that the answer depends on.
    """
    problems = subject.heldout(n, k=k)
    regime, middle, rng = get_regime(subject.regime), k // 2, np.random.default_rng(0)
    build = partial(operand_pairs, subject.task, problems, regime, first_symbol=True, rng=rng)
    edit = partial(written_total_pairs, subject.task, problems, regime, first_symbol=True, rng=rng)
    read = _first_read(subject, problems[0], middle)
    asked: dict[str, Callable[[], Pairs]] = {f"operand-{middle}": partial(build, index=middle, readout=read)}
    if regime.writes_totals:
        if k > 2:
            asked[f"total-{k - 2}-next"] = partial(edit, step=k - 2, readout=(Role.TOTAL, k - 1))
        asked[f"total-{k - 1}-answer"] = partial(edit, step=k - 1)
    else:
        asked[f"operand-{k - 1}"] = partial(build, index=k - 1)
    found = _made(asked)
    if not any(isinstance(pairs, Pairs) for pairs in found.values()):
        answered = {f"operand-{i}-answer": partial(build, index=i, readout=(Role.ANSWER, k - 1)) for i in range(k)}
        found |= _made(answered, first=True)
    return found


def standard_pairs(subject: Subject, n: int, *, k: int) -> dict[str, Pairs]:
    """Those of `declared_pairs` that there are. NoPairsError where there are none at all."""
    found = declared_pairs(subject, n, k=k)
    made = {name: pairs for name, pairs in found.items() if isinstance(pairs, Pairs)}
    if not made:
        raise _none_at_all(subject, {(k, name): error for name, error in found.items()})
    return made


def _first_read(subject: Subject, problem: Problem, step: int) -> Place:
    """Where a response first says what prompt operand `step` was; its answer where no step does."""
    places = {(token.role, token.step) for token in render(subject.task, problem, subject.regime).tokens}
    if subject.task.in_order:
        for role in (Role.STEP_OPERAND, Role.TOTAL):
            if (role, step) in places:
                return role, step
    return Role.ANSWER, problem.k - 1


def _made(asked: Mapping[str, Callable[[], Pairs]], *, first: bool = False) -> Asked:
    """All of them, or none behind the `first` that there is."""
    found: Asked = {}
    for name, make in asked.items():
        try:
            found[name] = make()
        except NoPairsError as error:
            found[name] = error
        else:
            if first:
                break
    return found


Missing = dict[tuple[int, str], NoPairsError]
"""What there are no pairs for, by number of operands and name."""


def _none_at_all(subject: Subject, missing: Mapping[tuple[int, str], Pairs | NoPairsError]) -> NoPairsError:
    tried = max((error.tried for error in missing.values() if isinstance(error, NoPairsError)), default=0)
    operands = ", ".join(map(str, dict.fromkeys(k for k, _ in missing)))
    return NoPairsError(
        f"no pairs to compare in task {subject.task.name!r} at {operands} operands: in too few of {tried} held-out "
        "problems does another operand or written total change what the response says "
        f"({', '.join(dict.fromkeys(name for _, name in missing))} were tried)",
        tried=tried,
        advice="`cotinterp evaluate`, `edit` and `probe` need no pairs, `patch` and `attribute` a task whose answer "
        "depends on its operands",
    )


def lengths(subject: Subject, effort: Effort) -> list[int]:
    """The numbers of operands that pairs are looked for at: `Subject.length` first, then those nearest to it.

    Of a task of two states hardly a problem of four operands is held out, and of a state that is never left the longer
    the problem, the fewer.
    """
    first, (low, high) = subject.length(effort), subject.k_asked
    return sorted(range(low, high + 1), key=lambda k: (abs(k - first), -k))


def at_first_length(
    subject: Subject, effort: Effort, declared: Callable[[int], Asked], *, enough: Sequence[int]
) -> tuple[int, dict[str, Pairs], Missing]:
    """The pairs of the first of `lengths` at which one kind has `enough` of them (or, if none has, the next `enough`).

    With them, what was declared and is not there, at this length and at those before it. NoPairsError where there is
    nothing at any length.
    """
    missing: Missing = {}
    for least in enough:
        missing = {}
        for k in lengths(subject, effort):
            try:
                asked = declared(k)
            except EmptySplitError as error:
                missing[k, "all"] = NoPairsError(str(error), tried=0)
                continue
            made = {name: pairs for name, pairs in asked.items() if isinstance(pairs, Pairs)}
            missing |= {(k, name): found for name, found in asked.items() if isinstance(found, NoPairsError)}
            if max(map(len, made.values()), default=0) >= least:
                return k, made, missing
            for name, pairs in made.items():
                tried = len(pairs) + pairs.dropped
                few = f"{len(pairs)} of {tried} held-out problems has such a pair, {least} at least are needed"
                missing[k, name] = NoPairsError(few, tried=tried)
    raise _none_at_all(subject, missing)


def standard_families(subject: Subject, n: int, *, k: int) -> dict[str, Pairs] | None:
    """Total 2 under the four families of pairs; None where a regime writes no totals, or problems are too short.

    None as well for a task whose steps do not follow its operands in order. The operand that is changed is the first,
    or the second where the first does not matter. NoPairsError where no problem has an admissible change.
    """
    if not subject.task.in_order or not subject.writes_totals or k < FAMILIES_K:
        return None
    build = partial(pair_families, subject.task, subject.heldout(n, k=k), subject.regime, step=FAMILIES_STEP)
    try:
        return build(rng=np.random.default_rng(0))
    except NoPairsError as error:
        try:
            return build(rng=np.random.default_rng(0), index=1)
        except NoPairsError:
            raise error from None


def head_pairs(subject: Subject, n: int, *, k: int) -> Pairs:
    """The pairs of the head table: the last step's total where totals are written, else the answer.

    With written totals the one before is changed, so the logit difference asks which total the step starts from.
    """
    problems, regime, rng = subject.heldout(n, k=k), get_regime(subject.regime), np.random.default_rng(0)
    if regime.writes_totals and k > 2:
        readout = (Role.TOTAL, k - 1)
        return written_total_pairs(
            subject.task, problems, regime, step=k - 2, rng=rng, readout=readout, first_symbol=True
        )
    return operand_pairs(
        subject.task, problems, regime, index=k - 1, rng=rng, readout=(Role.ANSWER, k - 1), first_symbol=True
    )


def declared_head_pairs(subject: Subject, n: int, *, k: int) -> Asked:
    """`head_pairs`; where the task has none, the last operand's at the same readout, then any operand's at the answer.

    By name, those that were tried; the last of them are the pairs, where there are any.
    """
    problems, totals = subject.heldout(n, k=k), subject.writes_totals and k > 2
    # What is not there has drawn nothing: the pairs that are found are the same, whatever was tried before.
    rng = np.random.default_rng(0)
    build = partial(operand_pairs, subject.task, problems, subject.regime, first_symbol=True, rng=rng)
    first = f"total-{k - 2}-next" if totals else f"operand-{k - 1}-answer"
    asked: dict[str, Callable[[], Pairs]] = {first: partial(head_pairs, subject, n, k=k)}
    if totals:
        asked[f"operand-{k - 1}-next"] = partial(build, index=k - 1, readout=(Role.TOTAL, k - 1))
    for index in reversed(range(k)):
        asked.setdefault(f"operand-{index}-answer", partial(build, index=index, readout=(Role.ANSWER, k - 1)))
    return _made(asked, first=True)


def use_pairs(subject: Subject, n: int, *, k: int) -> Pairs:
    """Up to `n` held-out problems with prompt operand k // 2 - 1 replaced, and all that follows from it on the way.

    Read at the last total where totals are written, else at the answer. ValueError where no problem has such a pair.
    """
    return operand_pairs(
        subject.task,
        subject.heldout(n, k=k),
        subject.regime,
        index=k // 2 - 1,
        rng=np.random.default_rng(0),
        readout=(Role.TOTAL if subject.writes_totals else Role.ANSWER, k - 1),
        first_symbol=True,
    )


EQUALS, BEFORE_TOTAL, OPERAND, PROMPT_END = "equals", "before_total", "operand", "prompt_end"


def places_of(transcript: Transcript, target: int) -> dict[str, Place]:
    """By its word, every place at which total `target` is probed; none of them holds it as a symbol.

    Where totals are written, what stands before this one (`before_total`). Else `operand`, operand `target` of the
    prompt, which is the first place at which a causal model can have the total, and `prompt_end`, the last.
    """
    in_prompt = {OPERAND: (Role.OPERAND, target), PROMPT_END: (Role.PROMPT_END, -1)}
    return before_total(transcript, target) or in_prompt


def before_total(transcript: Transcript, step: int) -> dict[str, Place]:
    """The symbol whose logits write the total of `step`, by its word; nothing where no total is written.

    `equals`, the equals sign of the same step; in a trace without equals signs (`totals`) it is another symbol, called
    `before_total`.
    """
    tokens = transcript.tokens
    return {
        EQUALS if last.role is Role.EQUALS else BEFORE_TOTAL: (last.role, last.step)
        for last, token in zip(tokens, tokens[1:], strict=False)
        if (token.role, token.step, token.part) == (Role.TOTAL, step, 0)
    }


def use_places(transcript: Transcript, *, k: int) -> list[tuple[str, Place, int]]:
    """Where it is asked whether what a probe reads is used: the place by its word, and the total that is probed there.

    Where totals are written, the symbol before the last total, for the total before and for the last one. Else the
    middle operand, for the total there, and the end of the prompt, for the answer.
    """
    if last := before_total(transcript, k - 1):
        return [(word, place, target) for word, place in last.items() for target in (k - 2, k - 1) if target]
    return [(OPERAND, (Role.OPERAND, k // 2), k // 2), (PROMPT_END, (Role.PROMPT_END, -1), k - 1)]
