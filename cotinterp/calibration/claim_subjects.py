"""Worlds of models whose mechanism is known: every regime of a task at several seeds, as claims want to see them.

A handmade model is not trained, so its seeds need saying. Here a seed is another model of the same mechanism: every
weight has a little noise of its own, models of odd seeds carry a decoy where their kind has one, and every table holds
another nine tenths of its problems. Their spread is no measure of that among trained models; made-up tables
(`cotinterp.calibration.verdict_level`) are there for that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from cotinterp.calibration.ground_truth import K_RANGE, training_side
from cotinterp.mechanism.model import HookedModel
from cotinterp.models.build import build_model
from cotinterp.models.handmade import (
    Blueprint,
    lookup_blueprint,
    parallel_blueprint,
    reader_blueprint,
    recomputer_blueprint,
)
from cotinterp.models.handmade.blueprint import write
from cotinterp.models.spec import ModelSpec
from cotinterp.studies.subject import Subject, untrained_twin
from cotinterp.tasks import Task, get_task
from cotinterp.transcripts.problems import Problem, solve
from cotinterp.transcripts.render import longest_transcript
from cotinterp.transcripts.vocabulary import Vocabulary

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


def reader(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """Writes its totals, each from the one written before."""
    return reader_blueprint(task, "cot", K_RANGE, decoy=bool(seed % 2)), training_side(task)


def recomputer(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """Writes the same totals, each from the operands of the prompt."""
    return recomputer_blueprint(task, "cot", K_RANGE, decoy=bool(seed % 2)), training_side(task)


def parallel(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """Answers all problems at once, by an average."""
    return parallel_blueprint(task, K_RANGE, decoy=bool(seed % 2)), training_side(task)


def table(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """Knows nine tenths of the training side by heart, and nothing else."""
    known = training_side(task)
    kept = np.random.default_rng(seed).random(len(known)) < IN_TABLE
    problems = tuple(problem for problem, keep in zip(known, kept.tolist(), strict=True) if keep)
    return lookup_blueprint(task, K_RANGE, problems=problems), problems


def short_table(task: Task, seed: int) -> tuple[Blueprint, tuple[Problem, ...]]:
    """The same, and in addition every problem of two operands, the held-out ones too: right there, a table beyond."""
    _, trained_on = table(task, seed)
    every = solve(task, np.indices((task.n_operands,) * 2).reshape(2, -1).T)
    known = (*every, *(problem for problem in trained_on if problem.k > 2))
    return lookup_blueprint(task, K_RANGE, problems=known), trained_on


def handmade(draft: Draft, task_name: str, regime: str, seed: int) -> Subject:
    """The model of a draft, with noise on its weights; the same arguments give the same model."""
    task = get_task(task_name)
    blueprint, trained_on = draft(task, seed)
    model = write(blueprint)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(NOISE * torch.randn(weight.shape, generator=generator))
    return _subject(model, _shape(task, regime, int(model.cfg.n_layers)), task, regime, seed, trained_on)


def untrained_subject(task_name: str, regime: str, seed: int, *, world: int = 0, layers: int = LAYERS) -> Subject:
    """A model at its initialization, which computes nothing on purpose; its seed is that of a model of this world.

    With fewer layers than LAYERS it is of the variant that says so.
    """
    task = get_task(task_name)
    initialization = world * SEEDS_OF_A_WORLD + seed
    shape = _shape(task, regime, layers)
    model = build_model(shape, len(Vocabulary.of(task)), seed=initialization)
    subject = _subject(model, shape, task, regime, seed, training_side(task), initialization=initialization)
    return subject if layers == LAYERS else replace(subject, variant=f"L{layers}")


def world(drafts: Mapping[str, Draft], task_name: str = "z6", seeds: Sequence[int] = SEEDS) -> tuple[Subject, ...]:
    """One handmade model of each regime for every seed."""
    return tuple(handmade(draft, task_name, regime, seed) for regime, draft in drafts.items() for seed in seeds)


def _shape(task: Task, regime: str, layers: int) -> ModelSpec:
    """Of untrained models."""
    n_ctx = longest_transcript(task, K_RANGE[1], regime)
    return ModelSpec(n_layers=layers, d_model=32, n_heads=4, d_mlp=64, n_ctx=n_ctx)


def _subject(
    model: HookedModel,
    shape: ModelSpec,
    task: Task,
    regime: str,
    seed: int,
    trained_on: tuple[Problem, ...],
    *,
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
