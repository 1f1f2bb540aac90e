"""The runs that the depth hypothesis needs on a task: direct over depth, cot beside it, and their matched controls."""

from collections.abc import Iterator
from dataclasses import dataclass

from cotinterp.models.spec import ModelSpec
from cotinterp.sweeps.grid import Grid
from cotinterp.sweeps.matched_shapes import equal_flops
from cotinterp.tasks import get_task
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.transcripts.render import longest_transcript

REGIMES = ("direct", "cot", "filler")


@dataclass(frozen=True, kw_only=True)
class DepthDesign:
    """How the depth hypothesis is tested on a task; the defaults are those of the committed tables.

    Attributes:
        k_max: Longest problems.
        n_layers: Depths of the direct models; cot gets the first, the second and the last.
        seeds: Trained models of each kind.
        steps: Training budgets of the direct models. Two at least, or nothing is said about what more training would
            change; cot and filler get the shortest.
        d_model: Width; the MLPs are four times as wide.
        n_train: Training problems; many, so that memory is no way out.
        controls: Whether filler and the direct models that are as dear as cot are trained too.
        problems_per_k: Most problems of a length that each run is evaluated on.
    """

    k_max: int = 12
    n_layers: tuple[int, ...] = (1, 2, 3, 4)
    seeds: int = 3
    steps: tuple[int, ...] = (1000, 4000)
    d_model: int = 64
    n_train: int = 100_000
    controls: bool = True
    problems_per_k: int = 300


def depth_grid(task: str, design: DepthDesign = DepthDesign()) -> Grid:
    """The grid of a task, by name or as `path/to/file.py:ClassName`, seed by seed.

    All models have the context that the longest transcript of any of the regimes takes. The controls of each seed are,
    for cot at the least depth: filler of the same shape (as many tokens), and direct models whose answer to `k_max`
    operands takes as many operations, one deeper and one wider (`equal_flops`), at the longest budget.

    Raises:
        ValueError: No depths, budgets or seeds, or lengths that the task does not have.
    """
    if not design.n_layers or not design.steps or design.seeds < 1:
        raise ValueError(
            "a depth grid needs one depth, one training budget and one seed at least; three of each tell more"
        )
    known = get_task(task)
    base = RunSpec(
        task=task,
        regime="direct",
        k_min=known.min_k,
        k_max=design.k_max,
        n_train=design.n_train,
        precision="bf16",
        model=ModelSpec(
            d_model=design.d_model,
            d_mlp=4 * design.d_model,
            n_ctx=max(longest_transcript(known, design.k_max, regime) for regime in REGIMES),
        ),
    )
    specs = [spec for seed in range(design.seeds) for spec in _of_seed(base, design, seed)]
    return Grid(f"serial-depth-{known.name}", tuple(specs), design.problems_per_k)


def _of_seed(base: RunSpec, design: DepthDesign, seed: int) -> Iterator[RunSpec]:
    def spec(regime: str, model: ModelSpec, steps: int) -> RunSpec:
        optimizer = OptimizerSpec(steps=steps)
        return base.model_copy(update={"regime": regime, "seed": seed, "model": model, "optimizer": optimizer})

    depths = sorted(set(design.n_layers))
    models = {depth: base.model.model_copy(update={"n_layers": depth}) for depth in depths}
    yield from (spec("direct", models[depth], steps) for depth in depths for steps in design.steps)
    yield from (spec("cot", models[depth], min(design.steps)) for depth in dict.fromkeys((*depths[:2], depths[-1])))
    if design.controls:
        least = models[depths[0]]
        yield spec("filler", least, min(design.steps))
        yield spec("direct", equal_flops(least, base.task, base.k_max, by="depth"), max(design.steps))
        yield spec("direct", equal_flops(least, base.task, base.k_max, by="width"), max(design.steps))
