"""Path patching on native models: the same three runs as `path_runs`, with nothing computed that cannot change.

Run 2 is a matter of the positions at which a sender differs (`path_direct`), run 3 begins at the receiver and at the
first position that it can change (`path_arrivals`). Every change is the difference of two runs of one shape, in the
same slots, so that a path that cannot matter is exactly 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.patching.block import Runs
from cotinterp.mechanism.patching.blocks import Changes, Meter, placed
from cotinterp.mechanism.patching.path_arrivals import Arrival, Receivers
from cotinterp.mechanism.patching.path_direct import Direct, Sent, direct
from cotinterp.mechanism.patching.path_slots import Slots, nothing
from cotinterp.mechanism.patching.paths import Path
from cotinterp.mechanism.patching.stack import Numbers, minus
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.forward import LayerState, forward
from cotinterp.models.native.parts import NativeParts
from cotinterp.models.native.resume import resume


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
