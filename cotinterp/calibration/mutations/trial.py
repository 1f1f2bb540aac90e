"""What the checks are run on: small models, transcripts and pairs of one cyclic group."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.models.build import Bridge, as_bridge, build_module
from cotinterp.models.handmade import reader
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.pairs import Pairs, written_total_pairs
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("z6")
K = 4

Plant = Callable[[], AbstractContextManager[object]]


def instead(where: object, name: str, wrong: object) -> Plant:
    """The context in which an attribute of a module or class is another one."""
    return partial(patch.object, where, name, wrong)


def random_model(*, n_layers: int = 2, seed: int = 0, scale: float = 0.4) -> Bridge:
    """A model with every parameter random, biases and norms too: TransformerLens starts biases at zero."""
    spec = ModelSpec(n_layers=n_layers, d_model=16, n_heads=4, d_mlp=32, n_ctx=48)
    module = build_module(spec, len(Vocabulary.of(TASK)), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return as_bridge(module)


def reading_model() -> Bridge:
    """The handmade reader of written totals."""
    return reader(TASK, "totals", (2, K))


def transcripts(n: int, *, regime: str = "cot", copies: int = 1) -> Batch:
    """Transcripts of `n` training problems, each `copies` times, as training samples have them."""
    problems = sample_problems(TASK, K, n, split="train", rng=np.random.default_rng(0))
    rendered = [render(TASK, problem, regime) for problem in problems]
    return collate(rendered * copies, Vocabulary.of(TASK))


def total_pairs(n: int = 24) -> Pairs:
    """Pairs that differ in a written total, read where the next total is computed."""
    problems = sample_problems(TASK, K, n, split="heldout", rng=np.random.default_rng(0))
    readout = (Role.TOTAL, 3)
    return written_total_pairs(TASK, problems, "totals", step=2, rng=np.random.default_rng(1), readout=readout)


def total_contrast(n: int = 24) -> Contrast:
    """The same as a contrast."""
    return Contrast.from_pairs(total_pairs(n))


class ControlFailed(AssertionError):
    """A control noticed that something is wrong."""


@dataclass(frozen=True)
class Mutation:
    """A deliberate bug and the check that is to catch it.

    Attributes:
        bug: What is done wrong.
        control: What notices it.
        plant: A context inside of which the library has the bug.
        check: Raises where the control notices; says nothing where all is well.
    """

    bug: str
    control: str
    plant: Callable[[], AbstractContextManager[object]]
    check: Callable[[], None]


@dataclass(frozen=True)
class MutationTrial:
    """What became of one mutation.

    Attributes:
        sound: The check passes without the bug.
        caught: It fails with it.
        noticed: What the failing control said.
    """

    bug: str
    control: str
    sound: bool
    caught: bool
    noticed: str

    @property
    def proven(self) -> bool:
        """The control passes what is right and fails what is wrong."""
        return self.sound and self.caught


def try_mutation(mutation: Mutation) -> MutationTrial:
    """Run the check without and with the bug."""
    before = _complaint(mutation.check)
    with mutation.plant():
        found = _complaint(mutation.check)
    return MutationTrial(mutation.bug, mutation.control, not before, bool(found), found or before)


def trials_table(trials: Sequence[MutationTrial]) -> pd.DataFrame:
    """One row a mutation: bug, control, sound, caught, noticed."""
    rows = [(x.bug, x.control, x.sound, x.caught, x.noticed) for x in trials]
    return pd.DataFrame(rows, columns=["bug", "control", "sound", "caught", "noticed"])


def require(holds: bool, message: str) -> None:
    """ControlFailed with the message unless the condition holds."""
    if not holds:
        raise ControlFailed(message)


def _complaint(check: Callable[[], None]) -> str:
    """What the check complains about, empty where it does not."""
    try:
        check()
    except (ValueError, KeyError, IndexError, ArithmeticError, RuntimeError, ControlFailed) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""
