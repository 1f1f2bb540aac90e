"""How much of a logit difference is lost when heads are given the output that they have on another problem.

Resample ablation (Zhang & Nanda 2023, arXiv 2309.16042, prefer it to means and zeros): z of the head, at all positions,
is taken from another example that has the same template, so the head keeps its usual values and loses only what it
knows of this problem. A necessity test with two limits: what is the same in all examples of a template is not removed,
and other heads may compensate for a head that is, so ablate several together before calling any of them idle.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast, templates_of
from cotinterp.mechanism.heads.attention_edits import AttentionEdit, EditedRuns, HeadOutput, Readout
from cotinterp.mechanism.heads.attribution import LogitContrast
from cotinterp.mechanism.heads.labels import FAMILY_ERROR, MATTERS, scan_columns
from cotinterp.mechanism.interventions import Edit, derangement, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import HookedModel, is_causal
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.mechanism.sites import Site, head_sites, residual_sites
from cotinterp.results import Result, with_labels
from cotinterp.transcripts.pairs import Pairs

NO_DONOR = -1
# More of them at a time leave the processor's cache, and their states take memory.
_TOKENS_AT_ONCE = 4096

Method = Literal["resample", "mean", "zero"]
"""What a head, or a value that it moves, is replaced by: that of another example of the template, their mean, zero."""
METHODS: tuple[Method, ...] = get_args(Method)

Rows = Int[Tensor, " some"]
Losing = Callable[[Sequence[AttentionEdit]], Float[Tensor, " some"]]
"""The logit difference that some examples lose by edits."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The edits of one row of a table: `edits(rows, source)`, `source` naming the examples that give to these rows.

    `resampled` False: nothing is taken from other examples, `source` is `rows`, and one run says it all.
    """

    edits: Callable[[Rows, Rows], Sequence[AttentionEdit]]
    resampled: bool = True


def question(
    contrast: Pairs | LogitContrast, groups: Int[np.ndarray, " batch"] | None = None
) -> tuple[LogitContrast, Int[np.ndarray, " batch"]]:
    """What is read out, and the template of each example: pairs know their own; else one for all, if none are given."""
    if isinstance(contrast, Pairs):
        return Contrast.from_pairs(contrast), templates_of(contrast.clean) if groups is None else groups
    return contrast, np.zeros(len(contrast.clean), dtype=np.int64) if groups is None else groups


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


def substitutes(
    method: Method, own: Float[Tensor, "batch *rest"], templates: Int[np.ndarray, " batch"]
) -> Float[Tensor, "batch *rest"]:
    """What each example has to give: its own activations (resample), the mean of its template, or zeros."""
    if method == "resample":
        return own
    if method == "zero":
        return torch.zeros_like(own)
    averaged = torch.empty_like(own)
    for template in np.unique(templates):
        members = torch.from_numpy(np.flatnonzero(templates == template)).to(own.device)
        averaged[members] = own[members].mean(dim=0)
    return averaged


def ablate_heads(
    model: HookedModel,
    contrast: LogitContrast,
    head_sets: Sequence[Sequence[Site]],
    donors: Int[np.ndarray, "draw batch"],
    *,
    method: Method = "resample",
    templates: Int[np.ndarray, " batch"] | None = None,
    batch_size: int | None = None,
    by_hooks: bool = False,
) -> Float[Tensor, "set batch"]:
    """Logit difference lost by each example when the heads of a set are ablated together, in logits, mean of draws.

    Positive: the heads carried something in favor of the answer. NaN for examples without a donor, whatever the method,
    so that methods are compared on the same examples. `donors[draw]` names, for each example, the example whose z it
    receives; naming itself changes nothing. Means are over the examples of one template (all of them by default).
    """
    foreign = [site.label for heads in head_sets for site in heads if site.kind != "z" or site.head is None]
    if foreign:
        raise ValueError(f"heads are ablated at their z, as Site('z', layer, head); got {foreign}.")
    _, groups = question(contrast, templates)
    own = activations(model, until_readout(model, contrast), residual_sites(model, "z"), batch_size=batch_size)
    given = {site: substitutes(method, z, groups) for site, z in own.items()}
    plans = [Plan(_replacing(heads, given, own), resampled=method == "resample") for heads in head_sets]
    return logits_lost(model, contrast, plans, donors, batch_size=batch_size, by_hooks=by_hooks)


def logits_lost(
    model: HookedModel,
    contrast: LogitContrast,
    plans: Sequence[Plan],
    donors: Int[np.ndarray, "draw batch"],
    *,
    batch_size: int | None = None,
    by_hooks: bool = False,
) -> Float[Tensor, "plan batch"]:
    """Clean logit difference minus that under each plan, per example, in logits: the mean of the draws.

    NaN for examples without a donor. Only the tokens that can reach a readout are run; of native models (unless
    `by_hooks`) only what an edit can change, with the same numbers up to float32 rounding.
    """
    tokens = until_readout(model, contrast)
    parts = None if by_hooks else exact_parts(model, tokens)
    known = np.flatnonzero((donors != NO_DONOR).all(axis=0))
    lost = torch.full((len(plans), len(contrast.clean)), torch.nan)
    most = len(known) if parts is None else max(1, _TOKENS_AT_ONCE // tokens.shape[1])
    size = most if batch_size is None else batch_size
    for rows in (torch.from_numpy(known[start : start + size]) for start in range(0, len(known), size)):
        if parts is None:
            losing = _through_hooks(model, tokens, contrast, rows)
        else:
            losing = _from_weights(EditedRuns.of(parts, tokens[rows], contrast.at[rows]), contrast, rows)
        for index, plan in enumerate(plans):
            sources = [draw[rows] for draw in torch.from_numpy(donors)] if plan.resampled else [rows]
            lost[index, rows] = torch.stack([losing(plan.edits(rows, source)) for source in sources]).mean(dim=0)
    return lost


def clean_difference(
    model: HookedModel, contrast: LogitContrast, *, batch_size: int | None = None
) -> Float[Tensor, " batch"]:
    """The logit difference of the unedited model for each example, in logits."""
    tokens = until_readout(model, contrast)
    size = len(tokens) if batch_size is None else batch_size
    pieces = torch.arange(len(tokens)).split(size)
    return torch.cat([_logit_difference(model, tokens, contrast, rows, []) for rows in pieces])


def until_readout(model: HookedModel, contrast: LogitContrast) -> Int[Tensor, "batch pos"]:
    """The clean tokens that can reach some readout: in a causal model, none behind the last of them."""
    return contrast.clean[:, : int(contrast.at.max()) + 1] if is_causal(model) else contrast.clean


def _replacing(
    heads: Sequence[Site], given: dict[Site, Tensor], own: dict[Site, Tensor]
) -> Callable[[Rows, Rows], Sequence[AttentionEdit]]:
    def edits(rows: Rows, source: Rows) -> list[AttentionEdit]:
        return [HeadOutput(site, _of(site, given, source), _of(site, own, rows)) for site in heads]

    return edits


def _of(site: Site, held: dict[Site, Tensor], rows: Rows) -> Tensor:
    values = held[site.whole]
    return site.of(values[rows.to(values.device)])


def _through_hooks(model: HookedModel, tokens: Tensor, contrast: LogitContrast, rows: Rows) -> Losing:
    clean = _logit_difference(model, tokens, contrast, rows, [])
    return lambda edits: (
        clean - _logit_difference(model, tokens, contrast, rows, [hook for edit in edits for hook in edit.hooked()])
    )


def _from_weights(runs: EditedRuns, contrast: LogitContrast, rows: Rows) -> Losing:
    first = torch.zeros_like(rows)

    def difference(readout: Readout) -> Float[Tensor, " some"]:
        logits = readout.logits[:, None]
        return logit_diff(logits, first, contrast.answer[rows], contrast.foil[rows]).float().cpu()

    def losing(edits: Sequence[AttentionEdit]) -> Float[Tensor, " some"]:
        edited, clean = runs.edited(edits)
        return difference(clean) - difference(edited)

    return losing


def _logit_difference(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], contrast: LogitContrast, rows: Rows, edits: Sequence[Edit]
) -> Float[Tensor, " some"]:
    logits = run_with(model, tokens[rows], edits)
    return logit_diff(logits, contrast.at[rows], contrast.answer[rows], contrast.foil[rows]).float().cpu()


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
