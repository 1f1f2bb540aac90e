"""Whether a probe's directions are used: the declared rule, the table with its controls, the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from cotinterp.mechanism.contrast import Address
from cotinterp.mechanism.effects import Effects, NoGapError, missing_effects, normalized_effects
from cotinterp.mechanism.sites import Site
from cotinterp.results import Result, with_labels
from cotinterp.results.multiplicity import exchange_test
from cotinterp.results.plots import lines

Direction = Literal["denoise", "noise"]
Intervention = Literal["interchange", "removal"]
Answer = Literal["used", "not shown to be used", "inconclusive"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
Tested = tuple[Effects, float]


@dataclass(frozen=True, kw_only=True)
class UseRule:
    """When a probe's directions count as used. Declared before looking, and the same for every site.

    - used: in one of the two directions the interchange closes at least `min_effect` of the gap between the runs (lower
      end of its interval), more than random subspaces of the same rank that move every example as far (p at most
      `alpha`, over both directions and all cells tested together), and does not exceed the whole activation's patch.
    - inconclusive: what could have shown it was not there. The pairs hardly differ along the directions (less than
      `min_written` of what differs at the place), or the probe reads the same in both runs of more than half of them
      (`min_read_apart`); the model does not tell the runs apart; the directions do more than the whole activation (by
      `max_excess`, lower end), so that what moves may be a direction that never varies by itself; or the effect beats
      the random ones and its interval holds `min_effect`.
    - not shown to be used: everything else. In both directions the effect is below `min_effect` (upper end), or random
      subspaces do as much.

    A share of the gap of 0.1 is small for what should be a step's input and far above the noise of 50 pairs.
    """

    min_effect: float = 0.1
    alpha: float = 0.05
    max_excess: float = 0.1
    min_written: float = 0.01
    min_read_apart: float = 0.5

    def check(self, n_random: int) -> None:
        """ValueError where so few random subspaces could never reach the level."""
        needed = int(np.ceil(1 / self.alpha - 1e-9)) - 1
        if n_random < needed:
            raise ValueError(
                f"n_random={n_random}: the smallest p-value would be 1/{n_random + 1}, above alpha={self.alpha}; "
                f"draw at least {needed} random subspaces"
            )


DECLARED = UseRule()


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One intervention, one direction, per pair.

    Attributes:
        gap: Logit difference of the donor's run minus that of the recipient's.
        change, full, random: Logit difference of the edited run minus the recipient's, with the probe's subspace, the
            whole activation, and each random subspace.
        before, taken, full_taken, random_taken: Whether the highest logit is that of the donor's answer: in the
            recipient's run, and in each of the edited ones.
        written: Which part of the difference between donor and recipient lies in the subspace, in norm.
    """

    direction: Direction
    intervention: Intervention
    gap: Float[np.ndarray, " batch"]
    change: Float[np.ndarray, " batch"]
    full: Float[np.ndarray, " batch"]
    random: Float[np.ndarray, "draws batch"]
    before: Bool[np.ndarray, " batch"]
    taken: Bool[np.ndarray, " batch"]
    full_taken: Bool[np.ndarray, " batch"]
    random_taken: Bool[np.ndarray, "draws batch"]
    written: Float[np.ndarray, " batch"]

    def known(self, keep: Bool[np.ndarray, " batch"]) -> "Trial":
        """Without some of the pairs."""
        arrays = [f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)]
        return replace(self, **{name: getattr(self, name)[..., keep] for name in arrays})

    def effects(self, seed: int = 0) -> Effects:
        """Cells: the probe's subspace, the whole activation, the first minus the second, then the random subspaces."""
        cells = np.concatenate([np.stack([self.change, self.full, self.change - self.full]), self.random])
        try:
            return normalized_effects(cells, self.gap, seed=seed)
        except NoGapError:
            return missing_effects(len(cells), len(self.gap))


@dataclass(frozen=True, kw_only=True, eq=False)
class UsedAt:
    """What was tried at one site and place, with the directions of one probe.

    `read_apart`: share of pairs in whose two runs the probe reads different things; NaN where there was no probe.
    """

    site: Site
    address: Address
    target: str
    rank: int
    pair: str
    trials: tuple[Trial, ...]
    read_apart: float

    @property
    def place(self) -> str:
        """`equals 2`: role and step in words."""
        words = self.address.role.replace("_", " ")
        return words if self.address.step < 0 else f"{words} {self.address.step}"

    @property
    def name(self) -> str:
        """`s_2 in L1.resid_pre at equals 2`."""
        return f"{self.target + ' in ' if self.target else ''}{self.site} at {self.place}"


@dataclass(frozen=True, eq=False)
class ProbeUse(Result):
    """Effects of a probe's directions and of their random controls, per pair until the table; verdicts by `rule`."""

    cells: tuple[UsedAt, ...]
    rule: UseRule
    labels: Mapping[str, str | int]
    seed: int = 0

    @classmethod
    def joined(cls, results: Sequence["ProbeUse"]) -> "ProbeUse":
        """Several cells as one scan: p-values are then corrected over all of them, by the largest standardized effect
        that each random draw has anywhere in the scan.

        ValueError where rules, labels or numbers of random subspaces differ.
        """
        first = results[0]
        for other in results[1:]:
            if (other.rule, other.labels, other.n_random) != (first.rule, first.labels, first.n_random):
                raise ValueError("only results of one rule, one run and as many random subspaces make one scan")
        return cls(tuple(cell for result in results for cell in result.cells), first.rule, first.labels, first.seed)

    @property
    def n_random(self) -> int:
        """How many random subspaces there were."""
        return len(self.cells[0].trials[0].random)

    def frame(self) -> pd.DataFrame:
        """One row per cell, direction and intervention: the effect and its interval over pairs, and its controls.

        `random_*`: mean, 2.5% and 97.5% quantile of the random subspaces' effects, and the largest; `p`: adjusted over
        the rows of one intervention. `full_effect`: the whole activation; `excess` and `excess_low`: how much more the
        subspace does. `iia`: interchange intervention accuracy, the share of pairs whose highest logit becomes the
        donor's answer, beside the same for the whole activation, the random subspaces, and before any edit. `written`:
        mean share of the difference, in norm, that lies in the subspace.
        """
        rows = []
        for cell, (answer, reason), tested in zip(self.cells, self.answers, self._tested, strict=True):
            place = {"pair": cell.pair, "target": cell.target, "site": cell.site.label, "layer": cell.site.layer}
            place |= {"head": cell.site.head, "role": cell.address.role, "step": cell.address.step, "rank": cell.rank}
            for trial, (effects, p) in zip(cell.trials, tested, strict=True):
                kind = {"direction": trial.direction, "intervention": trial.intervention}
                rows.append({**place, **kind, **_numbers(trial, effects, p), "answer": answer, "reason": reason})
        return with_labels(pd.DataFrame(rows).astype({"head": "Int64"}), self.labels)

    @cached_property
    def answers(self) -> tuple[tuple[Answer, str], ...]:
        """For every cell the answer of the rule, and why in words."""
        return tuple(self._judged(cell, tested) for cell, tested in zip(self.cells, self._tested, strict=True))

    def figure(self) -> go.Figure:
        """Effects of the subspace, the whole activation and the random subspaces, a facet per cell.

        Whiskers: 95% interval over pairs; of the random subspaces, the middle 95% of their effects.
        """
        frame = self.frame().assign(what=[cell.name for cell in self.cells for _ in cell.trials])
        if frame["what"].nunique() < len(self.cells):
            frame["what"] = frame["pair"] + ": " + frame["what"]
        shared = {"what": frame["what"], "edit": frame["intervention"] + ", " + frame["direction"]}
        columns = {
            "probe's subspace": ("effect", "ci_low", "ci_high"),
            "whole activation": ("full_effect", "full_effect", "full_effect"),
            "random subspaces": ("random_effect", "random_low", "random_high"),
        }
        parts = [
            pd.DataFrame({**shared, "written": name, "effect": frame[mid], "low": frame[low], "high": frame[high]})
            for name, (mid, low, high) in columns.items()
        ]
        figure = lines(
            pd.concat(parts, ignore_index=True),
            x="edit",
            y="effect",
            low="low",
            high="high",
            color="written",
            facet="what",
            references={"the other run": 1.0, "no edit": 0.0},
            title="Is it used? Share of the gap closed by what the probe reads, against norm-matched random subspaces",
            x_title="intervention and direction",
            y_title="normalized effect",
        )
        return figure.update_traces(mode="markers")

    @cached_property
    def _tested(self) -> tuple[tuple[Tested, ...], ...]:
        """Effects and adjusted p-value of every trial of every cell; one family of tests for each intervention."""
        effects = {(i, j): t.effects(self.seed) for i, cell in enumerate(self.cells) for j, t in enumerate(cell.trials)}
        p = dict.fromkeys(effects, float("nan"))
        for intervention in get_args(Intervention):
            family = [
                (i, j)
                for (i, j), one in effects.items()
                if self.cells[i].trials[j].intervention == intervention and one.n
            ]
            if family:
                cells = np.stack([effects[key].effect for key in family], axis=1)
                scores = _standardized(np.delete(cells, [1, 2], axis=0))
                p |= zip(family, exchange_test(scores[0], scores[1:]).tolist(), strict=True)
        return tuple(
            tuple((effects[i, j], p[i, j]) for j in range(len(cell.trials))) for i, cell in enumerate(self.cells)
        )

    def _judged(self, cell: UsedAt, found: tuple[Tested, ...]) -> tuple[Answer, str]:
        rule, trials = self.rule, {t.direction: i for i, t in enumerate(cell.trials) if t.intervention == "interchange"}
        written = float(np.mean([cell.trials[i].written.mean() for i in trials.values()]))
        if written < rule.min_written:
            return "inconclusive", f"the pairs do not differ along the directions ({written:.2%} of what differs here)"
        if cell.read_apart < rule.min_read_apart:
            return "inconclusive", f"the probe reads different things in {cell.read_apart:.0%} of the pairs only"
        tested = {direction: found[i] for direction, i in trials.items()}
        if not all(effects.n and np.isfinite(effects.ci_low[:3]).all() for effects, _ in tested.values()):
            return "inconclusive", "the model does not tell the two runs apart well enough to normalize an effect"
        said = {
            direction: f"{direction} {effects.effect[0]:.2f} [{effects.ci_low[0]:.2f}, {effects.ci_high[0]:.2f}] "
            f"(random at most {effects.effect[3:].max():.2f}, p {p:.3f}, whole {effects.effect[1]:.2f})"
            for direction, (effects, p) in tested.items()
        }
        everything = "; ".join(said.values())
        beyond = [d for d, (effects, _) in tested.items() if effects.ci_low[2] > rule.max_excess]
        ahead = {d: found for d, found in tested.items() if found[1] <= rule.alpha and d not in beyond}
        if any(effects.ci_low[0] >= rule.min_effect for effects, _ in ahead.values()):
            return "used", everything
        if beyond:
            return "inconclusive", f"the directions do more than the whole activation; {everything}"
        if any(effects.ci_high[0] >= rule.min_effect for effects, _ in ahead.values()):
            return "inconclusive", f"the interval holds {rule.min_effect:g}; {everything}"
        return "not shown to be used", everything


def _standardized(effects: Float[np.ndarray, "subspaces trials"]) -> Float[np.ndarray, "subspaces trials"]:
    """Trials on one scale, or the one with the wildest random effects would decide for all.

    The probe's subspace counts among the others, so that under the null hypothesis no row is special.
    """
    spread = effects.std(axis=0)
    scores = np.zeros_like(effects)
    np.divide(effects - effects.mean(axis=0), spread, out=scores, where=spread > 1e-12)
    return scores


def _numbers(trial: Trial, effects: Effects, p: float) -> dict[str, float | int]:
    drawn = effects.effect[3:]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "effect": effects.effect[0],
        "ci_low": effects.ci_low[0],
        "ci_high": effects.ci_high[0],
        "n": effects.n,
        "random_effect": drawn.mean(),
        "random_low": low,
        "random_high": high,
        "random_max": drawn.max(),
        "n_random": len(drawn),
        "p": p,
        "full_effect": effects.effect[1],
        "excess": effects.effect[2],
        "excess_low": effects.ci_low[2],
        "iia": trial.taken.mean(),
        "full_iia": trial.full_taken.mean(),
        "random_iia": trial.random_taken.mean(),
        "before_iia": trial.before.mean(),
        "written": trial.written.mean(),
    }
