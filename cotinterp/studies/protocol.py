"""Which pairs, families of pairs and places are studied in every model of a regime, declared before any was run.

Command, script, report and verdict all take them from here.
"""

import numpy as np

from cotinterp.studies.subject import Subject
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.pairs import Pairs, operand_pairs, written_total_pairs
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import Transcript
from cotinterp.transcripts.roles import Place, Role

FAMILIES_STEP = 2
"""The total that families ask about: the first one that a written total stands before."""
FAMILIES_K = FAMILIES_STEP + 2
"""Fewest operands of `standard_families`: the unrelated one comes after the step."""


def standard_pairs(subject: Subject, n: int, *, k: int) -> dict[str, Pairs]:
    """The minimal pairs that every model of a regime is patched on, by a name for each, declared before any was run.

    A prompt operand is changed in every regime, and read where the response first differs; at the answer for a task
    whose steps do not follow its operands in order. Where totals are written, one written total is changed as well:
    read where the next total is computed, and the last one read where the answer is copied.
    """
    problems = subject.heldout(n, k=k)
    regime, rng = get_regime(subject.regime), np.random.default_rng(0)
    middle = k // 2
    readout = None if subject.task.in_order else (Role.ANSWER, k - 1)
    pairs = {
        f"operand-{middle}": operand_pairs(
            subject.task, problems, regime, index=middle, rng=rng, readout=readout, first_symbol=True
        )
    }
    if regime.writes_totals:
        if k > 2:
            pairs[f"total-{k - 2}-next"] = written_total_pairs(
                subject.task, problems, regime, step=k - 2, rng=rng, readout=(Role.TOTAL, k - 1), first_symbol=True
            )
        pairs[f"total-{k - 1}-answer"] = written_total_pairs(
            subject.task, problems, regime, step=k - 1, rng=rng, first_symbol=True
        )
    else:
        pairs[f"operand-{k - 1}"] = operand_pairs(
            subject.task, problems, regime, index=k - 1, rng=rng, first_symbol=True
        )
    return pairs


def standard_families(subject: Subject, n: int, *, k: int) -> dict[str, Pairs] | None:
    """Total 2 under the four families of pairs; None where a regime writes no totals, or problems are too short.

    None as well for a task whose steps do not follow its operands in order.
    """
    if not subject.task.in_order or not subject.writes_totals or k < FAMILIES_K:
        return None
    problems = subject.heldout(n, k=k)
    return pair_families(subject.task, problems, subject.regime, step=FAMILIES_STEP, rng=np.random.default_rng(0))


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
