"""Where everything stands in the transcripts of a task, and what is written after each place.

States of one symbol make the layout a matter of the number of operands alone, so that it is read off one problem.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.regimes import Token
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import RESPONSE_ROLES, Role


@dataclass(frozen=True)
class Layout:
    """Roles and steps of all transcripts of `k` operands in one regime; symbols and values are those of an example."""

    k: int
    tokens: tuple[Token, ...]

    def find(self, role: Role, step: int = -1) -> int | None:
        """Position of the token of that role and step, None where there is none."""
        return next((i for i, token in enumerate(self.tokens) if (token.role, token.step) == (role, step)), None)

    def where(self, role: Role, step: int = -1) -> int:
        """Position of the token of that role and step. KeyError where there is none."""
        position = self.find(role, step)
        if position is None:
            raise KeyError(f"a transcript of {self.k} operands has no {role} of step {step}")
        return position

    def predictions(self) -> Iterator[tuple[int, Token]]:
        """Every position whose logits matter, and the token that is written after it."""
        return ((i - 1, token) for i, token in enumerate(self.tokens) if token.role in RESPONSE_ROLES)

    def sources(self, at: int, token: Token) -> tuple[int | None, int | None]:
        """Where a reader finds the total and the operand that `token`, which follows position `at`, is made of.

        A total is made of both, a copied value of the one that it is a copy of, a symbol of neither.
        """
        match token.role:
            case Role.TOTAL:
                return self._previous_total(token.step, at), self._operand(token.step, at)
            case Role.PREVIOUS_TOTAL:
                return self._previous_total(token.step, at), None
            case Role.STEP_OPERAND:
                return None, self._operand(token.step, at)
            case Role.ANSWER:
                return self.where(Role.TOTAL, token.step), None
            case _:
                return None, None

    def _previous_total(self, step: int, at: int) -> int:
        """The total before `step` as it was last written: `cot` repeats it in the step; s_0 stands in the prompt."""
        repeated = self.find(Role.PREVIOUS_TOTAL, step)
        if repeated is not None and repeated <= at:
            return repeated
        return self.where(Role.OPERAND, 0) if step == 1 else self.where(Role.TOTAL, step - 1)

    def _operand(self, step: int, at: int) -> int:
        """Operand `step` as it was last written: in the step itself, else in the prompt."""
        repeated = self.find(Role.STEP_OPERAND, step)
        return repeated if repeated is not None and repeated <= at else self.where(Role.OPERAND, step)


def layouts(task: Task, regime: str, k_range: tuple[int, int]) -> tuple[Layout, ...]:
    """The layout for each number of operands, fewest first."""
    examples = {k: solve(task, np.zeros((1, k), dtype=np.int64))[0] for k in range(k_range[0], k_range[1] + 1)}
    return tuple(Layout(k, render(task, example, regime).tokens) for k, example in examples.items())


def prompt_ends(places: tuple[Layout, ...]) -> dict[int, int]:
    """Where `>` stands for each number of operands."""
    return {place.k: place.where(Role.PROMPT_END) for place in places}
