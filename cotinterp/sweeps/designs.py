"""Runs that a claim beside the catalog is judged by: narrow ones, ways of teaching, adapters, positions, an encoder,
small ones that err beside a large one, bases and what reward makes of them, ones whose circuits are looked at.

Each part gives the runs of one task at one seed, from the standard run `direct` of a plan (`replication.plan`); what is
not named is as in that one. They are trained and measured where a part is asked for: `--part` of `cotinterp claims`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import get_args

from cotinterp.models.spec import Adapter, ModelSpec
from cotinterp.studies.circuits import formed, interchanged, kept_by_circuits, other_seed, shared_with_another
from cotinterp.studies.evidence import (
    BASE_VARIANT,
    CIRCUITS_VARIANT,
    CONTROL_VARIANT,
    DEALT_VARIANT,
    ENCODER_VARIANT,
    LARGE_VARIANT,
    OTHER_START,
    POSITIONS_VARIANT,
    REWARD_VARIANT,
    SAME_START,
    SMALL_VARIANT,
    TEACHER_VARIANT,
    TWIN_VARIANT,
    WIDTH_VARIANT,
)
from cotinterp.studies.inference import exchanged, head_effects, rewarded, searched, verified
from cotinterp.studies.measuring import Measure, as_taught, beyond_training, outcomes, without_trace
from cotinterp.tasks import get_task
from cotinterp.training.curriculum import control_of, taught, teachers_of
from cotinterp.training.spec import Format, Rewards, RunSpec, log_spaced
from cotinterp.transcripts.problems import widest_problem
from cotinterp.transcripts.render import longest_transcript, render
from cotinterp.transcripts.vocabulary import Vocabulary

OF_SIZE = 3000
"""Training problems of the standard runs of the reference design."""
LONGEST_TIMES, SHORTER_TIMES = 30, 10
"""Largest budgets of runs until they have learned, as so many times the updates of the standard one; the shorter one is
that of `positions` and `encoder`."""
WIDTHS = (4, 8, 16, 32, 64)
"""Sizes of the residual stream of the models of `widths`; their MLPs are four times as wide."""
JUDGED_CURRICULA = ("mixed-50", "naive", "internalize", "hidden-states")
"""The ways of teaching that claims are about."""
RANK, RATES = 4, (1, 5)
"""Of the adapters: their rank, and their learning rates as so many times that of the standard run. An adapter is known
to want a higher one."""
MANY = 20_000
"""Training problems of `positions` and `encoder`, where the standard runs have `OF_SIZE`."""

SEARCH_LONGER = 4
"""Of `search`: by how many operands its longest problems are longer than those of the standard runs."""
SMALL_SHAPE: Mapping[str, int] = {"n_layers": 2, "d_model": 32, "n_heads": 4, "d_mlp": 128}
SMALL_UPDATES, LARGE_UPDATES = 0.45, 1.0
"""Of `search`: the shape of the small model, and the updates of either as so many times those of the standard run,
after which the small one still errs. The larger one has the standard shape."""
SHARES = (0, 10)
"""Percent of the examples of a base of `rewards` that have a trace; reward then teaches, and from all but the first
also the base's own examples, and rewards dealt out at random."""
BASE_UPDATES, EARLY_UPDATES = (0.75, 0.075), (0.175, 0.15)
"""Updates of such a base and of what is begun from it, and of one that was shown traces alone and stopped while it
erred, as so many times those of the standard run."""
RESPONSES, GROUP, REWARD_RATE, REWARD_WARMUP = 256, 8, 0.3, 10
"""Of what is begun from a base: responses of an update (examples, where it is taught by these), responses to each
problem, learning rate as so many times that of the standard run, updates of the warm-up."""
MOMENTS, FIRST_MOMENT = 48, 0.01
"""Of `circuits`: how often the weights are kept, evenly in log updates, were it from the first one on; those before
this share of all updates, in which nothing forms, are left out, but for the very beginning."""
ROOM = 10
"""Symbols by which the longest right transcript of a base may be exceeded."""


@dataclass(frozen=True)
class Planned:
    """A run, and what it is in the evidence.

    Attributes:
        variant: Empty for the standard run of a task and regime; else what sets it apart from that one, such as `L1`.
        measures: What is measured of it; empty for what applies to any run (`studies.measuring.measures_of`).
        before: Runs that are trained before it and not measured.
    """

    spec: RunSpec
    variant: str = ""
    measures: tuple[Measure, ...] = ()
    before: tuple[RunSpec, ...] = ()


def taught_plan(curricula: Sequence[str], *, seeds: Sequence[int], base: RunSpec) -> tuple[Planned, ...]:
    """`direct` as it is in `base`, then each curriculum and its control, at every seed; the variant is the name.

    Behind them the `teacher` of those that are distilled. A curriculum in which the task cannot be taught (`auxiliary`
    where states have several symbols) is an error.
    """
    plain = [base.model_copy(update={"regime": "direct", "seed": seed}) for seed in seeds]
    found = [Planned(one, measures=(as_taught,)) for one in plain]
    for name in curricula:
        specs = [taught(name, one) for one in plain]
        found += [Planned(one, name, (as_taught,)) for one in specs]
        found += [Planned(control_of(one), f"{name}{CONTROL_VARIANT}", (as_taught,)) for one in specs]
        found += [Planned(teacher, TEACHER_VARIANT, (outcomes,)) for one in specs for teacher in teachers_of(one)]
    return tuple(found)


def in_proportion(standard: RunSpec, size: int) -> int:
    """Training problems: `size` where the standard runs have `OF_SIZE`, else as large a share of what they have."""
    return max(1, round(standard.n_train * size / OF_SIZE))


def half_as_wide(standard: RunSpec) -> dict[str, int]:
    """Sizes of a model of half the width."""
    shape = standard.model
    return {
        "d_model": max(1, shape.d_model // (4 * shape.n_heads)) * 2 * shape.n_heads,
        "d_mlp": max(1, shape.d_mlp // 2),
    }


def until_learned(
    standard: RunSpec,
    regime: str,
    shape: Mapping[str, int | str],
    n_train: int | None = None,
    times: int = LONGEST_TIMES,
) -> RunSpec:
    """Half as deep, of another shape, trained until it has learned, `times` the updates of the standard run at most."""
    optimizer = standard.optimizer
    learning = optimizer.model_copy(update={"until": "converged", "steps": times * optimizer.steps})
    changed = {"regime": regime, "model": _smaller(standard, shape), "optimizer": learning, "precision": "fp32"}
    return standard.model_copy(update=changed | ({} if n_train is None else {"n_train": n_train}))


def _smaller(standard: RunSpec, shape: Mapping[str, int | str]) -> ModelSpec:
    return standard.model.model_copy(update={"n_layers": max(1, standard.model.n_layers // 2), **shape})


def widths(standard: RunSpec) -> list[Planned]:
    """Direct and cot, narrower and narrower, on the problems of the standard runs until they have learned (`w4`)."""
    heads = standard.model.n_heads
    return [
        Planned(
            until_learned(standard, regime, {"d_model": width, "d_mlp": 4 * width, "n_heads": gcd(heads, width)}),
            f"{WIDTH_VARIANT}{width}",
        )
        for width in WIDTHS
        for regime in ("direct", "cot")
    ]


def curricula(standard: RunSpec) -> list[Planned]:
    """`direct`, ways of teaching (`JUDGED_CURRICULA`) with their controls, the `teacher` of the distilled ones.

    Half as wide and as deep: what is asked is at which layer a total appears.
    """
    model = standard.model.model_copy(update=half_as_wide(standard))
    base = standard.model_copy(update={"model": model, "precision": "fp32"})
    return list(taught_plan(JUDGED_CURRICULA, seeds=[base.seed], base=base))


def adapters(standard: RunSpec) -> list[Planned]:
    """All weights and adapters of one rank, for equal updates, from two models with twice as many behind them.

    `from-other-all`, `from-other-rank4-x5`: from a model of another task (z6, or s3 for z6 itself) to the trace of this
    one; x5 is the learning rate. `from-same-...`: from a model that writes this one's trace as `cot` to the regime
    `totals`. Half as deep and half as wide. Symbols that the first model never had are trained as a whole.
    """
    other = "s3" if standard.task_name == "z6" else "z6"
    small = {"model": _smaller(standard, half_as_wide(standard)), "precision": "fp32"}
    twice = standard.optimizer.model_copy(update={"steps": 2 * standard.optimizer.steps})
    found = []
    for word, task, regime in ((OTHER_START, other, "cot"), (SAME_START, standard.task, "totals")):
        start = standard.model_copy(update={**small, "task": task, "regime": "cot", "optimizer": twice})
        known = set(Vocabulary.of(get_task(standard.task)).symbols) <= set(Vocabulary.of(get_task(task)).symbols)
        adapter = Adapter(rank=RANK, full=() if known else ("embed", "unembed"))
        every = standard.model_copy(update={**small, "regime": regime, "start_from": start.slug})
        found.append(Planned(every, f"{word}all", (outcomes,), (start,)))
        for times in RATES:
            rate = every.optimizer.model_copy(update={"lr": times * every.optimizer.lr})
            adapted = every.model_copy(update={"adapter": adapter, "optimizer": rate})
            found.append(Planned(adapted, f"{word}rank{RANK}-x{times}", (outcomes,), (start,)))
    return found


def positions(standard: RunSpec) -> list[Planned]:
    """Direct and cot with each scheme of positions (`positions-rotary`), asked up to twice as many operands.

    Half as deep and half as wide, on more problems, until they have learned. The context holds the longest trace.
    """
    task = get_task(standard.task)
    longest = longest_transcript(task, min(task.max_k, 2 * standard.k_max), "cot")
    shape = half_as_wide(standard) | {"n_ctx": max(standard.model.n_ctx, longest)}
    n_train = in_proportion(standard, MANY)
    return [
        Planned(
            until_learned(standard, regime, shape | {"positions": scheme}, n_train, SHORTER_TIMES),
            f"{POSITIONS_VARIANT}{scheme}",
            (outcomes, beyond_training),
        )
        for scheme in get_args(ModelSpec.model_fields["positions"].annotation)
        for regime in ("direct", "cot")
    ]


def encoder(standard: RunSpec) -> list[Planned]:
    """A bidirectional classifier: without rationales, with ones that are never read, and with ones in its input.

    Half as deep and half as wide, on more problems, until they have learned. Each is also asked without a rationale.
    """
    shape, n_train = half_as_wide(standard) | {"attention": "bidirectional"}, in_proportion(standard, MANY)
    return [
        Planned(
            until_learned(standard, regime, shape, n_train, SHORTER_TIMES), ENCODER_VARIANT, (outcomes, without_trace)
        )
        for regime in ("label", "label-trace-unread", "label-after-trace")
    ]


def search(standard: RunSpec) -> list[Planned]:
    """A small model that writes its steps and errs, and the standard model, which answers at once (`small`, `large`).

    Both on the same problems, with more operands than those of the standard runs.
    """
    task = get_task(standard.task)
    k_max = min(task.max_k, standard.k_max + SEARCH_LONGER)
    n_ctx = max(standard.model.n_ctx, 2 * longest_transcript(task, k_max, "cot"))
    found = []
    for variant, regime, shape, times in (
        (SMALL_VARIANT, "cot", SMALL_SHAPE, SMALL_UPDATES),
        (LARGE_VARIANT, "direct", {}, LARGE_UPDATES),
    ):
        changed = {"regime": regime, "k_max": k_max, "precision": "fp32" if shape else standard.precision}
        spec = _updates(standard, times).model_copy(
            update=changed | {"model": standard.model.model_copy(update={"n_ctx": n_ctx, **shape})}
        )
        measures: tuple[Measure, ...] = (outcomes, searched, verified, exchanged) if shape else (outcomes, searched)
        found.append(Planned(spec, variant, measures))
    return found


def rewards(standard: RunSpec) -> list[Planned]:
    """Bases that were shown traces in some share of their examples, and what reward makes of each (`grpo-10`).

    Half as deep and half as wide.

    - `base-0`, `base-10`, ...: problems of one length, twice as long as the standard ones at most, in a mix of answers
      at once and traces in which every symbol counts the same. From each, reward on the answer alone (`grpo-10`), as
      many updates on its own mix (`twin-10`), and on rewards of other responses (`dealt-10`).
    - `base-early`: of the standard lengths, traces alone, stopped while it errs. From it the same three.
    """
    task = get_task(standard.task)
    shape = _smaller(standard, half_as_wide(standard))
    k = min(task.max_k, 2 * standard.k_max)
    sizes = {regime: len(render(task, widest_problem(task, k), regime).response) for regime in ("direct", "cot")}
    n_ctx = max(shape.n_ctx, longest_transcript(task, k, "cot") + ROOM)
    alike = {"precision": "fp32", "model": shape.model_copy(update={"n_ctx": n_ctx})}
    same_length = alike | {"regime": "cot", "k_min": k, "k_max": k, "n_train": in_proportion(standard, MANY)}
    found = []
    for percent in SHARES:
        shares = {"direct": 1 - percent / 100, "cot": percent / 100}
        mix = tuple(
            Format(regime=regime, share=share, weight=round(share * sizes[regime], 6))
            for regime, share in shares.items()
            if share
        )
        base = _updates(standard, BASE_UPDATES[0]).model_copy(update=same_length | {"mix": mix})
        found += _begun(standard, base, str(percent), (rewarded,), BASE_UPDATES[1], bool(percent))
    early = _updates(standard, EARLY_UPDATES[0]).model_copy(update={**alike, "model": shape, "regime": "cot"})
    return [*found, *_begun(standard, early, "early", (head_effects,), EARLY_UPDATES[1])]


def circuits(standard: RunSpec) -> list[Planned]:
    """A model that writes its trace, with weights kept on the way; another seed of it is trained and not measured.

    Half as deep and half as wide.
    """
    model, steps = _smaller(standard, half_as_wide(standard)), standard.optimizer.steps
    kept = tuple(step for step in log_spaced(steps, MOMENTS) if not 0 < step < FIRST_MOMENT * steps)
    spec = standard.model_copy(update={"regime": "cot", "model": model, "precision": "fp32", "snapshots": kept})
    measures = (outcomes, kept_by_circuits, interchanged, formed, shared_with_another)
    return [Planned(spec, CIRCUITS_VARIANT, measures, (other_seed(spec),))]


def _updates(standard: RunSpec, times: float) -> RunSpec:
    """With so many times the updates, the warm-up among them."""
    optimizer = standard.optimizer
    steps = max(1, round(times * optimizer.steps))
    shorter = optimizer.model_copy(update={"steps": steps, "warmup": min(optimizer.warmup, steps)})
    return standard.model_copy(update={"optimizer": shorter})


def _begun(
    standard: RunSpec,
    base: RunSpec,
    name: str,
    measures: tuple[Measure, ...],
    times: float,
    shown: bool = True,
) -> list[Planned]:
    """A base, and what is begun from it: by reward alone where it was never shown a trace."""
    learning = _updates(standard, times).optimizer
    learning = learning.model_copy(
        update={
            "batch_size": RESPONSES,
            "lr": REWARD_RATE * learning.lr,
            "warmup": min(REWARD_WARMUP, learning.steps),
        }
    )
    more = base.model_copy(update={"start_from": base.slug, "optimizer": learning})
    grpo = Rewards(method="grpo", group=GROUP, kl=0.0)
    taught = more.model_copy(update={"mix": (), "rewards": grpo})
    found = {BASE_VARIANT: base, REWARD_VARIANT: taught}
    at_random = taught.model_copy(update={"rewards": grpo.model_copy(update={"shuffled": True})})
    found |= {TWIN_VARIANT: more, DEALT_VARIANT: at_random} if shown else {}
    return [
        Planned(spec, f"{begun}{name}", (outcomes, *measures), () if spec == base else (base,))
        for begun, spec in found.items()
    ]


DESIGNS: Mapping[str, Callable[[RunSpec], list[Planned]]] = {
    "widths": widths,
    "curricula": curricula,
    "adapters": adapters,
    "positions": positions,
    "encoder": encoder,
    "search": search,
    "rewards": rewards,
    "circuits": circuits,
}
"""By the name of the part."""
