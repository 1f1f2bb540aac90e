"""What a table of heads holds: the numbers per example, and the tables and the picture that are made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.heads.evidence import head_evidence, intervals, relative, simultaneous
from cotinterp.mechanism.heads.figure import head_figure
from cotinterp.mechanism.heads.joint_ablation import JointAblation
from cotinterp.mechanism.heads.labels import FAMILY_ERROR, HEAD_LABELS, MATTERS, UNDETERMINED, LabelRule, rule_text
from cotinterp.mechanism.heads.read_scores import ReadScores
from cotinterp.mechanism.heads.reads import READ_PATTERNS
from cotinterp.mechanism.sites import Site
from cotinterp.results import Result, with_labels


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
        read_lost: For each read, what is lost when the values that a head moves along it are another example's, in
            logits; NaN for heads that do not look there.
        looking: For each read that some head makes, all heads that look there, needed alone or not, ablated together.
            Readers that stand in for one another are needed only here.
    """

    sites: tuple[Site, ...]
    logit_difference: Float[Tensor, " batch"]
    attribution: Float[Tensor, "head batch"]
    ablation: Float[Tensor, "head batch"]
    reads: ReadScores
    target: str
    head_labels: tuple[str, ...]
    joint: JointAblation
    read_lost: Mapping[str, Float[Tensor, "head batch"]]
    looking: Mapping[str, JointAblation]
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

    def flagged(self, level: float = FAMILY_ERROR) -> tuple[Site, ...]:
        """The heads that a reader of this table may report as needed, with one chance in 1 / `level` of any by mistake.

        Those whose loss has a positive simultaneous interval and an adjusted p-value up to `level` (family error over
        all heads) and is at least `MATTERS`, in a model that tells answer from foil at all; whatever their label says
        that they do.
        """
        found = simultaneous(relative(self.ablation, self.logit_difference), level=level)
        return tuple(
            site
            for head, site in enumerate(self.sites)
            if self.head_labels[head] != UNDETERMINED
            and found.low[head] > 0
            and found.p[head] <= level
            and found.mean[head] >= MATTERS
        )

    def joint_frame(self) -> pd.DataFrame:
        """The joint ablations: labeled readers, and for each read all heads that look there, against random sets."""
        tables = {"labeled readers": self.joint, **{f"look at {read}": joint for read, joint in self.looking.items()}}
        parts = [joint.frame().assign(group=name) for name, joint in tables.items()]
        table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        return with_labels(table[["group", *table.columns.drop("group")]], self.labels)

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
        """`frame` with losses in logits, 95% intervals, chance, peakiness, and the evidence behind each label.

        `ablation_ci_...` hold for a head alone; `evidence_ablation_low`, `..._high` and `..._p` for all heads together.
        """
        table = self._table()
        shares = relative(self.ablation, self.logit_difference)
        direct, lost = intervals(self.attribution.double().numpy()), intervals(shares)
        measures = head_evidence(
            self.logit_difference, self.attribution, self.ablation, self.reads, self.target, self.read_lost
        )
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
