"""The symbols of a task's transcripts. Every symbol is one character and one token."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cotinterp.tasks.task import STRUCTURE, Task


@dataclass(frozen=True)
class Vocabulary:
    """Symbols in token order. It depends on the task alone, so all regimes of a task share one."""

    symbols: tuple[str, ...]

    @classmethod
    def of(cls, task: Task) -> "Vocabulary":
        """Structure, operators, brackets, operands, and whatever further symbols the states are written with."""
        written = (*STRUCTURE, *task.operators, *task.brackets, *task.operands, *"".join(task.states))
        return cls(tuple(dict.fromkeys(written)))

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def pad(self) -> int:
        """Token of the padding symbol."""
        return 0

    @property
    def end(self) -> int:
        """Token of `#`, which ends a response."""
        return self.token("#")

    def token(self, symbol: str) -> int:
        """The token of one symbol."""
        try:
            return self._token_of[symbol]
        except KeyError:
            raise KeyError(f"symbol {symbol!r} is not in the vocabulary {''.join(self.symbols)!r}") from None

    def encode(self, text: Iterable[str]) -> list[int]:
        """Tokens of a text."""
        return [self.token(symbol) for symbol in text]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of some tokens, padding dropped."""
        return "".join(self.symbols[token] for token in tokens if token != self.pad)

    @cached_property
    def _token_of(self) -> dict[str, int]:
        return {symbol: token for token, symbol in enumerate(self.symbols)}
