"""A batch without its padding, and the loss over it: the value and gradient of the padded pass.

Every token stands once, in one long row. Norms, MLPs and projections treat each token alone, so they need no rectangle.
Attention does: sequences are sorted by length and cut into a few buckets, each as wide as its longest.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cotinterp.models.native.parts import NativeParts, future_keys, key_bias, native_parts, why_not_native
from cotinterp.training.data import NOT_SCORED, TrainingSet

TOKENS_A_BUCKET = 512
MAX_BUCKETS = 4
"""More buckets would pad less, but each costs a dozen calls a layer. Measured on batches of 700 to 2,100 tokens."""

NARROWEST = 16
"""torch's softmax over fewer than 16 numbers is ten times slower on a CPU than over 16: one vector register."""

TOKENS_STEP, WIDTH_STEP = 64, 8
"""Sizes are rounded up to these: a CPU compiles a bfloat16 product anew for every shape that it has not seen lately."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Some tokens of neighbouring sequences as a rectangle, one sequence a row.

    Attributes:
        tokens: Where they stand in their long row.
        grid: For each cell the token in it, counted from the first of these; 0 where it is padding.
        flat: For each token the cell that it stands in.
        real: Cells that are no padding.
    """

    tokens: slice
    rows: int
    width: int
    grid: Int[Tensor, " cells"]
    flat: Int[Tensor, " tokens"]
    real: Bool[Tensor, "cells 1"]

    @classmethod
    def of(cls, size: Int[np.ndarray, " row"], start: int, width: int, device: torch.device) -> "Cells":
        """Those of sequences of these sizes, the first of which begins at `start`."""
        place, last = np.arange(width), np.cumsum(size)
        real = place < size[:, None]
        grid = np.where(real, (last - size)[:, None] + place, 0)
        moved = [
            torch.from_numpy(part).to(device) for part in (grid.ravel(), np.flatnonzero(real), real.reshape(-1, 1))
        ]
        return cls(slice(start, start + int(last[-1])), len(size), width, *moved)


@dataclass(frozen=True, eq=False)
class Bucket:
    """Sequences of similar length, next to each other in the long row.

    Attributes:
        all: All their tokens.
        scored: Those of them that predict a scored token, counted in the row of all that do.
        mask: For each of these cells 0 at the keys that it may look at, minus infinity at those that stand after it.
    """

    all: Cells
    scored: Cells
    mask: Float[Tensor, "row 1 query key"]


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Some training transcripts without padding, sorted by length.

    Attributes:
        tokens: Inputs that differ in token or position, each once, then blanks up to a round number.
        positions: Where each stands in its sequence, from 0.
        row: All sequences, one after the other: which of `tokens` each is, then blanks up to a round number.
        scored: Which of `row` predict a scored token, then blanks up to a round number.
        targets: The tokens that they are to predict; NOT_SCORED for the blanks.
        n_tokens: Tokens in the row that are no blanks; no bucket holds a blank.
        sequence: For each token that is no blank its row of the training set.
        answer: Which of `row` predict the first symbol of an answer, one in each sequence.
    """

    tokens: Int[Tensor, " distinct"]
    positions: Int[Tensor, " distinct"]
    row: Int[Tensor, " tokens"]
    scored: Int[Tensor, " scored"]
    targets: Int[Tensor, " scored"]
    n_tokens: int
    buckets: tuple[Bucket, ...]
    sequence: Int[Tensor, " real"]
    answer: Int[Tensor, " sequence"]

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
        sequence = torch.from_numpy(np.repeat(rows, length)).to(device)
        position = torch.from_numpy(np.arange(last[-1]) - np.repeat(last - length, length)).to(device)
        tokens, targets = data.inputs[sequence, position], data.targets[sequence, position]
        n_places = data.inputs.shape[1]
        distinct, row = torch.unique(tokens * n_places + position, return_inverse=True)
        is_scored = targets != NOT_SCORED
        scored = is_scored.nonzero()[:, 0]
        n_scored = np.add.reduceat(is_scored.cpu().numpy(), last - length, dtype=np.int64)
        buckets = []
        for part in np.array_split(np.arange(len(rows)), min(n_buckets, len(rows))):
            width = max(NARROWEST, _rounded(int(length[part[-1]]), WIDTH_STEP))
            most = int(n_scored[part].max())
            every = Cells.of(length[part], int((last - length)[part[0]]), width, device)
            some = Cells.of(
                n_scored[part],
                int(n_scored[: part[0]].sum()),
                most if most <= WIDTH_STEP else _rounded(most, WIDTH_STEP),
                device,
            )
            where = position[scored[some.tokens]][some.grid].view(some.rows, some.width)
            buckets.append(Bucket(every, some, _mask(future_keys(where, width))))
        return cls(
            tokens=_filled(distinct // n_places, 0),
            positions=_filled(distinct % n_places, 0),
            row=_filled(row, 0),
            scored=_filled(scored, 0),
            targets=_filled(targets[scored], NOT_SCORED),
            n_tokens=int(last[-1]),
            buckets=tuple(buckets),
            sequence=sequence,
            answer=(torch.from_numpy(last - length) + data.answer[rows]).to(device),
        )


def _rounded(size: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-size // step) * step


def _filled(row: Int[Tensor, " some"], blank: int) -> Int[Tensor, " more"]:
    """`row` with blanks behind it."""
    return functional.pad(row, (0, _rounded(len(row), TOKENS_STEP) - len(row)), value=blank)


def packed_loss(
    module: nn.Module, batch: PackedBatch, *, bf16: bool = False, weight: Float[Tensor, " scored"] | None = None
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over all scored tokens of the batch: `response_loss`, without work on padding.

    With `weight` it is the sum over the tokens, each times its weight; blanks have weight 0.

    ValueError for a module whose parts are not known (`why_not_native`).
    """
    return scored_loss(packed_logits(module, batch, bf16=bf16), batch, weight)


def scored_loss(
    logits: Float[Tensor, "scored d_vocab"], batch: PackedBatch, weight: Float[Tensor, " scored"] | None = None
) -> Float[Tensor, ""]:
    """`packed_loss`, given the logits."""
    if weight is None:
        return functional.cross_entropy(logits, batch.targets, ignore_index=NOT_SCORED)
    return functional.cross_entropy(logits, batch.targets, ignore_index=NOT_SCORED, reduction="none") @ weight


def packed_logits(module: nn.Module, batch: PackedBatch, *, bf16: bool = False) -> Float[Tensor, "scored d_vocab"]:
    """Logits at the scored tokens. What no scored token needs is not computed, and nothing is computed twice.

    The first block sees each pair of token and position once; in the last block only scored tokens ask, and only these
    go through the output projection and the MLP.
    """
    return packed_states(module, batch, (), bf16=bf16)[0]


def packed_states(
    module: nn.Module, batch: PackedBatch, layers: Sequence[int], *, bf16: bool = False
) -> tuple[Float[Tensor, "scored d_vocab"], Float[Tensor, "sequence layer d_model"]]:
    """`packed_logits`, and `resid_post` of some layers where each sequence predicts the first symbol of its answer.

    That symbol must be scored: the last block computes nothing elsewhere.
    """
    parts = native_parts(module, causal=False, thoughts=True)
    if parts is None:
        why = why_not_native(module, causal=False, thoughts=True)
        raise ValueError(f"no forward pass without padding for this module: {why}")
    found: dict[int, Tensor] = {}
    last, dtype = len(parts.blocks) - 1, torch.bfloat16 if bf16 else torch.float32
    with torch.autocast(batch.tokens.device.type, dtype=torch.bfloat16, enabled=bf16):
        thinks = parts.thought is not None and bool((batch.tokens == parts.thought).any())
        streams = _thinking_streams if thinks else _streams
        for layer, stream in enumerate(streams(parts, batch, dtype)):
            if layer in layers:
                at = batch.answer if layer < last else _among(batch.scored, batch.answer)
                found[layer] = stream.index_select(0, at).float()
        logits = parts.logits(stream).float()
    if not layers:
        return logits, logits.new_empty(len(batch.answer), 0, stream.shape[-1])
    return logits, torch.stack([found[layer] for layer in layers], dim=1)


def _among(scored: Int[Tensor, " scored"], some: Int[Tensor, " some"]) -> Int[Tensor, " some"]:
    """The place in `scored` of each of some of its members."""
    return (scored == some[:, None]).int().argmax(1)


def _thinking_streams(
    parts: NativeParts, batch: PackedBatch, dtype: torch.dtype
) -> Iterator[Float[Tensor, "tokens_or_scored d_model"]]:
    """`_streams` of a model whose dots are continuous thoughts; every token goes through the blocks once.

    What stands from one thought to the next is a part; parts of one number go together, of all sequences. All that they
    look at is there by then, and the last place of each holds the thought that the next part begins with.
    """
    n, device = batch.n_tokens, batch.row.device
    tokens, positions = batch.tokens[batch.row[:n]], batch.positions[batch.row[:n]]
    is_thought = (tokens == parts.thought) & (positions > 0)
    begins = (positions == 0).nonzero()[:, 0]
    of = torch.repeat_interleave(torch.diff(begins, append=begins.new_tensor([n])))
    so_far = is_thought.cumsum(0)
    number = so_far - so_far[begins][of]
    many = torch.zeros(len(begins), int(number.max()) + 1, dtype=torch.long, device=device)
    size = many.index_put_((of, number), torch.ones_like(of), accumulate=True).cpu().numpy()
    place = torch.argsort(torch.argsort(number, stable=True))  # of each token, once the parts stand one after the other
    inputs = parts.embed(tokens, positions)
    streams: list[list[Tensor]] = [[] for _ in parts.blocks]
    seen = [
        inputs.new_zeros(n, 2, parts.n_heads, block.w_o.shape[1] // parts.n_heads, dtype=dtype)
        for block in parts.blocks
    ]
    ended = 0
    for part in range(size.shape[1]):
        at = (number == part).nonzero()[:, 0]
        stream = inputs.index_select(0, at)
        if part:
            dots = is_thought[at].nonzero()[:, 0]
            held = streams[-1][-1]
            before = place[at[dots] - 1] - (ended - len(held))
            thoughts = parts.norm(held.index_select(0, before)).to(stream.dtype)
            if parts.w_pos is not None:
                thoughts = thoughts + functional.embedding(positions[at[dots]], parts.w_pos)
            stream = stream.index_copy(0, dots, thoughts)
        attended = _attended(parts, batch, size[:, part], positions[at])
        for layer, block in enumerate(parts.blocks):
            joined = parts.projections(block, stream, positions[at], slice(0, 3)).to(dtype)
            seen[layer] = seen[layer].index_copy(0, at, joined[:, 1:])
            z: Tensor = PackedAttention.apply(  # type: ignore[no-untyped-call]
                seen[layer], joined[:, :1].contiguous(), attended, parts.scale
            )
            stream = block.after_attention(stream, parts.attn_out(block, z))
            streams[layer].append(stream)
        ended += len(at)
    for layer, found in enumerate(streams):
        last = layer == len(streams) - 1
        yield torch.cat(found).index_select(0, place[batch.scored] if last else place)


def _attended(
    parts: NativeParts, batch: PackedBatch, size: Int[np.ndarray, " sequence"], positions: Int[Tensor, " asking"]
) -> list["Attended"]:
    """Who looks at what where of each sequence so many tokens ask, at these positions, one after the other."""
    found, first = [], 0
    for bucket in batch.buckets:
        start, count = int(size[:first].sum()), size[first : first + bucket.all.rows]
        first += bucket.all.rows
        if count.any():
            asking = Cells.of(count, start, int(count.max()), positions.device)
            where = positions[asking.tokens][asking.grid].view(asking.rows, asking.width)
            mask = _mask(future_keys(where, bucket.all.width))
            found.append(
                (asking, bucket.all, mask if parts.slopes is None else mask + key_bias(parts.slopes, bucket.all.width))
            )
    return found


def _streams(
    parts: NativeParts, batch: PackedBatch, dtype: torch.dtype
) -> Iterator[Float[Tensor, "tokens_or_scored d_model"]]:
    """`resid_post` of each block in turn, at every token of the row; of the last block at scored ones alone."""
    distinct = parts.embed(batch.tokens, batch.positions)
    positions = batch.positions[batch.row]
    stream = functional.embedding(batch.row, distinct)
    q = None
    every = [(bucket.all, bucket.all, _causal(bucket.all.width, stream.device)) for bucket in batch.buckets]
    scored = [(bucket.scored, bucket.all, bucket.mask) for bucket in batch.buckets]
    if not parts.causal:
        every, scored = (
            [(q, k, _mask(~k.real.view(k.rows, 1, 1, k.width))) for q, k, _ in some] for some in (every, scored)
        )
    if (slopes := parts.slopes) is not None:
        every, scored = ([(q, k, mask + key_bias(slopes, k.width)) for q, k, mask in some] for some in (every, scored))
    for number, block in enumerate(parts.blocks):
        last = number == len(parts.blocks) - 1
        which = slice(1, 3) if last else slice(0, 3)
        if number == 0:
            once = parts.projections(block, distinct, batch.positions, which).float()
            joined = functional.embedding(batch.row, once.flatten(1)).unflatten(1, once.shape[1:])
        else:
            joined = parts.projections(block, stream, positions, which)
        if last:
            stream = stream.index_select(0, batch.scored)
            q = parts.projections(block, stream, positions[batch.scored], slice(0, 1)).to(dtype)
        z: Tensor = PackedAttention.apply(  # type: ignore[no-untyped-call]
            joined.to(dtype), q, scored if last else every, parts.scale
        )
        stream = block.after_attention(stream, parts.attn_out(block, z))
        yield stream


def _causal(width: int, device: torch.device) -> Float[Tensor, "query key"]:
    return _mask(torch.ones(width, width, dtype=torch.bool, device=device).triu_(1))


def _mask(future: Bool[Tensor, "... query key"]) -> Float[Tensor, "... query key"]:
    """What is added to scores: 0 where a query may look, minus infinity where not."""
    return torch.zeros(future.shape, device=future.device).masked_fill_(future, -math.inf)


Attended = tuple[Cells, Cells, Float[Tensor, "..."]]
"""Cells that ask, cells that they look at, and the mask between them."""


class PackedAttention(torch.autograd.Function):
    """Attention inside each sequence of a long row, a bucket at a time.

    Written out in both directions: the gather that pads is undone by the gather that packs, where autograd would
    scatter-add. No real query looks at padding, which stands after every real token or is masked, so what it holds is
    never seen.
    Tokens of no bucket attend to nothing: their z is 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        joined: Float[Tensor, "tokens some head d_head"],
        q: Float[Tensor, "queries one head d_head"] | None,
        attended: Sequence[Attended],
        scale: float,
    ) -> Float[Tensor, "queries head d_head"]:
        """z of every query. `joined` holds keys and values, and before them its own queries where `q` is None."""
        z = joined.new_zeros(len(joined if q is None else q), *joined.shape[2:])
        saved = []
        for queries, keys, mask in attended:
            inputs = _laid_out(joined, keys)
            asking = inputs[0] if q is None else _laid_out(q, queries)[0]
            k, v = inputs[-2:].unbind(0)
            scores = torch.matmul(asking, k.transpose(-1, -2)).float().div_(scale).add_(mask)
            pattern = scores.softmax(-1).to(joined.dtype)
            z[queries.tokens] = _in_a_row(torch.matmul(pattern, v)[None], queries)[:, 0]
            saved += [inputs, asking, pattern]
        ctx.save_for_backward(*saved)
        ctx.attended, ctx.scale, ctx.shapes = attended, scale, (joined.shape, None if q is None else q.shape)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Float[Tensor, "queries head d_head"]) -> tuple[Tensor, Tensor | None, None, None]:
        """Gradient of queries, keys and values."""
        shape, q_shape = ctx.shapes
        grad_joined = grad_z.new_zeros(shape)
        grad_q = None if q_shape is None else grad_z.new_zeros(q_shape)
        saved = ctx.saved_tensors
        for number, (queries, keys, _) in enumerate(ctx.attended):
            inputs, asking, pattern = saved[3 * number : 3 * number + 3]
            k, v = inputs[-2:].unbind(0)
            out = _laid_out(grad_z[:, None], queries)[0].mul_(queries.real.view(queries.rows, 1, queries.width, 1))
            found = torch.empty_like(inputs)
            torch.matmul(pattern.transpose(-1, -2), out, out=found[-1])
            grad_pattern = torch.matmul(out, v.transpose(-1, -2)).float()
            grad_scores = torch._softmax_backward_data(grad_pattern, pattern.float(), -1, torch.float32)
            grad_scores = grad_scores.div_(ctx.scale).to(grad_z.dtype)
            torch.matmul(grad_scores.transpose(-1, -2), asking, out=found[-2])
            if grad_q is None:
                torch.matmul(grad_scores, k, out=found[0])
            else:
                grad_q[queries.tokens] = _in_a_row(torch.matmul(grad_scores, k)[None], queries)
            grad_joined[keys.tokens] = _in_a_row(found, keys)
        return grad_joined, grad_q, None, None


def _laid_out(
    row: Float[Tensor, "tokens some head d_head"], cells: Cells
) -> Float[Tensor, "some row head width d_head"]:
    shaped: Tensor = rearrange(
        row[cells.tokens].index_select(0, cells.grid),
        "(row width) some head d -> some row head width d",
        row=cells.rows,
    )
    return shaped.contiguous()


def _in_a_row(
    laid_out: Float[Tensor, "some row head width d_head"], cells: Cells
) -> Float[Tensor, "tokens some head d_head"]:
    shaped: Tensor = rearrange(laid_out, "some row head width d -> (row width) some head d")
    return shaped.index_select(0, cells.flat)
