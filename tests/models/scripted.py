"""Models whose mechanism is known because it is written down: policies from the text so far to the next symbol."""

import hashlib
import re
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cotinterp.models.build import as_bridge, build_module
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import Task, get_task
from cotinterp.transcripts.problems import Problem, sample_problems, solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

Policy = Callable[[str], str]


class Scripted:
    """A causal model: one-hot logits on the symbol that a policy names for the text up to each position."""

    def __init__(self, task: Task, policy: Policy, *, n_ctx: int | None = None) -> None:
        self.vocabulary = Vocabulary.of(task)
        self.policy = policy
        self.passes = 0
        self.rows = 0
        self.known: dict[str, int] = {}
        if n_ctx is not None:
            self.cfg = SimpleNamespace(n_ctx=n_ctx)

    def __call__(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        self.passes += 1
        self.rows += len(tokens)
        logits = torch.zeros(*tokens.shape, len(self.vocabulary))
        for row, ids in enumerate(tokens.tolist()):
            text = ""
            for position, token in enumerate(ids):
                text += self.vocabulary.symbols[token]
                logits[row, position, self._next(text)] = 1.0
        return logits

    def _next(self, text: str) -> int:
        if text not in self.known:
            self.known[text] = self.vocabulary.token(self.policy(text) if ">" in text else "#")
        return self.known[text]


def asked(task: Task, text: str) -> tuple[Problem, str]:
    """The problem of a prompt, and what was written after it."""
    prompt, _, response = text.partition(">")
    return _solved(task, prompt), response


@cache
def _solved(task: Task, prompt: str) -> Problem:
    operands = [task.parse_operand(symbol) for symbol in prompt.removeprefix("<").split(task.operator)]
    return solve(task, np.array([operands]))[0]


@cache
def _step(task: Task, state: int, operand: int) -> int:
    return int(task.step(np.array([state]), np.array([operand]))[0])


@cache
def _response(task: Task, problem: Problem, regime: str) -> str:
    return render(task, problem, regime).response


def recomputer(task: Task, regime: str) -> Policy:
    """Writes what belongs at each place of the true response, whatever was written before; after `}` the answer."""

    def policy(text: str) -> str:
        problem, written = asked(task, text)
        trace, brace, answer = written.partition("}")
        expected = _response(task, problem, regime)
        place = expected.index("}") + 1 + len(answer) if brace and "}" in expected else len(written)
        return expected[place] if place < len(expected) else "#"

    return policy


def reader(task: Task, regime: str, *, slip_at: int | None = None) -> Policy:
    """Continues from the totals that stand in the trace; with `slip_at` it computes that one step wrong.

    After a closed trace it answers with the last total in it, with s_0 where none is, and with nothing for a filler.
    """

    def policy(text: str) -> str:
        problem, written = asked(task, text)
        out, state = "{", problem.previous[0]
        if "}" in written:
            trace, _, answer = written.partition("}")
            last = re.split("[{;=]", trace)[-1]
            out = (task.state_text(state) if not last else last if task.parse_state(last) is not None else "") + "#"
            return out[len(answer)] if len(answer) < len(out) else "#"
        for step, operand in enumerate(problem.step_operands, start=1):
            out += ";" if step > 1 else ""
            out += f"{task.state_text(state)}{task.operator}{task.operands[operand]}=" if regime != "totals" else ""
            if len(out) > len(written):
                return out[len(written)]
            total = _step(task, state, operand)
            own = task.state_text((total + (step == slip_at)) % task.n_states)
            there, end = re.match(r"([^;}#]*)([;}]?)", written[len(out) :]).groups()
            if not end and own.startswith(there) and own != there:
                return own[len(there)]
            out += there
            if task.parse_state(there) is None:
                return "#"
            state = task.parse_state(there)
        out += "}" + task.state_text(state) + "#"
        return out[len(written)] if len(written) < len(out) else "#"

    return policy


def babbler(task: Task, *, salt: str = "", symbols: str | None = None) -> Policy:
    """A fixed pseudo-random symbol for every text."""
    alphabet = symbols or "".join(Vocabulary.of(task).symbols)

    def policy(text: str) -> str:
        return alphabet[hashlib.sha256((salt + text).encode()).digest()[0] % len(alphabet)]

    return policy


@pytest.fixture(scope="session")
def scripted() -> SimpleNamespace:
    """`Scripted` and its policies."""
    return SimpleNamespace(Model=Scripted, recomputer=recomputer, reader=reader, babbler=babbler, asked=asked)


@pytest.fixture(scope="session")
def some_problems() -> Callable[..., tuple[Problem, ...]]:
    """`n` held-out problems of each number of operands 2..k_max, shortest first."""

    def sample(name: str, n: int, *, k_max: int = 5, seed: int = 0) -> tuple[Problem, ...]:
        rng = np.random.default_rng(seed)
        task = get_task(name)
        return tuple(
            problem for k in range(2, k_max + 1) for problem in sample_problems(task, k, n, split="heldout", rng=rng)
        )

    return sample


@pytest.fixture(scope="session")
def random_native() -> Callable[..., nn.Module]:
    """A small native model with every parameter random, biases too; plain, or wrapped for hooks."""

    def build(name: str, *, seed: int = 0, scale: float = 0.5, n_ctx: int = 64, hooked: bool = False) -> nn.Module:
        spec = ModelSpec(n_layers=2, d_model=32, n_heads=4, d_mlp=64, n_ctx=n_ctx)
        module = build_module(spec, len(Vocabulary.of(get_task(name))), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        return as_bridge(module) if hooked else module.eval()

    return build
