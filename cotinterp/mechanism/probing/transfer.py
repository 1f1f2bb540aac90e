"""Does a probe fitted at one place read the same variable at another: another role, step, layer or model?

A probe that transfers found the same direction in both places: one code for "the total so far", say, whatever the step.
One that is accurate at home only found a code of that place. The control is the same transfer with probes for random
labels, one for each type of input: what they carry over is a stored table of inputs that look alike in both places.

The problems are the same everywhere and split once, by problem: none that any probe was fitted on is tested anywhere.

Residual streams of two models have unrelated bases, also where only the seed differs: a probe that does not transfer
between them says nothing about what they hold, and chance is what to expect. Between regimes compare with the transfer
to an untrained model, or between two seeds of one regime. Within a model, layers share the residual stream but not its
scale, nor do places share their mean: `center="tested"` subtracts each place's own mean before the probe's is added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probing.cells import check_amount
from cotinterp.mechanism.probing.controls import check_split, distinct_rows, hold_out, random_labels
from cotinterp.mechanism.probing.place import ProbedAt, as_place
from cotinterp.mechanism.probing.solver import Design, fit_designs
from cotinterp.mechanism.probing.totals import running_total
from cotinterp.mechanism.probing.transfer_result import TransferCell, TransferResult
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Role

Center = Literal["fitted", "tested"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadAt:
    """What a probe is fitted on, or tested on: the activations of one place, and what is to be read from them.

    Attributes:
        at: Where the features come from, in words.
        target: What the classes are classes of.
        features: One row per problem.
        truth: Class of each row; one class means the same everywhere.
        types: Type of input of each row, which has one label in the control task; one number means the same input
            everywhere. By default every problem is its own.
    """

    at: ProbedAt
    target: str
    features: Float[Tensor, "n d_feature"]
    truth: Int[np.ndarray, " n"]
    types: Int[np.ndarray, " n"] | None = None


def transfer_matrix(
    places: Sequence[ReadAt],
    train: Bool[np.ndarray, " n"],
    *,
    groups: Int[np.ndarray, " n"] | None = None,
    center: Center = "fitted",
    n_controls: int = 1,
    penalty: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> TransferResult:
    """Every probe at every place: fitted on the training rows of one, tested on the other rows of each.

    Row i is the same problem at all places. `train` are the rows to fit on; `groups` the problem of each row, by
    default each its own. `center`: whose training mean is subtracted from the rows of a tested place, the probe's own
    (the rows are read as they are), or that of the tested place, which needs no labels there. The rest is as in
    `fit_probes`.

    Raises:
        ValueError: Places of different widths or lengths, groups on both sides, too little to fit or to test.
        ProbeNotConverged: Names the place.
    """
    groups = np.arange(len(train)) if groups is None else groups
    _check(places, train, groups, n_controls)
    rng = np.random.default_rng(seed)
    truth = np.stack([place.truth for place in places])
    types = np.stack([groups if place.types is None else place.types for place in places])
    # Dealt to all places at once: the same input has the same label everywhere, or no control could transfer.
    dealt = [random_labels(truth.ravel(), types.ravel(), rng=rng).reshape(truth.shape) for _ in range(n_controls)]
    labeled = np.stack([truth, *dealt], axis=1)
    classes, codes = np.unique(labeled[..., train], return_inverse=True)
    fitted_rows = [place.features[torch.from_numpy(train)] for place in places]
    fits = fit_designs(
        [Design.of(rows) for rows in fitted_rows],
        torch.from_numpy(codes.reshape(labeled[..., train].shape)).to(fitted_rows[0].device),
        len(classes),
        penalty=penalty,
        tolerance=tolerance,
        max_iterations=max_iterations,
        names=[f"{place.at.row} at {place.at.column}, target {place.target}" for place in places],
    )
    means = [rows.mean(0) for rows in fitted_rows]
    cells = []
    for i, (fit, fitted) in enumerate(zip(fits, places, strict=True)):
        for j, tested in enumerate(places):
            rows = tested.features[torch.from_numpy(~train)]
            predicted = classes[fit.predict(rows if center == "fitted" else rows - means[j] + means[i]).cpu().numpy()]
            known, counts = np.unique(tested.truth[train], return_counts=True)
            cells.append(
                TransferCell(
                    fitted=fitted.at,
                    fitted_target=fitted.target,
                    tested=tested.at,
                    tested_target=tested.target,
                    n_train=int(train.sum()),
                    truth=labeled[j, 0, ~train],
                    predicted=predicted[0],
                    control_truth=labeled[j, 1:, ~train].T,
                    control_predicted=predicted[1:],
                    groups=groups[~train],
                    majority=int(known[counts.argmax()]),
                )
            )
    return TransferResult(tuple(cells), labels or {})


def transfer_totals(
    models: Mapping[str, tuple[HookedModel, Batch]],
    places: Sequence[tuple[Role | str, int, int]],
    *,
    sites: Sequence[Site] | None = None,
    test_fraction: float = 0.25,
    center: Center = "fitted",
    n_controls: int = 1,
    penalty: float = 1.0,
    tolerance: float = 1e-4,
    seed: int = 0,
    batch_size: int | None = 256,
    labels: Mapping[str, str | int] | None = None,
) -> TransferResult:
    """Transfer of probes for running totals between roles, steps, sites and models.

    Args:
        models: By name (a regime, `trained`, `untrained`), a model and the transcripts that it reads: the same problems
            in the same order for all.
        places: Role, step (-1 where it has none) and the j of the target `s_j`, in every model that has such a place:
            `[("equals", 1, 1), ("equals", 2, 2)]` asks whether step 2 holds its total as step 1 does. Of a value of
            several characters it is the last.
        sites: By default what enters the second and later layers, and what leaves the last.

    The type of input in the control task is the pair of `s_{j-1}` and operand j, which decides `s_j` at every step.

    Raises:
        ValueError: Other problems in one model than in another, a place that no model has, and what `transfer_matrix`
            refuses.
    """
    batches = [batch for _, batch in models.values()]
    operands = [[transcript.problem.operands for transcript in batch.transcripts] for batch in batches]
    if any(other != operands[0] for other in operands[1:]):
        raise ValueError(f"the models {list(models)} read different problems, or in another order; give all the same")
    read: list[ReadAt] = []
    for name, (model, batch) in models.items():
        n_layers = int(model.cfg.n_layers)
        chosen = (*residual_sites(model)[1:], Site("resid_post", n_layers - 1)) if sites is None else tuple(sites)
        here = [(Role(role), step, target) for role, step, target in places if batch.mask(role, step).any()]
        if not here:
            continue
        positions = torch.stack([batch.where(role, step, part=-1) for role, step, _ in here], dim=1)
        found = activations(model, batch.tokens, chosen, positions=positions, batch_size=batch_size)
        read += [
            ReadAt(
                at=as_place(site, role=role, step=step, model=name),
                target=f"s_{target}",
                features=found[site][:, column].flatten(1),
                truth=running_total(batch, target),
                types=step_inputs(batch, target),
            )
            for column, (role, step, target) in enumerate(here)
            for site in chosen
        ]
    if not read:
        raise ValueError(f"none of {list(models)} has any of the places {list(places)}")
    longest = max(map(len, operands[0]))
    problems = distinct_rows(np.array([(*row, *(-1,) * (longest - len(row))) for row in operands[0]]))
    return transfer_matrix(
        read,
        hold_out(problems, fraction=test_fraction, seed=seed),
        groups=problems,
        center=center,
        n_controls=n_controls,
        penalty=penalty,
        tolerance=tolerance,
        seed=seed,
        labels=labels,
    )


def step_inputs(batch: Batch, step: int) -> Int[np.ndarray, " batch"]:
    """A number for what a step starts from: the pair of `s_{step-1}` and its operand, the same at whatever step.

    At step 0 it is the operand alone, which is the input of no other step. Of a task with several operators it is the
    pair and the step's operator.
    """
    problems = [transcript.problem for transcript in batch.transcripts]
    if step == 0:
        return np.array([-1 - problem.operands[0] for problem in problems])
    symbols = 1 + max(max(problem.step_operands, default=0) for problem in problems)
    pairs = np.array([problem.previous[step - 1] * symbols + problem.step_operands[step - 1] for problem in problems])
    operators = np.array([(problem.step_operators or (0,) * step)[step - 1] for problem in problems])
    inputs: Int[np.ndarray, " batch"] = pairs * (1 + operators.max()) + operators
    return inputs


def _check(
    places: Sequence[ReadAt], train: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"], n_controls: int
) -> None:
    if not places:
        raise ValueError("no places to fit at and to test at")
    if n_controls < 1:
        raise ValueError(f"n_controls={n_controls}: an accuracy without a control says nothing; use 1 or more")
    check_split(groups, train)
    shapes = {tuple(place.features.shape) for place in places}
    if len(shapes) > 1 or len(places[0].features) != len(train):
        raise ValueError(
            f"features of shapes {sorted(shapes)} for {len(train)} problems: a probe transfers between places of one "
            "width, and the same problems must stand in the rows of all"
        )
    for place in places:
        check_amount(place.target, place.truth, train)
