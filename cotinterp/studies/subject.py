"""One trained model as it is measured (`Subject`), and how much each measurement is given (`Effort`)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cotinterp.behavior.accuracy import evaluation_problems, longest_k
from cotinterp.behavior.tools import with_its_tool
from cotinterp.mechanism.activations import require_count
from cotinterp.mechanism.model import HookedModel, require_causal
from cotinterp.models.build import build_model
from cotinterp.models.decoding import LanguageModel
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import Task
from cotinterp.training.checkpoints import Run
from cotinterp.training.data import problems_of
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import EmptySplitError, Problem, sample_problems
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much each measurement is given. Nothing in it depends on what comes out.

    Attributes:
        k: Operands of the problems that the mechanism is studied on, as near to it as the subject's range allows, or
            more where too few of them are held out (`Subject.length`).
        evaluated: Most problems of each k and side of the split for accuracy and errors.
        edited: Problems of each k whose trace is edited, in every way that there is.
        edits_per_step: Wrong totals for each problem and step; every other kind of edit is made once for each.
        reordered: Training problems of each k that are asked again in another order.
        probed: Problems for the probes, a quarter of them for the test.
        patched: Minimal pairs for each patching sweep.
        paired: Minimal pairs for the head table, families of pairs and knock-outs.
        used: Minimal pairs for the intervention on what a probe reads, against `random_subspaces`.
        ready: Problems for the answer-readiness curve; `traces` sampled traces each for the marginal.
        searched: Problems that are answered with many responses, on which verifiers are judged, and as many on which
            they are fitted.
        max_bytes: Most memory that activations of a patching sweep, or of the probes, may take by estimate; None leaves
            it to the instrument. What is measured does not depend on it.

    Raises:
        ValueError: One of them is no whole number of at least 1.
    """

    k: int = 4
    evaluated: int = 1000
    edited: int = 100
    edits_per_step: int = 3
    reordered: int = 200
    probed: int = 1600
    patched: int = 48
    paired: int = 100
    used: int = 48
    random_subspaces: int = 40
    ready: int = 200
    traces: int = 16
    searched: int = 300
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "max_bytes" or value is not None:
                require_count(name, value)


FULL = Effort()
"""What the report, and the evidence for the claims, are measured with."""

QUICK = Effort(
    evaluated=20,
    edited=6,
    edits_per_step=1,
    reordered=20,
    probed=240,
    patched=6,
    paired=12,
    used=8,
    random_subspaces=19,
    ready=16,
    traces=4,
    searched=24,
)
"""A look at what a study prints, not a measurement."""

QUICK_EVIDENCE = Effort(
    evaluated=40,
    edited=12,
    edits_per_step=1,
    reordered=20,
    probed=240,
    patched=6,
    paired=16,
    used=8,
    random_subspaces=19,
    ready=16,
    traces=4,
    searched=40,
)
"""The least with which every claim can be judged on models that are clear."""

UNTRAINED_SEED = 1_000_003
"""Added to a model's seed for its untrained twin: the same initialization scheme, other weights."""


def untrained_twin(
    spec: ModelSpec, task: Task, seed: int, *, device: torch.device | str = "cpu"
) -> Callable[[], HookedModel]:
    """Builds, when called, a model of the same shape at its initialization; `seed` is the one of the model itself."""
    twin_seed = (seed + UNTRAINED_SEED) % 2**32
    return partial(build_model, spec, len(Vocabulary.of(task)), seed=twin_seed, device=device)


ENOUGH = 100
"""Held-out problems of a length on which a mechanism can be studied; probes need about so many (`studies.probes`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """One model and what has to be known about it: trained, handmade or somebody's own.

    Attributes:
        regime: How it was taught to respond.
        run_seed: The unit of replication: subjects of one seed are compared with one another.
        k_range: Fewest and most operands of its problems.
        trained_on: Its training problems.
        variant: Empty for the standard model of a task and regime; else what sets it apart, such as `L1`.
        build_untrained: Builds `untrained` (see `untrained_twin`). None: there is no such control.
        directory: Folder of its run, with the weights that were kept on the way, and other runs beside it. None for a
            model that is no run's.
    """

    model: HookedModel
    task: Task
    regime: str
    run_seed: int
    k_range: tuple[int, int]
    trained_on: tuple[Problem, ...] = field(repr=False)
    variant: str = ""
    build_untrained: Callable[[], HookedModel] | None = field(default=None, repr=False)
    directory: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if get_regime(self.regime).reads == "response":
            self.require_causal()

    def require_causal(self) -> None:
        """ValueError for a model that looks ahead: it can be asked for a label, and no transcript of it be studied."""
        if hasattr(self.model, "cfg"):
            require_causal(self.model, "it would see the response, and its answer, in the transcripts that are studied")

    @classmethod
    def of_run(cls, run: Run, *, variant: str = "") -> "Subject":
        """A trained run."""
        spec = run.spec
        device = next(run.model.parameters()).device
        return cls(
            model=run.model,
            task=run.task,
            regime=spec.regime,
            run_seed=spec.seed,
            k_range=(spec.k_min, spec.k_max),
            trained_on=problems_of(spec, run.task),
            variant=variant,
            build_untrained=untrained_twin(spec.model, run.task, spec.seed, device=device),
            directory=run.directory,
        )

    @cached_property
    def untrained(self) -> HookedModel | None:
        """A model of the same shape at its initialization, the control of the probes; built when first asked for."""
        return None if self.build_untrained is None else self.build_untrained()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.model.parameters()).device if isinstance(self.model, nn.Module) else torch.device("cpu")

    @property
    def writer(self) -> LanguageModel:
        """The model as it writes: with its tool where its regime asks one. What looks inside takes `model`."""
        return with_its_tool(self.model, self.task, self.regime)

    @property
    def draw(self) -> int:
        """Which problems it is measured on. Each seed has its own, so that the mean over seeds is over problems too."""
        return self.run_seed

    @property
    def labels(self) -> dict[str, str | int]:
        """Task, regime and seed: the columns that name it in every table."""
        return {"task": self.task.name, "regime": self.regime, "run_seed": self.run_seed}

    @property
    def evidence_labels(self) -> dict[str, str | int]:
        """The columns that name it in a table of evidence: variant and number of layers as well."""
        return {
            "task": self.task.name,
            "regime": self.regime,
            "variant": self.variant,
            "n_layers": int(self.model.cfg.n_layers),
            "run_seed": self.run_seed,
        }

    @cached_property
    def k_asked(self) -> tuple[int, int]:
        """Fewest and most operands that it is asked about: those of `k_range` whose right transcripts fit the model."""
        low, high = self.k_range
        return low, min(high, max(low, longest_k(self.model, self.task, self.regime)))

    @property
    def writes_totals(self) -> bool:
        """Whether its responses hold the running totals."""
        return get_regime(self.regime).writes_totals

    @property
    def vocabulary(self) -> Vocabulary:
        """Symbols in token order."""
        return Vocabulary.of(self.task)

    def length(self, effort: Effort) -> int:
        """Number of operands that the mechanism is studied on.

        That of `effort`, as near as the subject's range allows; more where so few problems of that length are held out
        (ENOUGH) that nothing could be measured on them: of the sixteen problems of four bits three are held out.
        """
        low, high = self.k_asked
        return next((k for k in range(min(max(effort.k, low), high), high) if self._has_enough(k)), high)

    def _has_enough(self, k: int) -> bool:
        try:
            return len(self.heldout(ENOUGH, k=k)) == ENOUGH
        except EmptySplitError:
            return False

    def evaluation_problems(self, max_per_k: int) -> dict[str, tuple[Problem, ...]]:
        """Problems by side of the split: `train`, out of `trained_on`, and `heldout`; a draw for each seed."""
        rng = np.random.default_rng(self.draw)
        return evaluation_problems(self.task, self.k_asked, self.trained_on, rng=rng, max_per_k=max_per_k)

    def heldout(self, n: int, *, k: int | None = None, seed: int = 0) -> tuple[Problem, ...]:
        """Up to `n` distinct held-out problems of `k` operands, by default the most; the same for all runs of a seed.

        Raises:
            EmptySplitError: There is none.
        """
        k = self.k_asked[1] if k is None else k
        return sample_problems(self.task, k, n, split="heldout", rng=np.random.default_rng([seed, k, self.draw]))

    def heldout_of_each_k(self, n: int) -> tuple[Problem, ...]:
        """Up to `n` held-out problems of every number of operands of which there are any."""
        found: list[Problem] = []
        for k in range(self.k_asked[0], self.k_asked[1] + 1):
            try:
                found += self.heldout(n, k=k)
            except EmptySplitError:
                continue
        return tuple(found)

    def trained(self, n: int, *, k: int | None = None, seed: int = 0) -> tuple[Problem, ...]:
        """Up to `n` of the problems that it was trained on, of `k` operands, by default the most."""
        k = self.k_asked[1] if k is None else k
        of_length = [problem for problem in self.trained_on if problem.k == k]
        order = np.random.default_rng([seed, k]).permutation(len(of_length))[:n]
        return tuple(of_length[index] for index in order)

    def batch(self, problems: tuple[Problem, ...]) -> Batch:
        """The problems as this subject's regime writes them, on the model's device. ValueError where it looks ahead."""
        self.require_causal()
        transcripts = [render(self.task, problem, self.regime) for problem in problems]
        return collate(transcripts, self.vocabulary).to(self.device)
