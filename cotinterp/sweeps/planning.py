"""Which trained models a verdict on a task needs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cotinterp.studies.evidence import MEMORY_TASK
from cotinterp.training.spec import RunSpec

PARTS = ("regimes", "depths", "sizes", "memory")
REGIMES = ("direct", "cot", "filler")
DEPTHS = (1, 2)
"""Layers of the shallower models without a trace."""
SIZES, OF_SIZE = (300, 10_000), 3000
"""Training problems of the models without a trace that saw fewer or more, where the standard ones saw `OF_SIZE`; of a
base with another number they are as large a share of it."""


@dataclass(frozen=True)
class Planned:
    """A run, and what it is in the evidence.

    Attributes:
        variant: Empty for the standard run of a task and regime; else what sets it apart from that one, such as `L1`.
    """

    spec: RunSpec
    variant: str = ""


def plan(
    task: str, *, seeds: Sequence[int], base: RunSpec | None = None, parts: Collection[str] = PARTS
) -> tuple[Planned, ...]:
    """The runs that the claims about a task are judged by, each at every seed.

    - `regimes`: direct, cot and filler, which differ in the response alone; the standard runs.
    - `depths`: direct with fewer layers (`L1`, `L2`), where the base has more.
    - `sizes`: direct on other numbers of training problems (`n300`, `n10000` of the reference design).
    - `memory`: direct on random labels, the ceiling of memory. It is the same run for every task of one base.

    Everything that is not named here is as in `base`, so the runs of a part differ in one thing.

    Args:
        task: A registered name, or `path/to/file.py:ClassName`.
        seeds: The trained model is the unit of replication: five or more for a claim that leads.
        base: The design; its task, regime and seed are not used. By default the reference design in bfloat16.

    Raises:
        ValueError: No seeds, a seed twice, an unknown part, or a regime whose transcripts do not fit the base.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be distinct, and one at least; got {list(seeds)}")
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"unknown parts {unknown}; a plan has {list(PARTS)}")
    standard = base or RunSpec(task=task, regime="direct", precision="bf16")
    standard = standard.model_copy(update={"task": task, "regime": "direct"})
    found = {
        "regimes": [Planned(standard.model_copy(update={"regime": regime})) for regime in REGIMES],
        "depths": [_of_depth(standard, layers) for layers in DEPTHS if layers < standard.model.n_layers],
        "sizes": [one for size in SIZES if (one := _of_size(standard, size)).spec != standard],
        "memory": [Planned(standard.model_copy(update={"task": MEMORY_TASK}))],
    }
    chosen = [one for part in PARTS if part in parts for one in found[part]]
    at_seeds = [Planned(one.spec.model_copy(update={"seed": seed}), one.variant) for one in chosen for seed in seeds]
    return tuple(dict.fromkeys(at_seeds))


def joint_plan(
    tasks: Sequence[str], *, seeds: Sequence[int], base: RunSpec | None = None, parts: Collection[str] = PARTS
) -> tuple[Planned, ...]:
    """The plans of several tasks as one; a run that they share is in it once."""
    return tuple(dict.fromkeys(one for task in tasks for one in plan(task, seeds=seeds, base=base, parts=parts)))


def _of_depth(standard: RunSpec, layers: int) -> Planned:
    model = standard.model.model_copy(update={"n_layers": layers})
    return Planned(standard.model_copy(update={"model": model}), f"L{layers}")


def _of_size(standard: RunSpec, size: int) -> Planned:
    n_train = max(1, round(standard.n_train * size / OF_SIZE))
    return Planned(standard.model_copy(update={"n_train": n_train}), f"n{n_train}")


def base_spec(
    task: str, *, k_max: int | None = None, n_layers: int | None = None, steps: int | None = None
) -> RunSpec | None:
    """The reference design with some of it changed, as `base` of a plan; None where nothing is.

    Args:
        task: Any task of the plan; it says how many operands there may be.
        k_max: Most operands.
        n_layers: Layers of the standard runs.
        steps: Updates; the warm-up is shortened to a tenth of them where it would take longer.
    """
    if (k_max, n_layers, steps) == (None, None, None):
        return None
    spec = RunSpec(task=task, regime="direct", precision="bf16")
    model, optimizer = spec.model, spec.optimizer
    if n_layers is not None:
        model = model.model_copy(update={"n_layers": n_layers})
    if steps is not None:
        warmup = min(optimizer.warmup, steps // 10)
        optimizer = optimizer.model_copy(update={"steps": steps, "warmup": warmup})
    changed = {"model": model, "optimizer": optimizer, "k_max": spec.k_max if k_max is None else k_max}
    return spec.model_copy(update=changed)
