"""Path patching of native models, from their weights: each run starts where a path first changes something.

Run 2: with every later head held, nothing moves between positions. So the change of one position passes through norms
and MLPs by itself, and the positions at which the sender writes the same in both runs need no computation at all.
Run 3: changes of receivers' inputs wait until there are enough of them from about the same place on to fill a pass,
which is compared with the same pass unpatched.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.patching.paths import Path
from cotinterp.mechanism.patching.runs import Changes, Meter, Numbers, Runs, minus, place_mask
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import LayerState, NativeParts, attend, forward, future_keys
from cotinterp.models.native.resume import resume

# Runs start at multiples of this, so that paths from neighboring places share a pass.
_GRID = 4
# What a run costs of which one position is computed, in positions of other runs: its keys are copied nevertheless.
_ONE_POSITION = 4


@dataclass(frozen=True, eq=False)
class SenderChange:
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
    ) -> "SenderChange | None":
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
class FrozenRun:
    """What stands at the rows of a `SenderChange` after run 2.

    Attributes:
        inputs: What each asked site would hold at all of them.
        read: Which of them are read out.
        stream: The stream behind the last block, there; as far as it was followed where nobody asks for it.
    """

    inputs: dict[Site, Float[Tensor, "changed *axes"]]
    read: Int[Tensor, " read"]
    stream: Float[Tensor, "read d_model"]


def run_frozen(
    parts: NativeParts,
    states: Sequence[LayerState],
    sent: SenderChange,
    stream: Float[Tensor, "changed d_model"],
    asked: frozenset[Site],
    at: Int[Tensor, " batch"],
    *,
    through_mlps: bool,
    to_the_end: bool,
) -> FrozenRun:
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
    return FrozenRun({site: value for site, value in found.items() if site in asked}, read, stream)


@dataclass(frozen=True, eq=False)
class InputChange:
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
class Recipient:
    """The recipients' states, and where each is read."""

    parts: NativeParts
    states: Sequence[LayerState]
    at: Int[Tensor, " batch"]

    def only_read(self, stream: Site) -> bool:
        """Whether the change of this stream matters at the readout alone."""
        return stream.layer >= len(self.states) - (stream.kind == "attn_out")

    def logits(self, stream: Site, start: int, runs: Sequence[InputChange | None]) -> Float[Tensor, "run d_vocab_out"]:
        """Logits at the readout of several runs, one after the other; None stands for the recipient itself.

        They change `stream`, at positions from `start` on.
        """
        row, position = self._grid(start, only_read=self.only_read(stream))
        own = repeat(self._own(stream)[row, position], "batch pos d -> run batch pos d", run=len(runs)).clone()
        for run, received in enumerate(runs):
            if received is not None:
                own[run] += self._change(received, row, position)
        resid = own
        if stream.kind == "attn_out":
            block = self.parts.blocks[stream.layer]
            resid = own if block.mlp is None else own + block.mlp(own)
        if self.only_read(stream):
            return self.parts.logits(resid.flatten(0, 2))
        rows, at = torch.arange(len(self.at), device=row.device).repeat(len(runs)), self.at.repeat(len(runs))
        layer = stream.layer + (stream.kind == "attn_out")
        return resume(self.parts, self.states, layer=layer, start=start, rows=rows, resid=resid.flatten(0, 1), at=at)

    def itself(self, received: InputChange) -> InputChange:
        """The same with the recipient's own values."""
        site, here = received.site, (received.row, received.position)
        if site.head is None:
            return replace(received, value=torch.zeros_like(received.value))
        return replace(received, value=site.of(getattr(self.states[site.layer], site.kind))[here])

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
        self, received: InputChange, row: Int[Tensor, "batch 1"], position: Int[Tensor, "batch query"]
    ) -> Float[Tensor, "batch query d_model"]:
        """What is added to the stream at some positions of each example."""
        site = received.site
        if site.head is None:
            change = torch.zeros_like(self.states[0].resid_pre)
            change[received.row, received.position] = received.value
            return change[row, position]
        state = self.states[site.layer]
        own = {kind: Site(kind, site.layer, site.head).of(getattr(state, kind)) for kind in ("q", "k", "v")}
        written = own[site.kind].clone()
        written[received.row, received.position] = received.value
        z, moved = (
            _attended(self.parts, site.head, each["q"][row, position], each["k"], each["v"], position)
            for each in (own, {**own, site.kind: written})
        )
        change = (moved - z) * received.reach[row, position][..., None]
        return change @ head_output(self.parts, site)


@dataclass(eq=False)
class PackedPaths:
    """Changed inputs, by the stream that they change and the position from which on; each group fills its own passes.

    `tokens` bounds the positions that one pass computes. `itself` collects what the recipient's own values change in
    one path into each stream: 0, exactly.
    """

    recipient: Recipient
    meter: Meter
    tokens: int
    itself: Numbers
    _waiting: dict[tuple[Site, int], list[InputChange]] = field(default_factory=dict)
    _unpatched: dict[tuple[Site, int, int], Numbers] = field(default_factory=dict)
    _checked: set[Site] = field(default_factory=set)

    def add(self, received: InputChange) -> Iterator[tuple[int, Numbers]]:
        """Let it wait, and say what the paths of its group changed if that makes a pass full."""
        at = self.recipient.at
        if not bool(received.reach.any()):
            return
        start = int(received.reach.any(dim=0).nonzero()[0, 0])
        start = 0 if self.recipient.only_read(received.stream) else min(start - start % _GRID, int(at.min()))
        group = received.stream, start
        waiting = self._waiting.setdefault(group, [])
        waiting.append(received)
        if len(waiting) == self._size(*group):
            yield from self._run(*group, self._waiting.pop(group))

    def flush(self) -> Iterator[tuple[int, Numbers]]:
        """What all paths that still wait changed."""
        for group, waiting in sorted(self._waiting.items(), key=lambda item: item[0]):
            yield from self._run(*group, waiting)
        self._waiting.clear()

    def _size(self, stream: Site, start: int) -> int:
        batch, n = self.recipient.states[0].resid_pre.shape[:2]
        width = _ONE_POSITION if self.recipient.only_read(stream) else n - start
        return max(1, self.tokens // (batch * width))

    def _run(self, stream: Site, start: int, waiting: Sequence[InputChange]) -> Iterator[tuple[int, Numbers]]:
        if stream not in self._checked:
            self._checked.add(stream)
            own = [self.recipient.itself(waiting[0])]
            changed = self._change(stream, start, own)
            self.itself = {name: self.itself[name] + changed[name][0] for name in changed}
        change = self._change(stream, start, waiting)
        for run, received in enumerate(waiting):
            yield received.path, {name: values[run] for name, values in change.items()}

    def _change(self, stream: Site, start: int, runs: Sequence[InputChange]) -> Numbers:
        """Patched minus unpatched, by run and example."""
        key = stream, start, len(runs)
        if key not in self._unpatched:
            self._unpatched[key] = self._read(stream, start, [None] * len(runs))
        return minus(self._read(stream, start, runs), self._unpatched[key])

    def _read(self, stream: Site, start: int, runs: Sequence[InputChange | None]) -> Numbers:
        logits = self.recipient.logits(stream, start, runs)
        rows = torch.arange(len(self.recipient.at), device=logits.device).repeat(len(runs))
        numbers = self.meter.of_readout(logits, rows)
        return {name: values.reshape(len(runs), -1) for name, values in numbers.items()}


def _attended(
    parts: NativeParts,
    head: int,
    q: Float[Tensor, "batch query d_head"],
    k: Float[Tensor, "batch pos d_head"],
    v: Float[Tensor, "batch pos d_head"],
    position: Int[Tensor, "batch query"],
) -> Float[Tensor, "batch query d_head"]:
    """z of one head's causal attention, of queries at `position`."""
    future = future_keys(position, k.shape[1])
    slopes = None if parts.slopes is None else parts.slopes[head : head + 1]
    z, _ = attend(q[:, :, None], k[:, :, None], v[:, :, None], future, slopes=slopes, scale=parts.scale)
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
    """`path_hooks.path_block` of a native model. `stack`: how often a pass may repeat the recipient's tokens."""
    states = forward(parts, runs.recipient)[1]
    donor = forward(parts, runs.unrelated if unrelated_donor else runs.donor)[1]
    recipient = Recipient(parts, states, runs.contrast.at.to(runs.recipient.device))
    meter, gaps, baselines, predicted = _baselines(recipient, runs, names)
    packed = PackedPaths(recipient, meter, stack * runs.recipient.numel(), meter.zeros())
    changes: Numbers = {name: np.zeros((len(paths), len(runs))) for name in names}
    ran = np.zeros(len(paths), dtype=bool)

    def note(found: Iterator[tuple[int, Numbers]]) -> None:
        for i, change in found:
            for name in names:
                changes[name][i] = change[name]

    for i, found in _SenderRuns(recipient, runs, paths, donor, meter, through_mlps).results():
        ran[i] = True
        note(packed.add(found) if isinstance(found, InputChange) else iter([(i, found)]))
    note(packed.flush())
    if unrelated_donor:
        changes = runs.where_unrelated(changes)
    baselines = {"self": packed.itself, **baselines}
    return Changes(changes=changes, gaps=gaps, baselines=baselines, ran=ran, predicted=predicted)


@dataclass(eq=False)
class _SenderRuns:
    """Run 2 of every sender, and what of it each of its paths makes arrive."""

    recipient: Recipient
    runs: Runs
    paths: Sequence[Path]
    donor: Sequence[LayerState]
    meter: Meter
    through_mlps: bool
    _compared: tuple[SenderChange, tuple[object, ...], FrozenRun] | None = None

    def results(self) -> Iterator[tuple[int, InputChange | Numbers]]:
        """Each path that changes anything, by its index: what arrives for run 3, or what the logits show after run 2.

        Senders of one layer and source follow one another, because they are compared with one and the same run.
        """

        def order(i: int) -> tuple[int, str, str, int]:
            sender = self.paths[i].sender
            return sender.layer, sender.kind, self.paths[i].source or "", -1 if sender.head is None else sender.head

        for _, group in groupby(sorted(range(len(self.paths)), key=order), key=order):
            indices = list(group)
            sender, states = self.paths[indices[0]].sender, self.recipient.states
            place = place_mask(self.paths[indices[0]].source, self.runs.contrast, states[0].resid_pre)
            layer = sender.layer
            sent = SenderChange.of(self.recipient.parts, sender, states[layer], self.donor[layer], place)
            if sent is not None:
                yield from self._of(sent, {i: self.paths[i] for i in indices})

    def _of(self, sent: SenderChange, paths: dict[int, Path]) -> Iterator[tuple[int, InputChange | Numbers]]:
        yield from ((i, self._any(i, sent)) for i, path in paths.items() if path.receiver == "any")
        asked = frozenset(path.receiver.whole for path in paths.values() if isinstance(path.receiver, Site))
        to_the_end = any(path.receiver == "logits" for path in paths.values())
        if not asked and not to_the_end:
            return
        options = {"through_mlps": self.through_mlps, "to_the_end": to_the_end}
        after = self._frozen(sent, sent.stream, asked, options)
        before = self._unsent(sent, asked, options)
        for i, path in paths.items():
            if path.receiver == "logits":
                yield i, self._at_logits(sent, after, before)
            elif isinstance(path.receiver, Site):
                received = self._received(i, path, path.receiver, sent, after, before)
                yield from () if received is None else [(i, received)]

    def _unsent(self, sent: SenderChange, asked: frozenset[Site], options: dict[str, bool]) -> FrozenRun:
        """The same run from the recipient's own stream; that of the last sender, if it differs at the same places."""
        what = sent.site.whole, asked, options["to_the_end"]
        if self._compared is not None:
            last, same, found = self._compared
            if what == same and all(
                torch.equal(getattr(last, name), getattr(sent, name)) for name in ("row", "position")
            ):
                return found
        found = self._frozen(sent, sent.own, asked, options)
        self._compared = sent, what, found
        return found

    def _frozen(
        self,
        sent: SenderChange,
        stream: Float[Tensor, "changed d_model"],
        asked: frozenset[Site],
        options: dict[str, bool],
    ) -> FrozenRun:
        at = self.recipient.at
        return run_frozen(self.recipient.parts, self.recipient.states, sent, stream, asked, at, **options)

    def _any(self, i: int, sent: SenderChange) -> InputChange:
        """All that the sender's change can do: it is added to the stream that the sender writes to."""
        kind, layer = sent.site.kind, sent.site.layer
        stream = (
            Site("attn_out", layer) if kind in ("z", "attn_out") else Site("resid_pre", layer + (kind == "mlp_out"))
        )
        reach = self._where(sent, torch.ones_like(sent.row, dtype=torch.bool))
        return InputChange(i, stream, sent.row, sent.position, sent.stream - sent.own, self._readable(reach))

    def _at_logits(self, sent: SenderChange, after: FrozenRun, before: FrozenRun) -> Numbers:
        """What run 2 itself changes in the metrics: where the sender writes at the position that is read."""
        rows = sent.row[after.read]
        readings = [self.meter.of_readout(self.recipient.parts.logits(run.stream), rows) for run in (after, before)]
        change = self.meter.zeros()
        for name, values in minus(*readings).items():
            change[name][rows.cpu().numpy()] = values
        return change

    def _received(
        self, i: int, path: Path, receiver: Site, sent: SenderChange, after: FrozenRun, before: FrozenRun
    ) -> InputChange | None:
        """The change of a receiver's input; None where it stays the same, bit for bit."""
        new, old = (run.inputs[receiver.whole] for run in (after, before))
        if receiver.head is not None:
            new, old = new[:, receiver.head], old[:, receiver.head]
        differs = (new != old).any(dim=-1)
        destination = place_mask(path.destination, self.runs.contrast, new)
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
        return InputChange(i, site, *places, value[differs], self._readable(reach))

    def _where(self, sent: SenderChange, some: Bool[Tensor, " changed"]) -> Bool[Tensor, "batch pos"]:
        where = torch.zeros(self.recipient.states[0].resid_pre.shape[:2], dtype=torch.bool, device=sent.row.device)
        where[sent.row[some], sent.position[some]] = True
        return where

    def _readable(self, reach: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
        return reach & (torch.arange(reach.shape[1], device=reach.device) <= self.recipient.at[:, None])


def _baselines(
    recipient: Recipient, runs: Runs, names: Sequence[MetricName]
) -> tuple[Meter, Numbers, dict[str, Numbers], dict[str, Int[np.ndarray, " batch"]]]:
    """The meter, the unit of effects, the baselines of which the answer is known (the first resid_pre replaced), and
    what the runs put first."""
    at = recipient.at
    rows = torch.arange(len(at), device=at.device)
    positions = torch.arange(runs.recipient.shape[1], device=at.device)[None]

    def logits(resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch d_vocab"]:
        return resume(recipient.parts, recipient.states, layer=0, start=0, rows=rows, resid=resid, at=at)

    embedded = {
        name: recipient.parts.embed(getattr(runs, name), positions)
        for name in ("recipient", "unit_recipient", "unit_donor", "unrelated")
    }
    low, high = embedded["unit_recipient"], embedded["unit_donor"]
    readouts = {name: logits(resid) for name, resid in embedded.items()}
    readouts["full"] = logits(torch.where((high != low).any(dim=-1, keepdim=True), high, low))
    meter = Meter(runs.contrast, names, readouts["unit_donor"].double())
    found = {name: meter.of_readout(readout) for name, readout in readouts.items()}
    baselines = {
        "full": minus(found["full"], found["unit_recipient"]),
        "random_donor": runs.where_unrelated(minus(found["unrelated"], found["recipient"])),
    }
    return meter, minus(found["unit_donor"], found["unit_recipient"]), baselines, runs.predicted(readouts)
