"""Does the model use what a probe reads? Decodable is not used: a probe finds what is there, read by anyone or not.

The probe's directions are intervened on, at the site and place where it reads, in pairs of runs that differ in what it
reads (rule and limits: `UseRule`):

- interchange: the component along the directions is taken from the other run. Effect 1: the directions alone carry the
  whole difference between the runs. Both ways: denoise (clean into corrupted: they suffice), noise (corrupted into
  clean: they are needed).
- removal: the component is taken from another problem's run instead (or is the mean, or zero); effects are normalized
  by the same gap. Denoise says how far losing the corrupted value helps, noise how much losing the clean one costs.

Random subspaces of the same rank are the yardstick, and each moves every example exactly as far as the probe's does. A
random subspace of rank r in d dimensions holds about r/d of a squared difference, so one that is not matched hardly
writes anything and would lose to any probe. By default they are uniform, which is TransformerLens's placebo too and
exists where few directions vary; `controls="data"` draws them where the activations vary, in proportion: a harder
control, which cannot be beaten where the probe's directions are most of what varies at all.

An effect is one of this site and place, in these pairs. The activation may hold a copy that nobody reads and another
that is read elsewhere; "not shown to be used" speaks of this one.

Geiger et al. 2021, arXiv:2106.02997; Elazar et al. 2021, arXiv:2006.00995; Makelov et al. 2023, arXiv:2311.17030.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations, at_positions
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.ablation import NO_DONOR, draw_donors
from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.probing.controls import distinct_rows
from cotinterp.mechanism.probing.linear_probe import LinearProbe
from cotinterp.mechanism.probing.subspaces import Subspace, written
from cotinterp.mechanism.probing.use_result import (
    DECLARED,
    DIRECTIONS,
    Direction,
    Intervention,
    ProbeUse,
    Trial,
    UsedAt,
    UseRule,
)
from cotinterp.mechanism.sites import HEAD_AXIS, Site, refuse_write

REMOVALS = ("resample", "mean", "zero", None)
CONTROLS = ("uniform", "data")
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
    controls: str = "uniform",
    n_random: int = 40,
    rule: UseRule = DECLARED,
    batch_size: int = 64,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> ProbeUse:
    """Interchange and removal of what `probe` reads at `site` and `place`, against `n_random` random subspaces.

    `probe` was fitted on activations of this site, on other problems than those of `contrast`: directions fitted on the
    pairs themselves may follow their accidents. A `Subspace` will do (one that was learned by other means; a probe cut
    to its longest directions), but then nobody knows whether the pairs change what the probe reads. The pairs must
    change it, and should change nothing else before the readout. A place of several tokens is edited whole.

    `removal` names the donor of removals (None: none are made, for half of the cost), `controls` how random subspaces
    are drawn, `seed` both and the bootstrap; `batch_size` bounds the sequences of one pass. The cost is about
    4 * (n_random + 3) runs of every pair.

    Raises:
        KeyError: A place that the contrast does not have.
        ValueError: Too few random subspaces for the level, a subspace of another size than the site, a site that cannot
            be written, a place behind the readout, a model in train mode.
    """
    require_eval(model)
    rule.check(n_random)
    for name, value, known in (("removal", removal, REMOVALS), ("controls", controls, CONTROLS)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: {', '.join(map(str, known))}")
    if place not in contrast.places:
        raise KeyError(f"no place {place!r}; the contrast has {list(contrast.places)}")
    refuse_write(site.check(model))
    if getattr(model.cfg, "attention_dir", "causal") == "causal":
        contrast = contrast.until_readout()
    if place not in contrast.places:
        raise ValueError(f"place {place!r} lies behind the readout, which nothing there can reach")
    subspace = probe if isinstance(probe, Subspace) else Subspace.of_probe(probe)
    bench = _Bench.of(model, contrast, site, place, batch_size)
    rng = np.random.default_rng(seed)
    like = torch.cat([run.activation[bench.mask].flatten(1) for run in bench.runs]) if controls == "data" else None
    drawn = [Subspace.random(subspace.d_site, subspace.rank, rng, like=like) for _ in range(n_random)]
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
    return ProbeUse((cell,), rule, dict(labels or {}), seed)


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
