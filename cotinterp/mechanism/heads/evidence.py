"""The numbers that a head's label rests on, and those that its interval needs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.heads.labels import FAMILY_ERROR, LOOKS_AT_BOTH, Measure
from cotinterp.mechanism.heads.read_scores import ALL_TARGETS, ReadScores
from cotinterp.mechanism.heads.reads import NEXT_OPERAND_READ, PREVIOUS_TOTAL_READ
from cotinterp.results import Interval, Intervals, bootstrap, bootstrap_means
from cotinterp.results.multiplicity import Simultaneous, max_statistic


def relative(lost: Float[Tensor, "rows batch"], clean: Float[Tensor, " batch"]) -> Float[np.ndarray, "rows n"]:
    """What was lost of the logit difference, as a share of the mean clean difference, for the examples with a donor.

    The mean is over those same examples and is taken as given: intervals of the shares do not hold its uncertainty.
    All NaN where it is not positive, because a share of nothing says nothing.
    """
    known = ~lost.isnan().any(dim=0)
    scale = clean[known].double().mean()
    return (lost[:, known].double() / torch.where(scale > 0, scale, torch.nan)).numpy()


def intervals(values: Float[np.ndarray, "rows n"]) -> Intervals:
    """95% intervals of the means, each for its row alone; NaN where the values are."""
    if not np.isfinite(values).all():
        nothing = np.full(len(values), np.nan)
        return Intervals(nothing, nothing)
    return bootstrap_means(values)


def simultaneous(values: Float[np.ndarray, "rows n"], *, level: float = FAMILY_ERROR) -> Simultaneous:
    """Means with intervals and p-values that hold for all rows together, at a family error of `level`; NaN for NaN.

    The max-statistic rather than Bonferroni over percentile bootstraps: with 16 heads and nothing there, the latter
    found a head in 26% of scans of 12 examples, 11% of 40 (Gaussian rows; nominal 5%), the former in 1 to 4%. Its
    p-values suppose symmetric rows; where rows are skewed they are too small (up to 30% of scans), and the studentized
    intervals are not. What counts as found must therefore be outside both.
    """
    if not np.isfinite(values).all():
        missing = np.full(len(values), np.nan)
        return Simultaneous(missing, missing, missing, missing)
    return max_statistic(values, level=1 - level)


def scan_columns(lost: Float[Tensor, "rows batch"], clean: Float[Tensor, " batch"]) -> pd.DataFrame:
    """What a scan reports of each row: effect, its own 95% interval, interval and p-value simultaneous over rows, n.

    `effect` is a share of the mean clean logit difference of the examples with a donor, NaN where that is not positive.
    """
    shares = relative(lost, clean)
    own, together = intervals(shares), simultaneous(shares)
    columns = {"effect": shares.mean(axis=1) if shares.shape[1] else np.full(len(shares), np.nan)}
    columns |= {"ci_low": own.low, "ci_high": own.high}
    columns |= {"scan_low": together.low, "scan_high": together.high, "p": together.p}
    return pd.DataFrame(columns).assign(n=shares.shape[1])


def head_evidence(
    clean: Float[Tensor, " batch"],
    attribution: Float[Tensor, "head batch"],
    lost: Float[Tensor, "head batch"],
    reads: ReadScores,
    target: str,
    read_lost: Mapping[str, Float[Tensor, "head batch"]],
) -> list[dict[Measure, float]]:
    """The measures of `labels.MEASURES` for each head, its attention being that before `target`.

    `read_lost[read]`: what is lost when the values that a head moves along that read are another problem's, with rows
    of NaN for heads that do not look there (see `lookers`), whose use of the read was not asked for.
    """
    needed = relative(lost, clean)
    written = relative(attribution, clean)
    lossy, writing = simultaneous(needed), simultaneous(written)
    separated: Interval = bootstrap(clean.double().numpy())
    names = (PREVIOUS_TOTAL_READ.name, NEXT_OPERAND_READ.name)
    total, operand = (looks(reads, name, target) for name in names)
    total_use, operand_use = (_use(read_lost[name], clean) for name in names)
    return [
        {
            "clean_low": separated.low,
            "prefers_answer": float((clean > 0).double().mean()),
            "ablation_effect": float(needed[head].mean()),
            "ablation_low": float(lossy.low[head]),
            "ablation_high": float(lossy.high[head]),
            "ablation_p": float(lossy.p[head]),
            "attribution_share": float(written[head].mean()),
            "attribution_low": float(writing.low[head]),
            "previous_total": float(total[head]),
            "next_operand": float(operand[head]),
            "total_read_effect": float(total_use.mean[head]),
            "total_read_low": float(total_use.low[head]),
            "operand_read_effect": float(operand_use.mean[head]),
            "operand_read_low": float(operand_use.low[head]),
        }
        for head in range(len(attribution))
    ]


def lookers(reads: ReadScores, read: str, target: str) -> list[int]:
    """The heads that look at a read at least as much as one that divides its attention between two reads."""
    found: list[int] = (looks(reads, read, target) >= LOOKS_AT_BOTH).nonzero()[:, 0].tolist()
    return found


def _use(lost: Float[Tensor, "head batch"], clean: Float[Tensor, " batch"]) -> Simultaneous:
    """Simultaneous over the heads whose read was knocked out; NaN for the others."""
    asked = ~lost.isnan().all(dim=1).numpy()
    found = simultaneous(relative(lost[asked], clean))
    rows = np.full((4, len(lost)), np.nan)
    rows[:, asked] = (found.mean, found.low, found.high, found.p)
    return Simultaneous(*rows)


def looks(reads: ReadScores, read: str, target: str) -> Float[Tensor, " head"]:
    """Attention above chance to what the read names, before `target`; NaN where the read has no such target."""
    if target not in (*reads.targets(read), ALL_TARGETS):
        return torch.full(reads.attention.shape[1:3], torch.nan).flatten()
    return reads.above_chance(read, target).flatten()
