"""Do probes transfer? A probe fitted at one place is tested at another: another role, step, layer or model.

A probe that transfers found the same direction in both places: one code for "the total so far", say, whatever the step.
One that is accurate only where it was fitted found a code of that place. The control is the same transfer with probes
for random labels, one for each type of input: what they carry over is a stored table of inputs that look alike in both
places. The problems are the same everywhere and split once, so none that any probe was fitted on is tested anywhere.

Residual streams of two models have unrelated bases, even if only their seeds differ: a probe that does not transfer
between them says nothing about what they hold, and chance is what to expect. Compare a transfer between regimes with
the transfer to an untrained model, or between two seeds of one regime. Within a model, layers share the residual stream
but not its scale, and places do not share their mean: `center="tested"` subtracts the tested place's own mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.model import HookedModel, require_causal, require_model
from cotinterp.mechanism.probing.controls import (
    Controls,
    check_split,
    distinct_rows,
    hold_out,
    interval_over_groups,
    random_labels,
)
from cotinterp.mechanism.probing.fit import check_amount, check_test
from cotinterp.mechanism.probing.linear_probe import ProbedAt
from cotinterp.mechanism.probing.result import Score
from cotinterp.mechanism.probing.rows import (
    Labels,
    feature_rows,
    groups_of_equal_rows,
    row_groups,
    training_rows,
    whole_labels,
)
from cotinterp.mechanism.probing.solver import Design, FitOptions, fit_designs
from cotinterp.mechanism.probing.totals import running_total
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.results import Interval, Result, with_labels
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Role

Center = Literal["fitted", "tested"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferCell:
    """A probe fitted at one place and tested at another, on problems that no probe was fitted on.

    Attributes:
        truth, predicted: Class of each test row at the tested place, and the answer of the probe.
        control_truth, control_predicted: The same for probes of random labels, fitted and tested at the same places.
        groups: Problem of each test row: the unit of the intervals.
        majority: The most frequent class of the tested place's training rows.
    """

    fitted: ProbedAt
    fitted_target: str
    tested: ProbedAt
    tested_target: str
    n_train: int
    truth: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    control_truth: Int[np.ndarray, "controls n"]
    control_predicted: Int[np.ndarray, "controls n"]
    groups: Int[np.ndarray, " n"]
    majority: int

    @property
    def correct(self) -> Bool[np.ndarray, " n"]:
        """Test rows that the probe gets right."""
        hits: Bool[np.ndarray, " n"] = self.predicted == self.truth
        return hits

    @property
    def control_correct(self) -> Float[np.ndarray, " n"]:
        """Share of the control probes that are right about their own label of each test row."""
        return np.asarray((self.control_predicted == self.control_truth).mean(0), dtype=np.float64)

    @cached_property
    def interval(self) -> Interval:
        """95% interval of the accuracy over problems."""
        return interval_over_groups(self.correct, self.groups)

    @cached_property
    def selectivity_interval(self) -> Interval:
        """95% bootstrap interval of the selectivity over problems."""
        return interval_over_groups(self.correct - self.control_correct, self.groups)


@dataclass(frozen=True, eq=False)
class TransferResult(Result):
    """Accuracy of every probe at every place, beside the same transfer of probes for random labels.

    High off the diagonal with low control: both places hold the variable along the same directions. It does not show
    that the model uses it at either. Low off the diagonal: other directions, another scale or mean, or nothing there
    (the diagonal tells which).
    """

    cells: tuple[TransferCell, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row per place fitted at and place tested at.

        `chance`: always naming the tested place's most frequent class. `home_accuracy`: the probe that was fitted at
        the tested place; what is there to be read by it. `selectivity`: accuracy minus control accuracy.
        """
        home = {(c.tested, c.tested_target): float(c.correct.mean()) for c in self.cells if _at_home(c)}
        rows = []
        for cell in self.cells:
            accuracy, control = float(cell.correct.mean()), float(cell.control_correct.mean())
            rows.append(
                {
                    **_columns("fitted", cell.fitted, cell.fitted_target),
                    **_columns("tested", cell.tested, cell.tested_target),
                    "n_train": cell.n_train,
                    "n_test": len(cell.truth),
                    "accuracy": accuracy,
                    "control_accuracy": control,
                    "selectivity": accuracy - control,
                    "home_accuracy": home[cell.tested, cell.tested_target],
                    "chance": float((cell.truth == cell.majority).mean()),
                    "ci_low": cell.interval.low,
                    "ci_high": cell.interval.high,
                }
            )
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self, measure: Score = "accuracy") -> go.Figure:
        """Fitted at (rows) by tested at (columns); the scale is always 0 to 1."""
        several = len({cell.fitted.model for cell in self.cells}) > 1
        names = {
            "fitted at": [_name(cell.fitted, cell.fitted_target, several) for cell in self.cells],
            "tested at": [_name(cell.tested, cell.tested_target, several) for cell in self.cells],
        }
        shown = dict.fromkeys([measure, "accuracy", "control_accuracy", "home_accuracy", "chance", "ci_low", "ci_high"])
        return heatmap(
            self.frame()[list(shown)].assign(**names),
            x="tested at",
            y="fitted at",
            value=measure,
            bounds=(0.0, 1.0),
            title=f"Do probes transfer? {measure.replace('_', ' ').capitalize()} of each probe at each place",
            x_title="tested at",
            y_title="fitted at",
            value_title=measure.replace("_", " "),
            hover=[name for name in shown if name != measure],
        )


def _at_home(cell: TransferCell) -> bool:
    return (cell.fitted, cell.fitted_target) == (cell.tested, cell.tested_target)


def _columns(prefix: str, at: ProbedAt, target: str) -> dict[str, str | int]:
    return {f"{prefix}_{name}": value for name, value in {**at.columns, "target": target}.items()}


def _name(at: ProbedAt, target: str, with_model: bool) -> str:
    return f"{at.model + ' ' if with_model else ''}{target}: {at.label} at {at.place}"


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

    def checked(self) -> "ReadAt":
        """The same as features and whole numbers, in every row. ValueError that names what is not."""
        name = f"{self.target} in {self.at.label} at {self.at.place}"
        features = feature_rows(self.features, f"features for {name}")
        truth = whole_labels(self.truth, f"target {name}", len(features))
        types = None if self.types is None else whole_labels(self.types, f"types for {name}", len(features))
        return replace(self, features=features, truth=truth, types=types)


def transfer_matrix(
    places: Sequence[ReadAt],
    train: Bool[np.ndarray, " n"],
    *,
    groups: Labels | None = None,
    center: Center = "fitted",
    controls: Controls = Controls(),
    fit: FitOptions = FitOptions(),
    labels: Mapping[str, str | int] | None = None,
) -> TransferResult:
    """Every probe at every place: fitted on the training rows of one, tested on the other rows of each.

    Row i is the same problem at all places. `train` are the rows to fit on; `groups` the problem of each row, by
    default each its own. `center`: whose training mean is subtracted from the rows of a tested place, the probe's own
    (the rows are read as they are), or that of the tested place, which needs no labels there. `controls` and `fit` are
    those of `fit_probes`; labels are not shuffled.

    Raises:
        ValueError: Places of different widths or lengths, groups on both sides, too little to fit or to test.
        ProbeNotConverged: Names the place.
    """
    if center not in get_args(Center):
        raise ValueError(f"center={center!r}: there are {list(get_args(Center))}.")
    if not places:
        raise ValueError("places: none were given. Wanted are the places to fit at and to test at.")
    n = len(places[0].features)
    train = training_rows(train, n)
    places = [place.checked() for place in places]
    if groups is None:
        told = all(place.types is not None for place in places)
        alike = [place.features for place in places if len(place.features) == n]
        groups = np.arange(n) if told else groups_of_equal_rows(alike, train)
    else:
        groups = row_groups(groups, n)
        check_split(groups, train)
    _check(places, train)
    n_controls, rng = controls.of_features_alone().n_controls, np.random.default_rng(controls.seed)
    truth = np.stack([place.truth for place in places])
    types = np.stack([groups if place.types is None else place.types for place in places])
    # Drawn for all places at once: the same input has the same label everywhere, or no control could transfer.
    drawn = [random_labels(truth.ravel(), types.ravel(), rng=rng).reshape(truth.shape) for _ in range(n_controls)]
    labeled = np.stack([truth, *drawn], axis=1)
    classes, codes = np.unique(labeled[..., train], return_inverse=True)
    fitted_rows = [place.features[torch.from_numpy(train)] for place in places]
    fits = fit_designs(
        [Design.of(rows) for rows in fitted_rows],
        torch.from_numpy(codes.reshape(labeled[..., train].shape)).to(fitted_rows[0].device),
        len(classes),
        penalty=fit.penalty,
        tolerance=fit.tolerance,
        max_iterations=fit.max_iterations,
        names=[f"{place.at.label} at {place.at.place}, target {place.target}" for place in places],
        max_bytes=fit.max_bytes,
    )
    means = [rows.mean(0) for rows in fitted_rows]
    cells = []
    for i, (found, fitted) in enumerate(zip(fits, places, strict=True)):
        for j, tested in enumerate(places):
            rows = tested.features[torch.from_numpy(~train)]
            predicted = classes[found.predict(rows if center == "fitted" else rows - means[j] + means[i]).cpu().numpy()]
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
    test: float = 0.25,
    center: Center = "fitted",
    controls: Controls = Controls(),
    fit: FitOptions = FitOptions(),
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
        test: Share of the problems that is held out.
        center, controls, fit, labels: As in `transfer_matrix`.

    The type of input in the control task is the pair of `s_{j-1}` and operand j, which decides `s_j` at every step.

    Raises:
        ValueError: Other problems in one model than in another, a place that no model has, and what `transfer_matrix`
            refuses.
    """
    batches = [batch for _, batch in models.values()]
    operands = [[problem.operands for problem in batch.problems] for batch in batches]
    if any(other != operands[0] for other in operands[1:]):
        raise ValueError(f"the models {list(models)} read different problems, or in another order; give all the same")
    read: list[ReadAt] = []
    for name, (model, batch) in models.items():
        require_model(model)
        require_causal(model, "what a place holds would depend on what comes after it, padding too")
        n_layers = int(model.cfg.n_layers)
        chosen = (*residual_sites(model)[1:], Site("resid_post", n_layers - 1)) if sites is None else tuple(sites)
        here = [(Role(role), step, target) for role, step, target in places if batch.mask(role, step).any()]
        if not here:
            continue
        positions = torch.stack([batch.where(role, step, part=-1) for role, step, _ in here], dim=1)
        found = activations(model, batch.tokens, chosen, positions=positions, batch_size=fit.batch_size)
        read += [
            ReadAt(
                at=ProbedAt(site=site, role=role, step=step, model=name),
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
    problems = distinct_rows(batches[0].operands.cpu().numpy())
    train = hold_out(problems, fraction=test, seed=controls.seed)
    return transfer_matrix(read, train, groups=problems, center=center, controls=controls, fit=fit, labels=labels)


def step_inputs(batch: Batch, step: int) -> Int[np.ndarray, " batch"]:
    """A number for what a step starts from: the pair of `s_{step-1}` and its operand, the same at whatever step.

    At step 0 it is the operand alone, which is the input of no other step. Of a task with several operators it is the
    pair and the step's operator.
    """
    problems = batch.problems
    if step == 0:
        return np.array([-1 - problem.operands[0] for problem in problems])
    symbols = 1 + max(max(problem.step_operands, default=0) for problem in problems)
    pairs = np.array([problem.previous[step - 1] * symbols + problem.step_operands[step - 1] for problem in problems])
    operators = np.array([(problem.step_operators or (0,) * step)[step - 1] for problem in problems])
    inputs: Int[np.ndarray, " batch"] = pairs * (1 + operators.max()) + operators
    return inputs


def _check(places: Sequence[ReadAt], train: Bool[np.ndarray, " n"]) -> None:
    shapes = {tuple(place.features.shape) for place in places}
    if len(shapes) > 1 or len(places[0].features) != len(train):
        raise ValueError(
            f"features of shapes {sorted(shapes)} for {len(train)} problems: a probe transfers between places of one "
            "width, and the same problems must stand in the rows of all"
        )
    for place in places:
        check_amount(place.target, place.truth, train)
        check_test(place.target, place.truth, train)
