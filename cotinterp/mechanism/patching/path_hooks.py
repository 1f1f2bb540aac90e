"""Path patching of any model, through hooks (Wang et al. 2022, arXiv:2211.00593).

Run 1 reads the recipient and the donor. Run 2 writes the donor's value of a sender while every later head is held at
the recipient's value (and the MLPs, if paths may not pass through them), and reads what the receivers' inputs become.
Run 3 writes one of these inputs, and only that, into the recipient's run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions, run_and_read
from cotinterp.mechanism.interventions import Edit, Write, patch, run_with, stacked_edits
from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.paths import Path
from cotinterp.mechanism.patching.runs import FIRST, Changes, Meter, Numbers, Runs, StackedRuns, minus, place_mask
from cotinterp.mechanism.sites import Site


@dataclass(eq=False)
class _Held:
    """Remembers what a site would hold, if asked to; then lets it pass, or holds it at the recipient's value."""

    value: Tensor | None
    asked: bool
    seen: Tensor | None = None

    def __call__(self, current: Tensor) -> Tensor:
        if self.asked:
            self.seen = current.detach().clone()
        return current if self.value is None else self.value


@dataclass(frozen=True, eq=False)
class PathRuns:
    """Run 1 of a block, and how the others are made of it."""

    model: HookedModel
    runs: Runs
    meter: Meter
    own: Mapping[Site, Tensor]
    donor: Mapping[Site, Tensor]
    recipient: Numbers
    gaps: Numbers
    predicted: Mapping[str, Int[np.ndarray, " batch"]]
    through_mlps: bool

    @classmethod
    def of(
        cls,
        model: HookedModel,
        runs: Runs,
        paths: Sequence[Path],
        names: Sequence[MetricName],
        *,
        through_mlps: bool,
        unrelated_donor: bool,
    ) -> "PathRuns":
        """Read what the paths need of the recipient and of the donor."""
        ends = {path.receiver.whole for path in paths if isinstance(path.receiver, Site)}
        senders = {path.sender.whole for path in paths}
        logits, own = run_and_read(model, runs.recipient, senders | ends | set(_freezable(model, through_mlps)))
        donor = run_and_read(model, runs.unrelated if unrelated_donor else runs.donor, senders)[1]
        high, low = (run_with(model, tokens, []) for tokens in (runs.unit_donor, runs.unit_recipient))
        meter = Meter.against(runs.contrast, names, high)
        gaps = minus(meter.of(high), meter.of(low))
        read = {"recipient": logits, "unit_donor": high, "unit_recipient": low}
        predicted = runs.predicted({run: at_positions(each, runs.contrast.at) for run, each in read.items()})
        return cls(model, runs, meter, own, donor, meter.of(logits), gaps, predicted, through_mlps)

    def sent(self, sender: Site, source: str | None) -> Write:
        """The donor's value of a sender at a place, where it differs from the recipient's."""
        return self._difference(sender, self.donor[sender.whole]).within(
            place_mask(source, self.runs.contrast, self.own[sender.whole])
        )

    def direct(self, write: Write, receivers: Sequence[Site]) -> tuple[Numbers, dict[Site, Tensor]]:
        """Run 2: what the direct path alone changes in the metrics, and what each receiver's input becomes."""
        sender = write.site
        frozen = {site for site in _freezable(self.model, self.through_mlps) if sender < site}
        held = {
            site: _Held(self.own[site] if site in frozen else None, asked=site in receivers)
            for site in sorted({*frozen, *receivers})
        }
        edits = [Edit(site, one, expect_change=False) for site, one in held.items()]
        logits = run_with(self.model, self.runs.recipient, [*stacked_edits([[write]]), *edits])
        seen = {site: one.seen for site, one in held.items() if one.seen is not None}
        return minus(self.meter.of(logits), self.recipient), seen

    def received(self, path: Path, value: Float[Tensor, "batch pos *axes"]) -> list[Write]:
        """Run 3 of a path, given its receiver's input after run 2; empty where nothing arrived."""
        assert isinstance(path.receiver, Site)
        write = self._difference(path.receiver, value)
        if path.destination is None:
            return [write] if bool(write.mask.any()) else []
        destination = place_mask(path.destination, self.runs.contrast, value)
        if path.receiver.kind in ("q", "mlp_out"):
            write = write.within(destination)
            return [write] if bool(write.mask.any()) else []
        if not bool(write.mask.any()):
            return []
        # A changed key or value is seen by every query; z of those elsewhere keeps the recipient's value.
        z = Site("z", path.receiver.layer)
        elsewhere = repeat(~destination, "batch pos -> batch pos head", head=z.n_heads(self.model))
        return [write, Write(z, elsewhere, None, expect_change=False)]

    def baselines(self) -> dict[str, Numbers]:
        """`self`: everything that is ever written, written with the recipient's values. `full`: the gap by a patch of
        the first resid_pre everywhere. `random_donor`: the same patch of another example's."""

        def first_of(tokens: Int[Tensor, "batch pos"]) -> list[Edit]:
            return [patch(FIRST, run_and_read(self.model, tokens, [FIRST])[1][FIRST], expect_change=False)]

        def changed(tokens: Int[Tensor, "batch pos"], edits: Sequence[Edit]) -> Numbers:
            before, after = (self.meter.of(run_with(self.model, tokens, some)) for some in ([], edits))
            return minus(after, before)

        runs = self.runs
        own = [Edit(site, value, expect_change=False) for site, value in self.own.items()]
        return {
            "self": changed(runs.recipient, own),
            "full": changed(runs.unit_recipient, first_of(runs.unit_donor)),
            "random_donor": runs.where_unrelated(changed(runs.recipient, first_of(runs.unrelated))),
        }

    def _difference(self, site: Site, value: Float[Tensor, "batch pos *axes"]) -> Write:
        mask = (value != self.own[site.whole]).any(dim=-1)
        if site.head is not None:
            mask = mask & (torch.arange(mask.shape[-1], device=mask.device) == site.head)
        return Write(site.whole, mask, value)


def path_block(
    model: HookedModel,
    runs: Runs,
    paths: Sequence[Path],
    names: Sequence[MetricName],
    *,
    through_mlps: bool,
    stack: int,
    unrelated_donor: bool = False,
) -> Changes:
    """Every path and the three baselines on one block of examples, `stack` paths to a forward pass."""
    block = PathRuns.of(model, runs, paths, names, through_mlps=through_mlps, unrelated_donor=unrelated_donor)
    changes: Numbers = {name: np.zeros((len(paths), len(runs))) for name in names}
    ran = np.zeros(len(paths), dtype=bool)

    def note(i: int, change: Numbers) -> None:
        ran[i] = True
        for name in names:
            changes[name][i] = change[name]

    def measured() -> Iterator[tuple[int, list[Write]]]:
        for i, found in _tried(block, paths):
            if isinstance(found, dict):
                note(i, found)
            else:
                yield i, found

    restored = sorted({Site("z", p.receiver.layer) for p in paths if isinstance(p.receiver, Site) and p.destination})
    stacked = StackedRuns.of(model, block.meter, runs.recipient, max(1, min(stack, len(paths))), restored)
    for i, change in stacked.changes(measured()):
        note(i, change)
    return Changes(
        changes=runs.where_unrelated(changes) if unrelated_donor else changes,
        gaps=block.gaps,
        baselines=block.baselines(),
        ran=ran,
        predicted=block.predicted,
    )


def _tried(block: PathRuns, paths: Sequence[Path]) -> Iterator[tuple[int, Numbers | list[Write]]]:
    """Each path that changes anything, by its index: what it changed, or what run 3 has to write."""
    order = sorted(range(len(paths)), key=lambda i: (paths[i].sender, paths[i].source or ""))
    for (sender, source), group in groupby(order, key=lambda i: (paths[i].sender, paths[i].source)):
        write = block.sent(sender, source)
        if not bool(write.mask.any()):
            continue
        indices = list(group)
        yield from ((i, [write]) for i in indices if paths[i].receiver == "any")
        ends = {i: paths[i].receiver for i in indices if paths[i].receiver != "any"}
        if not ends:
            continue
        direct, inputs = block.direct(write, sorted({end.whole for end in ends.values() if isinstance(end, Site)}))
        for i, end in ends.items():
            if not isinstance(end, Site):
                yield i, direct
            elif writes := block.received(paths[i], inputs[end.whole]):
                yield i, writes


def _freezable(model: HookedModel, through_mlps: bool) -> list[Site]:
    """What run 2 holds where it comes after the sender: all heads, and the MLPs if paths may not pass through them."""
    sites = [Site("z", layer) for layer in range(int(model.cfg.n_layers))]
    if not through_mlps and not getattr(model.cfg, "attn_only", False):
        sites += [Site("mlp_out", site.layer) for site in sites]
    return sites
