"""A batch without its padding, and the loss over it: the value and gradient of the padded pass.

Every token stands once, in one long row. Norms, MLPs and projections treat each token alone, so they need no rectangle.
Attention does: sequences are sorted by length and cut into a few buckets, each as wide as its longest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cotinterp.models.native.parts import NativeParts, native_parts, why_not_native
from cotinterp.training.data import NOT_SCORED, TrainingSet

TOKENS_A_BUCKET = 512
MAX_BUCKETS = 4
"""More buckets would pad less, but each costs a dozen calls a layer. Measured on batches of 700 to 2,100 tokens."""

NARROWEST = 16
"""torch's softmax over fewer than 16 numbers is ten times slower on a CPU than over 16: one vector register."""

TOKENS_STEP, WIDTH_STEP = 64, 8
"""Sizes are rounded up to these: a CPU compiles a bfloat16 product anew for every shape that it has not seen lately."""


@dataclass(frozen=True, eq=False)
class Bucket:
    """Sequences of similar length, next to each other in the long row, as a rectangle.

    Attributes:
        tokens: Where in the long row they stand.
        rows: Number of sequences; the rectangle has `rows` by `width` cells.
        grid: For each cell the token in it, counted from the bucket's first; 0 where it is padding.
        flat: For each token the cell that it stands in.
        real: Cells that are no padding.
    """

    tokens: slice
    rows: int
    width: int
    grid: Int[Tensor, " cells"]
    flat: Int[Tensor, " tokens"]
    real: Bool[Tensor, "cells 1"]


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Some training transcripts without padding, sorted by length.

    Attributes:
        tokens: Inputs of all sequences, one after the other, then blanks up to a round number.
        positions: Where each stands in its sequence, from 0.
        scored: Which of them predict a scored token, then blanks up to a round number.
        targets: The tokens that they are to predict; NOT_SCORED for the blanks.
        n_tokens: Tokens that are no blanks; no bucket holds a blank.
        sequence: For each token that is no blank its row of the training set.
    """

    tokens: Int[Tensor, " tokens"]
    positions: Int[Tensor, " tokens"]
    scored: Int[Tensor, " scored"]
    targets: Int[Tensor, " scored"]
    n_tokens: int
    buckets: tuple[Bucket, ...]
    sequence: Int[Tensor, " real"]

    @property
    def rows(self) -> Int[Tensor, " real_scored"]:
        """The row of the training set of each scored token that is no blank."""
        return self.sequence[self.scored[self.targets != NOT_SCORED]]

    @classmethod
    def of(cls, data: TrainingSet, rows: Int[np.ndarray, " batch"], n_buckets: int | None = None) -> "PackedBatch":
        """The transcripts in these rows of the training set; `n_buckets` None chooses by their number of tokens."""
        device = data.inputs.device
        length = data.length.numpy()[rows]
        if n_buckets is None:
            n_buckets = min(MAX_BUCKETS, max(1, round(int(length.sum()) / TOKENS_A_BUCKET)))
        order = np.argsort(length, kind="stable")
        rows, length = rows[order], length[order]
        last = np.cumsum(length)
        positions = np.arange(last[-1]) - np.repeat(last - length, length)

        def moved(array: Shaped[np.ndarray, "..."]) -> Tensor:
            return torch.from_numpy(array).to(device)

        sequence, position = moved(np.repeat(rows, length)), moved(positions)
        tokens, targets = data.inputs[sequence, position], data.targets[sequence, position]
        scored = (targets != NOT_SCORED).nonzero()[:, 0]
        buckets, start = [], 0
        for part in np.array_split(np.arange(len(rows)), min(n_buckets, len(rows))):
            width, size = max(NARROWEST, _rounded(int(length[part[-1]]), WIDTH_STEP)), int(length[part].sum())
            place = np.arange(width)
            real = place < length[part, None]
            first = last[part] - length[part] - start
            grid = np.where(real, first[:, None] + place, 0)
            buckets.append(
                Bucket(
                    tokens=slice(start, start + size),
                    rows=len(part),
                    width=width,
                    grid=moved(grid.ravel()),
                    flat=moved(np.flatnonzero(real)),
                    real=moved(real.reshape(-1, 1)),
                )
            )
            start += size
        return cls(
            tokens=_filled(tokens, 0),
            positions=_filled(position, 0),
            scored=_filled(scored, 0),
            targets=_filled(targets[scored], NOT_SCORED),
            n_tokens=start,
            buckets=tuple(buckets),
            sequence=sequence,
        )


def _rounded(size: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-size // step) * step


def _filled(row: Int[Tensor, " some"], blank: int) -> Int[Tensor, " more"]:
    """`row` with blanks behind it."""
    return functional.pad(row, (0, _rounded(len(row), TOKENS_STEP) - len(row)), value=blank)


def packed_loss(module: nn.Module, batch: PackedBatch, *, bf16: bool = False) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over all scored tokens of the batch: `response_loss`, without work on padding.

    ValueError for a module whose parts are not known (`why_not_native`).
    """
    return functional.cross_entropy(packed_logits(module, batch, bf16=bf16), batch.targets, ignore_index=NOT_SCORED)


def packed_logits(module: nn.Module, batch: PackedBatch, *, bf16: bool = False) -> Float[Tensor, "scored d_vocab"]:
    """Logits at the scored tokens. In the last block only these go through the output projection and the MLP."""
    parts = native_parts(module)
    if parts is None:
        raise ValueError(f"no forward pass without padding for this module: {why_not_native(module)}")
    with torch.autocast(batch.tokens.device.type, dtype=torch.bfloat16, enabled=bf16):
        return _logits(parts, batch, torch.bfloat16 if bf16 else torch.float32).float()


def _logits(parts: NativeParts, batch: PackedBatch, dtype: torch.dtype) -> Float[Tensor, "scored d_vocab"]:
    masks = [_causal(bucket.width, batch.tokens.device) for bucket in batch.buckets]
    stream = parts.embed(batch.tokens, batch.positions)
    for number, block in enumerate(parts.blocks, start=1):
        qkv = parts.qkv(block, stream, batch.positions).to(dtype)
        z: Tensor = PackedAttention.apply(qkv, batch.buckets, masks, parts.scale)  # type: ignore[no-untyped-call]
        if number == len(parts.blocks):
            stream, z = stream.index_select(0, batch.scored), z.index_select(0, batch.scored)
        stream = block.after_attention(stream, parts.attn_out(block, z))
    return parts.logits(stream)


def _causal(width: int, device: torch.device) -> Float[Tensor, "query key"]:
    """0 where a query may look, minus infinity where not."""
    return torch.full((width, width), -math.inf, device=device).triu_(1)


class PackedAttention(torch.autograd.Function):
    """Causal attention inside each sequence of a long row, a bucket at a time.

    Written out in both directions: the gather that pads is undone by the gather that packs, where autograd would
    scatter-add. Padding stands after every real token and no real query looks at it, so what it holds is never seen.
    Tokens of no bucket attend to nothing: their z is 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Float[Tensor, "tokens three head d_head"],
        buckets: Sequence[Bucket],
        masks: Sequence[Tensor],
        scale: float,
    ) -> Float[Tensor, "tokens head d_head"]:
        """z of every token."""
        n, _, heads, d_head = qkv.shape
        z = qkv.new_zeros(n, heads, d_head)
        saved = []
        for bucket, mask in zip(buckets, masks, strict=True):
            inputs = _laid_out(qkv[bucket.tokens].index_select(0, bucket.grid), bucket)
            q, k, v = inputs.unbind(0)
            scores = torch.matmul(q, k.transpose(-1, -2)).float().div_(scale).add_(mask)
            pattern = scores.softmax(-1).to(qkv.dtype)
            z[bucket.tokens] = _in_a_row(torch.matmul(pattern, v)[None], bucket)[:, 0]
            saved += [inputs, pattern]
        ctx.save_for_backward(*saved)
        ctx.buckets, ctx.scale = buckets, scale
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Float[Tensor, "tokens head d_head"]) -> tuple[Tensor, None, None, None]:
        """Gradient of queries, keys and values."""
        n, heads, d_head = grad_z.shape
        grad_qkv = grad_z.new_zeros(n, 3, heads, d_head)
        saved = ctx.saved_tensors
        for number, bucket in enumerate(ctx.buckets):
            inputs, pattern = saved[2 * number], saved[2 * number + 1]
            q, k, v = inputs.unbind(0)
            grad = grad_z[bucket.tokens].index_select(0, bucket.grid).mul_(bucket.real[..., None])
            (out,) = _laid_out(grad[:, None], bucket)
            found = torch.empty_like(inputs)
            torch.matmul(pattern.transpose(-1, -2), out, out=found[2])
            grad_pattern = torch.matmul(out, v.transpose(-1, -2)).float()
            grad_scores = torch._softmax_backward_data(grad_pattern, pattern.float(), -1, torch.float32)
            grad_scores = grad_scores.div_(ctx.scale).to(grad_z.dtype)
            torch.matmul(grad_scores, k, out=found[0])
            torch.matmul(grad_scores.transpose(-1, -2), q, out=found[1])
            grad_qkv[bucket.tokens] = _in_a_row(found, bucket)
        return grad_qkv, None, None, None


def _laid_out(
    cells: Float[Tensor, "cells some head d_head"], bucket: Bucket
) -> Float[Tensor, "some row head width d_head"]:
    shaped: Tensor = rearrange(cells, "(row width) some head d -> some row head width d", row=bucket.rows)
    return shaped.contiguous()


def _in_a_row(
    laid_out: Float[Tensor, "some row head width d_head"], bucket: Bucket
) -> Float[Tensor, "tokens some head d_head"]:
    cells: Tensor = rearrange(laid_out, "some row head width d -> (row width) some head d")
    return cells.index_select(0, bucket.flat)
