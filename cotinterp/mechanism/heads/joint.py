"""What heads do together: ablated jointly, standing in for one another, or in series."""

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
from cotinterp.mechanism.heads.ablation import (
    NO_DONOR,
    Method,
    Rows,
    ablate_heads,
    clean_difference,
    draw_donors,
    question,
    substitutes,
    until_readout,
)
from cotinterp.mechanism.heads.attention_edits import EditedRuns, HeadOutput
from cotinterp.mechanism.heads.attribution import LogitContrast, frozen_readout
from cotinterp.mechanism.heads.labels import FAMILY_ERROR, MATTERS, intervals, relative, scan_columns, simultaneous
from cotinterp.mechanism.interventions import run_with, watch
from cotinterp.mechanism.model import HookedModel, weight
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.mechanism.sites import Site, head_sites, residual_sites
from cotinterp.results import Result, with_labels
from cotinterp.transcripts.pairs import Pairs


@dataclass(frozen=True)
class JointAblation:
    """Logit difference lost, in logits and per example, when several heads are resampled at once; NaN without a donor.

    Attributes:
        readers: The heads in question: those labeled as readers, or all that look at one read; possibly none.
        together: Lost without all of them; one row, or none where there are no readers.
        summed: The sum of what is lost without each alone, in the same form.
        random: Lost without random sets of as many other heads; no rows where there are too few others.
        clean: The clean logit difference.
    """

    readers: tuple[Site, ...]
    together: Float[Tensor, "one batch"]
    summed: Float[Tensor, "one batch"]
    random: Float[Tensor, "set batch"]
    clean: Float[Tensor, " batch"]

    @property
    def effect(self) -> float:
        """Share of the mean clean logit difference lost without any of the readers; NaN where no head is one.

        Above `summed_effect` the readers stood in for one another, and each alone looked less needed than it is.
        """
        return self._mean(self.together)

    @property
    def summed_effect(self) -> float:
        """The sum of the readers' single effects; NaN where no head is one."""
        return self._mean(self.summed)

    @property
    def random_effect(self) -> float:
        """What losing as many other heads costs, averaged over the random sets; NaN where there are none."""
        return self._mean(self.random)

    def frame(self) -> pd.DataFrame:
        """One row per ablation: readers, the sum of the single readers, each random set; empty without readers.

        `p`: of an effect of 0, for this row alone (sign flips over examples). The readers' joint loss is one test,
        declared beforehand by what they are, not picked from the rows.
        """
        others = f"{len(self.readers)} others"
        named = " ".join(site.block for site in self.readers)
        parts = [("readers", named, self.together), ("sum of single readers", named, self.summed)]
        tables = [self._rows(name, heads, lost) for name, heads, lost in (*parts, ("random set", others, self.random))]
        return pd.concat(tables, ignore_index=True)

    def _mean(self, lost: Float[Tensor, "rows batch"]) -> float:
        return float(relative(lost, self.clean).mean()) if len(lost) else float("nan")

    def _rows(self, name: str, heads: str, lost: Float[Tensor, "rows batch"]) -> pd.DataFrame:
        shares = relative(lost, self.clean) if len(lost) else np.empty((0, 0))
        low, high = intervals(shares) if len(lost) else (np.empty(0), np.empty(0))
        columns = {
            "set": name,
            "heads": heads,
            "effect": shares.mean(axis=1) if len(lost) else np.empty(0),
            "ci_low": low,
            "ci_high": high,
            "p": [float(simultaneous(row[None]).p[0]) for row in shares],
            "n": shares.shape[1],
        }
        return pd.DataFrame(columns)


def ablate_jointly(
    model: HookedModel,
    contrast: LogitContrast,
    single: Float[Tensor, "head batch"],
    clean: Float[Tensor, " batch"],
    heads: Sequence[int],
    donors: Int[np.ndarray, "draw batch"],
    *,
    n_random_sets: int,
    rng: np.random.Generator,
    batch_size: int | None = None,
) -> JointAblation:
    """`heads` (indices into `head_sites`) resampled together, and `n_random_sets` sets of as many others.

    `single` is what each head of the model loses alone, from the same donors. Where fewer others are left than `heads`,
    there are no random sets.
    """
    sites = head_sites(model)
    others = [index for index in range(len(sites)) if index not in heads]
    n_sets = n_random_sets if 0 < len(heads) <= len(others) else 0
    random = [rng.choice(others, size=len(heads), replace=False).tolist() for _ in range(n_sets)]
    chosen = [list(heads), *random] if heads else []
    lost = ablate_heads(model, contrast, [[sites[i] for i in some] for some in chosen], donors, batch_size=batch_size)
    return JointAblation(
        readers=tuple(sites[index] for index in heads),
        together=lost[:1],
        summed=single[list(heads)].sum(dim=0, keepdim=True)[: len(lost[:1])],
        random=lost[1:],
        clean=clean,
    )


def direct_change(
    model: HookedModel,
    contrast: LogitContrast,
    heads: Sequence[Site],
    donors: Int[np.ndarray, "draw batch"],
    *,
    method: Method = "resample",
    templates: Int[np.ndarray, " batch"] | None = None,
    batch_size: int | None = None,
    by_hooks: bool = False,
) -> Float[Tensor, "ablated head batch"]:
    """How the direct attribution of each head changes when one is ablated, in logits, mean of draws.

    On the diagonal what the ablated head itself no longer writes. The readout direction is that of the clean run, with
    the scale of the final norm frozen: only what the heads write changes. NaN for examples without a donor. `by_hooks`:
    native models too are run through hooks, with the same numbers up to float32 rounding.
    """
    tokens, whole = until_readout(model, contrast), residual_sites(model, "z")
    own = activations(model, tokens, whole, batch_size=batch_size)
    last = Site("resid_post", len(whole) - 1)
    final = activations(model, tokens, [last], positions=contrast.at, batch_size=batch_size)[last]
    direction = frozen_readout(model, final, contrast.answer, contrast.foil).direction
    outputs = weight(model, "W_O")
    _, groups = question(contrast, templates)
    given = {site: substitutes(method, z, groups) for site, z in own.items()}
    known = torch.from_numpy(np.flatnonzero((donors != NO_DONOR).all(axis=0)))
    changes = torch.full((len(heads), len(heads), len(tokens)), torch.nan)
    parts = None if by_hooks else exact_parts(model, tokens)

    def written(z: Sequence[Tensor], rows: Rows) -> Float[Tensor, "head some"]:
        return torch.stack(
            [
                einsum(
                    z[site.layer][:, site.head].to(direction),
                    outputs[site.layer][site.head].to(direction),
                    direction[rows],
                    "b d_head, d_head d_model, b d_model -> b",
                )
                for site in heads
            ]
        )

    for rows in known.split(len(known) if batch_size is None else batch_size):
        draws = [draw[rows] for draw in torch.from_numpy(donors)] if method == "resample" else [rows]
        if parts is None:
            reading = _through_hooks(model, tokens[rows], contrast.at[rows], [own[site][rows] for site in whole])
        else:
            reading = _from_weights(EditedRuns.of(parts, tokens[rows], contrast.at[rows]))
        for index, head in enumerate(heads):
            total = torch.zeros(len(heads), len(rows), dtype=direction.dtype, device=direction.device)
            for source in draws:
                edit = HeadOutput(head, *(head.of(z[head.whole][some]) for z, some in ((given, source), (own, rows))))
                after, before = reading(edit)
                total += written(after, rows) - written(before, rows)
            changes[index][:, rows] = (total / len(draws)).float().cpu()
    return changes


Reading = Callable[[HeadOutput], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""z of every layer at the readout, `batch head d_head`, with an edit and without it."""


def _through_hooks(
    model: HookedModel, tokens: Int[Tensor, "some pos"], at: Int[Tensor, " some"], own: Sequence[Tensor]
) -> Reading:
    whole = residual_sites(model, "z")
    clean = [at_positions(z, at) for z in own]

    def reading(edit: HeadOutput) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        seen: dict[Site, Tensor] = {}
        run_with(model, tokens, [*edit.hooked(), *(watch(site, seen) for site in whole)])
        return [at_positions(seen[site], at) for site in whole], clean

    return reading


def _from_weights(runs: EditedRuns) -> Reading:
    def reading(edit: HeadOutput) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        edited, clean = runs.edited([edit])
        return edited.z, clean.z

    return reading


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
