"""Models whose mechanism is known, and the problems that they are asked about.

Behavior alone cannot tell the two of a pair apart: `reader` and `recomputer` write the same transcripts, `lookup` and
`parallel` give the same answers on training problems. The instruments must.

Claims want to see every regime of a task at several seeds (`handmade_world`). A handmade model is not trained, so here
seeds are models of one mechanism: every weight has a little noise of its own, models of odd seeds carry a decoy where
their kind has one, and every table holds another nine tenths of its problems. Their spread is no measure of that among
trained models; made-up tables (`cotinterp.calibration.verdict_level`) are there for that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

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
from cotinterp.models.handmade.recomputer import Back
from cotinterp.models.spec import ModelSpec
from cotinterp.studies.protocol import standard_families
from cotinterp.studies.subject import Subject, untrained_twin
from cotinterp.tasks import Task, get_task
from cotinterp.transcripts.pairs import Pairs
from cotinterp.transcripts.problems import EmptySplitError, Problem, sample_problems, solve
from cotinterp.transcripts.render import longest_transcript
from cotinterp.transcripts.vocabulary import Vocabulary

K_RANGE = (2, 4)
K = 4
"""Number of operands that mechanisms are studied on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth(Subject):
    """A subject whose mechanism is known.

    Attributes:
        name: What the table calls it, e.g. `reader (cot)`.
        kind: `reader`, `recomputer`, `lookup`, `parallel`, `memorizer` or `untrained`.
        mechanism: How it comes to its answers, in one sentence.
        heads: What each head is for, as layer and head: `{"total": "L1H0"}`.
        decoy: A running total is also copied into directions that nothing reads.
        only: The instruments that can be asked about it, by the beginning of their names; empty: all of them.
    """

    name: str
    kind: str
    mechanism: str
    run_seed: int = 0
    k_range: tuple[int, int] = K_RANGE
    heads: Mapping[str, str] = field(default_factory=dict)
    decoy: bool = False
    only: str = ""


MOST = 2000
"""Problems of one length that are listed: z6 and s3 have 1,296 of four operands, s5 has 200 million."""


def training_side(task: Task, k_range: tuple[int, int] = K_RANGE) -> tuple[Problem, ...]:
    """The training side of the split, all lengths of the range: every problem, or MOST of a length that has more."""
    problems: list[Problem] = []
    for k in range(k_range[0], k_range[1] + 1):
        try:
            problems += sample_problems(
                task, k, min(MOST, task.n_operands**k), split="train", rng=np.random.default_rng(k)
            )
        except EmptySplitError:
            continue
    return tuple(problems)


def handmade_models(task_name: str = "z6") -> tuple[GroundTruth, ...]:
    """The models whose weights were written by hand, on one cyclic task."""
    task = get_task(task_name)
    known = training_side(task)

    def made(name: str, kind: str, mechanism: str, plan: Blueprint, regime: str, *, decoy: bool = False) -> GroundTruth:
        heads = {head: f"L{layer}H{index}" for head, (layer, index) in plan.heads.items()}
        return GroundTruth(
            name=name,
            kind=kind,
            mechanism=mechanism,
            model=write(plan),
            task=task,
            regime=regime,
            trained_on=known,
            heads=heads,
            decoy=decoy,
        )

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
    return GroundTruth(
        name="random labels",
        kind="memorizer",
        mechanism="a table of random answers",
        model=model,
        task=task,
        regime="direct",
        trained_on=known,
    )


def untrained(task: str | Task, regime: str, seed: int, *, layers: int = 2, width: int = 32) -> GroundTruth:
    """A model at its initialization, which computes nothing on purpose."""
    task = get_task(task) if isinstance(task, str) else task
    spec = _shape(task, regime, layers, width)
    model = build_model(spec, len(Vocabulary.of(task)), seed=seed)
    return GroundTruth(
        name=f"untrained ({regime})",
        kind="untrained",
        mechanism="none",
        model=model,
        task=task,
        regime=regime,
        trained_on=training_side(task),
        build_untrained=untrained_twin(spec, task, seed),
    )


def ground_truths() -> tuple[GroundTruth, ...]:
    """All of them: the handmade models, the memorizer, and one untrained model of each kind of response."""
    return (*handmade_models(), memorizer(), untrained("z6", "cot", 0), untrained("z6", "direct", 1))


SEEDS = tuple(range(5))
SEEDS_OF_A_WORLD = 1000
LAYERS = 2
"""Of untrained models, as most handmade ones have."""
NOISE = 1e-4
"""Standard deviation of the noise on every handmade weight. Bumps are second differences of many neurons, and ten times
as much already costs the recomputer some of its answers."""
IN_TABLE = 0.9
"""Share of its problems that the table of one seed holds."""

Draft = Callable[[Task, int], tuple[Blueprint, tuple[Problem, ...]]]
"""Task and seed to what is written into the weights, and the problems that they are made for."""


def reader_draft(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """Writes its totals, each from the one written before."""
    return reader_blueprint(task, "cot", K_RANGE, decoy=bool(seed % 2)), training_side(task)


def recomputer_draft(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """Writes the same totals, each from the operands of the prompt."""
    return recomputer_blueprint(task, "cot", K_RANGE, decoy=bool(seed % 2)), training_side(task)


def half_reader_draft(back: Back) -> Draft:
    """Writes the same totals from the prompt, but for those values that `back` has read from a written total."""

    def draft(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
        return recomputer_blueprint(task, "cot", K_RANGE, decoy=bool(seed % 2), back=back), training_side(task)

    return draft


def parallel_draft(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """Answers all problems at once, by an average."""
    return parallel_blueprint(task, K_RANGE, decoy=bool(seed % 2)), training_side(task)


def table_draft(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """Knows nine tenths of the training side by heart, and nothing else."""
    known = training_side(task)
    kept = np.random.default_rng(seed).random(len(known)) < IN_TABLE
    problems = tuple(problem for problem, keep in zip(known, kept.tolist(), strict=True) if keep)
    return lookup_blueprint(task, K_RANGE, problems=problems), problems


def short_table_draft(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """The same, and in addition every problem of two operands, the held-out ones too: right there, a table beyond."""
    _, trained_on = table_draft(task, seed)
    every = solve(task, np.indices((task.n_operands,) * 2).reshape(2, -1).T)
    known = (*every, *(problem for problem in trained_on if problem.k > 2))
    return lookup_blueprint(task, K_RANGE, problems=known), trained_on


def handmade_subject(draft: Draft, task_name: str, regime: str, seed: int) -> Subject:
    """The model of a draft, with noise on its weights; the same arguments give the same model."""
    task = get_task(task_name)
    blueprint, trained_on = draft(task, seed)
    model = write(blueprint)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(NOISE * torch.randn(weight.shape, generator=generator))
    shape = _shape(task, regime, int(model.cfg.n_layers))
    return _subject(task, regime, seed, model=model, trained_on=trained_on, shape=shape)


def untrained_subject(task_name: str, regime: str, seed: int, *, world: int = 0, layers: int = LAYERS) -> Subject:
    """A model at its initialization, which computes nothing on purpose; its seed is that of a model of this world.

    With fewer layers than LAYERS it is of the variant that says so.
    """
    task = get_task(task_name)
    initialization = world * SEEDS_OF_A_WORLD + seed
    shape = _shape(task, regime, layers)
    model = build_model(shape, len(Vocabulary.of(task)), seed=initialization)
    subject = _subject(
        task, regime, seed, model=model, trained_on=training_side(task), shape=shape, initialization=initialization
    )
    return subject if layers == LAYERS else replace(subject, variant=f"L{layers}")


def handmade_world(
    drafts: Mapping[str, Draft], task_name: str = "z6", seeds: Sequence[int] = SEEDS
) -> tuple[Subject, ...]:
    """One handmade model of each regime for every seed."""
    return tuple(handmade_subject(draft, task_name, regime, seed) for regime, draft in drafts.items() for seed in seeds)


def _shape(task: Task, regime: str, layers: int, width: int = 32) -> ModelSpec:
    """Of untrained models."""
    n_ctx = longest_transcript(task, K_RANGE[1], regime)
    return ModelSpec(n_layers=layers, d_model=width, n_heads=4, d_mlp=2 * width, n_ctx=n_ctx)


def _subject(
    task: Task,
    regime: str,
    seed: int,
    *,
    model: HookedModel,
    trained_on: tuple[Problem, ...],
    shape: ModelSpec,
    initialization: int | None = None,
) -> Subject:
    return Subject(
        model=model,
        task=task,
        regime=regime,
        run_seed=seed,
        k_range=K_RANGE,
        trained_on=trained_on,
        build_untrained=untrained_twin(shape, task, seed if initialization is None else initialization),
    )


class InstrumentAnswer(NamedTuple):
    """What an instrument says, and the numbers that it says so on."""

    answer: str
    evidence: str


Ask = Callable[[GroundTruth, bool], InstrumentAnswer]
"""A model and whether to be quick; the answer."""


@dataclass(frozen=True)
class Question:
    """One question to an instrument.

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


def families_of(model: GroundTruth, n: int) -> dict[str, Pairs]:
    """The four families of pairs of a model that writes totals."""
    found = standard_families(model, n, k=K)
    assert found is not None
    return found


def percent(value: float) -> str:
    """`83.4%`: rates in evidence."""
    return f"{value:.1%}"
