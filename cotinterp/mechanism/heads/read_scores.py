"""What a head looks at: how much of its attention falls on the tokens that a step needs, and how sharply."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attention import pattern_sites, patterns, uniform_attention
from cotinterp.mechanism.heads.reads import READ_PATTERNS, ReadMask, ReadPattern, target_masks
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import mask_of, site_columns
from cotinterp.results import Result, bootstrap_means, with_labels
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Role

PEAK = 0.5
"""Attention above this is a peak: no other token can have as much."""


@dataclass(frozen=True)
class PeakinessResult(Result):
    """Share of attention entries above `PEAK`, from the positions that predict a written total to one other token each.

    Links: `prompt_end`, the token that ends the prompt; `trace_start`, the brace after it, a marker just as good in
    these transcripts; `next_operand`, the operand that the step consumes; and `previous_operand`, the one before it,
    which no step needs: the control. Even attention has no entry above one half where three tokens or more can be seen.
    Where a head looks is not what it does (Jain and Wallace 2019, arXiv 1902.10186).

    The measure is that of Cabannes et al. 2024 (arXiv 2406.02128). In their iteration heads the first layer looks from
    every position of the chain at the token that ends the input, and the second from the position that writes s_t at
    the operand x_t.

    Attributes:
        links: Names of the links.
        share: Share of a problem's steps whose entry is a peak.
        attention: Mean of the same entries.
    """

    links: tuple[str, ...]
    share: Float[Tensor, "layer head link batch"]
    attention: Float[Tensor, "layer head link batch"]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row for each layer, head and link: means over n problems; the interval is of peakiness, over problems."""
        rows = []
        for site in pattern_sites(*self.share.shape[:2]):
            of_head = self.share[site.layer, site.head].double().numpy()
            low, high = bootstrap_means(of_head)
            columns = {
                **site_columns(site),
                "link": self.links,
                "n": of_head.shape[1],
                "peakiness": of_head.mean(axis=1),
                "ci_low": low,
                "ci_high": high,
                "attention": self.attention[site.layer, site.head].double().mean(dim=1).numpy(),
            }
            rows.append(pd.DataFrame(columns))
        return with_labels(pd.concat(rows, ignore_index=True), self.labels)

    def figure(self) -> go.Figure:
        """Heads against links."""
        return heatmap(
            self.frame(),
            x="link",
            y="site",
            value="peakiness",
            bounds=(0.0, 1.0),
            title="Share of steps with more than half of the attention on one token",
        )


def peakiness(
    model: HookedModel,
    batch: Batch,
    *,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> PeakinessResult:
    """`PeakinessResult` of every head on transcripts of one length that write their totals.

    Raises:
        KeyError: Transcripts without totals, or of several lengths: the place that is missing is named.
    """
    dest, links = step_links(batch)
    found = []
    for rows, pattern in patterns(model, batch.tokens, batch_size):
        example = torch.arange(pattern.shape[1], device=pattern.device)[:, None]
        # Indices on both sides of a slice: example and step come first, then layer and head.
        entries = [pattern[:, example, :, dest[rows], src[rows]] for src in links.values()]
        both = [torch.stack([(entry > PEAK).float(), entry]).mean(dim=2) for entry in entries]
        found.append(rearrange(both, "link what batch layer head -> what layer head link batch").cpu())
    share, attention = torch.cat(found, dim=-1)
    return PeakinessResult(tuple(links), share, attention, dict(labels or {}))


def step_links(batch: Batch) -> tuple[Int[Tensor, "batch steps"], dict[str, Int[Tensor, "batch steps"]]]:
    """For every step the position that predicts its total, and by link the position that it may look at."""
    steps = range(1, max(transcript.problem.k for transcript in batch.transcripts))
    dest = torch.stack([batch.where(Role.TOTAL, step) - 1 for step in steps], dim=1)

    def each(*positions: Int[Tensor, " batch"]) -> Int[Tensor, "batch steps"]:
        return torch.stack(positions, dim=1).expand(-1, len(steps))

    return dest, {
        "prompt_end": each(batch.where(Role.PROMPT_END)),
        "trace_start": each(batch.where(Role.TRACE_START)),
        "next_operand": each(*(batch.where(Role.OPERAND, step) for step in steps)),
        "previous_operand": each(*(batch.where(Role.OPERAND, step - 1) for step in steps)),
    }


ALL_TARGETS = "all"


@dataclass(frozen=True)
class ReadScores(Result):
    """Attention on the tokens to be read, summed over each example's destinations of each read.

    A row is one target (the role that the destination predicts) of one read. Sums and counts are kept, so that targets
    can be pooled with every destination counting once. Attention is the mass on all source tokens together; a
    destination peaks where a single one of them holds more than `PEAK` (after the peakiness of Cabannes et al. 2024,
    arXiv 2406.02128). Both say where a head looks, not that it uses what it finds.

    Attributes:
        reads: All reads that were asked for, found in these tokens or not.
        rows: (read, target) of each row.
        attention: Sum over destinations of the mass on the sources.
        peaked: Number of destinations at which a single source holds more than `PEAK`.
        chance: Sum over destinations of the mass that even attention to everything up to there would put on them.
        n_dest: Number of destinations.
    """

    reads: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    attention: Float[Tensor, "row layer head batch"]
    peaked: Float[Tensor, "row layer head batch"]
    chance: Float[Tensor, "row batch"]
    n_dest: Int[Tensor, "row batch"]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def targets(self, read: str) -> tuple[str, ...]:
        """The targets of a read that occur in these tokens; none where the read cannot be made. KeyError if unknown."""
        if read not in self.reads:
            raise KeyError(f"no read {read!r}; there are {list(self.reads)}")
        return tuple(target for name, target in self.rows if name == read)

    def score(self, read: str, target: str = ALL_TARGETS) -> Float[Tensor, "layer head"]:
        """Attention to the sources, averaged over each example's destinations, then over examples; NaN without any."""
        return self._mean(self.attention, self._rows(read, target))

    def peakiness(self, read: str, target: str = ALL_TARGETS) -> Float[Tensor, "layer head"]:
        """Share of destinations at which one source holds more than half, averaged over examples."""
        return self._mean(self.peaked, self._rows(read, target))

    def chance_level(self, read: str, target: str = ALL_TARGETS) -> float:
        """What `score` would be for a head that attends evenly to everything up to the destination."""
        return float(self._mean(self.chance, self._rows(read, target)))

    def above_chance(self, read: str, target: str = ALL_TARGETS) -> Float[Tensor, "layer head"]:
        """(score - chance) / (1 - chance): 0 for even attention, 1 if nothing else is looked at, below 0 if avoided.

        Comparable between reads and regimes whose chance levels differ, as raw scores are not.
        """
        return self.each_above_chance(read, target).mean(dim=-1)

    def each_above_chance(self, read: str, target: str = ALL_TARGETS) -> Float[Tensor, "layer head some"]:
        """The same for each example that has such a destination, with the mean chance as 1 - chance: means agree.

        NaN where all that can be seen is a source, so that no head can look at it more than another.
        """
        rows = self._rows(read, target)
        attention, chance = (self._per_example(sums, rows) for sums in (self.attention, self.chance))
        beside = 1 - chance.mean(dim=-1)
        return (attention - chance) / torch.where(beside > 1e-6, beside, torch.nan)

    def frame(self) -> pd.DataFrame:
        """One row per head, read and target ("all" pools them), with chance, peakiness and a 95% interval.

        `n` counts the examples that hold such a destination, `n_dest` the destinations in them.
        """
        places = [(read, target) for read in self.reads for target in (*self.targets(read), ALL_TARGETS)]
        tables = [self._table(read, target) for read, target in places]
        table = pd.concat([part for part in tables if len(part)]).sort_values(["layer", "head"], kind="stable")
        return with_labels(table.reset_index(drop=True), self.labels)

    def figure(self) -> go.Figure:
        """A row for each head, a column for each read and target; a read that cannot be made has a gray column."""
        table = self.frame()
        shown = table[(table["target"] != ALL_TARGETS) | ~table["read"].isin([read for read, _ in self.rows])]
        where = np.where(shown["target"] == ALL_TARGETS, "", ", before " + shown["target"])
        words = (shown["read"] + where).str.replace("_", " ")
        return heatmap(
            shown.assign(reads=words),
            x="reads",
            y="site",
            value="attention",
            bounds=(0.0, 1.0),
            x_title="what is read, and before which prediction",
            y_title="head",
            title="Attention to what a reader of the chain would read",
        )

    def _rows(self, read: str, target: str) -> list[int]:
        targets = self.targets(read)
        if target != ALL_TARGETS and target not in targets:
            raise KeyError(f"read {read!r} has no target {target!r} here; there are {[*targets, ALL_TARGETS]}")
        return [i for i, row in enumerate(self.rows) if row[0] == read and target in (ALL_TARGETS, row[1])]

    def _per_example(self, sums: Float[Tensor, "row *axes batch"], rows: Sequence[int]) -> Float[Tensor, "*axes some"]:
        """Means over destinations, for the examples that have some."""
        counts = self.n_dest[list(rows)].sum(dim=0)
        return sums[list(rows)].sum(dim=0)[..., counts > 0] / counts[counts > 0]

    def _mean(self, sums: Float[Tensor, "row *axes batch"], rows: Sequence[int]) -> Float[Tensor, "*axes"]:
        return self._per_example(sums, rows).mean(dim=-1)

    def _table(self, read: str, target: str) -> pd.DataFrame:
        rows = self._rows(read, target)
        values = rearrange(self._per_example(self.attention, rows), "layer head n -> (layer head) n").double().numpy()
        low, high = bootstrap_means(values)
        return pd.DataFrame([site_columns(site) for site in pattern_sites(*self.attention.shape[1:3])]).assign(
            read=read,
            target=target,
            attention=self.score(read, target).flatten().numpy(),
            ci_low=low,
            ci_high=high,
            chance=self.chance_level(read, target),
            above_chance=self.above_chance(read, target).flatten().numpy(),
            peakiness=self.peakiness(read, target).flatten().numpy(),
            n=values.shape[1],
            n_dest=int(self.n_dest[rows].sum()),
        )


def iteration_scores(
    model: HookedModel,
    contrast: Contrast,
    reads: Sequence[ReadPattern] | Mapping[str, Mapping[str, Shaped[Tensor, "..."]]] = READ_PATTERNS,
    *,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> ReadScores:
    """Attention of every head on the sources of each read, on the clean tokens of `contrast`.

    `reads`: patterns, for the roles of the clean transcripts (`reads.py` has the exact sets); or, for tokens without
    roles, `reads[name][target]`, a mask [example, dest, src]. A position is a destination of a target where its mask
    marks a source. A read without targets has NaN scores. Chance supposes a causal model. ValueError where a mask marks
    a token after its destination.
    """
    tokens, named = contrast.clean, reads if isinstance(reads, Mapping) else target_masks(contrast, reads)
    shape = (*tokens.shape, tokens.shape[1])
    rows = [
        (read, target, mask_of(mask, shape, f"the mask of read {read!r} before {target!r}").to(tokens.device))
        for read, targets in named.items()
        for target, mask in targets.items()
    ]
    for read, target, mask in rows:
        if bool(mask.triu(diagonal=1).any()):
            raise ValueError(
                f"read {read!r} before {target!r} marks a source behind its destination, out of a head's sight."
            )
    found = [_sums(pattern, [mask[some] for *_, mask in rows]) for some, pattern in patterns(model, tokens, batch_size)]
    even = uniform_attention(tokens.shape[1]).to(tokens.device)
    n = len(tokens)
    return ReadScores(
        reads=tuple(named),
        rows=tuple((read, target) for read, target, _ in rows),
        attention=torch.cat([attention for attention, _ in found], dim=-1).cpu(),
        peaked=torch.cat([peaked for _, peaked in found], dim=-1).cpu(),
        chance=_stack((einsum(mask.float(), even, "b q k, q k -> b") for *_, mask in rows), torch.zeros(n)),
        n_dest=_stack((mask.any(dim=-1).sum(dim=-1) for *_, mask in rows), torch.zeros(n, dtype=torch.long)),
        labels=dict(labels or {}),
    )


def _sums(
    pattern: Float[Tensor, "layer batch head dest src"], masks: Sequence[ReadMask]
) -> tuple[Float[Tensor, "row layer head batch"], Float[Tensor, "row layer head batch"]]:
    """Mass on the sources, and number of destinations at which one source peaks, summed over destinations."""
    empty = pattern.new_zeros(pattern.shape[0], pattern.shape[2], pattern.shape[1])
    read = [pattern * mask[None, :, None] for mask in masks]
    mass = (rearrange(part.sum(dim=(-1, -2)), "layer b head -> layer head b") for part in read)
    peaks = ((part.amax(dim=-1) > PEAK).sum(dim=-1).to(pattern) for part in read)
    return _stack(mass, empty), _stack((rearrange(part, "layer b head -> layer head b") for part in peaks), empty)


def _stack(rows: Iterator[Tensor], like: Tensor) -> Tensor:
    """Rows on a new first axis; a tensor without rows, of the same remaining shape, where there are none."""
    found = list(rows)
    return (torch.stack(found) if found else like[None][:0]).cpu()
