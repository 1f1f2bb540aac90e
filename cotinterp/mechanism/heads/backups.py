"""Which heads stand in for one another? Heads ablated in pairs, and what the one writes once the other is gone.

A head whose loss another makes good looks idle when it is ablated alone: the backup name movers of Wang et al. 2022
(arXiv 2211.00593), the self-repair of McGrath et al. 2023 (arXiv 2307.15771). Two signs are measured. The interaction
of a pair is what both together cost beyond the sum of what each costs alone: positive where either does the work,
negative where the work needs both (the one feeds the other, or both reach one threshold). The repair is the rise of the
later head's direct attribution when the earlier is ablated: backup by reaction. Heads of one layer cannot react to one
another, and stand in for each other only where what they write is read: interaction without repair.

Pairs do not show what three heads do for one another, each two of which can be spared: `HeadResult.joint_frame` ablates
all heads that look at one read, and `compare_ablations` any set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.heads.ablation import Method, ablate_heads, clean_difference, draw_donors, question
from cotinterp.mechanism.heads.attribution import LogitContrast
from cotinterp.mechanism.heads.evidence import scan_columns
from cotinterp.mechanism.heads.labels import FAMILY_ERROR, MATTERS
from cotinterp.mechanism.heads.self_repair import direct_change
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, head_sites
from cotinterp.results import Result, with_labels
from cotinterp.results.plots import heatmap
from cotinterp.transcripts.pairs import Pairs

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
        """One row per pair, the largest interaction first.

        All effects are shares of the mean clean logit difference. `interaction` with its own 95% interval; `scan_low`,
        `scan_high`, `p` simultaneous over all pairs (max-statistic); `repair`, `repair_p` likewise, one scan of their
        own. `verdict`: "backups" or "in series" where the interaction is at least `MATTERS` above or below 0 and
        both p and simultaneous interval exclude 0; else "neither", which for few examples may mean too few.
        """
        alone = scan_columns(self.single, self.clean)["effect"].to_numpy()
        both = scan_columns(self.together, self.clean)["effect"].to_numpy()
        found, repaired = scan_columns(self.interaction, self.clean), scan_columns(self.repair, self.clean)
        sure = (found["p"] <= FAMILY_ERROR) & (found["effect"].abs() >= MATTERS)
        verdict = np.where(sure & (found["scan_low"] > 0), BACKUPS, NEITHER)
        verdict = np.where(sure & (found["scan_high"] < 0), IN_SERIES, verdict)
        table = pd.DataFrame(
            {
                "first": [self.sites[one].block for one, _ in self.pairs],
                "second": [self.sites[other].block for _, other in self.pairs],
                "method": self.method,
                "first_alone": alone[[one for one, _ in self.pairs]],
                "second_alone": alone[[other for _, other in self.pairs]],
                "together": both,
                "interaction": found["effect"],
                **{name: found[name] for name in ("ci_low", "ci_high", "scan_low", "scan_high", "p")},
                "repair": repaired["effect"],
                "repair_p": repaired["p"],
                "verdict": verdict,
                "n": found["n"],
            }
        )
        table = table.sort_values("interaction", ascending=False, kind="stable", ignore_index=True)
        return with_labels(table, self.labels)

    def backups(self) -> tuple[tuple[Site, Site], ...]:
        """The pairs found to stand in for one another, the largest interaction first."""
        table = self.frame()
        found = table[table["verdict"] == BACKUPS]
        return tuple(
            (Site.parse(f"{one}.z"), Site.parse(f"{other}.z"))
            for one, other in zip(found["first"], found["second"], strict=True)
        )

    def figure(self) -> go.Figure:
        """Each head against each: blue where they stand in for one another, red where they work in series."""
        table = self.frame()
        turned = table.rename(columns={"first": "second", "second": "first"})
        names = [site.block for site in self.sites]
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


def backup_heads(
    model: HookedModel,
    contrast: Pairs | LogitContrast,
    heads: Sequence[Site] | None = None,
    *,
    method: Method = "resample",
    templates: Int[np.ndarray, " batch"] | None = None,
    n_draws: int = 2,
    seed: int = 0,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> BackupResult:
    """Every pair of `heads` (all of the model by default) ablated together, at the readout of `contrast`.

    One run for each pair and draw. Both heads of a pair are given the output that they have on the same other example.
    `templates` as in `compare_ablations`. ValueError for fewer than two heads, or heads named twice.
    """
    sites = tuple(sorted(head_sites(model) if heads is None else heads))
    if len(set(sites)) < max(2, len(sites)):
        raise ValueError(f"pairs need at least two different heads, got {[site.label for site in sites]}.")
    asked, groups = question(contrast, templates)
    donors = draw_donors(groups, n_draws, np.random.default_rng(seed))
    pairs = tuple(combinations(range(len(sites)), 2))
    sets = [[site] for site in sites] + [[sites[one], sites[other]] for one, other in pairs]
    lost = ablate_heads(model, asked, sets, donors, method=method, templates=groups, batch_size=batch_size)
    rise = direct_change(model, asked, sites, donors, method=method, templates=groups, batch_size=batch_size)
    return BackupResult(
        sites=sites,
        pairs=pairs,
        single=lost[: len(sites)],
        together=lost[len(sites) :],
        repair=torch.stack([rise[one, other] for one, other in pairs]),
        clean=clean_difference(model, asked, batch_size=batch_size),
        method=method,
        labels=dict(labels or {}),
    )
