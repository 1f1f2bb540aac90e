"""Where a running total is probed before it is written, and what the places are called in the evidence."""

from cotinterp.transcripts.render import Transcript
from cotinterp.transcripts.roles import Role

Place = tuple[Role, int]
"""A role and a step, -1 where the role belongs to none."""

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
