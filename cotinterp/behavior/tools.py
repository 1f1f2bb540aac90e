"""A tool in the loop: the model writes what is to be computed, and an oracle writes the result into the context.

`WithTool` is a model with its tool as one language model, so that every instrument that lets a model write takes it
unchanged: `accuracy_by_k` says how well the two solve problems, `trace_edits` whether the model reads the tool's total
(`substitute_total` is a tool that errs once), `sample_responses` draws. What looks inside a model takes the model
itself, whose transcripts are those of the regime `tool`.

After Yao et al. 2022 (ReAct, arXiv 2210.03629) in small: the one tool is the task's own step, called by `=`. It errs
(`substitute_total`), is late (`late_tool`) or is silent (`silent_tool`): what an answer does then says whether the
model reads its tool.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.models.decoding import LanguageModel, reading
from cotinterp.tasks.task import FoldTask, Task
from cotinterp.transcripts.parsing import parse_step
from cotinterp.transcripts.regimes import MARK, Regime, get_regime
from cotinterp.transcripts.vocabulary import Vocabulary

Query = tuple[int, int]
"""The state and the operand that a model asked about, by their indices."""

Tool = Callable[[Sequence[Query]], int | None]
"""What a tool writes after the queries of a trace so far, the last one asked now: a state, or None for nothing."""


def right_tool(task: FoldTask) -> Tool:
    """What the task's own step makes of the last query."""

    def tool(asked: Sequence[Query]) -> int:
        state, operand = asked[-1]
        return int(task.step(np.array([state]), np.array([operand]))[0])

    return tool


def late_tool(task: FoldTask) -> Tool:
    """The result of the query before, and nothing for the first one."""
    right = right_tool(task)
    return lambda asked: right(asked[:-1]) if len(asked) > 1 else None


def silent_tool(asked: Sequence[Query]) -> None:  # noqa: ARG001
    """No result: does the model compute the total that it always read?"""


SURE = 1e4
"""Logit of the symbol that the tool writes; all others have 0, a probability of nothing."""


@dataclass(frozen=True, eq=False)
class WithTool:
    """A model whose every query `a+b=` is answered by a tool; what follows the result is the model's own again.

    The tool answers what was asked: a model that asks for the wrong step reads the right result of that. Where it has
    nothing to say, or the query names no state and operand of the task, the model goes on alone; so it does behind a
    result that was begun otherwise (an edit).

    Attributes:
        model: Any causal model of the task's vocabulary.
        tool: By default `right_tool`.

    Raises:
        ValueError: A task without steps of a state and an operand, or one in which nobody sees where a result ends
            (`regimes.Tool`).
    """

    model: LanguageModel
    task: Task
    tool: Tool | None = None

    def __post_init__(self) -> None:
        why = get_regime("tool").refusal(self.task)
        if why is None and not isinstance(self.task, FoldTask):
            why = "its steps are not those of a fold, `a+b=`"
        if why is not None:
            raise ValueError(f"task {self.task.name!r} has no tool: {why}")

    @property
    def cfg(self) -> object:
        """Of the model: its context and its vocabulary are those of both."""
        return getattr(self.model, "cfg", None)

    def __call__(self, tokens: Int[Tensor, "batch pos"], /) -> Float[Tensor, "batch pos d_vocab"]:
        assert isinstance(self.task, FoldTask)
        tool, symbols = self.tool or right_tool(self.task), Vocabulary.of(self.task)
        with reading(self.model) as read:
            own = read(tokens)
        logits = own.clone()
        known: dict[str, str] = {}
        for row, ids in enumerate(tokens.tolist()):
            text = "".join(symbols.symbols[token] for token in ids)
            for place in _open_queries(text):
                so_far = text[: place + 1]
                if so_far not in known:
                    known[so_far] = _next_symbol(self.task, tool, so_far)
                if known[so_far]:
                    logits[row, place] = 0.0
                    logits[row, place, symbols.token(known[so_far])] = SURE
        return logits


def with_its_tool(model: LanguageModel, task: Task, regime: str | Regime) -> LanguageModel:
    """The model as it writes: with `right_tool` where its regime asks one, else by itself."""
    return WithTool(model, task) if get_regime(regime).asks_tool else model


def _open_queries(text: str) -> list[int]:
    """Places in an open trace at which a result may be wanted: `=` and what stands behind it, up to a separator."""
    begin = text.find("{")
    closed = text.find("}", begin)
    places, asking = [], False
    for place in range(begin, len(text) if closed < 0 else closed) if begin >= 0 else ():
        asking = (asking or text[place] == "=") and text[place] not in _SEPARATORS
        places += [place] if asking else []
    return places


_SEPARATORS = f";{MARK}{{"


def _next_symbol(task: FoldTask, tool: Tool, text: str) -> str:
    """What the tool writes after `text`, which ends in an open query; empty where it has nothing to write."""
    segments = re.split(f"[{_SEPARATORS}]", text.partition("{")[2])
    queries = [parse_step(task, f"{segment.partition('=')[0]}={task.states[0]}") for segment in segments]
    if queries[-1].previous is None or queries[-1].operand is None:
        return ""
    asked = [(one.previous, one.operand) for one in queries if one.previous is not None and one.operand is not None]
    total = tool(asked)
    begun, whole = segments[-1].partition("=")[2], "" if total is None else task.state_text(total)
    return whole[len(begun)] if whole.startswith(begun) and whole != begun else ""
