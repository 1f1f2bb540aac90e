"""Whether a probe's directions are used: the declared rule, the table with its controls, the picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.figures import lines
from cotinterp.mechanism.activations import activations, at_positions
from cotinterp.mechanism.contrast import Address, Contrast
from cotinterp.mechanism.heads.losses import NO_DONOR, draw_donors
from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.metrics import Effects, logit_diff, normalized_effects
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.probing.controls import distinct_rows
from cotinterp.mechanism.probing.linear_probe import LinearProbe
from cotinterp.mechanism.probing.subspaces import Subspace, written
from cotinterp.mechanism.sites import HEAD_AXIS, Site, refuse_write
from cotinterp.results import Result, with_labels
from cotinterp.results.multiplicity import exchange_test
from cotinterp.transcripts.roles import place_words

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
        return normalized_effects(cells, self.gap, seed=seed)


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
        return place_words(self.address.role, self.address.step)

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


@dataclass(frozen=True, kw_only=True)
class RandomSubspaces:
    """What the probe's directions are compared with: random subspaces of the same rank, which write as much.

    Attributes:
        n: How many; each costs as much as the probe's.
        drawn: `uniform`, or from the `data`: where the activations of the two runs vary, which is harder to beat.
        seed: Of these, of the donors of removals, and of the bootstrap.
    """

    n: int = 40
    drawn: Literal["uniform", "data"] = "uniform"
    seed: int = 0


REMOVALS = ("resample", "mean", "zero", None)
DRAWN = ("uniform", "data")
Writer = Callable[[Tensor, slice], Tensor]
"""From the activations of some pairs in the recipient's run, and which pairs they are, what is written there."""


def probe_use(
    model: HookedModel,
    contrast: Contrast,
    probe: LinearProbe | Subspace,
    site: Site,
    place: str,
    *,
    removal: str | None = "resample",
    controls: RandomSubspaces = RandomSubspaces(),
    rule: UseRule = DECLARED,
    batch_size: int = 64,
    labels: Mapping[str, str | int] | None = None,
) -> ProbeUse:
    """Interchange and removal of what `probe` reads at `site` and `place`, against random subspaces.

    `probe` was fitted on activations of this site, on other problems than those of `contrast`: directions fitted on the
    pairs themselves may follow their accidents. A `Subspace` will do (one that was learned by other means; a probe cut
    to its longest directions), but then nobody knows whether the pairs change what the probe reads. The pairs must
    change it, and should change nothing else before the readout. A place of several tokens is edited whole.

    `removal` names the donor of removals (None: none are made, for half of the cost); `batch_size` bounds the sequences
    of one pass. The cost is about 4 * (controls.n + 3) runs of every pair.

    Raises:
        KeyError: A place that the contrast does not have.
        ValueError: Too few random subspaces for the level, a subspace of another size than the site, a site that cannot
            be written, a place behind the readout, a model in train mode.
    """
    require_eval(model)
    rule.check(controls.n)
    for name, value, known in (("removal", removal, REMOVALS), ("drawn", controls.drawn, DRAWN)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: {', '.join(map(str, known))}")
    if place not in contrast.places:
        raise KeyError(f"no place {place!r}; the contrast has {list(contrast.places)}")
    refuse_write(site.check(model))
    contrast = contrast.until_readout(model)
    if place not in contrast.places:
        raise ValueError(f"place {place!r} lies behind the readout, which nothing there can reach")
    subspace = probe if isinstance(probe, Subspace) else Subspace.of_probe(probe)
    bench = _Bench.of(model, contrast, site, place, batch_size)
    rng = np.random.default_rng(controls.seed)
    like = (
        torch.cat([run.activation[bench.mask].flatten(1) for run in bench.runs]) if controls.drawn == "data" else None
    )
    drawn = [Subspace.random(subspace.d_site, subspace.rank, rng, like=like) for _ in range(controls.n)]
    partner = bench.partners(rng) if removal == "resample" else None
    trials = []
    for direction, (donor, recipient) in zip(DIRECTIONS, (bench.runs, bench.runs[::-1]), strict=True):
        trials.append(bench.trial(direction, "interchange", recipient, donor, donor.activation, subspace, drawn))
        if removal is None:
            continue
        other = _replacement(removal, recipient.activation, bench.mask, partner)
        trial = bench.trial(direction, "removal", recipient, donor, other, subspace, drawn)
        trials.append(trial if partner is None else trial.known(partner != NO_DONOR))
    cell = UsedAt(
        site=site,
        address=contrast.address(place),
        target=probe.target if isinstance(probe, LinearProbe) else "",
        rank=subspace.rank,
        pair=contrast.pair,
        trials=tuple(trials),
        read_apart=bench.read_apart(probe) if isinstance(probe, LinearProbe) else float("nan"),
    )
    return ProbeUse((cell,), rule, dict(labels or {}), controls.seed)


@dataclass(frozen=True, eq=False)
class _Run:
    """One of the two runs: its tokens, the token that the other run should turn into this one's, what it holds."""

    tokens: Int[Tensor, "batch pos"]
    own: Int[Tensor, " batch"]
    activation: Float[Tensor, "batch pos *vector"]
    readout: Float[Tensor, "1 batch d_vocab"]


@dataclass(frozen=True, eq=False)
class _Bench:
    """Edits of one place of one site, and what becomes of the logits at the readout."""

    model: HookedModel
    contrast: Contrast
    site: Site
    mask: Bool[Tensor, "batch pos"]
    batch_size: int
    runs: tuple[_Run, ...] = ()

    @classmethod
    def of(cls, model: HookedModel, contrast: Contrast, site: Site, place: str, batch_size: int) -> "_Bench":
        """The clean run and the corrupted one, in this order."""
        bench = cls(model, contrast, site, contrast.places[place].to(contrast.clean.device), batch_size)
        runs = [
            _Run(
                tokens,
                own,
                activations(model, tokens, [site], batch_size=batch_size)[site],
                bench.read(tokens, [_leave])[1],
            )
            for tokens, own in ((contrast.clean, contrast.answer), (contrast.corrupted, contrast.foil))
        ]
        return replace(bench, runs=tuple(runs))

    def read(
        self, tokens: Int[Tensor, "batch pos"], writers: Sequence[Writer]
    ) -> tuple[Float[Tensor, "edits batch d_vocab"], Float[Tensor, "edits batch d_vocab"]]:
        """Logits at the readout under each edit, and without any edit at the same place of the same stack.

        The rounding of a row may depend on the batch that it is computed in; so an edit that writes what was there
        changes exactly nothing.
        """
        edited, plain = [], []
        for rows in (slice(start, start + self.batch_size) for start in range(0, len(tokens), self.batch_size)):
            n = len(tokens[rows])
            stack = min(max(1, self.batch_size // n), len(writers))
            before = self._stacked(tokens, rows, [_leave] * stack)
            chunks = [list(writers[start : start + stack]) for start in range(0, len(writers), stack)]
            full = [chunk + chunk[-1:] * (stack - len(chunk)) for chunk in chunks]
            edited.append(torch.cat([self._stacked(tokens, rows, chunk) for chunk in full])[: len(writers)])
            plain.append(before.repeat(len(chunks), 1, 1)[: len(writers)])
        return torch.cat(edited, dim=1), torch.cat(plain, dim=1)

    def _stacked(
        self, tokens: Int[Tensor, "batch pos"], rows: slice, writers: Sequence[Writer]
    ) -> Float[Tensor, "edits rows d_vocab"]:
        def write(current: Tensor) -> Tensor:
            parts = current.split(len(current) // len(writers))
            return torch.cat([writer(part, rows) for writer, part in zip(writers, parts, strict=True)])

        repeated, mask, at = (
            repeat(x[rows], "row ... -> (edit row) ...", edit=len(writers))
            for x in (tokens, self.mask, self.contrast.at)
        )
        logits = run_with(self.model, repeated, [Edit(self.site, write, mask, expect_change=False)])
        return rearrange(at_positions(logits, at).double(), "(edit row) d_vocab -> edit row d_vocab", edit=len(writers))

    def trial(
        self,
        direction: Direction,
        intervention: Intervention,
        recipient: _Run,
        donor: _Run,
        other: Float[Tensor, "batch pos *vector"],
        subspace: Subspace,
        drawn: Sequence[Subspace],
    ) -> Trial:
        """`other` is written into the recipient's run: in the subspace, in full, and in each random subspace."""

        def within(chosen: Subspace, as_far_as: Subspace | None = None) -> Writer:
            return lambda current, rows: written(self.site, current, other[rows], chosen, as_far_as)

        writers = [within(subspace), lambda _, rows: other[rows], *(within(one, subspace) for one in drawn)]
        edited, plain = self.read(recipient.tokens, writers)
        change = (self._metric(edited) - self._metric(plain)).cpu().numpy()
        taken = (edited.argmax(dim=-1) == donor.own).cpu().numpy()
        delta = _at_place(other - recipient.activation, self.mask, self.site)
        size, inside = (x.flatten(1).norm(dim=1).cpu().numpy() for x in (delta, subspace.part(delta)))
        return Trial(
            direction=direction,
            intervention=intervention,
            gap=(self._metric(donor.readout) - self._metric(recipient.readout))[0].cpu().numpy(),
            change=change[0],
            full=change[1],
            random=change[2:],
            before=(recipient.readout[0].argmax(dim=-1) == donor.own).cpu().numpy(),
            taken=taken[0],
            full_taken=taken[1],
            random_taken=taken[2:],
            written=np.divide(inside, size, out=np.zeros_like(size), where=size > 0).astype(np.float64),
        )

    def partners(self, rng: np.random.Generator) -> Int[np.ndarray, " batch"]:
        """For every example another one whose place lies at the same positions."""
        found: Int[np.ndarray, " batch"] = draw_donors(distinct_rows(self.mask.cpu().numpy()), 1, rng)[0]
        return found

    def read_apart(self, probe: LinearProbe) -> float:
        """Share of pairs in whose two runs the probe reads different things, at the last token of the place."""
        last = self.mask.shape[1] - 1 - self.mask.flip(1).int().argmax(dim=1)
        clean, corrupted = (probe.predict(at_positions(run.activation, last).flatten(1)) for run in self.runs)
        return float((clean != corrupted).mean())

    def _metric(self, logits: Float[Tensor, "edits batch d_vocab"]) -> Float[Tensor, "edits batch"]:
        answer, foil = self.contrast.answer, self.contrast.foil
        here = torch.zeros_like(answer)
        return torch.stack([logit_diff(one[:, None], here, answer, foil) for one in logits])


def _leave(current: Tensor, _: slice) -> Tensor:
    return current


def _replacement(
    removal: str,
    own: Float[Tensor, "batch pos *vector"],
    mask: Bool[Tensor, "batch pos"],
    partner: Int[np.ndarray, " batch"] | None,
) -> Float[Tensor, "batch pos *vector"]:
    """What is written in place of what the subspace held; an example without a partner keeps its own."""
    if removal == "zero":
        return torch.zeros_like(own)
    if removal == "mean":
        return own[mask].mean(dim=0).expand_as(own)
    assert partner is not None
    chosen = np.where(partner == NO_DONOR, np.arange(len(partner)), partner)
    return own[torch.from_numpy(chosen).to(own.device)]


def _at_place(
    rows: Float[Tensor, "batch pos *vector"], mask: Bool[Tensor, "batch pos"], site: Site
) -> Float[Tensor, "batch pos d_site"]:
    """One vector a position, as probes and subspaces see it; 0 outside the place."""
    vectors = rows.flatten(2) if site.kind in HEAD_AXIS and site.head is None else rows
    return vectors * mask[..., None]
