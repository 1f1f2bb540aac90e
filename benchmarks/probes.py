"""Probes for running totals: `probe_totals` against a loop over scikit-learn's LogisticRegression.

Timed for ours: the forward passes and a probe for each layer, site, place and target, each beside one control task. The
peer gets the activations for free, and for each cell fits the target and the same control labels: StandardScaler on the
training rows, LogisticRegression with C = 1 / penalty, on one BLAS thread, with which it is several times faster than
with two; of many cells it does evenly spaced ones. Equal: the accuracy of the target in every cell that both did, to
half a point, or to a test row where that is more. There are two rows. In one, both stop at their own default tolerance,
the peer's well short of the optimum. In the other both are asked for the optimum, which is unique, so that the numbers
can be compared. Floor: the passes, a Gram matrix for each set of features, and one gradient and one prediction for each
probe: no solver gets by with so little.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.comparison import Agreement, Comparison, matmul_floor
from benchmarks.workload import Amounts, Workload, probed_batches
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.probing.controls import Controls, distinct_rows
from cotinterp.mechanism.probing.fit import LabelSets, Target, TrainTestSplit
from cotinterp.mechanism.probing.result import ProbeCell, ProbeResult
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import beginnings, probe_totals, running_total
from cotinterp.mechanism.sites import Kind, Site, residual_sites
from cotinterp.transcripts.batch import Batch, collate

TOLERANCE = 0.005
PENALTY = 1.0
CONTROLS = Controls(n_shuffles=0)
KINDS: tuple[Kind, ...] = ("resid_pre", "attn_out", "mlp_out")
CellName = tuple[str, str, int, str]
"""Site, role, step, target."""


class Tolerances(NamedTuple):
    """Where ours stops (the norm of the gradient) and where the peer does (its largest entry)."""

    ours: float
    theirs: float
    words: str


DEFAULT = Tolerances(1e-4, 1e-4, "both as they come")
TIGHT = Tolerances(2e-6, 1e-6, "both to the optimum")


@dataclass(frozen=True, eq=False)
class PeerCell:
    """One cell as the peer gets it: features of all rows, the labels of the target and of its control task."""

    cell: CellName
    features: Float[np.ndarray, "n d_feature"]
    labels: Int[np.ndarray, "sets n"]
    train: Bool[np.ndarray, " n"]


def probe_sweeps(workload: Workload, amounts: Amounts) -> Iterator[Comparison]:
    """All layers, sites and places, one number of operands."""
    batches = probed_batches(workload, amounts.probed, amounts.probed_k)
    for tolerances in (DEFAULT, TIGHT):
        yield probe_comparison(workload, *batches, amounts.peer_probes, tolerances)


def probe_comparison(
    workload: Workload, train: Batch, test: Batch, peer_probes: int, tolerances: Tolerances = DEFAULT
) -> Comparison:
    """Ours over all cells against the peer over those that it is given."""
    cells = [cell for cell in _ours(workload, train, test, DEFAULT).cells if cell.at.site != "input"]
    chosen = cells[:: -(-len(cells) // peer_probes)]
    n_train, n_test = len(train), len(test)
    sites = {(cell.at.label, cell.at.place) for cell in cells}
    d_model = workload.spec.model.d_model
    lengths = np.concatenate([train.length.cpu().numpy(), test.length.cpu().numpy()])
    flops = workload.cost.forward(lengths, read=0) + len(sites) * 2 * n_train * d_model**2
    flops += sum(2 * 2 * (2 * n_train + n_test) * d_model * cell.n_classes for cell in cells)
    return Comparison(
        work=f"{len(cells)} probes with a control each, {tolerances.words}, {n_train} + {n_test} rows of {d_model}",
        peer="scikit-learn StandardScaler and LogisticRegression, a loop",
        ours=partial(_ours, workload, train, test, tolerances),
        theirs=partial(_theirs, _fits(workload, chosen, train, test), tolerances),
        agree=same_accuracies,
        floor=matmul_floor(flops),
        their_share=len(chosen) / len(cells),
    )


def same_accuracies(ours: ProbeResult, theirs: dict[CellName, float]) -> Agreement:
    """Equal where no accuracy differs by more than half a point, or one test row where that is more."""
    found = {_name(cell): float(cell.correct.mean()) for cell in ours.cells}
    difference = max(abs(found[cell] - accuracy) for cell, accuracy in theirs.items())
    row = 1.0001 / len(ours.cells[0].truth)
    return Agreement.within(difference, max(TOLERANCE, row), f"test accuracy in {len(theirs)} cells")


def _ours(workload: Workload, train: Batch, test: Batch, tolerances: Tolerances) -> ProbeResult:
    sites = [site for kind in KINDS for site in residual_sites(workload.model, kind)]
    return probe_totals(
        workload.model,
        train,
        test=test,
        sites=sites,
        controls=CONTROLS,
        fit=FitOptions(penalty=PENALTY, tolerance=tolerances.ours),
    )


def _theirs(fits: Sequence[PeerCell], tolerances: Tolerances) -> dict[CellName, float]:
    accuracy: dict[CellName, float] = {}
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for fit in fits:
            for labels in fit.labels[::-1]:  # the target last: its accuracy stays
                probe = make_pipeline(StandardScaler(), _regression(tolerances.theirs))
                probe.fit(fit.features[fit.train], labels[fit.train])
                accuracy[fit.cell] = float(probe.score(fit.features[~fit.train], labels[~fit.train]))
    return accuracy


def _regression(tolerance: float) -> LogisticRegression:
    return LogisticRegression(C=1 / PENALTY, max_iter=5000, tol=tolerance)


def _fits(workload: Workload, cells: Sequence[ProbeCell], train: Batch, test: Batch) -> list[PeerCell]:
    """The activations of those cells and their label sets, drawn as `probe_totals` draws them."""
    batch = collate((*train.transcripts, *test.transcripts), train.vocabulary).to(workload.device)
    is_train, problems = np.arange(len(batch)) < len(train), distinct_rows(batch.operands.cpu().numpy())
    split = TrainTestSplit(np.arange(len(batch)), is_train, problems)
    fits = []
    for cell in cells:
        site = Site.parse(cell.at.label)
        positions = batch.where(cell.at.role, cell.at.step, part=-1)
        features = activations(workload.model, batch.tokens, [site], positions=positions)[site].cpu().numpy()
        step = int(cell.target.removeprefix("s_"))
        truth, types = running_total(batch, step), beginnings(batch, positions, step)
        drawn = LabelSets.draw(cell.target, Target(truth=truth, types=types), split, CONTROLS)
        fits.append(PeerCell(_name(cell), features, drawn.stacked, is_train))
    return fits


def _name(cell: ProbeCell) -> CellName:
    return cell.at.label, cell.at.role, cell.at.step, cell.target
