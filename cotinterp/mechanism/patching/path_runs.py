"""Run 2 of path patching on native models: what a sender does to the stream, position by position.

With every later head held, nothing moves between positions. So the change of one position passes through norms and
MLPs by itself, and the positions at which the sender writes the same in both runs need no computation at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import run_and_read
from cotinterp.mechanism.interventions import Edit, patch, run_with
from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.blocks import FIRST, Changes, Meter, Numbers, Runs, minus, placed
from cotinterp.mechanism.patching.paths import Path
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import LayerState, NativeParts


@dataclass(frozen=True, eq=False)
class Sent:
    """What one sender writes otherwise in the donor's run, and what the stream holds there then.

    Attributes:
        site: The sender.
        row, position: Where it differs, in reading order.
        stream: The stream with the donor's contribution: the block's input for a resid_pre, the stream between
            attention and MLP for z and attn_out, the block's output for mlp_out.
        own: The recipient's stream there.
    """

    site: Site
    row: Int[Tensor, " changed"]
    position: Int[Tensor, " changed"]
    stream: Float[Tensor, "changed d_model"]
    own: Float[Tensor, "changed d_model"]

    @classmethod
    def of(
        cls,
        parts: NativeParts,
        site: Site,
        own: LayerState,
        donor: LayerState,
        place: Bool[Tensor, "batch pos"],
    ) -> "Sent | None":
        """The donor's value of `site` at `place`; None where it is the recipient's, bit for bit."""
        theirs, ours = site.of(getattr(donor, site.kind)), site.of(getattr(own, site.kind))
        row, position = ((theirs != ours).any(dim=-1) & place).nonzero().unbind(dim=1)
        if not len(row):
            return None
        here = row, position
        if site.kind == "resid_pre":
            return cls(site, row, position, theirs[here], ours[here])
        stream = own.resid_post[here] if site.kind == "mlp_out" else own.resid_pre[here] + own.attn_out[here]
        written = theirs[here] - ours[here]
        if site.kind == "z":
            written = written @ head_output(parts, site)
        return cls(site, row, position, stream + written, stream)


def head_output(parts: NativeParts, site: Site) -> Float[Tensor, "z d_model"]:
    """W_O of the site's head; of all of them, below each other, for a site without a head."""
    weights = parts.blocks[site.layer].w_o.T
    return weights if site.head is None else weights.unflatten(0, (parts.n_heads, -1))[site.head]


@dataclass(frozen=True, eq=False)
class Direct:
    """What stands at the rows of a `Sent` after run 2.

    Attributes:
        inputs: What each asked site would hold at all of them.
        read: Which of them are read out.
        stream: The stream behind the last block, there; as far as it was followed where nobody asks for it.
    """

    inputs: dict[Site, Float[Tensor, "changed *axes"]]
    read: Int[Tensor, " read"]
    stream: Float[Tensor, "read d_model"]


def direct(
    parts: NativeParts,
    states: Sequence[LayerState],
    sent: Sent,
    stream: Float[Tensor, "changed d_model"],
    asked: frozenset[Site],
    at: Int[Tensor, " batch"],
    *,
    through_mlps: bool,
    to_the_end: bool,
) -> Direct:
    """Run 2 from `stream` (`sent.stream`, or `sent.own` for what it is compared with): everything else is held.

    `asked` are whole sites: q, k, v, and mlp_out, which is what the MLP would write, whether or not it is held. Behind
    the last of them only what is read at `at` goes on, and that only `to_the_end`.
    """
    row, position = sent.row, sent.position
    read = (position == at[row]).nonzero()[:, 0]
    found: dict[Site, Tensor] = {}
    start, final = sent.site.layer, max(asked, default=None)
    narrow = False
    for layer in range(start, len(states)):
        block, state = parts.blocks[layer], states[layer]
        if layer > start or sent.site.kind == "resid_pre":
            inputs = Site("q", layer), Site("k", layer), Site("v", layer)
            if not asked.isdisjoint(inputs):
                each = parts.qkv(block, stream, position).unbind(dim=-3)
                found |= dict(zip(inputs, each, strict=True))
            stream = stream + state.attn_out[row, position]
        if not narrow and (final is None or final < Site("mlp_out", layer)):
            narrow, row, position, stream = True, row[read], position[read], stream[read]
        if narrow and not to_the_end:
            break
        if block.mlp is None or (layer == start and sent.site.kind == "mlp_out"):
            continue
        if through_mlps or Site("mlp_out", layer) in asked:
            found[Site("mlp_out", layer)] = block.mlp(stream)
        assert state.mlp_out is not None
        stream = stream + (found[Site("mlp_out", layer)] if through_mlps else state.mlp_out[row, position])
    if not narrow:
        stream = stream[read]
    return Direct({site: value for site, value in found.items() if site in asked}, read, stream)


@dataclass(frozen=True, eq=False)
class Write:
    """What one slot of a stack writes at a whole hook: `value` under `mask`; the recipient's own where it is None."""

    site: Site
    mask: Bool[Tensor, "batch pos *head"]
    value: Float[Tensor, "batch pos *axes"] | None

    def under(self, mask: Bool[Tensor, "batch pos"]) -> "Write":
        """The same write at fewer positions."""
        narrow = mask if self.mask.ndim == 2 else mask[..., None]
        return Write(self.site, self.mask & narrow, self.value)


@dataclass(eq=False)
class _Tap:
    """Remembers what a site would hold, if asked to; then lets it pass, or holds it at the recipient's value."""

    held: Tensor | None
    asked: bool
    seen: Tensor | None = None

    def __call__(self, current: Tensor) -> Tensor:
        if self.asked:
            self.seen = current.detach().clone()
        return current if self.held is None else self.held


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
        unit_logits = run_with(model, runs.unit_donor, [])
        meter = Meter.against(runs.contrast, names, unit_logits)
        unit = minus(meter.of(unit_logits), meter.of(run_with(model, runs.unit_recipient, [])))
        return cls(model, runs, meter, own, donor, meter.of(logits), unit, through_mlps)

    def sent(self, sender: Site, source: str | None) -> Write:
        """The donor's value of a sender at a place, where it differs from the recipient's."""
        return self._difference(sender, self.donor[sender.whole]).under(
            placed(source, self.runs.contrast, self.own[sender.whole])
        )

    def direct(self, write: Write, receivers: Sequence[Site]) -> tuple[Numbers, dict[Site, Tensor]]:
        """Run 2: what the direct path alone changes in the metrics, and what each receiver's input becomes."""
        sender = write.site
        frozen = {site for site in _freezable(self.model, self.through_mlps) if sender < site}
        taps = {
            site: _Tap(self.own[site] if site in frozen else None, asked=site in receivers)
            for site in sorted({*frozen, *receivers})
        }
        edits = [Edit(site, tap, expect_change=False) for site, tap in taps.items()]
        logits = run_with(self.model, self.runs.recipient, [*_stacked_edits([[write]], {}), *edits])
        seen = {site: tap.seen for site, tap in taps.items() if tap.seen is not None}
        return minus(self.meter.of(logits), self.recipient), seen

    def received(self, path: Path, value: Float[Tensor, "batch pos *axes"]) -> list[Write]:
        """Run 3 of a path, given its receiver's input after run 2; empty where nothing arrived."""
        assert isinstance(path.receiver, Site)
        write = self._difference(path.receiver, value)
        if path.destination is None:
            return [write] if bool(write.mask.any()) else []
        destination = placed(path.destination, self.runs.contrast, value)
        if path.receiver.kind in ("q", "mlp_out"):
            write = write.under(destination)
            return [write] if bool(write.mask.any()) else []
        if not bool(write.mask.any()):
            return []
        # A changed key or value is seen by every query; z of those elsewhere keeps the recipient's value.
        z = Site("z", path.receiver.layer)
        elsewhere = repeat(~destination, "batch pos -> batch pos head", head=z.n_heads(self.model))
        return [write, Write(z, elsewhere, None)]

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
            "random_donor": self.where_unrelated(changed(runs.recipient, first_of(runs.unrelated))),
        }

    def where_unrelated(self, numbers: Numbers) -> Numbers:
        """NaN for the examples that have no unrelated donor."""
        return {name: np.where(self.runs.has_unrelated, values, np.nan) for name, values in numbers.items()}

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

    pending: list[tuple[int, list[Write]]] = []
    stack = max(1, min(stack, len(paths)))
    z = sorted({Site("z", p.receiver.layer) for p in paths if isinstance(p.receiver, Site) and p.destination})
    stacked = _Stack(block, stack, z)
    for i, found in _tried(block, paths):
        if isinstance(found, dict):
            note(i, found)
            continue
        pending.append((i, found))
        if len(pending) == stack:
            for slot, change in stacked.run(pending):
                note(slot, change)
            pending = []
    for slot, change in stacked.run(pending):
        note(slot, change)
    return Changes(
        changes=block.where_unrelated(changes) if unrelated_donor else changes,
        gaps=block.gaps,
        baselines=block.baselines(),
        ran=ran,
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


class _Stack:
    """Runs of several slots at once, each compared with the same slot of an unpatched run of the same shape."""

    def __init__(self, block: PathRuns, size: int, restored: Sequence[Site]) -> None:
        self.block, self.size = block, size
        self.tokens = repeat(block.runs.recipient, "batch pos -> (slot batch) pos", slot=size)
        logits, self.own = run_and_read(block.model, self.tokens, restored or [FIRST])
        self.unpatched = block.meter.of(logits, size)

    def run(self, pending: Sequence[tuple[int, list[Write]]]) -> Iterator[tuple[int, Numbers]]:
        """What each of at most `size` pending paths changed, by its index."""
        if not pending:
            return
        slots = [writes for _, writes in pending]
        slots += slots[-1:] * (self.size - len(slots))
        logits = run_with(self.block.model, self.tokens, _stacked_edits(slots, self.own))
        change = minus(self.block.meter.of(logits, self.size), self.unpatched)
        rows = {name: values.reshape(self.size, -1) for name, values in change.items()}
        for slot, (i, _) in enumerate(pending):
            yield i, {name: values[slot] for name, values in rows.items()}


def _stacked_edits(slots: Sequence[Sequence[Write]], own: Mapping[Site, Tensor]) -> list[Edit]:
    """One edit per hook; each slot writes its own value under its own mask, and nothing in the other slots."""
    by_site: dict[Site, dict[int, Write]] = {}
    for slot, slot_writes in enumerate(slots):
        for write in slot_writes:
            by_site.setdefault(write.site, {})[slot] = write
    edits = []
    for site, writes in sorted(by_site.items()):
        restored = site if any(write.value is None for write in writes.values()) else None
        kept = list(own[restored].chunk(len(slots))) if restored is not None else []
        values = {s: kept[s] if write.value is None else write.value for s, write in writes.items()}
        blank, nowhere = (torch.zeros_like(next(iter(x))) for x in (values.values(), (w.mask for w in writes.values())))
        mask = torch.cat([writes[s].mask if s in writes else nowhere for s in range(len(slots))])
        value = torch.cat([values.get(s, blank) for s in range(len(slots))])
        changes = any(write.value is not None for write in writes.values())
        edits.append(Edit(site, partial(_overwrite, mask, value), expect_change=changes))
    return edits


def _overwrite(
    mask: Bool[Tensor, "rows pos *head"],
    value: Float[Tensor, "rows pos *axes"],
    current: Float[Tensor, "rows pos *axes"],
) -> Float[Tensor, "rows pos *axes"]:
    return torch.where(mask[..., None], value.to(current), current)


def _freezable(model: HookedModel, through_mlps: bool) -> list[Site]:
    """What run 2 holds where it comes after the sender: all heads, and the MLPs if paths may not pass through them."""
    sites = [Site("z", layer) for layer in range(int(model.cfg.n_layers))]
    if not through_mlps and not getattr(model.cfg, "attn_only", False):
        sites += [Site("mlp_out", site.layer) for site in sites]
    return sites
