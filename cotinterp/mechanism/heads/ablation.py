"""How much of a logit difference is lost when heads are given another output: one by one, in sets, by each method.

A necessity test with two limits: what is the same in all examples of a template is not removed by resampling, and other
heads may compensate for a head that is, so ablate several together before calling any of them idle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import Readings, activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attention_edits import HeadOutput
from cotinterp.mechanism.heads.losses import (
    FAMILY_ERROR,
    FOUR_DONORS,
    LEAST_EXAMPLES,
    LEFT_OUT,
    MATTERS,
    METHODS,
    Draws,
    Examples,
    Intervention,
    Method,
    clean_difference,
    donors_of,
    intervals,
    logits_lost,
    means,
    relative,
    scan_columns,
    simultaneous,
    substitutes,
    unit_of,
)
from cotinterp.mechanism.model import HookedModel, several
from cotinterp.mechanism.sites import Site, head_sites, residual_sites, site_columns
from cotinterp.results import Result, with_labels


def ablate_heads(
    model: HookedModel,
    contrast: Contrast,
    head_sets: Sequence[Sequence[Site]],
    donors: Int[np.ndarray, "draw batch"],
    *,
    method: Method = "resample",
    batch_size: int | None = None,
    by_hooks: bool = False,
) -> Float[Tensor, "set batch"]:
    """Logit difference lost by each example when the heads of a set are ablated together, in logits, mean of draws.

    Positive: the heads carried something in favor of the answer. NaN for examples without a donor, whatever the method,
    so that methods are compared on the same examples. `donors[draw]` names, for each example, the example whose z it
    receives at all positions; naming itself changes nothing. Means are over the examples of one template.
    """
    foreign = [site.label for heads in head_sets for site in heads if site.kind != "z" or site.head is None]
    if foreign:
        raise ValueError(f"heads are ablated at their z, as Site('z', layer, head); got {foreign}.")
    for heads in head_sets:
        for site in heads:
            site.check(model)
    tokens = contrast.until_readout(model).clean
    own = activations(model, tokens, residual_sites(model, "z"), batch_size=batch_size)
    given = {site: substitutes(method, z, contrast) for site, z in own.items()}
    interventions = [_replacing(heads, given, own, resampled=method == "resample") for heads in head_sets]
    return logits_lost(model, contrast, interventions, donors, batch_size=batch_size, by_hooks=by_hooks)


def _replacing(heads: Sequence[Site], given: Readings, own: Readings, *, resampled: bool) -> Intervention:
    def edits(some: Examples, givers: Examples) -> list[HeadOutput]:
        return [replaced_head(site, given, own, some, givers) for site in heads]

    return Intervention(edits, resampled)


def replaced_head(site: Site, given: Readings, own: Readings, some: Examples, givers: Examples) -> HeadOutput:
    """z of one head in some examples replaced by what `given` holds of their givers; `own`: what it is in each."""
    value, itself = given[site.whole], own[site.whole]
    return HeadOutput(site, site.of(value[givers.to(value.device)]), site.of(itself[some.to(itself.device)]))


@dataclass(frozen=True)
class AblationResult(Result):
    """Logit difference lost without each set of heads, by each method, in logits and per example.

    Positive: the heads carried something in favor of the answer. Methods remove different things. Resampling keeps the
    heads' usual output and takes away what they know of this problem; the mean also takes away its variation, zero the
    average output as well, which later layers may be built on (Zhang & Nanda 2023, arXiv 2309.16042). Where the methods
    differ, the difference is the finding: a head that zero alone calls needed writes a constant that the model relies
    on, and knows nothing of the problem.

    Attributes:
        head_sets: What was ablated together; single heads are sets of one.
        methods: How, in the order of the first axis of `lost`.
        lost: Clean minus ablated logit difference; NaN for examples without a donor.
        clean: The clean logit difference.
    """

    head_sets: tuple[tuple[Site, ...], ...]
    methods: tuple[Method, ...]
    lost: Float[Tensor, "method set batch"]
    clean: Float[Tensor, " batch"]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per set and method.

        `site`: the head, `L0H1.z`; of a set of several all of them, with layer and head -1. `effect`: mean loss as a
        share of the mean clean logit difference, `ci_low`, `ci_high` its 95% interval; `scan_low`, `scan_high`, `p` the
        same simultaneous over the sets (max-statistic, one scan a method). `needed`: p is at most 5% and the
        simultaneous interval at or above `MATTERS`; `harmful`: the same below 0; neither from fewer than
        `LEAST_EXAMPLES`. `methods_differ`: the methods do not agree on `needed` for this set. `n`, `dropped`, `note` as
        in `scan_columns`.
        """
        places = pd.DataFrame([_set_columns(heads) for heads in self.head_sets])
        parts = []
        for method, lost in zip(self.methods, self.lost, strict=True):
            columns = pd.concat([places, scan_columns(lost, self.clean)], axis="columns")
            sure = (columns["p"] <= FAMILY_ERROR) & (columns["n"] >= LEAST_EXAMPLES)
            parts.append(
                columns.assign(
                    method=method,
                    order=range(len(self.head_sets)),
                    needed=sure & (columns["scan_low"] >= MATTERS),
                    harmful=sure & (columns["scan_high"] <= -MATTERS),
                )
            )
        table = pd.concat(parts).sort_values("order", kind="stable", ignore_index=True)
        table["methods_differ"] = table.groupby("order")["needed"].transform("nunique") > 1
        named = [*places, "method", "effect", "ci_low", "ci_high", "scan_low", "scan_high", "p"]
        return with_labels(table[[*named, "needed", "harmful", "methods_differ", *LEFT_OUT]], self.labels)

    def agreement(self) -> pd.DataFrame:
        """For each two methods the rank correlation (Spearman) of the sets' mean losses, and on how many they differ.

        NaN with fewer than three sets, or where all sets of a method lose the same.
        """
        table = self.frame()
        grid = {name: table.pivot(columns="method", index="site", values=name) for name in ("effect", "needed")}
        rows = [
            {
                "method": one,
                "other": other,
                "spearman": _spearman(grid["effect"][one].to_numpy(float), grid["effect"][other].to_numpy(float)),
                "n_differ": int((grid["needed"][one] != grid["needed"][other]).sum()),
                "n_sets": len(self.head_sets),
            }
            for index, one in enumerate(self.methods)
            for other in self.methods[index + 1 :]
        ]
        columns = ["method", "other", "spearman", "n_differ", "n_sets"]
        return with_labels(pd.DataFrame(rows, columns=columns), self.labels)

    def figure(self) -> go.Figure:
        """A row a set, a column a method."""
        return heatmap(
            self.frame(),
            x="method",
            y="site",
            value="effect",
            midpoint=0.0,
            hover=["ci_low", "ci_high", "p", "n"],
            y_title="heads",
            value_title="share of logit difference lost",
            title="What is lost without each head, by what it is replaced by",
        )


def compare_ablations(
    model: HookedModel,
    contrast: Contrast,
    head_sets: Sequence[Sequence[Site] | Site] | None = None,
    *,
    methods: Sequence[Method] = METHODS,
    draws: Draws = FOUR_DONORS,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> AblationResult:
    """Every set of heads ablated by every method, on the same examples; by default each head of the model alone.

    A head by itself is a set of one.

    Only examples of one template lend each other activations and share a mean. A regime of one template (one number of
    operands, totals of one width) is where a mean by position means something.
    """
    given = head_sites(model) if head_sets is None else head_sets
    sets = tuple((each,) if isinstance(each, Site) else tuple(each) for each in given)
    if not sets or not methods:
        raise ValueError(f"nothing to ablate: {len(sets)} sets of heads, {len(methods)} methods of {list(METHODS)}.")
    methods = several(methods, "methods", "('resample',)")
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ValueError(f"unknown methods {unknown}; there are {list(METHODS)}.")
    if len(set(sets)) < len(sets):
        raise ValueError("a set of heads is named twice; every row of the table stands for another one.")
    donors = donors_of(contrast, draws.n_donors, draws.rng())
    lost = [ablate_heads(model, contrast, sets, donors, method=method, batch_size=batch_size) for method in methods]
    return AblationResult(
        head_sets=sets,
        methods=tuple(methods),
        lost=torch.stack(lost),
        clean=clean_difference(model, contrast, batch_size=batch_size),
        labels=dict(labels or {}),
    )


def _set_columns(heads: Sequence[Site]) -> dict[str, str | int]:
    """What the table says of a set: the columns of its site where it is one head."""
    if len(heads) == 1:
        return {**site_columns(heads[0]), "size": 1}
    return {"site": " ".join(map(str, heads)), "kind": "z", "layer": -1, "head": -1, "size": len(heads)}


def _spearman(one: Float[np.ndarray, " sets"], other: Float[np.ndarray, " sets"]) -> float:
    if len(one) < 3 or not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return float("nan")
    return float(spearmanr(one, other).statistic)


@dataclass(frozen=True)
class JointAblation:
    """Logit difference lost, in logits and per example, when several heads are resampled at once; NaN without a donor.

    Single ablations understate heads that stand in for one another; a joint one shows them. Losing several heads at
    once also costs something whatever they do: compare with the random sets.

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
        return float(means(relative(lost, self.clean)).mean()) if len(lost) else float("nan")

    def _rows(self, name: str, heads: str, lost: Float[Tensor, "rows batch"]) -> pd.DataFrame:
        shares = relative(lost, self.clean) if len(lost) else np.empty((0, 0))
        low, high = intervals(shares) if len(lost) else (np.empty(0), np.empty(0))
        columns = {
            "set": name,
            "heads": heads,
            "effect": means(shares),
            "ci_low": low,
            "ci_high": high,
            "p": [float(simultaneous(row[None]).p[0]) for row in shares],
            **unit_of(lost, self.clean).columns,
        }
        return pd.DataFrame(columns)


def ablate_jointly(
    model: HookedModel,
    contrast: Contrast,
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
