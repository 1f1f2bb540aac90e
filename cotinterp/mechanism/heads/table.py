"""One table for all heads: what each writes, what is lost without it, where it looks, and what that makes it.

The numbers answer different questions and often disagree: attribution is the direct path alone and no cause;
ablation is a cause, but on one readout and with all other heads free to compensate; attention says where a head looks.
The label (rules in `labels.py`) is given on all of them together, and calls no head a reader unless the values
that it moves from there are what it is needed for. `backups.py` finds the heads that stand in for one another.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.ablation import ablate_heads, draw_donors, logits_lost, until_readout
from cotinterp.mechanism.heads.ablation import templates as templates_of
from cotinterp.mechanism.heads.attribution import LogitContrast, logit_attribution
from cotinterp.mechanism.heads.evidence import head_evidence, lookers
from cotinterp.mechanism.heads.joint_ablation import JointAblation, ablate_jointly
from cotinterp.mechanism.heads.knock_outs import value_plan
from cotinterp.mechanism.heads.labels import HEAD_LABELS, READER_LABELS, LabelRule, label_head
from cotinterp.mechanism.heads.read_scores import ALL_TARGETS, read_scores
from cotinterp.mechanism.heads.reads import READ_PATTERNS, ReadMask, read_masks
from cotinterp.mechanism.heads.result import HeadResult as HeadResult
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import head_sites, residual_sites
from cotinterp.transcripts.pairs import Pairs


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
    looking = {read: lookers(scores, read, target) for read in declared}
    used = {
        read: _read_lost(model, contrast, _mask_of(reads.get(read, {}), target), heads, donors, batch_size)
        for read, heads in looking.items()
    }
    evidence = head_evidence(clean, attribution, single, scores, target, used)
    named = tuple(label_head(each, rules) for each in evidence)
    readers = [index for index, label in enumerate(named) if label in READER_LABELS]

    def jointly(heads: Sequence[int]) -> JointAblation:
        return ablate_jointly(
            model, contrast, single, clean, heads, donors, n_random_sets=n_random_sets, rng=rng, batch_size=batch_size
        )

    joint = jointly(readers)
    return HeadResult(
        sites=sites,
        logit_difference=clean,
        attribution=attribution,
        ablation=single,
        reads=scores,
        target=target,
        head_labels=named,
        joint=joint,
        read_lost=used,
        looking={read: joint if heads == readers else jointly(heads) for read, heads in looking.items() if heads},
        rules=tuple(rules),
        labels=dict(labels or {}),
    )


def _mask_of(targets: Mapping[str, ReadMask], target: str) -> ReadMask | None:
    """The read's mask before `target`; before anything where all targets count. None where there is no such read."""
    if target != ALL_TARGETS:
        return targets.get(target)
    return torch.stack(list(targets.values())).any(dim=0) if targets else None


def _read_lost(
    model: HookedModel,
    contrast: LogitContrast,
    mask: ReadMask | None,
    heads: Sequence[int],
    donors: Int[np.ndarray, "draw batch"],
    batch_size: int | None,
) -> Float[Tensor, "head batch"]:
    """What is lost when each of `heads` alone moves another example's values along the read; NaN for other heads."""
    sites = head_sites(model)
    lost = torch.full((len(sites), len(contrast.clean)), torch.nan)
    if heads and mask is not None:
        tokens = until_readout(model, contrast)
        n = tokens.shape[1]
        own = activations(model, tokens, residual_sites(model, "v"), batch_size=batch_size)
        cut = mask[:, :n, :n].to(tokens.device)
        plans = [value_plan(cut, own, own, (sites[i].layer,), sites[i].head, resampled=True) for i in heads]
        lost[list(heads)] = logits_lost(model, contrast, plans, donors, batch_size=batch_size)
    return lost
