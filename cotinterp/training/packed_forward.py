"""Forward and backward pass over a batch without padding: the loss of the padded pass, and its gradient."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cotinterp.models.native.parts import NativeParts, native_parts, why_not_native
from cotinterp.training.data import NOT_SCORED
from cotinterp.training.packing import Bucket, PackedBatch


def packed_loss(module: nn.Module, batch: PackedBatch, *, bf16: bool = False) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over all scored tokens of the batch: `response_loss`, without work on padding.

    In the last block only scored positions go through the output projection and the MLP. ValueError for a module whose
    parts are not known (`why_not_native`).
    """
    parts = native_parts(module)
    if parts is None:
        raise ValueError(f"no forward pass without padding for this module: {why_not_native(module)}")
    with torch.autocast(batch.tokens.device.type, dtype=torch.bfloat16, enabled=bf16):
        logits = _logits(parts, batch, torch.bfloat16 if bf16 else torch.float32)
    return functional.cross_entropy(logits.float(), batch.targets, ignore_index=NOT_SCORED)


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
