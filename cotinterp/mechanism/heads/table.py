"""The head table: what each head writes, reads and is needed for, with a label and the rule behind it.

The numbers answer different questions and often disagree: attribution is the direct path alone and no cause; ablation
is a cause, but on one readout and with all other heads free to compensate; attention says where a head looks. The label
(`labels` has the rules) rests on all of them together, and calls no head a reader unless the values that it moves from
there are what it is needed for. `backup_heads` finds the heads that stand in for one another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cotinterp.figures import head_figure
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.ablation import JointAblation, ablate_heads, ablate_jointly
from cotinterp.mechanism.heads.attribution import logit_attribution
from cotinterp.mechanism.heads.knock_outs import exchange_values
from cotinterp.mechanism.heads.labels import (
    HEAD_LABELS,
    READER_LABELS,
    UNDETERMINED,
    LabelRule,
    head_evidence,
    heads_that_look,
    label_head,
    rule_text,
)
from cotinterp.mechanism.heads.losses import (
    FAMILY_ERROR,
    FOUR_DONORS,
    LEFT_OUT,
    MATTERS,
    UNDECIDED,
    Draws,
    donors_of,
    intervals,
    logits_lost,
    means,
    relative,
    simultaneous,
    unit_of,
)
from cotinterp.mechanism.heads.read_scores import ALL_TARGETS, ReadScores, iteration_scores
from cotinterp.mechanism.heads.reads import READ_PATTERNS, ReadMask, source_masks
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, head_sites, mask_of, residual_sites, site_columns
from cotinterp.results import Result, with_labels


@dataclass(frozen=True)
class HeadResult(Result):
    """What every head of a model does at one readout, per example.

    Attributes:
        sites: The heads, layer by layer; the axis `head` of the others follows this order.
        logit_difference: What the model says, clean, in logits.
        attribution: What the head writes to it directly, in logits.
        ablation: What is lost of it when the head is resampled, in logits; NaN for examples without a donor.
        reads: Attention from the readout to the previous total and to the next operand; what the labels rest on.
        readout: What is predicted there, `total 3`.
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
    readout: str
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

        Those whose loss has a simultaneous interval at or above `MATTERS` and an adjusted p-value up to `level` (family
        error over all heads), in a model that tells answer from foil at all, on enough examples; whatever their label
        says that they do.
        """
        found = simultaneous(relative(self.ablation, self.logit_difference), level=level)
        return tuple(
            site
            for head, site in enumerate(self.sites)
            if self.head_labels[head] not in (UNDETERMINED, UNDECIDED)
            and found.low[head] >= MATTERS
            and found.p[head] <= level
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
        a share of the mean clean logit difference of `n` examples; the others are `dropped`. NaN where that is too
        small or too uncertain to be divided by; `note` says so, or how many examples would decide. `attention_to_...`:
        mass from the `readout`, which is also what the label rests on; NaN where nothing is to be read there.
        """
        table = self._table()
        table = table.rename(columns={pattern.name: f"attention_to_{pattern.name}" for pattern in READ_PATTERNS})
        columns = ["attribution", "ablation_effect", *(f"attention_to_{pattern.name}" for pattern in READ_PATTERNS)]
        unit = unit_of(self.ablation, self.logit_difference)
        table = table.assign(readout=self.readout, **unit.columns)
        return with_labels(
            table[["site", "kind", "layer", "head", *columns, "label", "readout", *LEFT_OUT]], self.labels
        )

    def detail(self) -> pd.DataFrame:
        """`frame` with losses in logits, 95% intervals, chance, peakiness, and the evidence behind each label.

        `ablation_ci_...` hold for a head alone; `evidence_ablation_low`, `..._high` and `..._p` for all heads together.
        """
        table = self._table()
        shares, unit = relative(self.ablation, self.logit_difference), unit_of(self.ablation, self.logit_difference)
        direct, lost = intervals(self.attribution.double().numpy()), intervals(shares)
        measures = head_evidence(self.logit_difference, self.attribution, self.ablation, self.reads, self.read_lost)
        table = table.assign(
            attribution_ci_low=direct.low,
            attribution_ci_high=direct.high,
            logits_lost=self.ablation.double().nanmean(dim=1).numpy(),
            ablation_ci_low=lost.low,
            ablation_ci_high=lost.high,
            clean_logit_difference=float(self.logit_difference.double().mean()),
            dropped=unit.columns["dropped"],
            note=unit.columns["note"],
            readout=self.readout,
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
        at = [f"at {self.readout}"] if self.readout else []
        named = ", ".join([*(str(value) for value in self.labels.values()), *at])
        return head_figure(
            self.frame(), title=f"What each head writes, costs and looks at{f' ({named})' if named else ''}"
        )

    def _table(self) -> pd.DataFrame:
        scores = {pattern.name: self.reads.score(pattern.name).flatten().numpy() for pattern in READ_PATTERNS}
        columns: dict[str, Any] = {
            "attribution": self.attribution.double().mean(dim=1).numpy(),
            "ablation_effect": means(relative(self.ablation, self.logit_difference)),
            **scores,
            "label": list(self.head_labels),
        }
        return pd.DataFrame([site_columns(site) for site in self.sites]).assign(**columns)


def head_table(
    model: HookedModel,
    contrast: Contrast,
    reads: Mapping[str, Mapping[str, Shaped[Tensor, "..."]]] | None = None,
    *,
    target: str | None = None,
    rules: Sequence[LabelRule] = HEAD_LABELS,
    draws: Draws = FOUR_DONORS,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> HeadResult:
    """All heads at the readout of `contrast`: the clean transcripts are what is read, the corrupted ones name the foil.

    `reads`: what a head is asked to look at. By default the previous total and the next operand, by the roles of the
    clean transcripts. For other tasks, masks [example, dest, src] per target under the names "previous_total" and
    "next_operand", whatever these are there; scores of one that is left out are NaN. `target`: which of your targets
    count; by default all.

    The readout decides what the table and its labels are about: attention is that from the readout alone, and a head is
    a reader if it looks there, and this readout needs it. Heads that other roles or steps need go without a label here;
    `iteration_scores` says where they look from all steps. Give `labels` with task, regime and run_seed for the columns
    of `heads.csv`.

    ValueError for a read of another name or one that marks no source at the readout, and for a contrast that has
    neither roles nor reads.
    """
    contrast.check(model)
    masks = _masks_at_readout(contrast, reads, target)
    rng, sites = draws.rng(), head_sites(model)
    donors = donors_of(contrast, draws.n_donors, rng)
    readout = contrast.readout or (f"position {int(contrast.at[0])}" if len(contrast.at.unique()) == 1 else "")
    named_reads = {read: {} if mask is None else {readout or "readout": mask} for read, mask in masks.items()}
    scores = iteration_scores(model, contrast, named_reads, batch_size=batch_size)
    direct = logit_attribution(model, contrast, batch_size=batch_size)
    attribution, clean = direct.heads().flatten(end_dim=1), direct.logit_difference
    single = ablate_heads(model, contrast, [[site] for site in sites], donors, batch_size=batch_size)
    looking = {read: heads_that_look(scores, read) for read in masks}
    used = {
        read: _read_lost(model, contrast, masks[read], heads, donors, batch_size) for read, heads in looking.items()
    }
    evidence = head_evidence(clean, attribution, single, scores, used)
    named = tuple(label_head(each, rules) for each in evidence)
    readers = [index for index, label in enumerate(named) if label in READER_LABELS]

    def jointly(heads: Sequence[int]) -> JointAblation:
        n_sets = draws.n_random_sets
        return ablate_jointly(
            model, contrast, single, clean, heads, donors, n_random_sets=n_sets, rng=rng, batch_size=batch_size
        )

    joint = jointly(readers)
    return HeadResult(
        sites=sites,
        logit_difference=clean,
        attribution=attribution,
        ablation=single,
        reads=scores,
        readout=readout,
        head_labels=named,
        joint=joint,
        read_lost=used,
        looking={read: joint if heads == readers else jointly(heads) for read, heads in looking.items() if heads},
        rules=tuple(rules),
        labels=dict(labels or {}),
    )


def _masks_at_readout(
    contrast: Contrast, reads: Mapping[str, Mapping[str, Shaped[Tensor, "..."]]] | None, target: str | None
) -> dict[str, ReadMask | None]:
    """For each read of the table, what is to be read from the readout; None where nothing is."""
    names, tokens = [pattern.name for pattern in READ_PATTERNS], contrast.clean
    position = torch.arange(tokens.shape[1], device=tokens.device)
    reading = (position == contrast.at.to(tokens.device)[:, None])[:, :, None]
    if reads is None:
        before = position <= position[:, None]
        sources = source_masks(contrast, READ_PATTERNS)
        found = {name: reading & mask.to(tokens.device)[:, None] & before for name, mask in sources.items()}
        return {name: mask if bool(mask.any()) else None for name, mask in found.items()}
    unknown = [read for read in reads if read not in names]
    if unknown:
        raise ValueError(
            f"unknown reads {unknown}: the table has columns and labels for {names}. Name yours by the one whose part "
            "it plays; knock_out_reads and iteration_scores take reads of any name."
        )
    given: dict[str, ReadMask | None] = dict.fromkeys(names)
    for read, targets in reads.items():
        counted = [mask for name, mask in targets.items() if target in (None, ALL_TARGETS, name)]
        shape = (*tokens.shape, tokens.shape[1])
        masks = [mask_of(mask, shape, f"the mask of read {read!r}").to(tokens.device) & reading for mask in counted]
        if masks:
            given[read] = torch.stack(masks).any(dim=0)
            if not bool(torch.stack(masks).any()):
                raise ValueError(
                    f"read {read!r} marks no source at the readout of any example, which is what the table is about: "
                    "mark [example, at, src]. iteration_scores says where heads look from other places."
                )
    return given


def _read_lost(
    model: HookedModel,
    contrast: Contrast,
    mask: ReadMask | None,
    heads: Sequence[int],
    donors: Int[np.ndarray, "draw batch"],
    batch_size: int | None,
) -> Float[Tensor, "head batch"]:
    """What is lost when each of `heads` alone moves another example's values along the read; NaN for other heads."""
    sites = head_sites(model)
    lost = torch.full((len(sites), len(contrast.clean)), torch.nan)
    if heads and mask is not None:
        tokens = contrast.until_readout(model).clean
        n = tokens.shape[1]
        own = activations(model, tokens, residual_sites(model, "v"), batch_size=batch_size)
        cut = mask[:, :n, :n].to(tokens.device)
        exchanged = [exchange_values(cut, own, own, (sites[i].layer,), sites[i].head, resampled=True) for i in heads]
        lost[list(heads)] = logits_lost(model, contrast, exchanged, donors, batch_size=batch_size)
    return lost
