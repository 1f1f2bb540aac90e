"""Does the model use what a probe reads? What it reads is exchanged between two runs, against random subspaces.

Decodable is not used: a probe finds what is there, whether or not anything reads it. `probe_use` intervenes on the
probe's directions, at the site and place where it reads, in pairs of runs that differ in what it reads; `UseRule` says
beforehand what counts as used; `ProbeUse` holds the effects of every pair.

- interchange: the component along the directions is taken from the other run. An effect is a share of the gap between
  the two runs' logit differences: at 1 the directions alone carry the whole difference, at 0 nothing of it. Both ways
  are run: denoise (clean into corrupted: the directions suffice) and noise (corrupted into clean: they are needed).
- removal: the component is taken from another problem's run instead (or is the mean, or zero), and effects are
  normalized by the same gap. Denoise says how far losing the corrupted value helps, noise how much losing the clean one
  costs.

Random subspaces of the same rank are the yardstick, and each moves every example exactly as far as the probe's does. A
random subspace of rank r in d dimensions holds about r/d of a squared difference, so one that is not matched hardly
writes anything and would lose to any probe. By default they are uniform, which is TransformerLens's placebo too and can
be drawn where few directions vary. `RandomSubspaces(drawn="data")` draws them where the activations vary, in
proportion: a harder control, which cannot be beaten where the probe's directions are most of what varies at all.

An effect is one of this site and place, in these pairs; a copy that is read elsewhere plays no part in it. Of several
copies at this very place a probe leans on each as standardization has it, on one of a tenth of the size as much as on
the largest, whichever of them is read: so they are moved together before "not shown to be used" is said (`UseRule`).
`subspaces` says why a direction with an effect need not be what the model uses.

Geiger et al. 2021, arXiv:2106.02997; Elazar et al. 2021, arXiv:2006.00995; Makelov et al. 2023, arXiv:2311.17030.
"""

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

from cotinterp.figures.probing import probe_use_figure
from cotinterp.mechanism.activations import activations, at_positions
from cotinterp.mechanism.contrast import Address, Contrast
from cotinterp.mechanism.interventions import NO_DONOR, Edit, draw_donors, run_with
from cotinterp.mechanism.metrics import Effects, logit_diff, normalized_effects
from cotinterp.mechanism.model import HookedModel, require_model
from cotinterp.mechanism.probing.controls import distinct_rows
from cotinterp.mechanism.probing.linear_probe import LinearProbe
from cotinterp.mechanism.probing.solver import whole_number
from cotinterp.mechanism.probing.subspaces import Subspace, written
from cotinterp.mechanism.sites import HEAD_AXIS, Site, refuse_write, site_columns
from cotinterp.results import Result, with_labels
from cotinterp.results.multiplicity import exchange_test
from cotinterp.transcripts.roles import place_words

Direction = Literal["denoise", "noise"]
InterventionName = Literal["interchange", "removal"]
REMOVALS = ("resample", "mean", "zero")
Conclusion = Literal["used", "not shown to be used", "undecided"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
Tested = tuple[Effects, float]
"""Effects of a test, and its adjusted p-value."""
Writer = Callable[[Tensor, slice], Tensor]
"""From the activations of some pairs in the recipient's run, and which pairs they are, what is written there."""


@dataclass(frozen=True, kw_only=True)
class UseRule:
    """When a probe's directions count as used. Declared before looking, and the same for every site.

    - used: in one of the two directions the interchange closes at least `min_effect` of the gap between the runs (lower
      end of its interval), more than random subspaces of the same rank that move every example as far (p at most
      `alpha`, over both directions and all cells tested together), and does not exceed the whole activation's patch.
    - undecided: what could have shown it was not there; the reason says what would decide. The pairs hardly differ
      along the directions (less than `min_written` of what differs at the place), or the probe reads the same in both
      runs of more than half of them (`min_reads_differ`); the model does not tell the runs apart, or fewer than
      `min_pairs` of them; the directions do more than the whole activation (by `max_excess`, lower end), so that what
      moves may be a direction that never varies by itself; or the effect beats the random ones and its interval holds
      `min_effect`.
    - not shown to be used: everything else. In both directions the effect is below `min_effect` (upper end), or random
      subspaces do as much.

    Where a probe's directions are not found used and the target can be read again beside them (`LinearProbe.copies`),
    they may point at a copy that nothing reads. The same rule is then applied to all copies moved together: used where
    they are; not shown to be used where in both directions their effect is below `min_effect` too; else undecided.

    A share of the gap of 0.1 is small for what should be a step's input and far above the noise of 50 pairs. Of fewer
    than five pairs a bootstrap redraws too few to have an interval.
    """

    min_effect: float = 0.1
    alpha: float = 0.05
    max_excess: float = 0.1
    min_written: float = 0.01
    min_reads_differ: float = 0.5
    min_pairs: int = 5

    def __post_init__(self) -> None:
        """ValueError for thresholds that are no shares, and fewer than two pairs."""
        for name in ("min_effect", "alpha", "max_excess", "min_written", "min_reads_differ"):
            value = getattr(self, name)
            if not 0 <= value < float("inf") or (name == "alpha" and not 0 < value < 1):
                raise ValueError(f"{name}={value}: {'between 0 and 1' if name == 'alpha' else '0 or more'} is wanted.")
        if whole_number("min_pairs", self.min_pairs) < 2:
            raise ValueError(f"min_pairs={self.min_pairs}: two or more are wanted; one pair has no interval.")

    def check(self, n_random: int) -> None:
        """ValueError where so few random subspaces could never reach the level."""
        needed = int(np.ceil(1 / self.alpha - 1e-9)) - 1
        if n_random < needed:
            raise ValueError(
                f"n_random={n_random}: the smallest p-value would be 1/{n_random + 1}, above alpha={self.alpha}; "
                f"draw at least {needed} random subspaces"
            )


DECLARED = UseRule()


@dataclass(frozen=True, kw_only=True)
class RandomSubspaces:
    """What the probe's directions are compared with: random subspaces of the same rank, which move as far.

    Attributes:
        n: How many; each costs as much as the probe's.
        drawn: `uniform`, or from the `data`: where the activations of the two runs vary, which is harder to beat.
        seed: Of these, of the donors of removals, and of the bootstrap.
    """

    n: int = 40
    drawn: Literal["uniform", "data"] = "uniform"
    seed: int = 0

    def __post_init__(self) -> None:
        """ValueError for an unknown way of drawing."""
        if self.drawn not in ("uniform", "data"):
            raise ValueError(f"unknown drawn {self.drawn!r}: uniform, data")


@dataclass(frozen=True, kw_only=True, eq=False)
class UseTest:
    """One intervention in one direction and its controls, per pair.

    Attributes:
        gap: Logit difference of the donor's run minus that of the recipient's.
        change, full, random: Logit difference of the edited run minus the recipient's, with the probe's subspace, the
            whole activation, and each random subspace.
        before_iia, iia, full_iia, random_iia: Whether the highest logit is that of the donor's answer: in the
            recipient's run, and in each of the edited ones.
        written: Which part of the difference between donor and recipient lies in the subspace, in norm.
    """

    direction: Direction
    intervention: InterventionName
    gap: Float[np.ndarray, " batch"]
    change: Float[np.ndarray, " batch"]
    full: Float[np.ndarray, " batch"]
    random: Float[np.ndarray, "draws batch"]
    before_iia: Bool[np.ndarray, " batch"]
    iia: Bool[np.ndarray, " batch"]
    full_iia: Bool[np.ndarray, " batch"]
    random_iia: Bool[np.ndarray, "draws batch"]
    written: Float[np.ndarray, " batch"]

    def select(self, keep: Bool[np.ndarray, " batch"]) -> "UseTest":
        """Some of the pairs."""
        arrays = [f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)]
        return replace(self, **{name: getattr(self, name)[..., keep] for name in arrays})

    def effects(self, seed: int = 0) -> Effects:
        """Cells: the probe's subspace, the whole activation, the first minus the second, then the random subspaces."""
        cells = np.concatenate([np.stack([self.change, self.full, self.change - self.full]), self.random])
        return normalized_effects(cells, self.gap, seed=seed)

    def summary(self, effects: Effects, p: float) -> dict[str, str | float | int]:
        """Its columns of the table."""
        drawn = effects.effect[3:]
        low, high = np.quantile(drawn, [0.025, 0.975])
        return {
            "direction": self.direction,
            "intervention": self.intervention,
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
            "iia": self.iia.mean(),
            "full_iia": self.full_iia.mean(),
            "random_iia": self.random_iia.mean(),
            "before_iia": self.before_iia.mean(),
            "written": self.written.mean(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class UseCell:
    """All tests at one site and place, with the directions of one probe.

    `reads_differ`: share of pairs in whose two runs the probe reads different things; NaN where there was no probe.
    `copies`: the same with all copies of the target moved together, where there is more than one.
    """

    site: Site
    address: Address
    target: str
    rank: int
    pair: str
    tests: tuple[UseTest, ...]
    reads_differ: float
    copies: "UseCell | None" = None

    @property
    def name(self) -> str:
        """`s_2 in L1.resid_pre at equals 2`."""
        place = place_words(self.address.role, self.address.step)
        return f"{self.target + ' in ' if self.target else ''}{self.site} at {place}"

    @property
    def columns(self) -> dict[str, str | int]:
        """What names the cell in the table."""
        return {
            "pair": self.pair,
            "target": self.target,
            **site_columns(self.site),
            "role": self.address.role,
            "step": self.address.step,
            "rank": self.rank,
        }

    @property
    def written(self) -> float:
        """Which part of the difference lies in the subspace, mean over both directions."""
        return float(np.mean([test.written.mean() for test in self.tests if test.intervention == "interchange"]))


@dataclass(frozen=True, eq=False)
class ProbeUse(Result):
    """Effects of a probe's directions and of their random controls, per pair until the table; verdicts by `rule`."""

    cells: tuple[UseCell, ...]
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
        return len(self.cells[0].tests[0].random)

    def frame(self) -> pd.DataFrame:
        """One row per cell, direction and intervention: the effect and its interval over pairs, and its controls.

        `random_*`: mean, 2.5% and 97.5% quantile of the random subspaces' effects, and the largest; `p`: adjusted over
        the rows of one intervention. `full_effect`: the whole activation; `excess` and `excess_low`: how much more the
        subspace does. `iia`: interchange intervention accuracy, the share of pairs whose highest logit becomes the
        donor's answer, beside the same for the whole activation, the random subspaces, and before any edit. `written`:
        mean share of the difference, in norm, that lies in the subspace.
        """
        rows = [
            {**cell.columns, **test.summary(effects, p), "answer": answer, "reason": reason}
            for cell, (answer, reason), tested in zip(self.cells, self.answers, self._tested, strict=True)
            for test, (effects, p) in zip(cell.tests, tested, strict=True)
        ]
        return with_labels(pd.DataFrame(rows), self.labels)

    @cached_property
    def answers(self) -> tuple[tuple[Conclusion, str], ...]:
        """For every cell the answer of the rule, and why in words."""
        own = [_judged(cell, tested, self.rule) for cell, tested in zip(self.cells, self._tested, strict=True)]
        if self.copies is None:
            return tuple(own)
        wide = iter(zip(self.copies.answers, self.copies.cells, self.copies._tested, strict=True))
        return tuple(
            found if cell.copies is None else _with_copies(found, *next(wide), self.rule)
            for cell, found in zip(self.cells, own, strict=True)
        )

    @cached_property
    def copies(self) -> "ProbeUse | None":
        """The cells in which the target has more copies than the probe leans on, with all of them moved together."""
        found = tuple(cell.copies for cell in self.cells if cell.copies is not None)
        return ProbeUse(found, self.rule, self.labels, self.seed) if found else None

    def figure(self) -> go.Figure:
        """Effects of the subspace, the whole activation and the random subspaces, a facet per cell.

        Whiskers: 95% interval over pairs; of the random subspaces, the middle 95% of their effects.
        """
        return probe_use_figure(self.frame())

    @cached_property
    def _tested(self) -> tuple[tuple[Tested, ...], ...]:
        """Effects and adjusted p-value of every test of every cell; one family of tests for each intervention."""
        effects = {
            (i, j): test.effects(self.seed) for i, cell in enumerate(self.cells) for j, test in enumerate(cell.tests)
        }
        p = dict.fromkeys(effects, float("nan"))
        for intervention in get_args(InterventionName):
            family = [
                (i, j)
                for (i, j), one in effects.items()
                if self.cells[i].tests[j].intervention == intervention and one.n
            ]
            if family:
                cells = np.stack([effects[key].effect for key in family], axis=1)
                scores = _standardized(np.delete(cells, [1, 2], axis=0))
                p |= zip(family, exchange_test(scores[0], scores[1:]).tolist(), strict=True)
        return tuple(
            tuple((effects[i, j], p[i, j]) for j in range(len(cell.tests))) for i, cell in enumerate(self.cells)
        )


def _judged(cell: UseCell, tested: tuple[Tested, ...], rule: UseRule) -> tuple[Conclusion, str]:
    """What the rule says of a cell, and why in words."""
    if cell.written < rule.min_written:
        return "undecided", f"the pairs do not differ along the directions ({cell.written:.2%} of what differs here)"
    if cell.reads_differ < rule.min_reads_differ:
        return "undecided", f"the probe reads different things in {cell.reads_differ:.0%} of the pairs only"
    found = {
        test.direction: one for test, one in zip(cell.tests, tested, strict=True) if test.intervention == "interchange"
    }
    if not all(effects.n and np.isfinite(effects.ci_low[:3]).all() for effects, _ in found.values()):
        return (
            "undecided",
            (
                "the model does not tell the two runs apart well enough to normalize an effect; pairs that it gets "
                "right would decide"
            ),
        )
    fewest = min(effects.n for effects, _ in found.values())
    if fewest < rule.min_pairs:
        return "undecided", f"{fewest} pairs have a gap; {rule.min_pairs} or more would decide"
    numbers = "; ".join(
        f"{direction} {effects.effect[0]:.2f} [{effects.ci_low[0]:.2f}, {effects.ci_high[0]:.2f}] "
        f"(random at most {effects.effect[3:].max():.2f}, p {p:.3f}, whole {effects.effect[1]:.2f})"
        for direction, (effects, p) in found.items()
    )
    beyond = [direction for direction, (effects, _) in found.items() if effects.ci_low[2] > rule.max_excess]
    ahead = [effects for direction, (effects, p) in found.items() if p <= rule.alpha and direction not in beyond]
    if any(effects.ci_low[0] >= rule.min_effect for effects in ahead):
        return "used", numbers
    if beyond:
        return "undecided", f"the directions do more than the whole activation; {numbers}"
    if any(effects.ci_high[0] >= rule.min_effect for effects in ahead):
        return "undecided", f"the interval holds {rule.min_effect:g}; {numbers}"
    return "not shown to be used", numbers


def _with_copies(
    own: tuple[Conclusion, str], wide: tuple[Conclusion, str], cell: UseCell, tested: tuple[Tested, ...], rule: UseRule
) -> tuple[Conclusion, str]:
    """The answer where the target stands in several copies: that of the directions, unless the copies' differs."""
    if own[0] == "used":
        return own
    if wide[0] == "used":
        return "used", f"with all copies of the target moved together: {wide[1]}; the probe's own directions: {own[1]}"
    bounds = [effects.ci_high[0] for effects, _ in tested]
    if own[0] == "undecided" or (wide[0] != "undecided" and max(bounds) < rule.min_effect):
        return own[0], f"{own[1]}; with all copies of the target moved together: {wide[1]}"
    return (
        "undecided",
        f"{own[1]}; but the target can be read again beside these directions, and of its copies moved together "
        f"(rank {cell.rank}) it is open: {wide[1]}. Pairs that change one copy alone would decide, or more of them",
    )


def _standardized(effects: Float[np.ndarray, "subspaces tests"]) -> Float[np.ndarray, "subspaces tests"]:
    """Tests on one scale, or the one with the wildest random effects would decide for all.

    The probe's subspace counts among the others, so that under the null hypothesis no row is special.
    """
    spread = effects.std(axis=0)
    scores = np.zeros_like(effects)
    np.divide(effects - effects.mean(axis=0), spread, out=scores, where=spread > 1e-12)
    return scores


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
    copies: bool = True,
    batch_size: int = 64,
    labels: Mapping[str, str | int] | None = None,
) -> ProbeUse:
    """Interchange and removal of what `probe` reads at `site` and `place`, against random subspaces.

    `probe` was fitted on activations of this site, on other problems than those of `contrast`: directions fitted on the
    pairs themselves may follow their accidents. A `Subspace` will do (one that was learned by other means; a probe cut
    to its longest directions), but then nobody knows whether the pairs change what the probe reads. The pairs must
    change it, and should change nothing else before the readout. A place of several tokens is edited whole.

    Where the probe's directions are not found used and the target can be read again beside them, all copies are moved
    together too (`UseRule`, `ProbeUse.copies`), which costs as much again; `copies=False` leaves that out, and then the
    answer is about the directions alone, as it is for a `Subspace`.

    `removal` names the donor of removals (None: none are made, for half of the cost); `batch_size` bounds the sequences
    of one pass. The cost is about 4 * (controls.n + 3) runs of every pair.

    Raises:
        KeyError: A place that the contrast does not have.
        ValueError: Too few random subspaces for the level, a subspace of another size than the site, a site that cannot
            be written, a place behind the readout, a model in train mode.
    """
    require_model(model)
    rule.check(controls.n)
    if removal not in (None, *REMOVALS):
        raise ValueError(f"unknown removal {removal!r}: {', '.join(REMOVALS)}, None")
    if place not in contrast.places:
        raise KeyError(f"no place {place!r}; the contrast has {list(contrast.places)}")
    refuse_write(site.check(model))
    contrast = contrast.until_readout(model)
    if place not in contrast.places:
        raise ValueError(f"place {place!r} lies behind the readout, which nothing there can reach")
    subspace = probe if isinstance(probe, Subspace) else Subspace.of_probe(probe)
    edits = _PlaceEdits(model, contrast, site, contrast.places[place].to(contrast.clean.device), batch_size)
    runs = edits.run(contrast.clean, contrast.answer), edits.run(contrast.corrupted, contrast.foil)
    rng = np.random.default_rng(controls.seed)
    held = torch.cat([run.activation[edits.mask].flatten(1) for run in runs]) if controls.drawn == "data" else None
    random = [Subspace.random(subspace.d_site, subspace.rank, rng, like=held) for _ in range(controls.n)]
    layout = distinct_rows(np.column_stack([contrast.alike, edits.mask.cpu().numpy()]))
    donors = draw_donors(layout, 1, rng)[0] if removal == "resample" else None
    tests = []
    for direction, (donor, recipient) in zip(DIRECTIONS, (runs, runs[::-1]), strict=True):
        tests.append(edits.test(direction, "interchange", recipient, donor, donor.activation, subspace, random))
        if removal is not None:
            other = _replacement(removal, recipient.activation, edits.mask, donors)
            test = edits.test(direction, "removal", recipient, donor, other, subspace, random)
            tests.append(test if donors is None else test.select(donors != NO_DONOR))
    cell = UseCell(
        site=site,
        address=contrast.address(place),
        target=probe.target if isinstance(probe, LinearProbe) else "",
        rank=subspace.rank,
        pair=contrast.pair,
        tests=tuple(tests),
        reads_differ=_reads_differ(probe, runs, edits.mask) if isinstance(probe, LinearProbe) else float("nan"),
    )
    result = ProbeUse((cell,), rule, dict(labels or {}), controls.seed)
    if not copies or not isinstance(probe, LinearProbe) or result.answers[0][0] == "used":
        return result
    moved = probe.copies(seed=controls.seed)
    if moved is None:
        return result
    # What the probe leans on may be an unread copy of what is used.
    together = Subspace(moved.T)
    random = [Subspace.random(subspace.d_site, together.rank, rng, like=held) for _ in range(controls.n)]
    wide = replace(
        cell,
        rank=together.rank,
        tests=tuple(
            edits.test(direction, "interchange", recipient, donor, donor.activation, together, random)
            for direction, (donor, recipient) in zip(DIRECTIONS, (runs, runs[::-1]), strict=True)
        ),
    )
    return replace(result, cells=(replace(cell, copies=wide),))


@dataclass(frozen=True, eq=False)
class _Run:
    """One of the two runs: its tokens, the token that it should predict, what it holds, its logits at the readout."""

    tokens: Int[Tensor, "batch pos"]
    answer: Int[Tensor, " batch"]
    activation: Float[Tensor, "batch pos *vector"]
    logits: Float[Tensor, "1 batch d_vocab"]


@dataclass(frozen=True, eq=False)
class _PlaceEdits:
    """Edits of one place of one site, and what becomes of the logits at the readout."""

    model: HookedModel
    contrast: Contrast
    site: Site
    mask: Bool[Tensor, "batch pos"]
    batch_size: int

    def run(self, tokens: Int[Tensor, "batch pos"], answer: Int[Tensor, " batch"]) -> _Run:
        """A run without edits."""
        held = activations(self.model, tokens, [self.site], batch_size=self.batch_size)[self.site]
        return _Run(tokens, answer, held, self.logits(tokens, [_unchanged])[1])

    def logits(
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
            before = self._stacked(tokens, rows, [_unchanged] * stack)
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

    def test(
        self,
        direction: Direction,
        intervention: InterventionName,
        recipient: _Run,
        donor: _Run,
        other: Float[Tensor, "batch pos *vector"],
        subspace: Subspace,
        random: Sequence[Subspace],
    ) -> UseTest:
        """`other` is written into the recipient's run: in the subspace, in full, and in each random subspace."""

        def within(chosen: Subspace, matched_to: Subspace | None = None) -> Writer:
            return lambda current, rows: written(self.site, current, other[rows], chosen, matched_to)

        writers = [within(subspace), lambda _, rows: other[rows], *(within(one, subspace) for one in random)]
        edited, plain = self.logits(recipient.tokens, writers)
        change = (self._metric(edited) - self._metric(plain)).cpu().numpy()
        iia = (edited.argmax(dim=-1) == donor.answer).cpu().numpy()
        delta = other - recipient.activation
        vectors = delta.flatten(2) if self.site.kind in HEAD_AXIS and self.site.head is None else delta
        vectors = vectors * self.mask[..., None]
        size, inside = (x.flatten(1).norm(dim=1).cpu().numpy() for x in (vectors, subspace.part(vectors)))
        return UseTest(
            direction=direction,
            intervention=intervention,
            gap=(self._metric(donor.logits) - self._metric(recipient.logits))[0].cpu().numpy(),
            change=change[0],
            full=change[1],
            random=change[2:],
            before_iia=(recipient.logits[0].argmax(dim=-1) == donor.answer).cpu().numpy(),
            iia=iia[0],
            full_iia=iia[1],
            random_iia=iia[2:],
            written=np.divide(inside, size, out=np.zeros_like(size), where=size > 0).astype(np.float64),
        )

    def _metric(self, logits: Float[Tensor, "edits batch d_vocab"]) -> Float[Tensor, "edits batch"]:
        answer, foil = self.contrast.answer, self.contrast.foil
        here = torch.zeros_like(answer)
        return torch.stack([logit_diff(one[:, None], here, answer, foil) for one in logits])


def _unchanged(current: Tensor, _: slice) -> Tensor:
    return current


def _replacement(
    removal: str,
    own: Float[Tensor, "batch pos *vector"],
    mask: Bool[Tensor, "batch pos"],
    donors: Int[np.ndarray, " batch"] | None,
) -> Float[Tensor, "batch pos *vector"]:
    """What is written in place of what the subspace held; an example without a donor keeps its own.

    A donor is of the same layout, and its place lies at the same positions.
    """
    if removal == "zero":
        return torch.zeros_like(own)
    if removal == "mean":
        return own[mask].mean(dim=0).expand_as(own)
    assert donors is not None
    chosen = np.where(donors == NO_DONOR, np.arange(len(donors)), donors)
    return own[torch.from_numpy(chosen).to(own.device)]


def _reads_differ(probe: LinearProbe, runs: Sequence[_Run], mask: Bool[Tensor, "batch pos"]) -> float:
    """Share of pairs in whose two runs the probe reads different things, at the last token of the place."""
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
    clean, corrupted = (probe.predict(at_positions(run.activation, last).flatten(1)) for run in runs)
    return float((clean != corrupted).mean())
