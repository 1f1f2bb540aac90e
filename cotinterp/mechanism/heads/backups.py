"""Heads that stand in for one another: ablated in pairs, and what one writes once the other is gone.

A head whose loss another makes good looks idle when it is ablated alone: the backup name movers of Wang et al. 2022
(arXiv 2211.00593), the self-repair of McGrath et al. 2023 (arXiv 2307.15771). Two signs are measured. The interaction
of a pair is what both together cost beyond the sum of what each costs alone: positive where either does the work,
negative where the work needs both (the one feeds the other, or both reach one threshold). The repair is the rise of the
later head's direct attribution when the earlier is ablated: a backup that reacts. Heads of one layer cannot react to
one another: they may show interaction, never repair.

Pairs do not show what three heads do for one another, any two of which can be spared: `HeadResult.joint_frame` ablates
all heads that look at one read, and `compare_ablations` any set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import activations, at_positions
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.ablation import ablate_heads, replaced_head
from cotinterp.mechanism.heads.attention_edits import EditedRuns, HeadOutput
from cotinterp.mechanism.heads.attribution import frozen_readout
from cotinterp.mechanism.heads.losses import (
    FAMILY_ERROR,
    LEAST_EXAMPLES,
    LEFT_OUT,
    MATTERS,
    METHODS,
    TWO_DONORS,
    UNDECIDED,
    Draws,
    Method,
    clean_difference,
    donors_of,
    scan_columns,
    substitutes,
    with_donor,
)
from cotinterp.mechanism.interventions import run_with, watch
from cotinterp.mechanism.model import HookedModel, weight
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.mechanism.sites import Site, head_sites, residual_sites
from cotinterp.results import Result, with_labels

BACKUPS, IN_SERIES, NEITHER = "backups", "in series", "neither"


@dataclass(frozen=True)
class BackupResult(Result):
    """Heads ablated alone and in pairs, in logits and per example; NaN for examples without a donor.

    Attributes:
        sites: The heads, in the order of the model.
        pairs: Indices into `sites`, the earlier head first.
        single: Logit difference lost without each head.
        together: Logit difference lost without both heads of a pair.
        repair: By how much the direct attribution of the second head of a pair rises when the first is ablated. The
            final norm's scale is frozen at its clean value. Exactly 0 for two heads of one layer.
        clean: The clean logit difference.
        method: What the heads were replaced by.
    """

    sites: tuple[Site, ...]
    pairs: tuple[tuple[int, int], ...]
    single: Float[Tensor, "head batch"]
    together: Float[Tensor, "pair batch"]
    repair: Float[Tensor, "pair batch"]
    clean: Float[Tensor, " batch"]
    method: Method = "resample"
    labels: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def interaction(self) -> Float[Tensor, "pair batch"]:
        """Joint loss minus the sum of the single losses, in logits; positive where the heads stand in for another."""
        first, second = (self.single[[pair[side] for pair in self.pairs]] for side in (0, 1))
        return self.together - first - second

    def frame(self) -> pd.DataFrame:
        """One row per pair of heads `first` and `second` (as sites, `L0H1.z`), the largest interaction first.

        All effects are shares of the mean clean logit difference. `interaction` with its own 95% interval; `scan_low`,
        `scan_high`, `p` simultaneous over all pairs (max-statistic); `repair`, `repair_p` likewise, one scan of their
        own. `verdict`: "backups" or "in series" where p is at most 5% and the simultaneous interval lies `MATTERS`
        or more above or below 0; "neither" where it lies within; else, and from fewer than `LEAST_EXAMPLES`,
        "undecided": more examples would narrow the interval. `n`, `dropped`, `note` as in `scan_columns`.
        """
        alone = scan_columns(self.single, self.clean)["effect"].to_numpy()
        both = scan_columns(self.together, self.clean)["effect"].to_numpy()
        found, repaired = scan_columns(self.interaction, self.clean), scan_columns(self.repair, self.clean)
        table = pd.DataFrame(
            {
                "first": [self.sites[one].label for one, _ in self.pairs],
                "second": [self.sites[other].label for _, other in self.pairs],
                "method": self.method,
                "first_alone": alone[[one for one, _ in self.pairs]],
                "second_alone": alone[[other for _, other in self.pairs]],
                "together": both,
                "interaction": found["effect"],
                **{name: found[name] for name in ("ci_low", "ci_high", "scan_low", "scan_high", "p")},
                "repair": repaired["effect"],
                "repair_p": repaired["p"],
                "verdict": _verdicts(found),
                **{name: found[name] for name in LEFT_OUT},
            }
        )
        table = table.sort_values("interaction", ascending=False, kind="stable", ignore_index=True)
        return with_labels(table, self.labels)

    def backups(self) -> tuple[tuple[Site, Site], ...]:
        """The pairs found to stand in for one another, the largest interaction first."""
        found = scan_columns(self.interaction, self.clean)
        order = found["effect"].sort_values(ascending=False, kind="stable").index
        chosen = [
            self.pairs[row] for row, verdict in zip(order, _verdicts(found)[order], strict=True) if verdict == BACKUPS
        ]
        return tuple((self.sites[one], self.sites[other]) for one, other in chosen)

    def figure(self) -> go.Figure:
        """Each head against each: blue where they stand in for one another, red where they work in series."""
        table = self.frame()
        turned = table.rename(columns={"first": "second", "second": "first"})
        names = [site.label for site in self.sites]
        itself = pd.DataFrame({"first": names, "second": names})
        square = pd.concat([table, turned, itself]).sort_values(
            ["first", "second"], key=lambda column: column.map(names.index), kind="stable"
        )
        return heatmap(
            square,
            x="second",
            y="first",
            value="interaction",
            midpoint=0.0,
            hover=["together", "first_alone", "second_alone", "ci_low", "ci_high", "p", "n"],
            x_title="head",
            y_title="head",
            value_title="joint loss minus single losses",
            title="Heads ablated in pairs: what both cost beyond what each costs",
        )


def _verdicts(interaction: pd.DataFrame) -> np.ndarray:
    """The verdict of each row of `scan_columns` of interactions."""
    low, high, enough = interaction["scan_low"], interaction["scan_high"], interaction["n"] >= LEAST_EXAMPLES
    sure = enough & (interaction["p"] <= FAMILY_ERROR)
    answers = {BACKUPS: sure & (low >= MATTERS), IN_SERIES: sure & (high <= -MATTERS)}
    answers[NEITHER] = enough & (low > -MATTERS) & (high < MATTERS)
    return np.select(list(answers.values()), list(answers), default=UNDECIDED)


def backup_heads(
    model: HookedModel,
    contrast: Contrast,
    heads: Sequence[Site] | None = None,
    *,
    method: Method = "resample",
    draws: Draws = TWO_DONORS,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> BackupResult:
    """Every pair of `heads` (all of the model by default) ablated together, at the readout of `contrast`.

    One run for each pair and draw. Both heads of a pair are given the output that they have on the same other example.
    ValueError for fewer than two heads, heads named twice, or an unknown method.
    """
    sites = tuple(sorted(head_sites(model) if heads is None else heads))
    if len(set(sites)) < max(2, len(sites)):
        raise ValueError(f"pairs need at least two different heads, got {[site.label for site in sites]}.")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {list(METHODS)}.")
    donors = donors_of(contrast, draws.n_donors, draws.rng())
    pairs = tuple(combinations(range(len(sites)), 2))
    sets = [[site] for site in sites] + [[sites[one], sites[other]] for one, other in pairs]
    lost = ablate_heads(model, contrast, sets, donors, method=method, batch_size=batch_size)
    rise = direct_change(model, contrast, sites, donors, method=method, batch_size=batch_size)
    return BackupResult(
        sites=sites,
        pairs=pairs,
        single=lost[: len(sites)],
        together=lost[len(sites) :],
        repair=torch.stack([rise[one, other] for one, other in pairs]),
        clean=clean_difference(model, contrast, batch_size=batch_size),
        method=method,
        labels=dict(labels or {}),
    )


def direct_change(
    model: HookedModel,
    contrast: Contrast,
    heads: Sequence[Site],
    donors: Int[np.ndarray, "draw batch"],
    *,
    method: Method = "resample",
    batch_size: int | None = None,
    by_hooks: bool = False,
) -> Float[Tensor, "ablated head batch"]:
    """How the direct attribution of each head changes when one is ablated, in logits, mean of draws.

    On the diagonal what the ablated head itself no longer writes. The readout direction is that of the clean run, with
    the scale of the final norm frozen: only what the heads write changes. NaN for examples without a donor. `by_hooks`:
    native models too are run through hooks, with the same numbers up to float32 rounding.
    """
    contrast = contrast.until_readout(model)
    tokens, at, whole = contrast.clean, contrast.at, residual_sites(model, "z")
    own = activations(model, tokens, whole, batch_size=batch_size)
    last = Site("resid_post", len(whole) - 1)
    final = activations(model, tokens, [last], positions=at, batch_size=batch_size)[last]
    direction = frozen_readout(model, final, contrast.answer, contrast.foil).direction
    given = {site: substitutes(method, z, contrast) for site, z in own.items()}
    parts = None if by_hooks else exact_parts(model, tokens)
    known = torch.from_numpy(with_donor(donors))
    changes = torch.full((len(heads), len(heads), len(tokens)), torch.nan)
    for some in known.split(len(known) if batch_size is None else batch_size):
        givers = [draw[some] for draw in torch.from_numpy(donors)] if method == "resample" else [some]
        if parts is None:
            z_at_readout = _through_hooks(model, tokens[some], at[some], [own[site][some] for site in whole])
        else:
            z_at_readout = _from_weights(EditedRuns.of(parts, tokens[some], at[some]))
        for index, head in enumerate(heads):
            total = torch.zeros(len(heads), len(some), dtype=direction.dtype, device=direction.device)
            for giving in givers:
                after, before = z_at_readout(replaced_head(head, given, own, some, giving))
                total += _written(model, heads, after, direction[some]) - _written(
                    model, heads, before, direction[some]
                )
            changes[index][:, some] = (total / len(givers)).float().cpu()
    return changes


def _written(
    model: HookedModel, heads: Sequence[Site], z: Sequence[Tensor], direction: Float[Tensor, "some d_model"]
) -> Float[Tensor, "head some"]:
    """What heads write along a direction of each example; `z` of every layer, `some head d_head`."""
    outputs = weight(model, "W_O")
    return torch.stack(
        [
            einsum(
                z[site.layer][:, site.head].to(direction),
                outputs[site.layer][site.head].to(direction),
                direction,
                "b d_head, d_head d_model, b d_model -> b",
            )
            for site in heads
        ]
    )


_ZAtReadout = Callable[[HeadOutput], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""z of every layer at the readout, `some head d_head`, with an edit and without it."""


def _through_hooks(
    model: HookedModel, tokens: Int[Tensor, "some pos"], at: Int[Tensor, " some"], own: Sequence[Tensor]
) -> _ZAtReadout:
    whole = residual_sites(model, "z")
    clean = [at_positions(z, at) for z in own]

    def z_at_readout(edit: HeadOutput) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        seen: dict[Site, Tensor] = {}
        run_with(model, tokens, [*edit.hooked(), *(watch(site, seen) for site in whole)])
        return [at_positions(seen[site], at) for site in whole], clean

    return z_at_readout


def _from_weights(runs: EditedRuns) -> _ZAtReadout:
    def z_at_readout(edit: HeadOutput) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        edited, clean = runs.edited([edit])
        return edited.z, clean.z

    return z_at_readout
