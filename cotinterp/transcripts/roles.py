"""Names for the places of a transcript: whoever writes a token also says what it is."""

import difflib
from enum import StrEnum


class Role(StrEnum):
    """What a token is for. Instruments address tokens by role and step, never by arithmetic on positions."""

    PAD = "pad"
    PROMPT_START = "prompt_start"
    OPERAND = "operand"
    OPERATOR = "operator"
    PROMPT_END = "prompt_end"
    TRACE_START = "trace_start"
    PREVIOUS_TOTAL = "previous_total"
    STEP_OPERATOR = "step_operator"
    STEP_OPERAND = "step_operand"
    EQUALS = "equals"
    TOTAL = "total"
    STEP_END = "step_end"
    FILLER = "filler"
    TRACE_END = "trace_end"
    ANSWER = "answer"
    END = "end"
    # Codes of stored batches follow this order: new roles come last.
    BRACKET = "bracket"
    EXAMPLE = "example"

    @classmethod
    def _missing_(cls, value: object) -> "Role":
        near = difflib.get_close_matches(str(value), list(cls), n=3)
        known = f"Nearest: {[str(role) for role in near]}. " if near else ""
        raise ValueError(f"unknown role {value!r}. {known}Roles: {', '.join(cls)}")


Place = tuple[Role, int]
"""Role and step, such as `(Role.TOTAL, 2)`; step -1 where the role has none."""

PROMPT_ROLES = frozenset({Role.EXAMPLE, Role.PROMPT_START, Role.OPERAND, Role.OPERATOR, Role.BRACKET, Role.PROMPT_END})
"""Given to the model."""

RESPONSE_ROLES = frozenset(Role) - PROMPT_ROLES - {Role.PAD}
"""Written by the model; the loss is taken on these and no others."""


def place_words(role: str, step: int = -1) -> str:
    """A place in words, as tables and axes name it: `previous total 2`, `operand 0`, `prompt end` (step -1: none)."""
    words = str(role).replace("_", " ")
    return words if step < 0 else f"{words} {step}"


ROLE_CODE: dict[Role, int] = {role: code for code, role in enumerate(Role)}
"""Integer of a role inside a batch; padding is 0."""
