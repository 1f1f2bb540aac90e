"""Linear regression onto a circle: whether a residue is laid out by its angle, and where on the circle a row falls.

Models trained on modular arithmetic hold a residue v as (cos, sin) of 2 pi f v / n for a few frequencies f (Nanda et
al. 2023, arXiv 2301.05217); language models hold days and months on circles (Engels et al. 2024, arXiv 2405.14860). A
classifier over all residues finds such a variable too, but not that it is a circle, and needs more data to find it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.probing.solver import Design


@dataclass(frozen=True, eq=False)
class CircleFit:
    """Ridge regressions onto the points of a circle, one for each label set, in units of the standardized features."""

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
