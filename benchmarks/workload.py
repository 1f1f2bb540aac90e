"""What is timed: a model with its task, and how much of everything."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cotinterp.models.build import Bridge, build_model
from cotinterp.models.flops import Cost
from cotinterp.models.native.parts import native_parts
from cotinterp.tasks import Task, get_task
from cotinterp.training.checkpoints import load_run
from cotinterp.training.spec import RunSpec, reference_specs
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import Problem, sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary


@dataclass(frozen=True)
class Amounts:
    """How much of each work.

    Attributes:
        decoded: Held-out problems that are decoded greedily.
        sampled: Prompts that are sampled from.
        rollouts: Problems, and responses that are drawn to each, as in an update of learning by rewards.
        patched: Batch sizes of the patching sweeps.
        patched_k: Operands of their problems.
        path_pairs: Minimal pairs of the path patching.
        peer_sequences: The peer's sweep runs at most so many sequences; of larger sweeps it does evenly spaced cells.
        probed: Transcripts that are probed, a quarter of them for the test.
        probed_k: Their number of operands.
        peer_probes: The peer fits at most so many cells of the probes, evenly spaced.
    """

    decoded: int = 1000
    sampled: int = 500
    rollouts: tuple[int, int] = (64, 8)
    patched: tuple[int, ...] = (1, 16, 256)
    patched_k: int = 6
    path_pairs: int = 16
    peer_sequences: int = 4000
    probed: int = 1600
    probed_k: int = 4
    peer_probes: int = 24


FULL = Amounts()
QUICK = Amounts(
    decoded=40, sampled=20, rollouts=(8, 2), patched=(1, 4), path_pairs=4, peer_sequences=80, probed=240, peer_probes=6
)


@dataclass(frozen=True, eq=False)
class Workload:
    """A model with hooks, in eval mode, and what it was or would be trained on."""

    spec: RunSpec
    task: Task
    model: Bridge

    @property
    def vocabulary(self) -> Vocabulary:
        """The task's symbols in token order."""
        return Vocabulary.of(self.task)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def cost(self) -> Cost:
        """The floating-point operations of the model."""
        return Cost(self.spec.model, len(self.vocabulary))

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """A hook that does nothing hangs in the model inside the block, so that instruments take their generic way."""

        def nothing(*_: Any, **__: Any) -> None:
            return None

        with self.model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", nothing)]):
            assert native_parts(self.model) is None
            yield

    def heldout(self, n: int, *, k: int, seed: int = 0) -> tuple[Problem, ...]:
        """Up to `n` distinct held-out problems of `k` operands."""
        return sample_problems(self.task, k, n, split="heldout", rng=np.random.default_rng([seed, k]))

    def batch(self, problems: tuple[Problem, ...]) -> Batch:
        """The problems as the regime writes them, on the model's device."""
        return collate([render(self.task, one, self.spec.regime) for one in problems], self.vocabulary).to(self.device)


def trained_workload(run_name: str | None, root: Path, device: torch.device) -> Workload:
    """A trained run by slug or path; None is the reference run that writes its sums out. Errors as in `load_run`."""
    (spec,) = (one for one in reference_specs() if (one.task, one.regime) == ("digit-sum", "cot"))
    run = load_run(run_name or spec.slug, root=root, device=str(device))
    return Workload(run.spec, run.task, run.model)


def untrained_workload(spec: RunSpec, device: torch.device) -> Workload:
    """A model at its initialization: as fast as a trained one wherever the weights do not matter."""
    task = get_task(spec.task)
    model = build_model(spec.model, len(Vocabulary.of(task)), seed=spec.seed, device=device)
    return Workload(spec, task, model)


def probed_batches(workload: Workload, n: int, k: int) -> tuple[Batch, Batch]:
    """Three quarters of `n` transcripts of k operands to fit on, a quarter held out; no problem is on both sides."""
    rng = np.random.default_rng(0)
    train = sample_problems(workload.task, k, n * 3 // 4, split="train", rng=rng)
    return workload.batch(train), workload.batch(sample_problems(workload.task, k, n // 4, split="heldout", rng=rng))


def mixed_problems(workload: Workload, n: int) -> tuple[Problem, ...]:
    """`n` held-out problems over all lengths of the spec, as evenly as there are any; fewer where there are fewer."""
    chosen: list[Problem] = []
    for k in range(workload.spec.k_min, workload.spec.k_max + 1):
        share = (n - len(chosen)) // (workload.spec.k_max + 1 - k)
        chosen += workload.heldout(share, k=k) if share else ()
    return tuple(chosen)
