"""A fitted probe as a value: its directions in the model's own units, and where its features came from."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.probing.rows import Features, Labels, feature_rows, whole_labels
from cotinterp.mechanism.probing.solver import Design, FitOptions, LogisticFit, ProbeNotConverged, fit_logistic
from cotinterp.mechanism.sites import Site, site_columns
from cotinterp.transcripts.roles import place_words


@dataclass(frozen=True, kw_only=True)
class ProbedAt:
    """Where the features of a probe came from.

    Attributes:
        site: Where in the model, or a name for features from elsewhere: `input` is the baseline that sees the current
            token and its position alone.
        role: Role of the token, empty where it has none.
        step: Step of the token, -1 where it has none.
        model: `trained`, or `untrained` for the control of the same size at its initialization.
        words: The place on an axis of a figure; role and step where left empty.
    """

    site: Site | str
    role: str = ""
    step: int = -1
    model: str = "trained"
    words: str = ""

    @classmethod
    def of(cls, key: "str | Site | ProbedAt", **where: Any) -> "ProbedAt":
        """Where features under this name come from; `where` says more about it (role, step, model, words)."""
        return replace(key, **where) if isinstance(key, ProbedAt) else cls(site=key, **where)

    @property
    def label(self) -> str:
        """`L2.resid_pre`, `L1H3.z`; the name of features that belong to no site."""
        return str(self.site)

    @property
    def place(self) -> str:
        """The place in words."""
        return self.words or place_words(self.role, self.step) or "everywhere"

    @property
    def columns(self) -> dict[str, str | int]:
        """Its columns in every table of probes: model, site (the label), kind, layer, head, role, step."""
        return {"model": self.model, **site_columns(self.site), "role": self.role, "step": self.step}


@dataclass(frozen=True, eq=False)
class CircleFit:
    """Ridge regressions onto the points of a circle, one for each label set, in units of the standardized features.

    They say whether a residue v modulo n is laid out as (cos, sin) of 2 pi f v / n, and where on the circle a row falls
    (`coordinates` names models that do so). A classifier over all residues finds such a variable too, but not that it
    is a circle, and needs more data to find it.
    """

    design: Design
    points: Float[Tensor, "classes 2"]
    weight: Float[Tensor, "sets d_feature 2"]
    center: Float[Tensor, "sets 2"]
    """Mean target on the training rows: the prediction where the features are at their mean."""
    present: Bool[Tensor, "sets classes"]
    """Classes that the label set's training rows have; no other is ever predicted."""

    def coordinates(self, features: Float[Tensor, "m d_feature"]) -> Float[Tensor, "sets m 2"]:
        """Where each row falls in the plane of the circle."""
        return self.design.standardized(features) @ self.weight + self.center[:, None]

    def predict(self, features: Float[Tensor, "m d_feature"]) -> Int[Tensor, "sets m"]:
        """The class whose point is nearest; on a circle that is the one in the direction of the row."""
        nearness = self.coordinates(features) @ self.points.T
        return nearness.masked_fill(~self.present[:, None], -torch.inf).argmax(-1)

    def r_squared(
        self, features: Float[Tensor, "m d_feature"], labels: Int[Tensor, "sets m"]
    ) -> Float[Tensor, " sets"]:
        """One minus the squared error over that of the training rows' mean: 1 is exact, 0 or less is no use."""
        target = self.points[labels]
        error = (target - self.coordinates(features)).square().sum((1, 2))
        return 1 - error / (target - self.center[:, None]).square().sum((1, 2))


def fit_circle(
    design: Design, labels: Int[Tensor, "sets n"], points: Float[Tensor, "classes 2"], *, penalty: float = 1.0
) -> CircleFit:
    """The minimizers of `sum_i ||point_i - prediction_i||^2 + penalty * ||weight||^2`, in closed form; free bias.

    Features are standardized on the training rows of `design`, in whose principal axes the normal equations are
    diagonal. ValueError for labels that no point stands for, or a penalty that is not positive.
    """
    if labels.numel() == 0 or int(labels.min()) < 0 or int(labels.max()) >= len(points):
        raise ValueError(f"labels {tuple(labels.shape)} must be there and lie in 0..{len(points) - 1}, one a point")
    if penalty <= 0:
        raise ValueError(f"penalty {penalty} must be positive: with as many features as rows any target fits exactly")
    points = points.to(design.rows)
    target = points[labels]
    center = target.mean(1)
    rows = design.rows
    normal = rows.square().sum(0)[:, None] + penalty
    weight = design.rotation @ ((rows.T @ (target - center[:, None])) / normal)
    present = torch.zeros(len(labels), len(points), dtype=torch.bool, device=labels.device).scatter_(1, labels, True)
    return CircleFit(design, points, weight, center, present)


SILENT = 1e-5
"""Directions shorter than this share of the longest are rounding, not directions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbe:
    """A linear classifier of activations: `logits = (features - mean) @ direction.T + bias`, the largest wins.

    In the units of the features that were handed in, so `direction` can be added to, or projected out of, the
    activations of `at`. Rows of `direction` sum to zero: a constant added to all logits changes nothing. A direction
    that decodes a target is one along which it can be read; neither that the model reads it there, nor the direction
    along which the activations move most with the target (that is between the rows of `centers`).

    Attributes:
        at: Where the training rows came from.
        target: What the classes are classes of.
        classes: What is predicted, in the order of the rows; only classes that the training rows have.
        bias: Logits of the mean training row.
        mean, scale: Mean and (population) standard deviation of the training rows; scale 0 for a constant feature.
        centers: Mean of the training rows of each class.
        n_train: How many rows it was fitted on.
        fitted: The training rows and their classes, which `copies` needs; None where they were not kept.
    """

    at: ProbedAt
    target: str
    classes: Int[np.ndarray, " classes"]
    direction: Float[Tensor, "classes d_feature"]
    bias: Float[Tensor, " classes"]
    mean: Float[Tensor, " d_feature"]
    scale: Float[Tensor, " d_feature"]
    centers: Float[Tensor, "classes d_feature"]
    n_train: int
    fitted: tuple[Float[Tensor, "n d_feature"], Int[np.ndarray, " n"]] | None = None

    def logits(self, features: Features) -> Float[Tensor, "m classes"]:
        """How much speaks for each class, up to a constant for each row."""
        rows = feature_rows(features, "features")
        if rows.shape[1] != len(self.mean):
            raise ValueError(
                f"features: {rows.shape[1]} a row were given; the probe for {self.target} reads {len(self.mean)}."
            )
        return (rows.to(self.mean) - self.mean) @ self.direction.T + self.bias

    def predict(self, features: Features) -> Int[np.ndarray, " m"]:
        """The class of each row."""
        found: Int[np.ndarray, " m"] = self.classes[self.logits(features).argmax(1).cpu().numpy()]
        return found

    def subspace(
        self, rank: int | None = None, *, of: Literal["direction", "centers"] = "direction"
    ) -> Float[Tensor, "rank d_feature"]:
        """Orthonormal rows that span the differences between classes, the longest first.

        At most one fewer than the classes, two for a circle. Outside it the probe sees nothing: features that agree on
        this subspace get equal predictions. `of="centers"` spans the differences between class means instead, along
        which the rows themselves move. ValueError for a rank beyond what there is.
        """
        rows = self.direction if of == "direction" else self.centers
        _, lengths, basis = torch.linalg.svd((rows - rows.mean(0)).double(), full_matrices=False)
        found = int((lengths > SILENT * lengths[0]).sum()) if lengths[0] > 0 else 0
        if rank is not None and not 1 <= rank <= found:
            raise ValueError(f"the {of} of the probe for {self.target} span {found} dimensions, not {rank}")
        chosen: Tensor = basis[: found if rank is None else rank]
        return chosen.to(rows)

    def copies(self, *, seed: int = 0) -> Float[Tensor, "rank d_feature"] | None:
        """Where the classes move in this probe's directions and in those of every further copy of the target.

        A probe may lean on one of several copies, and on a small one as much as on a large one, since features are
        standardized. So its directions are projected out and the target is read again from what is left (Ravfogel et
        al. 2020, arXiv:2004.07667), until it can no longer be read nearly as well (`COPY`, on a quarter of the rows
        held out) or `ROUNDS` are over. The answer is the span of the differences between class means within all
        directions found, at most one dimension fewer than classes: an interchange in it moves all copies together, each
        as far as the classes lie apart there. Along each dimension the class makes up most of the variance (`PURE`):
        what merely goes with the target, as the operands of a sum do, is no copy of it. None where there is no second
        copy, or too few rows to tell.
        """
        if self.fitted is None:
            return None
        features, truth = self.fitted
        if len(truth) < MIN_ROWS or len(np.unique(truth)) < 2:
            return None
        train = np.random.default_rng(seed).permutation(len(truth)) % 4 != 0
        chance = float(np.unique(truth[~train], return_counts=True)[1].max() / (~train).sum())
        wide = (features - features.mean(0)).double()
        directions = [self.subspace()]
        wanted = chance + COPY * (_held_out_accuracy(wide, truth, train) - chance)
        for _ in range(ROUNDS):
            basis = torch.linalg.qr(torch.cat(directions).double().T)[0]
            left = wide - (wide @ basis) @ basis.T
            # What is left of a column by rounding alone is no feature.
            left = left * (left.abs().amax(0) > SILENT * wide.abs().amax(0))
            if not wanted > chance or _held_out_accuracy(left, truth, train) < wanted:
                break
            directions.append(fit_probe(left.float(), truth, target=self.target).subspace().to(directions[0]))
        if len(directions) == 1:
            return None
        basis = torch.linalg.qr(torch.cat(directions).double().T)[0]
        moved = (self.centers - self.centers.mean(0)).double()
        _, lengths, rows = torch.linalg.svd((moved @ basis) @ basis.T, full_matrices=False)
        rows = rows[lengths > SILENT * lengths[0]]
        along = wide @ rows.T
        members = torch.from_numpy(truth[:, None] == self.classes).to(along)
        within = along - members @ ((members.T @ along) / members.sum(0)[:, None].clamp_min(1))
        found: Tensor = rows[within.square().sum(0) <= (1 - PURE) * along.square().sum(0)]
        return found.to(self.direction) if len(found) else None


COPY = 0.9
"""What is left holds another copy of a target where it is read at least so well, counted from chance, as from all."""
PURE = 0.75
"""Along a copy the target's classes explain at least this share of the variance."""
ROUNDS = 4
MIN_ROWS = 40
"""Fewer than these say too little about what can be read."""


def _held_out_accuracy(
    features: Float[Tensor, "n d_feature"], truth: Int[np.ndarray, " n"], train: Bool[np.ndarray, " n"]
) -> float:
    """Of a probe that was fitted on the training rows alone; 0 where there is none."""
    rows = features.float()
    if not bool(rows.any()):
        return 0.0
    try:
        probe = fit_probe(rows[torch.from_numpy(train).to(rows.device)], truth[train])
    except (ValueError, ProbeNotConverged):
        return 0.0
    return float((probe.predict(rows[torch.from_numpy(~train).to(rows.device)]) == truth[~train]).mean())


def fit_probe(
    features: Features,
    truth: Labels,
    *,
    at: str | Site | ProbedAt = "features",
    target: str = "target",
    circle: Float[np.ndarray, "points 2"] | None = None,
    penalty: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
) -> LinearProbe:
    """One probe on all rows given, without a test: hold rows out before; accuracy and controls are `fit_probes`'.

    Multinomial logistic regression as in `fit_probes`, or, given the points of a `circle` (see `coordinates`), linear
    regression onto them: then `truth` are numbers of points and the logits are inner products with each point.

    Raises:
        ValueError: Fewer than two classes, no more rows than classes, a class beyond the circle, labels or features of
            another kind or number (`whole_labels`, `feature_rows`), options that `FitOptions` refuses.
        ProbeNotConverged: Names place and target.
    """
    FitOptions(penalty=penalty, tolerance=tolerance, max_iterations=max_iterations)
    features = feature_rows(features, "features")
    truth = whole_labels(truth, f"target {target!r}", len(features))
    classes, index = np.unique(truth, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"target {target!r} has {len(classes)} class(es) {classes.tolist()}; a probe needs two")
    if len(truth) <= len(classes):
        raise ValueError(
            f"target {target!r} has {len(classes)} classes in {len(truth)} rows; a probe needs more rows than classes"
        )
    if circle is not None and not 0 <= classes[0] <= classes[-1] < len(circle):
        raise ValueError(
            f"target {target!r} has classes from {classes[0]} to {classes[-1]}; the circle has the points 0 to "
            f"{len(circle) - 1}"
        )
    where = ProbedAt.of(at)
    design = Design.of(features, torch.promote_types(features.dtype, torch.float32))
    if circle is not None:
        labels = torch.from_numpy(truth)[None].to(features.device)
        found: CircleFit | LogisticFit = fit_circle(design, labels, torch.from_numpy(circle), penalty=penalty)
        classes = np.arange(len(circle))
    else:
        codes = torch.from_numpy(index.reshape(1, -1)).to(features.device)
        name = f"{where.model} {where.label} at {where.place}, target {target}"
        found = fit_logistic(
            design,
            codes,
            len(classes),
            penalty=penalty,
            tolerance=tolerance,
            max_iterations=max_iterations,
            name=name,
        )
    return as_probe(found, classes, features, truth, at=where, target=target)


def as_probe(
    fit: LogisticFit | CircleFit,
    classes: Int[np.ndarray, " classes"],
    features: Float[Tensor, "n d_feature"],
    truth: Int[np.ndarray, " n"],
    *,
    at: ProbedAt,
    target: str,
) -> LinearProbe:
    """The first label set of a fit to `features` and `truth`, in the features' units; absent classes are dropped."""
    present = np.isin(classes, truth)
    kept = torch.from_numpy(present).to(features.device)
    if isinstance(fit, CircleFit):
        # The nearest point of a circle is the one with the largest inner product.
        weight, bias = (fit.weight[0] @ fit.points.T)[:, kept], (fit.points @ fit.center[0])[kept]
    else:
        weight, bias = fit.weight[0][:, kept], fit.bias[0][kept]
    direction = (fit.design.scale[:, None] * weight).T
    members = torch.from_numpy(classes[present][:, None] == truth).to(features)
    scale = fit.design.scale
    return LinearProbe(
        at=at,
        target=target,
        classes=classes[present],
        direction=direction - direction.mean(0),
        bias=bias,
        mean=fit.design.mean,
        scale=torch.where(scale > 0, 1 / scale.clamp_min(torch.finfo(scale.dtype).tiny), 0.0),
        centers=members @ features / members.sum(1, keepdim=True),
        n_train=len(truth),
        fitted=(features, truth),
    )
