"""How much of its logit difference each example loses by edits of attention, and what tables say of such losses.

An edit either takes something away (`zero`, a cut of attention), or gives an example what its template has on average
(`mean`) or what another example has (`resample`). Resampling (Zhang & Nanda 2023, arXiv 2309.16042, prefer it to means
and zeros) keeps the usual values and removes only what is known of this problem. What is the same in all examples of a
template is not removed by it, and other heads may stand in for what is: both are limits of every table made here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attention_edits import AttentionEdit, EditedRuns
from cotinterp.mechanism.interventions import Edit, derangement, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.results import Intervals, bootstrap_means
from cotinterp.results.multiplicity import Simultaneous, max_statistic

Method = Literal["resample", "mean", "zero"]
"""What a head, or a value that it moves, is replaced by: that of another example of the template, their mean, zero."""
METHODS: tuple[Method, ...] = get_args(Method)

NO_DONOR = -1
"""In the place of a donor: the example is the only one of its template."""

FAMILY_ERROR = 0.05
"""The chance that a scan over nothing finds something, which all rows of one table share."""
MATTERS = 0.05
"""A twentieth of the logit difference: below it a head is not what the answer rests on, significant or not."""

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
    return draw_donors(_templates(contrast), n_draws, rng)


def draw_donors(
    templates: Int[np.ndarray, " batch"], n_draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw batch"]:
    """For every draw and example, another example of its template; `NO_DONOR` for the only one of its kind.

    Within a draw every example gives and receives once. ValueError if no example has a companion.
    """
    donors = np.full((n_draws, len(templates)), NO_DONOR)
    for template in np.unique(templates):
        members = np.flatnonzero(templates == template)
        if len(members) > 1:
            for draw in donors:
                draw[members] = members[derangement(len(members), rng)]
    if (donors == NO_DONOR).all():
        raise ValueError(
            f"no two of the {len(templates)} examples share a template, so there is no donor to resample from: "
            "give more problems, or problems with one number of operands."
        )
    return donors


def with_donor(donors: Int[np.ndarray, "draw batch"]) -> Int[np.ndarray, " some"]:
    """The examples that have a donor in every draw."""
    return np.flatnonzero((donors != NO_DONOR).all(axis=0))


def substitutes(method: Method, own: Float[Tensor, "batch *rest"], contrast: Contrast) -> Float[Tensor, "batch *rest"]:
    """What each example has to give: its own activations (resample), the mean of its template, or zeros."""
    if method == "resample":
        return own
    if method == "zero":
        return torch.zeros_like(own)
    averaged, templates = torch.empty_like(own), _templates(contrast)
    for template in np.unique(templates):
        members = torch.from_numpy(np.flatnonzero(templates == template)).to(own.device)
        averaged[members] = own[members].mean(dim=0)
    return averaged


def _templates(contrast: Contrast) -> Int[np.ndarray, " batch"]:
    return np.zeros(len(contrast), dtype=np.int64) if contrast.templates is None else contrast.templates


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
