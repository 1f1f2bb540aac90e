"""Models whose mechanism is known, and the problems that they are asked about.

Behavior alone cannot tell the two of a pair apart: `reader` and `recomputer` write the same transcripts, `lookup` and
`parallel` give the same answers on training problems. The instruments must.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from cotinterp.mechanism.model import HookedModel
from cotinterp.models.build import build_model
from cotinterp.models.handmade import (
    Blueprint,
    lookup,
    lookup_blueprint,
    parallel_blueprint,
    reader_blueprint,
    recomputer_blueprint,
)
from cotinterp.models.handmade.blueprint import write
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import Task, get_task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import EmptySplitError, Problem, sample_problems
from cotinterp.transcripts.render import longest_transcript, render
from cotinterp.transcripts.vocabulary import Vocabulary

K_RANGE = (2, 4)
K = 4
"""Number of operands that mechanisms are studied on."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """A model with a known mechanism.

    Attributes:
        name: What the table calls it, e.g. `reader (cot)`.
        kind: `reader`, `recomputer`, `lookup`, `parallel`, `memorizer` or `untrained`.
        mechanism: How it comes to its answers, in one sentence.
        trained_on: Problems that its weights were made for; the other problems of the task are new to it.
        heads: What each head is for, as layer and head: `{"total": "L1H0"}`.
        decoy: A running total is also copied into directions that nothing reads.
    """

    name: str
    kind: str
    mechanism: str
    model: HookedModel
    task: Task
    regime: str
    trained_on: tuple[Problem, ...] = field(repr=False)
    heads: Mapping[str, str] = field(default_factory=dict)
    decoy: bool = False

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Symbols in token order."""
        return Vocabulary.of(self.task)

    def heldout(self, n: int, *, k: int = K, seed: int = 0) -> tuple[Problem, ...]:
        """Up to `n` distinct held-out problems of `k` operands."""
        return sample_problems(self.task, k, n, split="heldout", rng=np.random.default_rng([seed, k]))

    def trained(self, n: int, *, k: int = K, seed: int = 0) -> tuple[Problem, ...]:
        """Up to `n` distinct problems of the training side."""
        of_length = [problem for problem in self.trained_on if problem.k == k]
        order = np.random.default_rng([seed, k]).permutation(len(of_length))[:n]
        return tuple(of_length[index] for index in order)

    def batch(self, problems: tuple[Problem, ...]) -> Batch:
        """The problems as this model's regime writes them."""
        return collate([render(self.task, problem, self.regime) for problem in problems], self.vocabulary)


def training_side(task: Task, k_range: tuple[int, int] = K_RANGE) -> tuple[Problem, ...]:
    """Every problem on the training side of the split, all lengths of the range."""
    problems: list[Problem] = []
    for k in range(k_range[0], k_range[1] + 1):
        try:
            problems += sample_problems(task, k, task.n_operands**k, split="train", rng=np.random.default_rng(k))
        except EmptySplitError:
            continue
    return tuple(problems)


def handmade_models(task_name: str = "z6") -> tuple[GroundTruth, ...]:
    """The models whose weights were written by hand, on one cyclic task."""
    task = get_task(task_name)
    known = training_side(task)

    def made(name: str, kind: str, mechanism: str, plan: Blueprint, regime: str, *, decoy: bool = False) -> GroundTruth:
        heads = {head: f"L{layer}H{index}" for head, (layer, index) in plan.heads.items()}
        return GroundTruth(name, kind, mechanism, write(plan), task, regime, known, heads, decoy)

    reads = "each total from the previous written total and the next operand"
    recomputes = "each total from the operands of the prompt alone"
    averages = "one attention average over the operands and one MLP"
    aside = "; a total is copied to where nothing reads it"
    found = []
    for regime in ("totals", "cot"):
        found.append(made(f"reader ({regime})", "reader", reads, reader_blueprint(task, regime, K_RANGE), regime))
        plan = recomputer_blueprint(task, regime, K_RANGE)
        found.append(made(f"recomputer ({regime})", "recomputer", recomputes, plan, regime))
    plan = recomputer_blueprint(task, "totals", K_RANGE, decoy=True)
    found.append(made("recomputer with a decoy", "recomputer", recomputes + aside, plan, "totals", decoy=True))
    table = lookup_blueprint(task, K_RANGE, problems=known)
    found.append(made("lookup", "lookup", "one neuron for each training tuple", table, "direct"))
    found.append(made("parallel", "parallel", averages, parallel_blueprint(task, K_RANGE), "direct"))
    plan = parallel_blueprint(task, K_RANGE, decoy=True)
    found.append(made("parallel with a decoy", "parallel", averages + aside, plan, "direct", decoy=True))
    return tuple(found)


def memorizer() -> GroundTruth:
    """A table of random labels: whatever it knows, it knows by heart."""
    task = get_task("random-labels")
    known = training_side(task)
    model = lookup(task, K_RANGE, problems=known)
    return GroundTruth("random labels", "memorizer", "a table of random answers", model, task, "direct", known)


def untrained(task_name: str, regime: str, seed: int, *, layers: int = 2, width: int = 32) -> GroundTruth:
    """A model at its initialization, which computes nothing on purpose."""
    task = get_task(task_name)
    n_ctx = longest_transcript(task, K, regime)
    spec = ModelSpec(n_layers=layers, d_model=width, n_heads=4, d_mlp=2 * width, n_ctx=n_ctx)
    model = build_model(spec, len(Vocabulary.of(task)), seed=seed)
    known = training_side(task)
    return GroundTruth(f"untrained ({regime})", "untrained", "none", model, task, regime, known)


def ground_truths() -> tuple[GroundTruth, ...]:
    """All of them: the handmade models, the memorizer, and one untrained model of each kind of response."""
    return (*handmade_models(), memorizer(), untrained("z6", "cot", 0), untrained("z6", "direct", 1))


class Answer(NamedTuple):
    """What an instrument says, and the numbers that it says so on."""

    answer: str
    evidence: str


Ask = Callable[[GroundTruth, bool], Answer]
"""A model and whether to be quick; the answer."""


@dataclass(frozen=True)
class Question:
    """One question to the bench.

    Attributes:
        instrument: Which instrument answers it.
        text: The question, in words.
        truth: The right answer for a model, from its construction; None where the question does not apply.
        ask: Runs the instrument and reads the answer off by a fixed rule. It may look up which head a name denotes, to
            know what to measure, and never the truth.
        before: The same by the rule of the first version, where it had one: the pairs, the statistic and the reading of
            then, with the instruments of today.
    """

    instrument: str
    text: str
    truth: Callable[[GroundTruth], str | None]
    ask: Ask
    before: Ask | None = None


def by_kind(**truths: str) -> Callable[[GroundTruth], str | None]:
    """A truth that depends on the kind of model alone: `by_kind(reader="follows", recomputer="ignores")`."""

    def truth(model: GroundTruth) -> str | None:
        return truths.get(model.kind)

    return truth


def percent(value: float) -> str:
    """`83.4%`: rates in evidence."""
    return f"{value:.1%}"
