"""How often a head puts more than half of its attention on the one token that an iteration head would read.

The peakiness of Cabannes et al. 2024 (arXiv 2406.02128): their first layer looks from every position of the chain at
the token that ends the input, and their second from the position that writes s_t at the operand x_t.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.heads.attention import patterns
from cotinterp.mechanism.model import HookedModel
from cotinterp.results import Result, bootstrap_means, with_labels
from cotinterp.results.plots import heatmap
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
        for layer in range(len(self.share)):
            for head in range(self.share.shape[1]):
                of_head = self.share[layer, head].double().numpy()
                low, high = bootstrap_means(of_head)
                rows.append(
                    pd.DataFrame(
                        {
                            "layer": layer,
                            "head": head,
                            "link": self.links,
                            "n": of_head.shape[1],
                            "peakiness": of_head.mean(axis=1),
                            "ci_low": low,
                            "ci_high": high,
                            "attention": self.attention[layer, head].double().mean(dim=1).numpy(),
                        }
                    )
                )
        return with_labels(pd.concat(rows, ignore_index=True), self.labels)

    def figure(self) -> go.Figure:
        """Heads against links."""
        table = self.frame()
        return heatmap(
            table.assign(block=[f"L{row.layer}H{row.head}" for row in table.itertuples()]),
            x="link",
            y="block",
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
