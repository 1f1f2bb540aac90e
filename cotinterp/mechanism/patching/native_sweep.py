"""A patching sweep straight from the weights of a native model: no hooks, and only what a patch can reach.

The runs, the numbers and their names are those of `block.sweep_block`, which works for every model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions
from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.patching.block import Cell, Measured, Runs, known_rows, predicted
from cotinterp.mechanism.patching.blocks import Meter
from cotinterp.mechanism.patching.native_packs import Jobs, Sizes, packs
from cotinterp.mechanism.patching.native_values import Patches, enters_at, entry
from cotinterp.mechanism.patching.stack import Numbers, minus
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.forward import LayerState, forward
from cotinterp.models.native.parts import NativeParts
from cotinterp.models.native.resume import resume_all

# A run whose logits lie this near to the unpatched ones, in units of the largest logit, may differ by rounding alone.
_ROUNDING = 2e-5

States = tuple[LayerState, ...]


@torch.no_grad()
def native_sweep(
    parts: NativeParts,
    runs: Runs,
    cells: Sequence[Cell],
    names: Sequence[MetricName],
    sizes: Sizes,
    *,
    unrelated_donor: bool = False,
) -> Measured:
    """`sweep_block` from the weights.

    A patch of the whole first input is the donor's own run, operation for operation: the baselines are read of the runs
    of recipient, donor and unrelated donor, and need none of their own.
    """

    def ran(tokens: Int[Tensor, "batch pos"]) -> tuple[Float[Tensor, "batch d_vocab"], States]:
        logits, states = forward(parts, tokens.to(parts.w_e.device))
        return at_positions(logits, runs.contrast.at), states

    read: dict[str, Float[Tensor, "batch d_vocab"]] = {}
    read["recipient"], own = ran(runs.recipient)
    read["donor"], related = ran(runs.donor)
    read["unrelated"], unrelated = ran(runs.unrelated)
    for unit, sibling in (("unit_recipient", "recipient"), ("unit_donor", "donor")):
        same = getattr(runs, unit) is getattr(runs, sibling)
        read[unit] = read[sibling] if same else ran(getattr(runs, unit))[0]
    meter = Meter(runs.contrast, names, read["unit_donor"].double())
    numbers = {run: meter.of_readout(logits) for run, logits in read.items()}
    gaps = minus(numbers["unit_donor"], numbers["unit_recipient"])
    baselines = {
        "self": minus(numbers["recipient"], numbers["recipient"]),
        "full": gaps,
        "random_donor": known_rows(minus(numbers["unrelated"], numbers["recipient"]), runs),
    }
    if runs.contrast.reference is not None:
        baselines["whole_change"] = minus(numbers["donor"], numbers["recipient"])
    sweep = _Sweep.of(parts, runs, cells, own, unrelated if unrelated_donor else related)
    live, jobs = sweep.planned()
    changes = sweep.changes(live.shape, jobs, meter, sizes, read["recipient"])
    return Measured(
        changes=known_rows(changes, runs) if unrelated_donor else changes,
        gaps=gaps,
        baselines=baselines,
        ran=np.asarray(live.any(axis=1)),
        live=live,
        predicted=predicted(runs, read),
    )


@dataclass(frozen=True, eq=False)
class _Sweep:
    """One block of examples: what is patched where, and the states of the runs that it is patched into and from.

    `unequal`: where donor and recipient differ; `reach`: where, of these, a patch can still reach the readout.
    """

    parts: NativeParts
    own: States
    donor: States
    at: Int[Tensor, " batch"]
    sites: Sequence[Site]
    site: Int[np.ndarray, " cells"]
    place: Int[np.ndarray, " cells"]
    places: Bool[Tensor, "place batch pos"]
    unequal: Bool[Tensor, "site batch pos"]
    reach: Bool[Tensor, "site batch pos"]

    @classmethod
    def of(cls, parts: NativeParts, runs: Runs, cells: Sequence[Cell], own: States, donor: States) -> "_Sweep":
        """The sweep of these cells."""
        device = parts.w_e.device
        names = {name: i for i, name in enumerate(runs.contrast.places)}
        sites = sorted({cell.site for cell in cells})
        index = {site: i for i, site in enumerate(sites)}
        at, positions = runs.contrast.at.to(device), torch.arange(runs.recipient.shape[1], device=device)
        unequal = torch.stack([_differs(site, own[site.layer], donor[site.layer]) for site in sites])
        before, here = positions <= at[:, None], positions == at[:, None]
        reach = torch.stack([before if enters_at(site) < len(own) else here for site in sites])
        return cls(
            parts,
            own,
            donor,
            at,
            sites,
            np.array([index[cell.site] for cell in cells]),
            np.array([names[cell.place] for cell in cells]),
            torch.stack(list(runs.contrast.places.values())).to(device),
            unequal,
            unequal & reach,
        )

    def planned(self) -> tuple[Bool[np.ndarray, "cells batch"], Jobs]:
        """Which cells are live in which examples, and the runs that can change something."""
        live = np.zeros((len(self.site), len(self.at)), dtype=bool)
        at, found = self.at.cpu().numpy(), []
        for i, site in enumerate(self.sites):
            cells = np.flatnonzero(self.site == i)
            places = self.places[torch.from_numpy(self.place[cells]).to(self.at.device)]
            live[cells] = (places & self.unequal[i]).any(dim=2).cpu().numpy()
            reached = places & self.reach[i]
            place, row = reached.any(dim=2).cpu().numpy().nonzero()
            first = reached.int().argmax(dim=2).cpu().numpy()[place, row]
            found.append(Jobs(cells[place], row, np.full(len(row), enters_at(site)), first, at[row]))
        return live, Jobs.joined(found)

    def changes(
        self,
        shape: tuple[int, ...],
        jobs: Jobs,
        meter: Meter,
        sizes: Sizes,
        unpatched: Float[Tensor, "batch d_vocab"],
    ) -> Numbers:
        """What each cell changes in each example, by metric; exactly 0 where it can change nothing."""
        recipient, near = meter.of_readout(unpatched), [np.zeros(0, dtype=np.int64)]
        found: Numbers = {name: np.zeros(shape) for name in recipient}
        limit = _ROUNDING * unpatched.abs().amax(dim=1)
        for begin, some in packs(jobs, sizes):
            pack = jobs.select(some)
            rows, logits = self._rows(pack), self._logits(self.donor, pack, begin)
            distance = (logits - unpatched[rows]).abs().amax(dim=1)
            near.append(some[(distance <= limit[rows]).cpu().numpy()])
            for name, values in meter.of_readout(logits, rows).items():
                found[name][pack.cell, pack.row] = values - recipient[name][pack.row]
        # Rounding depends on the shape of a pass. These are compared with the unpatched run in the very same pass:
        # what reaches nothing is then exactly 0, and not 1e-7.
        doubtful = jobs.select(np.concatenate(near))
        for begin, some in packs(doubtful, sizes):
            pack = doubtful.select(some)
            rows = self._rows(pack)
            both = [meter.of_readout(self._logits(states, pack, begin), rows) for states in (self.donor, self.own)]
            for name, values in minus(*both).items():
                found[name][pack.cell, pack.row] = values
        return found

    def _logits(self, donor: States, pack: Jobs, begin: int) -> Float[Tensor, "run d_vocab"]:
        """Logits at the readout of the runs of one pack, which are in the order of the blocks they enter."""
        positions = slice(begin, int(pack.at.max()) + 1)
        entries = {}
        for layer in np.unique(pack.layer).tolist():
            some = pack.select(np.flatnonzero(pack.layer == layer))
            site, place = (torch.from_numpy(index[some.cell]).to(self.at.device) for index in (self.site, self.place))
            rows = self._rows(some)
            mask = self.places[place, rows] & self.reach[site, rows]
            patches = Patches(self.sites, site, rows, mask)
            entries[layer] = entry(self.parts, self.own, donor, patches, layer, positions)
        return resume_all(self.parts, self.own, entries, start=begin, at=self.at[self._rows(pack)])

    def _rows(self, jobs: Jobs) -> Int[Tensor, " run"]:
        return torch.from_numpy(jobs.row).to(self.at.device)


def _differs(site: Site, own: LayerState, donor: LayerState) -> Bool[Tensor, "batch pos"]:
    """Where the donor's run holds another value than the recipient's."""
    ours, theirs = (site.whole.by_position(getattr(state, site.kind)) for state in (own, donor))
    unequal = ours != theirs if site.head is None else ours[:, :, site.head] != theirs[:, :, site.head]
    return unequal.flatten(2).any(dim=2)
