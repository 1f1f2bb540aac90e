"""Made-up sweeps whose law of depth is known: is the right one named, and how often a wrong one?

Every run has its own K*, normal in log2 around the law; it solves the lengths up to it. Runs that had not converged
solve a random part of that and are still improving, as a training that was cut short would leave them. The verdict may
be `cannot tell` in any world; what it must not be is another law.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.claims.depth_law import judge_depth
from cotinterp.claims.depth_verdict import DepthWord
from cotinterp.depth.laws import LAWS
from cotinterp.figures import lines
from cotinterp.results import wilson
from cotinterp.results.result import Result

TASK, REGIME = "made-up", "direct"
PROBLEMS = 300
SOLVES, FAILS = 0.97, 0.45
"""Accuracies on a length that is solved, and on one that is not."""
WORDS: tuple[DepthWord, ...] = (*LAWS, "cannot tell")


@dataclass(frozen=True)
class LawWorld:
    """One kind of sweep.

    Attributes:
        truth: The law that is so; empty where none of the four is, and `cannot tell` alone is right.
        k_star: The longest solvable length at each depth; infinite where depth is enough for all.
        spread: Standard deviation of log2 K* among runs.
        unconverged: Share of the runs whose training was cut short, by depth or for all.
        seeds: Runs at each depth.
    """

    name: str
    truth: DepthWord
    k_star: Callable[[int], float]
    spread: float = 0.1
    unconverged: Mapping[int, float] | float = 0.0
    depths: tuple[int, ...] = (1, 2, 3, 4)
    seeds: int = 3
    ks: range = range(2, 13)


def _from(depth: int, below: float = 1.0) -> Callable[[int], float]:
    return lambda n_layers: np.inf if n_layers >= depth else below


LONG = range(2, 25)
WORLDS = (
    LawWorld("a layer a step", "linear", lambda depth: 1 + depth),
    LawWorld("a layer, two steps", "linear", lambda depth: 1 + 2 * depth),
    LawWorld("a tree", "logarithmic", lambda depth: 2.0**depth, ks=LONG),
    LawWorld("a slow tree", "logarithmic", lambda depth: 2 ** (0.8 * depth)),
    LawWorld("all solved", "constant", _from(1)),
    LawWorld("all solved, two seeds, three depths", "constant", _from(1), depths=(1, 2, 4), seeds=2),
    LawWorld("enough from two layers", "constant", _from(2, 5.0)),
    LawWorld("enough from three layers", "constant", _from(3, 5.0)),
    LawWorld("depth buys nothing", "none", lambda _: 5.0),
    LawWorld("depth buys nothing, seeds differ", "none", lambda _: 6.0, spread=0.3),
    LawWorld("nothing solved", "cannot tell", lambda _: 1.0),
    LawWorld("linear from a head start", "linear", lambda depth: 4.0 + depth),
    LawWorld("linear from a head start, seeds differ", "linear", lambda depth: 4.0 + depth, spread=0.25),
    LawWorld("slower than linear", "cannot tell", lambda depth: 4 * depth**0.5, spread=0.15),
    LawWorld("deeper is harder", "cannot tell", lambda depth: 11 - 2.0 * depth),
    LawWorld("a layer, two steps, seeds differ", "linear", lambda depth: 1 + 2 * depth, spread=0.3),
    LawWorld("a layer, two steps, a third cut short", "linear", lambda depth: 1 + 2 * depth, unconverged=0.33),
    LawWorld("a tree, a third cut short", "logarithmic", lambda depth: 2.0**depth, unconverged=0.33, ks=LONG),
    LawWorld("all solved, a third cut short", "constant", _from(1), unconverged=0.33),
    LawWorld("all solved, deep ones cut short", "constant", _from(1), unconverged={3: 0.6, 4: 0.9}),
    LawWorld("all solved, shallow ones cut short", "constant", _from(1), unconverged={1: 1.0, 2: 1.0, 3: 0.5}),
    LawWorld("looks linear, all cut short", "cannot tell", lambda depth: 2 + 3 * depth, unconverged=1.0),
)


@dataclass(frozen=True)
class Judged:
    """What came out of `n` sweeps of one kind."""

    world: LawWorld
    words: Mapping[DepthWord, int]

    @property
    def n(self) -> int:
        """Sweeps that were judged."""
        return sum(self.words.values())

    @property
    def false(self) -> int:
        """Sweeps in which another law than the true one was named."""
        return sum(count for word, count in self.words.items() if word not in (self.world.truth, "cannot tell"))


@dataclass(frozen=True)
class LawCalibration(Result):
    """How often each law is named in worlds of each kind."""

    judged: tuple[Judged, ...]

    @property
    def false(self) -> int:
        """Sweeps of all kinds in which a wrong law was named."""
        return sum(one.false for one in self.judged)

    @property
    def n(self) -> int:
        """Sweeps of all kinds."""
        return sum(one.n for one in self.judged)

    def frame(self) -> pd.DataFrame:
        """One row a kind of world: truth, n, sweeps by word, share named right, share named wrong with its interval."""
        rows = []
        for one in self.judged:
            low, high = wilson(one.false, one.n)
            named = one.words.get(one.world.truth, 0) / one.n
            row = {"world": one.world.name, "truth": one.world.truth, "n": one.n}
            row |= {word: one.words.get(word, 0) for word in WORDS}
            rows.append(row | {"right": named, "false": one.false / one.n, "ci_low": low, "ci_high": high})
        return pd.DataFrame(rows)

    def figure(self) -> go.Figure:
        """Share of sweeps with a wrong law, by kind of world."""
        return lines(
            self.frame(),
            x="world",
            y="false",
            low="ci_low",
            high="ci_high",
            bounds=(0.0, 1.0),
            title="Made-up sweeps in which a law of depth is named that is not so",
            y_title="share of sweeps",
            hover=["truth", *WORDS],
        )


def law_calibration(
    n: int = 20, *, worlds: Sequence[LawWorld] = WORLDS, resamples: int = 200, seed: int = 0
) -> LawCalibration:
    """Draw `n` sweeps of every kind and judge them. ValueError for fewer than one."""
    if n < 1:
        raise ValueError(f"{n} sweeps of each kind: at least one is needed")
    found = []
    for place, world in enumerate(worlds):
        words = [
            judge_depth(
                law_table(world, np.random.default_rng([seed, place, draw])), TASK, REGIME, resamples=resamples
            ).law
            for draw in range(n)
        ]
        found.append(Judged(world, {word: words.count(word) for word in WORDS}))
    return LawCalibration(tuple(found))


def law_table(world: LawWorld, rng: np.random.Generator) -> pd.DataFrame:
    """One sweep of that kind as a tidy table: every column that `frontier` reads."""
    rows = []
    for depth in world.depths:
        share = world.unconverged.get(depth, 0.0) if isinstance(world.unconverged, Mapping) else world.unconverged
        for seed in range(world.seeds):
            reach = world.k_star(depth) * 2 ** (world.spread * rng.normal())
            reach = max(world.ks) + 1.0 if np.isinf(reach) else reach
            cut = bool(rng.random() < share)
            rows += _rows(world, depth, seed, reach * rng.uniform(0.2, 1.0) if cut else reach, cut)
    return pd.DataFrame(rows)


def _rows(world: LawWorld, depth: int, seed: int, reach: float, cut: bool) -> list[dict[str, object]]:
    """A run that solves every length up to `reach`, rounded; on training problems too where its training was cut."""
    run = {
        **{"slug": f"{TASK}-{REGIME}-L{depth}-s{seed}", "task": TASK, "regime": REGIME, "run_seed": seed},
        **{"n_layers": depth, "d_model": 64, "n_heads": 4, "d_mlp": 256, "n_ctx": 128, "n_parameters": 50_000 * depth},
        **{"steps": 4000, "batch_size": 64, "lr": 1e-3, "n_train": 100_000, "k_min": 2, "k_max": max(world.ks)},
        **dict.fromkeys(("start_from", "schedule", "architecture", "error", "ended"), ""),
        **{"status": "finished", "step": 4000},
        **{"loss_mid": 0.6, "loss_end": 0.4, "reading": "answer", "n": PROBLEMS},
    }
    found = []
    for k in world.ks:
        held = SOLVES if reach >= k - 0.5 else FAILS
        for split, accuracy in (("heldout", held), ("train", held if cut else SOLVES)):
            found.append(run | {"split": split, "k": k, "accuracy": accuracy, "correct": round(accuracy * PROBLEMS)})
    return found
