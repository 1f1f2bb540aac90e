"""Sweeps over examples, a block at a time: how many run at once, whose run is a random donor, how logits are read.

Stacked: the rows of a block repeated, one slot for each thing that is tried, so that a small block fills a pass.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import derangement
from cotinterp.mechanism.metrics import MetricName, measure
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.stack import Numbers
from cotinterp.mechanism.sites import Site

MAX_BYTES = 2**30
"""What the activations of a sweep may take at once unless it is told otherwise."""
# Larger passes of a small model leave the processor's cache and are slower per sequence, not faster.
_TOKENS_AT_ONCE = 3072
_LOGITS_AT_ONCE = 2**26


def rows_at_once(model: HookedModel, contrast: Contrast, batch_size: int | None = None) -> int:
    """Sequences of one pass: `batch_size`, or as many as keep tokens and logits within bounds. ValueError below 1."""
    if batch_size is not None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least one sequence must run at once.")
        return batch_size
    n = contrast.clean.shape[1]
    vocabulary = int(getattr(model.cfg, "d_vocab", 0) or 1)
    return max(1, min(_TOKENS_AT_ONCE // n, _LOGITS_AT_ONCE // (n * vocabulary)))


def rows_in(model: HookedModel, contrast: Contrast, wholes: Collection[Site], max_bytes: int | None = None) -> int:
    """Sequences that fit in `max_bytes` of a sweep by hooks (1 GiB unless told), by what one of them holds.

    That is the sites that are patched, in the recipient's run, the donor's and another one's; the widest layer of a
    pass, and logits. An estimate: an architecture may hold more. ValueError where not one fits.
    """
    cfg, n = model.cfg, contrast.clean.shape[1]
    d_model, heads = int(cfg.d_model), int(cfg.n_heads)
    d_mlp, vocabulary = (int(getattr(cfg, name, 0) or 0) for name in ("d_mlp", "d_vocab"))
    held = sum(heads * n if site.kind == "pattern" else d_model for site in wholes)
    row = 4 * n * (3 * held + 12 * d_model + 2 * d_mlp + 3 * heads * n + 6 * vocabulary)
    bound = MAX_BYTES if max_bytes is None else max_bytes
    if bound < row:
        raise ValueError(f"max_bytes={bound:,}: one example of {n} tokens needs {row:,} in this model.")
    return bound // row


def partners(contrast: Contrast, rng: np.random.Generator) -> Int[np.ndarray, " batch"]:
    """For every example another one of the same layout, whose run is a random donor; -1 where there is none."""
    layout: dict[bytes, list[int]] = {}
    for row in range(len(contrast)):
        masks = b"".join(mask[row].cpu().numpy().tobytes() for mask in contrast.places.values())
        layout.setdefault(masks + int(contrast.at[row]).to_bytes(8, "little"), []).append(row)
    partner = np.full(len(contrast), -1, dtype=np.int64)
    for members in layout.values():
        if len(members) > 1:
            group = np.array(members)
            partner[group] = group[derangement(len(group), rng)]
    return partner


@dataclass(frozen=True, eq=False)
class Meter:
    """Reads several metrics of the logits of one block, per example, in float64; kl is against `reference`."""

    contrast: Contrast
    names: Sequence[MetricName]
    reference: Float[Tensor, "batch d_vocab"]

    @classmethod
    def against(
        cls, contrast: Contrast, names: Sequence[MetricName], logits: Float[Tensor, "batch pos d_vocab"]
    ) -> "Meter":
        """The meter whose reference is this run."""
        return cls(contrast, names, at_positions(logits, contrast.at).double())

    def of(self, logits: Float[Tensor, "rows pos d_vocab"], stack: int = 1) -> Numbers:
        """Every metric of every row; `stack` says how often the block's rows are repeated."""
        rows = torch.arange(len(self.contrast), device=logits.device).repeat(stack)
        at = self.contrast.at.to(logits.device)
        return self.of_readout(at_positions(logits, at[rows]), rows)

    def of_readout(self, readout: Float[Tensor, "rows d_vocab"], rows: Int[Tensor, " rows"] | None = None) -> Numbers:
        """Every metric of logits that were already read; `rows` says which examples they belong to (all, in order)."""
        chosen = slice(None) if rows is None else rows
        tensors = (self.contrast.answer, self.contrast.foil)
        answer, foil = (tensor.to(readout.device)[chosen] for tensor in tensors)
        logits, reference = readout.double(), self.reference[chosen]
        return {
            name: measure(name, logits, answer=answer, foil=foil, reference=reference).cpu().numpy()
            for name in self.names
        }


@dataclass(frozen=True, eq=False)
class Changes:
    """Per example, by metric: what each thing that was tried changed, and the gap that is the unit of effects.

    `baselines`: the same change for runs whose answer is known. `ran`: rows that needed a run of their own; in the
    others nothing that differs was there to write, and the change is 0 by identity.
    """

    changes: Mapping[MetricName, Float[np.ndarray, "rows batch"]]
    gaps: Mapping[MetricName, Float[np.ndarray, " batch"]]
    baselines: Mapping[str, Mapping[MetricName, Float[np.ndarray, " batch"]]]
    ran: Bool[np.ndarray, " rows"]

    @classmethod
    def joined(cls, parts: Sequence["Changes"]) -> "Changes":
        """Blocks of examples, put one after the other."""

        def join(blocks: Sequence[Mapping[MetricName, Float[np.ndarray, "..."]]]) -> Numbers:
            return {name: np.concatenate([block[name] for block in blocks], axis=-1) for name in blocks[0]}

        return cls(
            changes=join([part.changes for part in parts]),
            gaps=join([part.gaps for part in parts]),
            baselines={key: join([part.baselines[key] for part in parts]) for key in parts[0].baselines},
            ran=np.any([part.ran for part in parts], axis=0),
        )


def known(place: str, contrast: Contrast) -> str:
    """`place`, if the contrast has it. ValueError with the places there are."""
    if place not in contrast.places:
        raise ValueError(
            f"no place {place!r} at or before the readout; the contrast has {list(contrast.places)}. Places that only "
            "some examples have, or that lie after the readout, cannot be used."
        )
    return place


def placed(place: str | None, contrast: Contrast, like: Tensor) -> Tensor:
    """Where a place lies, `batch pos`, on the device of `like`; None is everywhere."""
    if place is None:
        return torch.ones_like(contrast.clean, dtype=torch.bool, device=like.device)
    return contrast.places[known(place, contrast)].to(like.device)
