"""Named ways of teaching: which regimes a run is shown, when and how often; and beside each its control.

A curriculum is a value: `taught` gives a spec its stages and mix, and the one training loop runs it. What a trace
teaches is the difference between a run and its control (`control_of`), which has the same phases with dots in place of
the content: in published work such a schedule explained most of a gain (Hao et al. 2024, arXiv 2412.06769: 96.6 of 97.0
on ProsQA with pause tokens under the same curriculum, 76.1 without one).
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cotinterp.training.spec import Distill, Format, RunSpec, Stage
from cotinterp.transcripts.regimes import get_regime

LOWER, FEWER, A_STEP = 0.3, 2, 4
"""The rate of the second part of `sequential`; by how much its updates, and those of a step left out, are divided."""

Teach = Callable[[RunSpec], RunSpec]


@dataclass(frozen=True)
class Curriculum:
    """A way of teaching.

    Attributes:
        name: What commands and grids call it.
        words: What it does.
        source: Who proposed or tested it.
        teach: The spec of a run that is taught so, from one whose task, sizes and updates are given.
    """

    name: str
    words: str
    source: str
    teach: Teach


def taught(name: str, base: RunSpec) -> RunSpec:
    """`base` (task, problems, model, updates, seed) taught by the curriculum of that name; its regime is replaced.

    `optimizer.steps` of `base` are the updates of one full phase; `most_steps` of the result are those of all phases.
    `ValueError` for a name that is none, and where the task cannot be taught so (`RunSpec`).
    """
    if name not in CURRICULA:
        near = difflib.get_close_matches(name, CURRICULA, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown curriculum {name!r:.80}. {hint}Known: {', '.join(CURRICULA)}")
    if base.stages or base.mix or base.distill:
        raise ValueError(
            f"curriculum {name!r} sets stages, mix and distill; leave them out, or say all of it with them alone"
        )
    return CURRICULA[name].teach(base)


def control_of(spec: RunSpec) -> RunSpec:
    """The same phases, rates and weights, with `filler` in place of every regime that writes totals.

    Of continuous thoughts it is pauses in the same places: dots that are embedded. A teacher's states become those of
    other problems (`Distill.shuffled`). Where there is none of these (short problems first, an auxiliary loss, pauses)
    it is `direct` at once, for as many updates.
    """
    if spec.model.thoughts:
        return spec.model_copy(update={"model": spec.model.model_copy(update={"thoughts": False})})
    if spec.distill is not None:
        spec = spec.model_copy(update={"distill": spec.distill.model_copy(update={"shuffled": True})})
    mixes = [spec.mix, *(stage.mix for stage in spec.stages)]
    shown = {regime for mix in mixes for one in mix for regime in (one.regime, one.shown_in)}
    if not any(get_regime(regime).writes_totals for regime in shown):
        if spec.distill is not None:
            return spec
        plain = {"regime": "direct", "stages": (), "mix": ()}
        steps = spec.optimizer.model_copy(update={"steps": spec.most_steps})
        return spec.model_copy(update={**plain, "optimizer": steps})
    stages = tuple(stage.model_copy(update={"mix": _without_content(stage.mix)}) for stage in spec.stages)
    return spec.model_copy(update={"mix": _without_content(spec.mix), "stages": stages})


def with_controls(specs: Sequence[RunSpec]) -> tuple[RunSpec, ...]:
    """Before each spec its teacher, where that is `teacher_of` it, and after it its control; each once."""
    return tuple(dict.fromkeys(one for spec in specs for one in (*teachers_of(spec), spec, control_of(spec))))


def teacher_of(base: RunSpec) -> RunSpec:
    """The teacher that `hidden-states` gives a run: the same problems, model, updates and seed, in the regime `cot`."""
    return base.model_copy(update={"regime": "cot", "stages": (), "mix": (), "distill": None})


def teachers_of(spec: RunSpec) -> tuple[RunSpec, ...]:
    """`teacher_of` a run, where its spec names that one; nothing for another teacher, or none."""
    return (found,) if spec.distill and (found := teacher_of(spec)).slug == spec.distill.teacher else ()


def _without_content(mix: Sequence[Format]) -> tuple[Format, ...]:
    def filled(regime: str | None) -> str | None:
        return "filler" if regime is not None and get_regime(regime).writes_totals else regime

    return tuple(one.model_copy(update={"regime": filled(one.regime), "examples": filled(one.examples)}) for one in mix)


def _mixed(base: RunSpec, share: float) -> RunSpec:
    mix = (Format(regime="direct-mode", share=share), Format(regime="cot", share=round(1 - share, 6)))
    return base.model_copy(update={"regime": "direct-mode", "mix": mix})


def _two_pass(base: RunSpec, rationale: float) -> RunSpec:
    mix = (Format(regime="direct-mode"), Format(regime="cot", weight=rationale))
    return base.model_copy(update={"regime": "direct-mode", "mix": mix})


def _sequential(base: RunSpec) -> RunSpec:
    steps = base.optimizer.steps
    first = Stage(steps=steps, lr=base.optimizer.lr, mix=(Format(regime="cot"),))
    after = {"lr": LOWER * base.optimizer.lr, "steps": max(1, steps // FEWER)}
    return base.model_copy(
        update={"regime": "direct", "stages": (first,), "optimizer": base.optimizer.model_copy(update=after)}
    )


def _naive(base: RunSpec) -> RunSpec:
    return base.model_copy(update={"regime": "direct", "mix": (Format(regime="cot"),)})


def _internalized(base: RunSpec, left_out: Callable[[int], list[int]], *, dots: bool = False) -> RunSpec:
    steps = base.optimizer.steps
    first = Stage(steps=steps, mix=(Format(regime="cot"),))
    shorter = tuple(
        Stage(steps=max(1, steps // A_STEP), mix=(Format(regime="cot", skip=skip, dots=dots),))
        for skip in left_out(base.k_max - 1)
    )
    return base.model_copy(update={"regime": "dots" if dots else "direct", "stages": (first, *shorter)})


def _thoughts(base: RunSpec) -> RunSpec:
    model = base.model.model_copy(update={"thoughts": True})
    return _internalized(base.model_copy(update={"model": model}), _one_by_one, dots=True)


def _one_by_one(n: int) -> list[int]:
    """Steps left out of `n`, one more each time; all of them are the last phase."""
    return list(range(1, n))


def _by_halves(n: int) -> list[int]:
    """Steps left out of `n`, where each time half of those that stand, rounded up, are."""
    skips, left = [], n // 2
    while left:
        skips.append(n - left)
        left //= 2
    return skips


def _in_regime(base: RunSpec, regime: str) -> RunSpec:
    return base.model_copy(update={"regime": regime})


def _hidden_states(base: RunSpec) -> RunSpec:
    return base.model_copy(update={"regime": "direct", "distill": Distill(teacher=teacher_of(base).slug)})


def _short_first(base: RunSpec) -> RunSpec:
    steps = max(1, base.optimizer.steps // A_STEP)
    lengths = range(base.k_min + 1, base.k_max)
    return base.model_copy(update={"regime": "direct", "stages": tuple(Stage(k_max=k, steps=steps) for k in lengths)})


_LISTED = (
    *(
        Curriculum(
            f"mixed-{round(100 * share)}",
            f"{share:.0%} of the problems of a batch in direct mode, the others with the trace",
            "nanodistill's notes: mixed formats with a mode token",
            partial(_mixed, share=share),
        )
        for share in (0.3, 0.5, 0.7)
    ),
    *(
        Curriculum(
            f"two-pass-{rationale:g}",
            f"every problem in both ways: the loss of the answer, and {rationale:g} times that of the trace",
            "Hsieh et al. 2023, arXiv 2305.02301",
            partial(_two_pass, rationale=rationale),
        )
        for rationale in (0.1, 0.3, 0.5)
    ),
    Curriculum(
        "sequential",
        f"the trace first, then the answer alone, at {LOWER:g} of the rate and for 1/{FEWER} of the updates",
        "nanodistill's notes: sequential",
        _sequential,
    ),
    Curriculum("naive", "the trace alone; asked for the answer at once", "nanodistill's notes: naive", _naive),
    Curriculum(
        "internalize",
        f"the trace, then without its first step, its first two and so on (1/{A_STEP} of the updates each), then none",
        "Deng et al. 2024, arXiv 2405.14838",
        partial(_internalized, left_out=_one_by_one),
    ),
    Curriculum(
        "internalize-log",
        "as internalize, with half of the steps that are left going each time",
        "after Log-ICoT, arXiv 2605.28600",
        partial(_internalized, left_out=_by_halves),
    ),
    Curriculum(
        "thoughts",
        "as internalize, with a continuous thought in the place of each step that is gone: the last state, fed back",
        "Hao et al. 2024, arXiv 2412.06769",
        _thoughts,
    ),
    Curriculum(
        "auxiliary",
        "the answer, and the running total as a target at every operand",
        "Bai et al. 2025, arXiv 2510.00184",
        partial(_in_regime, regime="tagging"),
    ),
    Curriculum(
        "hidden-states",
        "the answer, and states drawn toward those of a model that writes the trace, layer by layer, step by step",
        "Deng et al. 2023, arXiv 2311.01460",
        _hidden_states,
    ),
    Curriculum("pause", "dots, then the answer", "arXiv 2505.21024", partial(_in_regime, regime="filler")),
    Curriculum(
        "short-first",
        f"the answer, on short problems first (1/{A_STEP} of the updates a length)",
        "Bengio et al. 2009",
        _short_first,
    ),
)

CURRICULA: Mapping[str, Curriculum] = {one.name: one for one in _LISTED}
"""Every named curriculum."""
