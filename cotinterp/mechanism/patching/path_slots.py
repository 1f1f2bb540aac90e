"""Paths that wait for others to run with: filled slots are run, and compared with the same slots unpatched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.patching.blocks import Meter
from cotinterp.mechanism.patching.path_arrivals import Arrival, Receivers
from cotinterp.mechanism.patching.stack import Numbers, minus
from cotinterp.mechanism.sites import Site

# Runs start at multiples of this, so that paths from neighboring places share a pass.
_GRID = 4
# What a slot costs of which one position is computed, in positions of other slots: its keys are copied nevertheless.
_ONE_POSITION = 4


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


def nothing(names: Sequence[MetricName], n: int) -> Numbers:
    """A change of 0 in every example."""
    return {name: np.zeros(n) for name in names}
