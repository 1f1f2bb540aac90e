"""How much of its logit difference each example loses by edits of attention, and what tables say of such losses.

An edit either takes something away (`zero`, a cut of attention), or gives an example what its template has on average
(`mean`) or what another example has (`resample`). Resampling (Zhang & Nanda 2023, arXiv 2309.16042, prefer it to means
and zeros) keeps the usual values and removes only what is known of this problem. What is the same in all examples of a
template is not removed by it, and other heads may stand in for what is: both are limits of every table made here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attention_edits import AttentionEdit, EditedRuns
from cotinterp.mechanism.interventions import NO_DONOR, Edit, draw_donors, run_with
from cotinterp.mechanism.metrics import EPS, has_gap, logit_diff
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.results import Intervals, bootstrap, bootstrap_means
from cotinterp.results.multiplicity import Simultaneous, max_statistic

Method = Literal["resample", "mean", "zero"]
"""What a head, or a value that it moves, is replaced by: that of another example of the template, their mean, zero."""
METHODS: tuple[Method, ...] = get_args(Method)

FAMILY_ERROR = 0.05
"""The chance that a scan over nothing finds something, which all rows of one table share."""
MATTERS = 0.05
"""A twentieth of the logit difference: below it a head is not what the answer rests on, significant or not."""

LEAST_EXAMPLES = 8
"""Fewer examples decide nothing: below 6 no scan can find anything at 5%, and simultaneous intervals hold from about 8
on (`results.multiplicity`)."""
UNDECIDED = "undecided"
"""In the place of a label or verdict for which there is too little; the column `note` says what would decide."""

# More of them at a time leave the processor's cache, and their states take memory.
_TOKENS_AT_ONCE = 4096

Examples = Int[Tensor, " some"]
"""Rows of a contrast."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What an instrument of heads draws at random.

    Attributes:
        n_donors: Donors for each example that is resampled; its loss is the mean over them.
        n_random_sets: Sets of other heads that heads ablated together are compared with (`head_table` alone).
        seed: Of the generator.
    """

    n_donors: int = 4
    n_random_sets: int = 8
    seed: int = 0

    def rng(self) -> np.random.Generator:
        """A fresh generator."""
        return np.random.default_rng(self.seed)


FOUR_DONORS, TWO_DONORS = Draws(), Draws(n_donors=2)


def donors_of(contrast: Contrast, n_draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draw batch"]:
    """`draw_donors` among the examples of each template of a contrast."""
    return draw_donors(contrast.alike, n_draws, rng)


def with_donor(donors: Int[np.ndarray, "draw batch"]) -> Int[np.ndarray, " some"]:
    """The examples that have a donor in every draw."""
    return np.flatnonzero((donors != NO_DONOR).all(axis=0))


def substitutes(method: Method, own: Float[Tensor, "batch *rest"], contrast: Contrast) -> Float[Tensor, "batch *rest"]:
    """What each example has to give: its own activations (resample), the mean of its template, or zeros."""
    if method == "resample":
        return own
    if method == "zero":
        return torch.zeros_like(own)
    averaged, templates = torch.empty_like(own), contrast.alike
    for template in np.unique(templates):
        members = torch.from_numpy(np.flatnonzero(templates == template)).to(own.device)
        averaged[members] = own[members].mean(dim=0)
    return averaged


@dataclass(frozen=True, eq=False)
class Intervention:
    """What one row of a table does to attention: `edits(examples, givers)`, the edits of some examples.

    `givers`: the examples that lend them their activations. `resampled` False: nothing is taken from other examples, so
    that one run says it all and `givers` are the examples themselves.
    """

    edits: Callable[[Examples, Examples], Sequence[AttentionEdit]]
    resampled: bool = True


def logits_lost(
    model: HookedModel,
    contrast: Contrast,
    interventions: Sequence[Intervention],
    donors: Int[np.ndarray, "draw batch"],
    *,
    batch_size: int | None = None,
    by_hooks: bool = False,
) -> Float[Tensor, "intervention batch"]:
    """Clean logit difference minus that under each intervention, per example, in logits: the mean of the draws.

    NaN for examples without a donor. Only the tokens that can reach a readout are run; of native models (unless
    `by_hooks`) only what an edit can change, with the same numbers up to float32 rounding.
    """
    contrast = contrast.until_readout(model)
    parts = None if by_hooks else exact_parts(model, contrast.clean)
    known, n_pos = with_donor(donors), contrast.clean.shape[1]
    lost = torch.full((len(interventions), len(contrast)), torch.nan)
    most = len(known) if parts is None else max(1, _TOKENS_AT_ONCE // n_pos)
    size = most if batch_size is None else batch_size
    for some in (torch.from_numpy(known[start : start + size]) for start in range(0, len(known), size)):
        if parts is None:
            losing = _through_hooks(model, contrast, some)
        else:
            losing = _from_weights(EditedRuns.of(parts, contrast.clean[some], contrast.at[some]), contrast, some)
        for index, row in enumerate(interventions):
            givers = [draw[some] for draw in torch.from_numpy(donors)] if row.resampled else [some]
            lost[index, some] = torch.stack([losing(row.edits(some, giving)) for giving in givers]).mean(dim=0)
    return lost


def clean_difference(
    model: HookedModel, contrast: Contrast, *, batch_size: int | None = None
) -> Float[Tensor, " batch"]:
    """The logit difference of the unedited model for each example, in logits."""
    contrast = contrast.until_readout(model)
    size = len(contrast) if batch_size is None else batch_size
    pieces = torch.arange(len(contrast)).split(size)
    return torch.cat([_logit_difference(model, contrast, some, []) for some in pieces])


_Losing = Callable[[Sequence[AttentionEdit]], Float[Tensor, " some"]]


def _through_hooks(model: HookedModel, contrast: Contrast, some: Examples) -> _Losing:
    clean = _logit_difference(model, contrast, some, [])
    return lambda edits: (
        clean - _logit_difference(model, contrast, some, [hook for edit in edits for hook in edit.hooked()])
    )


def _from_weights(runs: EditedRuns, contrast: Contrast, some: Examples) -> _Losing:
    first = torch.zeros_like(some)

    def difference(logits: Float[Tensor, "some d_vocab"]) -> Float[Tensor, " some"]:
        return logit_diff(logits[:, None], first, contrast.answer[some], contrast.foil[some]).float().cpu()

    def losing(edits: Sequence[AttentionEdit]) -> Float[Tensor, " some"]:
        edited, clean = runs.edited(edits)
        return difference(clean.logits) - difference(edited.logits)

    return losing


def _logit_difference(
    model: HookedModel, contrast: Contrast, some: Examples, edits: Sequence[Edit]
) -> Float[Tensor, " some"]:
    logits = run_with(model, contrast.clean[some], edits)
    return logit_diff(logits, contrast.at[some], contrast.answer[some], contrast.foil[some]).float().cpu()


LEFT_OUT = ("n", "dropped", "note")
"""The columns of `Unit.columns`."""


@dataclass(frozen=True, eq=False)
class Unit:
    """What losses are shares of: the mean clean logit difference of the examples `used`, in logits.

    `size` is NaN where there is none to speak of; `note` then says why.
    """

    used: Bool[Tensor, " batch"]
    size: float
    note: str = ""

    @property
    def n(self) -> int:
        """Examples that are used."""
        return int(self.used.sum())

    @property
    def columns(self) -> dict[str, Any]:
        """What tables say of it: n, how many examples were left out, and why there is no share or no verdict."""
        few = f"{self.n} examples, {LEAST_EXAMPLES} are needed" if self.n < LEAST_EXAMPLES else ""
        return {"n": self.n, "dropped": len(self.used) - self.n, "note": self.note or few}


def unit_of(lost: Float[Tensor, "rows batch"], clean: Float[Tensor, " batch"]) -> Unit:
    """The unit of shares of `lost`: the rule of `metrics.normalized_effects`.

    Used are the examples with a donor whose own clean difference is one (`has_gap`). Where their mean is not above
    `EPS`, or its 95% interval (bootstrap over examples) does not lie above it, a share of it would be noise divided by
    almost nothing.
    """
    known, gap = ~lost.isnan().any(dim=0), clean.double()
    used = known.clone()
    used[known] = torch.from_numpy(has_gap(gap[known].numpy()))
    kept = gap[used].numpy()
    if not len(kept):
        return Unit(used, np.nan, f"none of {int(known.sum())} examples has a clean logit difference of {EPS:g}")
    size = float(kept.mean())
    if size < EPS:
        return Unit(used, np.nan, f"the clean logit difference is {size:.2g} on average: the answer is not preferred")
    low, high = bootstrap(kept) if len(kept) > 1 else (size, size)
    if low < EPS:
        note = f"the clean logit difference is {size:.2g} on average, 95% interval {low:.2g} to {high:.2g}: it may be 0"
        return Unit(used, np.nan, note)
    return Unit(used, size)


def relative(lost: Float[Tensor, "rows batch"], clean: Float[Tensor, " batch"]) -> Float[np.ndarray, "rows n"]:
    """What was lost of the logit difference as a share of its `unit_of`, for the examples that this uses.

    The unit is taken as given: intervals of the shares do not hold its uncertainty. All NaN where there is none.
    """
    unit = unit_of(lost, clean)
    return (lost[:, unit.used].double() / unit.size).numpy()


def means(shares: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, " rows"]:
    """The mean of each row; NaN where no example is left."""
    return shares.mean(axis=1) if shares.shape[1] else np.full(len(shares), np.nan)


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
    """What a scan reports of each row: effect, its own 95% interval, interval and p-value simultaneous over rows.

    `effect` is a share of the mean clean logit difference of the n examples that have a donor and a difference; the
    others are `dropped`. NaN where there is no such unit, and `note` says why (`unit_of`).
    """
    shares = relative(lost, clean)
    own, together = intervals(shares), simultaneous(shares)
    columns = {"effect": means(shares)}
    columns |= {"ci_low": own.low, "ci_high": own.high}
    columns |= {"scan_low": together.low, "scan_high": together.high, "p": together.p}
    return pd.DataFrame(columns).assign(**unit_of(lost, clean).columns)
