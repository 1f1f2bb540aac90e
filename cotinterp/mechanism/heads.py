"""One table for all heads: what each writes, what is lost without it, where it looks, and what that makes it.

The four numbers answer different questions and often disagree: attribution is the direct path alone and no cause;
ablation is a cause, but on one readout and with all other heads free to compensate; attention says where a head looks.
The label (rules in `head_labels.py`) is given on all of them together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.ablation import ablate_heads, draw_donors
from cotinterp.mechanism.ablation import templates as templates_of
from cotinterp.mechanism.attribution import LogitContrast, logit_attribution
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.head_evidence import head_evidence, intervals, relative
from cotinterp.mechanism.head_figure import head_figure
from cotinterp.mechanism.head_labels import HEAD_LABELS, READER_LABELS, LabelRule, label_head, rule_text
from cotinterp.mechanism.joint_ablation import JointAblation
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.read_scores import ALL_TARGETS, ReadScores, read_scores
from cotinterp.mechanism.reads import READ_PATTERNS, ReadMask, read_masks
from cotinterp.mechanism.sites import Site, head_sites
from cotinterp.results import Result, with_labels
from cotinterp.transcripts.pairs import Pairs


@dataclass(frozen=True)
class HeadResult(Result):
    """What every head of a model does at one readout, per example.

    Attributes:
        sites: The heads, layer by layer; the axis `head` of the others follows this order.
        logit_difference: What the model says, clean, in logits.
        attribution: What the head writes to it directly, in logits.
        ablation: What is lost of it when the head is resampled, in logits; NaN for examples without a donor.
        reads: Attention to the previous total and to the next operand, over all steps of the clean transcripts.
        target: What is predicted at the readout; the attention that counts for the labels is that before such values.
        head_labels: The label of each head, given by `rules`.
        joint: The heads labeled as readers ablated together, against as many random others.
    """

    sites: tuple[Site, ...]
    logit_difference: Float[Tensor, " batch"]
    attribution: Float[Tensor, "head batch"]
    ablation: Float[Tensor, "head batch"]
    reads: ReadScores
    target: str
    head_labels: tuple[str, ...]
    joint: JointAblation
    rules: tuple[LabelRule, ...] = HEAD_LABELS
    labels: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def joint_effect(self) -> float:
        """Share of the logit difference lost without any of the readers; NaN where no head is one."""
        return self.joint.effect

    @property
    def random_joint_effect(self) -> float:
        """The same for random sets of as many other heads, on average; NaN where there are too few others."""
        return self.joint.random_effect

    @property
    def rule_text(self) -> str:
        """The rules behind the labels, in words."""
        return rule_text(self.rules)

    def frame(self) -> pd.DataFrame:
        """The table `heads.csv`: one row per head.

        `attribution`: mean direct logit attribution in logits. `ablation_effect`: mean loss under resample ablation, as
        a share of the mean clean logit difference; NaN where that is not positive. `attention_to_...`: mass, pooled
        over the destinations of all targets (see `reads.py`); NaN where the transcripts hold no such read.
        """
        table = self._table()
        table = table.rename(columns={pattern.name: f"attention_to_{pattern.name}" for pattern in READ_PATTERNS})
        columns = ["attribution", "ablation_effect", *(f"attention_to_{pattern.name}" for pattern in READ_PATTERNS)]
        return with_labels(table[["layer", "head", *columns, "label"]], self.labels)

    def detail(self) -> pd.DataFrame:
        """`frame` with losses in logits, 95% intervals, chance, peakiness, and the evidence behind each label."""
        table = self._table()
        shares = relative(self.ablation, self.logit_difference)
        direct, lost = intervals(self.attribution.double().numpy()), intervals(shares)
        measures = head_evidence(self.logit_difference, self.attribution, self.ablation, self.reads, self.target)
        table = table.assign(
            attribution_ci_low=direct.low,
            attribution_ci_high=direct.high,
            logits_lost=self.ablation.double().nanmean(dim=1).numpy(),
            ablation_ci_low=lost.low,
            ablation_ci_high=lost.high,
            clean_logit_difference=float(self.logit_difference.double().mean()),
            n=self.attribution.shape[1],
            n_ablated=shares.shape[1],
        )
        for name in (pattern.name for pattern in READ_PATTERNS):
            table[f"chance_{name}"] = self.reads.chance_level(name)
            table[f"peakiness_{name}"] = self.reads.peakiness(name).flatten().numpy()
        evidence = pd.DataFrame(measures).drop(columns="ablation_effect").add_prefix("evidence_")
        return with_labels(pd.concat([table, evidence], axis="columns"), self.labels)

    def figure(self) -> go.Figure:
        """One row a head with its label, one colored column for each of the four numbers."""
        named = ", ".join(str(value) for value in self.labels.values())
        return head_figure(
            self.frame(), title=f"What each head writes, costs and looks at{f' ({named})' if named else ''}"
        )

    def _table(self) -> pd.DataFrame:
        scores = {pattern.name: self.reads.score(pattern.name).flatten().numpy() for pattern in READ_PATTERNS}
        columns = {
            "layer": [site.layer for site in self.sites],
            "head": [site.head for site in self.sites],
            "attribution": self.attribution.double().mean(dim=1).numpy(),
            "ablation_effect": relative(self.ablation, self.logit_difference).mean(axis=1),
            **scores,
            "label": list(self.head_labels),
        }
        return pd.DataFrame(columns)


def head_table(
    model: HookedModel,
    pairs: Pairs,
    *,
    n_draws: int = 4,
    n_random_sets: int = 8,
    seed: int = 0,
    rules: Sequence[LabelRule] = HEAD_LABELS,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> HeadResult:
    """All heads at the readout of `pairs`: the clean transcripts are what is read, the corrupted ones name the foil.

    Give `labels` with task, regime and seed (of training) for the columns of `heads.csv`; `seed` is that of the draws.
    The readout decides what the labels are about: a head is a reader if it looks where values of the readout's role are
    predicted, and this readout needs it. Heads that other roles or steps need go without a label here.
    """
    return analyze_heads(
        model,
        Contrast.from_pairs(pairs),
        {pattern.name: read_masks(pairs.clean, pattern) for pattern in READ_PATTERNS},
        target=str(pairs.readout[0]),
        templates=templates_of(pairs.clean),
        n_draws=n_draws,
        n_random_sets=n_random_sets,
        seed=seed,
        rules=rules,
        batch_size=batch_size,
        labels=labels,
    )


def analyze_heads(
    model: HookedModel,
    contrast: LogitContrast,
    reads: Mapping[str, Mapping[str, ReadMask]],
    *,
    target: str = ALL_TARGETS,
    templates: Int[np.ndarray, " batch"] | None = None,
    n_draws: int = 4,
    n_random_sets: int = 8,
    seed: int = 0,
    rules: Sequence[LabelRule] = HEAD_LABELS,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> HeadResult:
    """`head_table` for any model and any logit contrast.

    `reads`: masks [example, dest, src] per target, under the names "previous_total" and "next_operand", whatever these
    are in the user's task; scores of one that is left out are NaN. `target`: the one that the contrast reads out, whose
    attention the labels rest on; by default all. `templates`: a number for each example; only examples with the same
    number lend each other their activations. None: they all have one template, which the caller vouches for.
    """
    rng = np.random.default_rng(seed)
    sites = head_sites(model)
    groups = np.zeros(len(contrast.clean), dtype=np.int64) if templates is None else templates
    donors = draw_donors(groups, n_draws, rng)
    declared: dict[str, Mapping[str, ReadMask]] = {pattern.name: {} for pattern in READ_PATTERNS}
    scores = read_scores(model, contrast.clean, declared | dict(reads), batch_size=batch_size)
    direct = logit_attribution(model, contrast, batch_size=batch_size)
    attribution, clean = direct.heads().flatten(end_dim=1), direct.logit_difference
    single = ablate_heads(model, contrast, [[site] for site in sites], donors, batch_size=batch_size)
    named = tuple(label_head(each, rules) for each in head_evidence(clean, attribution, single, scores, target))
    readers = [index for index, label in enumerate(named) if label in READER_LABELS]
    others = [index for index in range(len(sites)) if index not in readers]
    chosen = [readers, *_random_sets(others, len(readers), n_random_sets, rng)] if readers else []
    lost = ablate_heads(model, contrast, [[sites[i] for i in some] for some in chosen], donors, batch_size=batch_size)
    return HeadResult(
        sites=sites,
        logit_difference=clean,
        attribution=attribution,
        ablation=single,
        reads=scores,
        target=target,
        head_labels=named,
        joint=JointAblation(
            readers=tuple(sites[index] for index in readers),
            together=lost[:1],
            summed=single[readers].sum(dim=0, keepdim=True)[: len(lost[:1])],
            random=lost[1:],
            clean=clean,
        ),
        rules=tuple(rules),
        labels=dict(labels or {}),
    )


def _random_sets(others: Sequence[int], size: int, n_sets: int, rng: np.random.Generator) -> list[list[int]]:
    """Sets of `size` of the other heads; none where there are too few of them."""
    if size > len(others):
        return []
    return [rng.choice(others, size=size, replace=False).tolist() for _ in range(n_sets)]
