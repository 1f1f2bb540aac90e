"""Is a head needed whatever it is replaced by? The same heads ablated by resampling, by the mean and by zero.

Methods remove different things. Resampling keeps the head's usual output and takes away what it knows of this problem;
the mean also takes away its variation, zero its average output as well, which later layers may be built on
(Zhang & Nanda 2023, arXiv 2309.16042). Where the verdicts differ, the difference is the finding: a head that zero alone
calls needed writes a constant that the model relies on, and knows nothing of the problem.
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

from cotinterp.mechanism.heads.ablation import METHODS, Method, ablate_heads, clean_difference, draw_donors, question
from cotinterp.mechanism.heads.attribution import LogitContrast
from cotinterp.mechanism.heads.evidence import scan_columns
from cotinterp.mechanism.heads.labels import FAMILY_ERROR, MATTERS
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, head_sites
from cotinterp.results import Result, with_labels
from cotinterp.results.plots import heatmap
from cotinterp.transcripts.pairs import Pairs


@dataclass(frozen=True)
class AblationResult(Result):
    """Logit difference lost without each set of heads, by each method, in logits and per example.

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

        `effect`: mean loss as a share of the mean clean logit difference, `ci_low`, `ci_high` its 95% interval;
        `scan_low`, `scan_high`, `p` the same simultaneous over the sets (max-statistic, one scan a method). `needed`:
        p and simultaneous interval exclude 0 at 5% and the effect is at least `MATTERS`; `harmful`: the same below 0.
        `methods_differ`: the methods do not agree on `needed` for this set.
        """
        parts = []
        for method, lost in zip(self.methods, self.lost, strict=True):
            columns = scan_columns(lost, self.clean)
            sure = (columns["p"] <= FAMILY_ERROR) & (columns["effect"].abs() >= MATTERS)
            parts.append(
                columns.assign(
                    heads=[" ".join(site.block for site in heads) for heads in self.head_sets],
                    size=[len(heads) for heads in self.head_sets],
                    method=method,
                    order=range(len(self.head_sets)),
                    needed=sure & (columns["scan_low"] > 0),
                    harmful=sure & (columns["scan_high"] < 0),
                )
            )
        table = pd.concat(parts).sort_values("order", kind="stable", ignore_index=True)
        table["methods_differ"] = table.groupby("order")["needed"].transform("nunique") > 1
        named = ["heads", "size", "method", "effect", "ci_low", "ci_high", "scan_low", "scan_high", "p"]
        return with_labels(table[[*named, "needed", "harmful", "methods_differ", "n"]], self.labels)

    def agreement(self) -> pd.DataFrame:
        """For each two methods the rank correlation (Spearman) of the sets' mean losses, and on how many they differ.

        NaN with fewer than three sets, or where all sets of a method lose the same.
        """
        table = self.frame()
        grid = {name: table.pivot(columns="method", index="heads", values=name) for name in ("effect", "needed")}
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
            y="heads",
            value="effect",
            midpoint=0.0,
            hover=["ci_low", "ci_high", "p", "n"],
            value_title="share of logit difference lost",
            title="What is lost without each head, by what it is replaced by",
        )


def compare_ablations(
    model: HookedModel,
    contrast: Pairs | LogitContrast,
    head_sets: Sequence[Sequence[Site]] | None = None,
    *,
    methods: Sequence[Method] = METHODS,
    templates: Int[np.ndarray, " batch"] | None = None,
    n_draws: int = 4,
    seed: int = 0,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> AblationResult:
    """Every set of heads ablated by every method, on the same examples; by default each head of the model alone.

    `templates`: a number for each example; only examples of one number lend each other activations and share a mean.
    Pairs know theirs; for other contrasts None says that all have one template. A regime of one template (one number of
    operands, totals of one width) is where a mean by position means something. `seed` is that of the donors.
    """
    asked, groups = question(contrast, templates)
    sets = tuple(map(tuple, head_sets)) if head_sets is not None else tuple((site,) for site in head_sites(model))
    if not sets or not methods:
        raise ValueError(f"nothing to ablate: {len(sets)} sets of heads, {len(methods)} methods of {list(METHODS)}.")
    if len(set(sets)) < len(sets):
        raise ValueError("a set of heads is named twice; every row of the table stands for another one.")
    donors = draw_donors(groups, n_draws, np.random.default_rng(seed))
    lost = [
        ablate_heads(model, asked, sets, donors, method=method, templates=groups, batch_size=batch_size)
        for method in methods
    ]
    return AblationResult(
        head_sets=sets,
        methods=tuple(methods),
        lost=torch.stack(lost),
        clean=clean_difference(model, asked, batch_size=batch_size),
        labels=dict(labels or {}),
    )


def _spearman(one: Float[np.ndarray, " sets"], other: Float[np.ndarray, " sets"]) -> float:
    if len(one) < 3 or not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return float("nan")
    return float(spearmanr(one, other).statistic)
