"""The numbers that a head's label rests on, and those that its interval needs."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.head_labels import Measure
from cotinterp.mechanism.read_scores import ALL_TARGETS, ReadScores
from cotinterp.mechanism.reads import NEXT_OPERAND_READ, PREVIOUS_TOTAL_READ
from cotinterp.results import Interval, Intervals, bootstrap, bootstrap_means

FAMILY_ERROR = 0.05
N_RESAMPLES = 10_000
"""Enough that the tails of an interval simultaneous over some dozens of heads still hold several resamples."""


def relative(lost: Float[Tensor, "rows batch"], clean: Float[Tensor, " batch"]) -> Float[np.ndarray, "rows n"]:
    """What was lost of the logit difference, as a share of the mean clean difference, for the examples with a donor.

    The mean is over those same examples and is taken as given: intervals of the shares do not hold its uncertainty.
    All NaN where it is not positive, because a share of nothing says nothing.
    """
    known = ~lost.isnan().any(dim=0)
    scale = clean[known].double().mean()
    return (lost[:, known].double() / torch.where(scale > 0, scale, torch.nan)).numpy()


def intervals(values: Float[np.ndarray, "rows n"], *, n_tests: int = 1) -> Intervals:
    """95% intervals of the means, simultaneous over `n_tests` of them (Bonferroni); NaN where the values are."""
    if not np.isfinite(values).all():
        nothing = np.full(len(values), np.nan)
        return Intervals(nothing, nothing)
    return bootstrap_means(values, n_resamples=N_RESAMPLES, level=1 - FAMILY_ERROR / n_tests)


def head_evidence(
    clean: Float[Tensor, " batch"],
    attribution: Float[Tensor, "head batch"],
    lost: Float[Tensor, "head batch"],
    reads: ReadScores,
    target: str,
) -> list[dict[Measure, float]]:
    """The measures of `head_labels.MEASURES` for each head, its attention being that before `target`."""
    n_heads = len(attribution)
    needed = relative(lost, clean)
    written = relative(attribution, clean)
    needed_interval, written_interval = intervals(needed, n_tests=n_heads), intervals(written, n_tests=n_heads)
    separated: Interval = bootstrap(clean.double().numpy())
    total, operand = (looks(reads, pattern.name, target) for pattern in (PREVIOUS_TOTAL_READ, NEXT_OPERAND_READ))
    return [
        {
            "clean_low": separated.low,
            "prefers_answer": float((clean > 0).double().mean()),
            "ablation_effect": float(needed[head].mean()),
            "ablation_low": float(needed_interval.low[head]),
            "ablation_high": float(needed_interval.high[head]),
            "attribution_share": float(written[head].mean()),
            "attribution_low": float(written_interval.low[head]),
            "previous_total": float(total[head]),
            "next_operand": float(operand[head]),
        }
        for head in range(n_heads)
    ]


def looks(reads: ReadScores, read: str, target: str) -> Float[Tensor, " head"]:
    """Attention above chance to what the read names, before `target`; NaN where the read has no such target."""
    if target not in (*reads.targets(read), ALL_TARGETS):
        return torch.full(reads.attention.shape[1:3], torch.nan).flatten()
    return reads.above_chance(read, target).flatten()
