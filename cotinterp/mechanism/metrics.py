"""Numbers read off logits for each example, and effects normalized by the gap between two runs.

Everywhere `at` is the position whose logits are read: they predict the token at `at + 1`. Means and intervals over
examples come later, in the tables.

The logit difference is the primary metric (Zhang & Nanda 2023, arXiv:2309.16042; Heimersheim & Nanda 2024,
arXiv:2404.15255): it is linear in the final residual stream up to the final norm, and does not saturate. It cannot tell
a raised answer from a lowered foil; `correct_logit` and `wrong_logit` can.
"""

import difflib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions

Logits = Float[Tensor, "batch pos d_vocab"]
MetricName = Literal["logit_diff", "correct_logit", "wrong_logit", "log_prob", "probability", "accuracy", "kl"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
METRIC_WORDS: dict[str, str] = {"logit_diff": "logit difference", "kl": "KL divergence", "log_prob": "log probability"}
"""What titles call a metric whose name does not say it."""


def logit_diff(
    logits: Logits, at: Int[Tensor, " batch"], answer: Int[Tensor, " batch"], foil: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Logit of the answer minus logit of the foil, in nats: positive where the model prefers the answer.

    ValueError where answer and foil are one token: the difference would be 0 whatever the model does.
    """
    require_different(answer, foil)
    return correct_logit(logits, at, answer) - wrong_logit(logits, at, foil)


def correct_logit(logits: Logits, at: Int[Tensor, " batch"], answer: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Logit of the answer alone. Comparable between runs only as far as the other logits stay put."""
    return _pick(at_positions(logits, at), answer)


def wrong_logit(logits: Logits, at: Int[Tensor, " batch"], foil: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Logit of the foil alone."""
    return _pick(at_positions(logits, at), foil)


def log_prob(logits: Logits, at: Int[Tensor, " batch"], token: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Log probability of `token`, in nats (at most 0)."""
    return _pick(at_positions(logits, at).log_softmax(dim=-1), token)


def probability(logits: Logits, at: Int[Tensor, " batch"], token: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Probability of `token`. Saturates near 0 and 1, where real changes of the logits do not show."""
    return log_prob(logits, at, token).exp()


def accuracy(logits: Logits, at: Int[Tensor, " batch"], answer: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """1 where the answer has the highest logit of the vocabulary, else 0."""
    return (at_positions(logits, at).argmax(dim=-1) == answer).to(logits.dtype)


def kl(logits: Logits, reference: Logits, at: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """KL(reference || logits) at `at`, in nats: 0 where the run predicts just what the reference run predicts."""
    here = at_positions(logits, at).log_softmax(dim=-1)
    there = at_positions(reference, at).log_softmax(dim=-1)
    return (there.exp() * (there - here)).sum(dim=-1)


def require_different(answer: Int[Tensor, " batch"], foil: Int[Tensor, " batch"]) -> None:
    """ValueError if answer and foil are one token anywhere: such a pair asks nothing."""
    same = int((answer == foil).sum())
    if same:
        raise ValueError(
            f"answer and foil are the same token in {same} of {len(answer)} pairs: their logit difference is 0 "
            "whatever the model does. Leave these pairs out, or read where clean and corrupted differ (Pairs.at does)."
        )


def _pick(scores: Float[Tensor, "batch d_vocab"], token: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    return scores.gather(-1, token.to(scores.device)[:, None])[:, 0]


def metric_name(name: str) -> MetricName:
    """The metric of this name. ValueError with the nearest names."""
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"unknown metric {name!r}{hint} Metrics: {list(METRICS)}.")
    return name


def measure(
    name: MetricName,
    readout: Float[Tensor, "batch d_vocab"],
    *,
    answer: Int[Tensor, " batch"],
    foil: Int[Tensor, " batch"],
    reference: Float[Tensor, "batch d_vocab"],
) -> Float[Tensor, " batch"]:
    """One metric, by name, of logits that were already read at `at`; kl is against `reference`."""
    logits, at = readout[:, None], torch.zeros_like(answer)
    if name == "logit_diff":
        return logit_diff(logits, at, answer, foil)
    if name == "kl":
        return kl(logits, reference[:, None], at)
    if name == "wrong_logit":
        return wrong_logit(logits, at, foil)
    of_answer = {
        "correct_logit": correct_logit,
        "log_prob": log_prob,
        "probability": probability,
        "accuracy": accuracy,
    }
    return of_answer[name](logits, at, answer)


# In nats of a logit difference: a hundred times the rounding of float32 logits of order 10, and far below any gap
# that a reader would want explained.
EPS = 1e-3
# The same fraction of the median gap, for models whose logits are large, where rounding is.
EPS_RELATIVE = 1e-3


class NoGapError(ValueError):
    """Nothing to normalize by: no pair has a gap between its runs, or the gaps cancel."""


@dataclass(frozen=True, eq=False)
class Effects:
    """One normalized effect per cell with its interval; `n` pairs were used and `dropped` had no gap to speak of."""

    effect: Float[np.ndarray, " cells"]
    ci_low: Float[np.ndarray, " cells"]
    ci_high: Float[np.ndarray, " cells"]
    n: int
    dropped: int

    def columns(self, i: int) -> dict[str, float | int]:
        """What tables say of cell `i`."""
        found = {"effect": self.effect[i], "ci_low": self.ci_low[i], "ci_high": self.ci_high[i]}
        return {**found, "n": self.n}


def has_gap(gap: Float[np.ndarray, " batch"], eps: float = EPS) -> Bool[np.ndarray, " batch"]:
    """Which pairs are told apart at all: |gap| of at least `eps`, and of a thousandth of the median gap."""
    size = np.abs(gap)
    limit = max(eps, EPS_RELATIVE * float(np.median(size)) if len(gap) else eps)
    found: Bool[np.ndarray, " batch"] = size >= limit
    return found


def kept_pairs(
    change: Float[np.ndarray, "cells batch"], gap: Float[np.ndarray, " batch"], eps: float = EPS
) -> Bool[np.ndarray, " batch"]:
    """Which pairs an effect is computed from: those with a gap and with a measurement in every cell.

    NoGapError where that is none of them, or where their gaps cancel.
    """
    keep: Bool[np.ndarray, " batch"] = has_gap(gap, eps) & np.isfinite(change).all(axis=0)
    n = int(keep.sum())
    if not n:
        largest = np.abs(gap).max(initial=0.0)
        hint = "" if largest else " Are clean and corrupted the same tokens, as far as the readout?"
        raise NoGapError(
            f"none of {len(gap)} pairs has a gap of {eps:g} between clean and corrupted (largest {largest:.2g}): the "
            f"model does not tell them apart, so no effect can be normalized.{hint}"
        )
    gap = gap[keep]
    if abs(gap.mean()) < eps:
        raise NoGapError(
            f"the gaps of {n} pairs cancel (mean {gap.mean():.2g}, mean size {np.abs(gap).mean():.2g}): the model "
            "prefers the corrupted answer as often as the clean one. Keep the pairs it gets right (Contrast.select)."
        )
    return keep


def normalized_effects(
    change: Float[np.ndarray, "cells batch"],
    gap: Float[np.ndarray, " batch"],
    *,
    eps: float = EPS,
    seed: int = 0,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Effects:
    """mean(change) / mean(gap) of every cell: 0 where the edit did nothing, 1 where it closed the whole gap.

    `change` is the metric of the edited run minus that of the run it was made in; `gap` the metric of the donor's run
    minus the same. Pairs without a gap (see `has_gap`) are dropped and counted. The ratio of means is taken, not the
    mean of ratios: a pair with a small gap would put its noise, divided by almost nothing, on top of all others. It
    weights pairs by their gap. The interval is a percentile bootstrap over pairs, numerator and denominator redrawn
    together and the same pairs in every cell; per cell, not simultaneous over cells. It is (NaN, NaN) below two pairs,
    and where the mean gap is so uncertain that it may be zero or of the other sign.

    Pairs with a NaN in any cell are dropped as well. Where no pair has a gap, or where the gaps cancel, every effect is
    missing (NaN, n = 0); `kept_pairs` says why.
    """
    try:
        keep = kept_pairs(change, gap, eps)
    except NoGapError:
        nothing = np.full(len(change), np.nan)
        return Effects(nothing, nothing, nothing, 0, len(gap))
    n = int(keep.sum())
    change, gap = change[:, keep], gap[keep]
    # Summed in one order above and below, so that a full patch is 1 and not 1 - 1e-16; + 0.0 makes -0.0 a plain 0.
    effect = np.array([row.sum() / gap.sum() for row in change], dtype=np.float64) + 0.0
    missing = np.full(len(change), np.nan)
    if n < 2:
        return Effects(effect, missing, missing, n, len(keep) - n)
    draws = np.random.default_rng(seed).integers(n, size=(n_resamples, n))
    # How often each pair is drawn in each resample, all of them counted at once.
    offset = n * np.arange(n_resamples)[:, None]
    weights = np.bincount((draws + offset).ravel(), minlength=n * n_resamples).reshape(n_resamples, n).astype(float)
    denominator = weights @ gap
    sound = denominator * np.sign(gap.mean()) >= eps * n
    if sound.mean() < (1 + level) / 2:
        return Effects(effect, missing, missing, n, len(keep) - n)
    # A cell that is 0 in every pair has no spread, and many cells of a sweep are.
    moving, bounds = change.any(axis=1), np.zeros((2, len(change)))
    if moving.any():
        ratios = (change[moving] @ weights[sound].T) / denominator[sound]
        # Sorted first: the selection inside quantile is several times slower on rows in no order.
        bounds[:, moving] = np.quantile(np.sort(ratios, axis=1), [(1 - level) / 2, (1 + level) / 2], axis=1)
    low, high = bounds + 0.0
    return Effects(effect, low, high, n, len(keep) - n)
