"""The model that evidence is gathered on: trained, handmade or somebody's own."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from cotinterp.behavior.accuracy import evaluation_problems
from cotinterp.mechanism.model import HookedModel
from cotinterp.models.build import build_model
from cotinterp.tasks import Task
from cotinterp.training.checkpoints import Run
from cotinterp.training.data import problems_of
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import Problem, sample_problems
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

UNTRAINED_SEED = 1_000_003
"""Added to a run's seed for its untrained control: the same initialization scheme, other weights."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much each measure is given. Nothing in it depends on what comes out.

    Attributes:
        k: Operands of the problems that the mechanism is studied on, as near to it as the subject's range allows.
        evaluated: Most problems of each k and side of the split for accuracy and errors.
        edited: Problems of each k whose trace is edited; `edits_per_step` wrong totals for each step.
        reordered: Training problems of each k that are asked again in another order.
        probed: Problems for the probes, a quarter of them for the test.
        paired: Minimal pairs for families of pairs and knock-outs.
        used: Minimal pairs for the intervention on what a probe reads, against `random_subspaces`.
        ready: Problems for the answer-readiness curve; `traces` sampled traces each for the marginal.
    """

    k: int = 4
    evaluated: int = 1000
    edited: int = 100
    edits_per_step: int = 3
    reordered: int = 200
    probed: int = 1600
    paired: int = 100
    used: int = 48
    random_subspaces: int = 40
    ready: int = 200
    traces: int = 16


FULL = Effort()
QUICK = Effort(
    evaluated=40,
    edited=12,
    edits_per_step=1,
    reordered=20,
    probed=240,
    paired=16,
    used=8,
    random_subspaces=19,
    ready=16,
    traces=4,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """One model and what has to be known about it.

    Attributes:
        regime: How it was taught to respond.
        run_seed: The unit of replication: subjects of one seed are compared with one another.
        variant: Empty for the standard model of a task and regime; else what sets it apart, such as `L1`.
        k_range: Fewest and most operands of its problems.
        trained_on: Its training problems.
        untrained: A model of the same shape at its initialization; a control of the probes. None: no such control.
    """

    model: HookedModel
    task: Task
    regime: str
    run_seed: int
    k_range: tuple[int, int]
    trained_on: tuple[Problem, ...] = field(repr=False)
    variant: str = ""
    untrained: HookedModel | None = None

    @classmethod
    def of_run(cls, run: Run, *, variant: str = "") -> "Subject":
        """A trained run."""
        spec = run.spec
        device = next(run.model.parameters()).device
        seed = (spec.seed + UNTRAINED_SEED) % 2**32
        return cls(
            model=run.model,
            task=run.task,
            regime=spec.regime,
            run_seed=spec.seed,
            k_range=(spec.k_min, spec.k_max),
            trained_on=problems_of(spec, run.task),
            variant=variant,
            untrained=build_model(spec.model, len(run.vocabulary), seed=seed, device=device),
        )

    @property
    def labels(self) -> dict[str, str | int]:
        """Task, regime, variant, number of layers, seed: the columns in front of its rows."""
        n_layers = int(self.model.cfg.n_layers)
        return {
            "task": self.task.name,
            "regime": self.regime,
            "variant": self.variant,
            "n_layers": n_layers,
            "run_seed": self.run_seed,
        }

    @property
    def writes_totals(self) -> bool:
        """Whether its responses hold the running totals."""
        return get_regime(self.regime).writes_totals

    @property
    def vocabulary(self) -> Vocabulary:
        """Symbols in token order."""
        return Vocabulary.of(self.task)

    def length(self, effort: Effort) -> int:
        """Number of operands that the mechanism is studied on."""
        return min(max(effort.k, self.k_range[0]), self.k_range[1])

    def evaluated(self, most: int) -> dict[str, tuple[Problem, ...]]:
        """Problems by side of the split: `train`, out of `trained_on`, and `heldout`; the same for every seed."""
        rng = np.random.default_rng(0)
        return evaluation_problems(self.task, self.k_range, self.trained_on, rng=rng, max_per_k=most)

    def heldout(self, n: int, *, k: int, salt: int = 0) -> tuple[Problem, ...]:
        """Up to `n` distinct held-out problems of `k` operands, the same for every seed."""
        return sample_problems(self.task, k, n, split="heldout", rng=np.random.default_rng([salt, k]))

    def batch(self, problems: tuple[Problem, ...]) -> Batch:
        """The problems as this subject's regime writes them, on the model's device."""
        transcripts = [render(self.task, problem, self.regime) for problem in problems]
        device = next(self.model.parameters()).device if isinstance(self.model, nn.Module) else torch.device("cpu")
        return collate(transcripts, self.vocabulary).to(device)
