"""Paths that wait for others to run with: filled slots are run, and compared with the same slots unpatched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.patching.blocks import Changes, Meter, Numbers, Runs, minus, placed
from cotinterp.mechanism.patching.path_runs import Direct, Sent, direct, head_output
from cotinterp.mechanism.patching.paths import Path
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import LayerState, NativeParts, attend, forward, future_keys
from cotinterp.models.native.resume import resume

# Runs start at multiples of this, so that paths from neighboring places share a pass.
_GRID = 4
# What a slot costs of which one position is computed, in positions of other slots: its keys are copied nevertheless.
_ONE_POSITION = 4


def nothing(names: Sequence[MetricName], n: int) -> Numbers:
    """A change of 0 in every example."""
    return {name: np.zeros(n) for name in names}


@dataclass(frozen=True, eq=False)
class Arrival:
    """What one path changes at its receiver.

    Attributes:
        path: Which path, by its index.
        site: A head's q, k or v, whose values become `value`; or a stream, to which `value` is added: attn_out (the
            stream between attention and MLP) or resid_pre (the input of a block; of the block behind the last, the
            output of the model's blocks).
        row, position: Where `value` stands.
        reach: Where, up to the readout, the stream may become another by it.
    """

    path: int
    site: Site
    row: Int[Tensor, " changed"]
    position: Int[Tensor, " changed"]
    value: Float[Tensor, "changed width"]
    reach: Bool[Tensor, "batch pos"]

    @property
    def stream(self) -> Site:
        """The stream that it changes first."""
        return Site("attn_out", self.site.layer) if self.site.head is not None else self.site


@dataclass(frozen=True, eq=False)
class Receivers:
    """The recipients' states, and where each is read."""

    parts: NativeParts
    states: Sequence[LayerState]
    at: Int[Tensor, " batch"]

    def only_read(self, stream: Site) -> bool:
        """Whether the change of this stream matters at the readout alone."""
        return stream.layer >= len(self.states) - (stream.kind == "attn_out")

    def logits(self, stream: Site, start: int, slots: Sequence[Arrival | None]) -> Float[Tensor, "run d_vocab_out"]:
        """Logits at the readout, the slots one after the other; None stands for the recipient itself.

        Slots change `stream`, at positions from `start` on.
        """
        row, position = self._grid(start, only_read=self.only_read(stream))
        own = repeat(self._own(stream)[row, position], "batch pos d -> slot batch pos d", slot=len(slots)).clone()
        for slot, arrival in enumerate(slots):
            if arrival is not None:
                own[slot] += self._change(arrival, row, position)
        resid = own
        if stream.kind == "attn_out":
            block = self.parts.blocks[stream.layer]
            resid = own if block.mlp is None else own + block.mlp(own)
        if self.only_read(stream):
            return self.parts.logits(resid.flatten(0, 2))
        rows, at = torch.arange(len(self.at), device=row.device).repeat(len(slots)), self.at.repeat(len(slots))
        layer = stream.layer + (stream.kind == "attn_out")
        return resume(self.parts, self.states, layer=layer, start=start, rows=rows, resid=resid.flatten(0, 1), at=at)

    def itself(self, arrival: Arrival) -> Arrival:
        """The same arrival with the recipient's own values."""
        site, here = arrival.site, (arrival.row, arrival.position)
        if site.head is None:
            return replace(arrival, value=torch.zeros_like(arrival.value))
        return replace(arrival, value=site.of(getattr(self.states[site.layer], site.kind))[here])

    def _own(self, stream: Site) -> Float[Tensor, "batch pos d_model"]:
        if stream.layer == len(self.states):
            return self.states[-1].resid_post
        state = self.states[stream.layer]
        return state.resid_pre + state.attn_out if stream.kind == "attn_out" else state.resid_pre

    def _grid(self, start: int, *, only_read: bool) -> tuple[Int[Tensor, "batch 1"], Int[Tensor, "batch query"]]:
        batch, n = self.states[0].resid_pre.shape[:2]
        rows = torch.arange(batch, device=self.at.device)[:, None]
        if only_read:
            return rows, self.at[:, None]
        return rows, torch.arange(start, n, device=self.at.device).expand(batch, -1)

    def _change(
        self, arrival: Arrival, row: Int[Tensor, "batch 1"], position: Int[Tensor, "batch query"]
    ) -> Float[Tensor, "batch query d_model"]:
        """What is added to the stream at some positions of each example."""
        site = arrival.site
        if site.head is None:
            change = torch.zeros_like(self.states[0].resid_pre)
            change[arrival.row, arrival.position] = arrival.value
            return change[row, position]
        state = self.states[site.layer]
        own = {kind: Site(kind, site.layer, site.head).of(getattr(state, kind)) for kind in ("q", "k", "v")}
        written = own[site.kind].clone()
        written[arrival.row, arrival.position] = arrival.value
        z, moved = (
            _attended(each["q"][row, position], each["k"], each["v"], position, scale=self.parts.scale)
            for each in (own, {**own, site.kind: written})
        )
        change = (moved - z) * arrival.reach[row, position][..., None]
        return change @ head_output(self.parts, site)


@dataclass(eq=False)
class Slots:
    """Arrivals, by the stream that they change and the position from which on; each group fills passes of its own.

    `tokens` bounds the positions that one pass computes. `itself` collects what the recipient's own values change in
    one arrival of each stream: 0, exactly.
    """

    receivers: Receivers
    meter: Meter
    tokens: int
    itself: Numbers
    _waiting: dict[tuple[Site, int], list[Arrival]] = field(default_factory=dict)
    _unpatched: dict[tuple[Site, int, int], Numbers] = field(default_factory=dict)
    _checked: set[Site] = field(default_factory=set)

    def take(self, arrival: Arrival) -> Iterator[tuple[int, Numbers]]:
        """Let it wait, and say what the paths of its group changed if that makes a pass full."""
        at = self.receivers.at
        if not bool(arrival.reach.any()):
            return
        start = int(arrival.reach.any(dim=0).nonzero()[0, 0])
        start = 0 if self.receivers.only_read(arrival.stream) else min(start - start % _GRID, int(at.min()))
        group = arrival.stream, start
        waiting = self._waiting.setdefault(group, [])
        waiting.append(arrival)
        if len(waiting) == self._size(*group):
            yield from self._run(*group, self._waiting.pop(group))

    def rest(self) -> Iterator[tuple[int, Numbers]]:
        """What all paths that still wait changed."""
        for group, waiting in sorted(self._waiting.items(), key=lambda item: item[0]):
            yield from self._run(*group, waiting)
        self._waiting.clear()

    def _size(self, stream: Site, start: int) -> int:
        batch, n = self.receivers.states[0].resid_pre.shape[:2]
        width = _ONE_POSITION if self.receivers.only_read(stream) else n - start
        return max(1, self.tokens // (batch * width))

    def _run(self, stream: Site, start: int, waiting: Sequence[Arrival]) -> Iterator[tuple[int, Numbers]]:
        if stream not in self._checked:
            self._checked.add(stream)
            own = [self.receivers.itself(waiting[0])]
            changed = self._change(stream, start, own)
            self.itself = {name: self.itself[name] + changed[name][0] for name in changed}
        change = self._change(stream, start, waiting)
        for slot, arrival in enumerate(waiting):
            yield arrival.path, {name: values[slot] for name, values in change.items()}

    def _change(self, stream: Site, start: int, slots: Sequence[Arrival]) -> Numbers:
        """Patched minus unpatched, by slot and example."""
        key = stream, start, len(slots)
        if key not in self._unpatched:
            self._unpatched[key] = self._read(stream, start, [None] * len(slots))
        return minus(self._read(stream, start, slots), self._unpatched[key])

    def _read(self, stream: Site, start: int, slots: Sequence[Arrival | None]) -> Numbers:
        logits = self.receivers.logits(stream, start, slots)
        rows = torch.arange(len(self.receivers.at), device=logits.device).repeat(len(slots))
        numbers = self.meter.of_readout(logits, rows)
        return {name: values.reshape(len(slots), -1) for name, values in numbers.items()}


def _attended(
    q: Float[Tensor, "batch query d_head"],
    k: Float[Tensor, "batch pos d_head"],
    v: Float[Tensor, "batch pos d_head"],
    position: Int[Tensor, "batch query"],
    *,
    scale: float,
) -> Float[Tensor, "batch query d_head"]:
    """z of one head's causal attention, of queries at `position`."""
    future = future_keys(position, k.shape[1])
    z, _ = attend(q[:, :, None], k[:, :, None], v[:, :, None], future, scale=scale)
    return z[:, :, 0]


@torch.no_grad()
def native_path_block(
    parts: NativeParts,
    runs: Runs,
    paths: Sequence[Path],
    names: Sequence[MetricName],
    *,
    through_mlps: bool,
    stack: int,
    unrelated_donor: bool = False,
) -> Changes:
    """`path_runs.path_block` of a native model. `stack`: how often the recipient's tokens may be repeated in a pass."""
    states = forward(parts, runs.recipient)[1]
    donor = forward(parts, runs.unrelated if unrelated_donor else runs.donor)[1]
    receivers = Receivers(parts, states, runs.contrast.at.to(runs.recipient.device))
    meter, gaps, baselines = _baselines(receivers, runs, names)
    slots = Slots(receivers, meter, stack * runs.recipient.numel(), nothing(names, len(runs)))
    changes: Numbers = {name: np.zeros((len(paths), len(runs))) for name in names}
    ran = np.zeros(len(paths), dtype=bool)

    def note(found: Iterator[tuple[int, Numbers]]) -> None:
        for i, change in found:
            for name in names:
                changes[name][i] = change[name]

    for i, sent in _Senders(receivers, runs, paths, donor, meter, through_mlps).sent():
        ran[i] = True
        note(slots.take(sent) if isinstance(sent, Arrival) else iter([(i, sent)]))
    note(slots.rest())
    if unrelated_donor:
        changes = {name: np.where(runs.has_unrelated, values, np.nan) for name, values in changes.items()}
    return Changes(changes=changes, gaps=gaps, baselines={"self": slots.itself, **baselines}, ran=ran)


@dataclass(eq=False)
class _Senders:
    """Run 2 of every sender, and what of it each of its paths makes arrive."""

    receivers: Receivers
    runs: Runs
    paths: Sequence[Path]
    donor: Sequence[LayerState]
    meter: Meter
    through_mlps: bool
    _compared: tuple[Sent, tuple[object, ...], Direct] | None = None

    def sent(self) -> Iterator[tuple[int, Arrival | Numbers]]:
        """Each path that changes anything, by its index: what arrives for run 3, or what the logits show after run 2.

        Senders of one layer and source follow one another, because they are compared with one and the same run.
        """

        def order(i: int) -> tuple[int, str, str, int]:
            sender = self.paths[i].sender
            return sender.layer, sender.kind, self.paths[i].source or "", -1 if sender.head is None else sender.head

        for _, group in groupby(sorted(range(len(self.paths)), key=order), key=order):
            indices = list(group)
            sender, states = self.paths[indices[0]].sender, self.receivers.states
            place = placed(self.paths[indices[0]].source, self.runs.contrast, states[0].resid_pre)
            layer = sender.layer
            sent = Sent.of(self.receivers.parts, sender, states[layer], self.donor[layer], place)
            if sent is not None:
                yield from self._of(sent, {i: self.paths[i] for i in indices})

    def _of(self, sent: Sent, paths: dict[int, Path]) -> Iterator[tuple[int, Arrival | Numbers]]:
        yield from ((i, self._any(i, sent)) for i, path in paths.items() if path.receiver == "any")
        asked = frozenset(path.receiver.whole for path in paths.values() if isinstance(path.receiver, Site))
        to_the_end = any(path.receiver == "logits" for path in paths.values())
        if not asked and not to_the_end:
            return
        options = {"through_mlps": self.through_mlps, "to_the_end": to_the_end}
        after = self._direct(sent, sent.stream, asked, options)
        before = self._unsent(sent, asked, options)
        for i, path in paths.items():
            if path.receiver == "logits":
                yield i, self._at_logits(sent, after, before)
            elif isinstance(path.receiver, Site):
                arrival = self._received(i, path, path.receiver, sent, after, before)
                yield from () if arrival is None else [(i, arrival)]

    def _unsent(self, sent: Sent, asked: frozenset[Site], options: dict[str, bool]) -> Direct:
        """The same run from the recipient's own stream; that of the last sender, if it differs at the same places."""
        what = sent.site.whole, asked, options["to_the_end"]
        if self._compared is not None:
            last, same, found = self._compared
            if what == same and all(
                torch.equal(getattr(last, name), getattr(sent, name)) for name in ("row", "position")
            ):
                return found
        found = self._direct(sent, sent.own, asked, options)
        self._compared = sent, what, found
        return found

    def _direct(
        self, sent: Sent, stream: Float[Tensor, "changed d_model"], asked: frozenset[Site], options: dict[str, bool]
    ) -> Direct:
        at = self.receivers.at
        return direct(self.receivers.parts, self.receivers.states, sent, stream, asked, at, **options)

    def _any(self, i: int, sent: Sent) -> Arrival:
        """All that the sender's change can do: it is added to the stream that the sender writes to."""
        kind, layer = sent.site.kind, sent.site.layer
        stream = (
            Site("attn_out", layer) if kind in ("z", "attn_out") else Site("resid_pre", layer + (kind == "mlp_out"))
        )
        reach = self._where(sent, torch.ones_like(sent.row, dtype=torch.bool))
        return Arrival(i, stream, sent.row, sent.position, sent.stream - sent.own, self._readable(reach))

    def _at_logits(self, sent: Sent, after: Direct, before: Direct) -> Numbers:
        """What run 2 itself changes in the metrics: where the sender writes at the position that is read."""
        rows = sent.row[after.read]
        readings = [self.meter.of_readout(self.receivers.parts.logits(run.stream), rows) for run in (after, before)]
        change = nothing(self.meter.names, len(self.runs))
        for name, values in minus(*readings).items():
            change[name][rows.cpu().numpy()] = values
        return change

    def _received(
        self, i: int, path: Path, receiver: Site, sent: Sent, after: Direct, before: Direct
    ) -> Arrival | None:
        """The change of a receiver's input; None where it stays the same, bit for bit."""
        new, old = (run.inputs[receiver.whole] for run in (after, before))
        if receiver.head is not None:
            new, old = new[:, receiver.head], old[:, receiver.head]
        differs = (new != old).any(dim=-1)
        destination = placed(path.destination, self.runs.contrast, new)
        if receiver.kind in ("q", "mlp_out"):
            differs = differs & destination[sent.row, sent.position]
        if not bool(differs.any()):
            return None
        reach = self._where(sent, differs)
        if receiver.kind in ("k", "v"):
            # A changed key or value is seen by every later query; it counts for those at the destination.
            reach = reach.cummax(dim=1).values & destination
        site = receiver if receiver.head is not None else Site("resid_pre", receiver.layer + 1)
        value = new if receiver.head is not None else new - old
        places = sent.row[differs], sent.position[differs]
        return Arrival(i, site, *places, value[differs], self._readable(reach))

    def _where(self, sent: Sent, some: Bool[Tensor, " changed"]) -> Bool[Tensor, "batch pos"]:
        where = torch.zeros(self.receivers.states[0].resid_pre.shape[:2], dtype=torch.bool, device=sent.row.device)
        where[sent.row[some], sent.position[some]] = True
        return where

    def _readable(self, reach: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
        return reach & (torch.arange(reach.shape[1], device=reach.device) <= self.receivers.at[:, None])


def _baselines(
    receivers: Receivers, runs: Runs, names: Sequence[MetricName]
) -> tuple[Meter, Numbers, dict[str, Numbers]]:
    """The meter, the unit of effects, and the baselines of which the answer is known: the first resid_pre replaced."""
    at = receivers.at
    rows = torch.arange(len(at), device=at.device)
    positions = torch.arange(runs.recipient.shape[1], device=at.device)[None]

    def logits(resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch d_vocab"]:
        return resume(receivers.parts, receivers.states, layer=0, start=0, rows=rows, resid=resid, at=at)

    recipient, unit_recipient, unit_donor, unrelated = (
        receivers.parts.embed(tokens, positions)
        for tokens in (runs.recipient, runs.unit_recipient, runs.unit_donor, runs.unrelated)
    )
    high = logits(unit_donor)
    meter = Meter(runs.contrast, names, high.double())
    read = {"recipient": recipient, "unit_recipient": unit_recipient, "unrelated": unrelated}
    read["full"] = torch.where((unit_donor != unit_recipient).any(dim=-1, keepdim=True), unit_donor, unit_recipient)
    found = {name: meter.of_readout(logits(resid)) for name, resid in read.items()}
    random = minus(found["unrelated"], found["recipient"])
    return (
        meter,
        minus(meter.of_readout(high), found["unit_recipient"]),
        {
            "full": minus(found["full"], found["unit_recipient"]),
            "random_donor": {name: np.where(runs.has_unrelated, values, np.nan) for name, values in random.items()},
        },
    )
