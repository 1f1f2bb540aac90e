"""A model that holds two variables of each token side by side and reads one of them."""

from collections.abc import Callable

import torch
from transformer_lens.model_bridge import TransformerBridge

from cotinterp.mechanism.contrast import Contrast

READ, DECOY, DORMANT, POSITION, OUT = slice(0, 4), slice(4, 6), slice(6, 7), slice(8, 16), slice(16, 20)
D_MODEL, N_POSITIONS = 24, 8
AT = 5
ONE_BACK, TWO_BACK = AT - 1, AT - 2


def token(u: torch.Tensor | int, v: torch.Tensor | int) -> torch.Tensor:
    """The token of (u, v): u in 0..3, v in 0..1."""
    return torch.as_tensor(2 * u + v)


def slotted(make_tiny: Callable[..., TransformerBridge]) -> TransformerBridge:
    """One layer without MLP or norm, eight tokens (u, v), eight positions.

    The embedding holds u in READ and v in DECOY. Head 0 adds 3 to the output of u one position back, head 1 adds 2 to
    that of u two back; nothing reads v. Head 0 would also read DORMANT, for output 0 and against 1, but no token writes
    there. The logits of (u, 0) are output u, those of (u, 1) half of it.
    """
    sizes = {"n_layers": 1, "n_heads": 2, "d_head": 8, "d_model": D_MODEL, "d_vocab": 8, "n_ctx": N_POSITIONS}
    model = make_tiny(**sizes, attn_only=True, normalization_type=None)
    native, u, v = model.original_model, torch.arange(8) // 2, torch.arange(8) % 2
    attn = native.layers[0].attn
    with torch.no_grad():
        for parameter in native.parameters():
            parameter.zero_()
        native.tok_embed.weight[:, READ] = torch.eye(4)[u]
        native.tok_embed.weight[:, DECOY] = torch.eye(2)[v]
        native.pos.weight[:, POSITION] = torch.eye(N_POSITIONS)
        for head, back in enumerate((1, 2)):
            rows = slice(8 * head, 8 * head + 8)
            source = torch.eye(N_POSITIONS)[(torch.arange(N_POSITIONS) - back).clamp_min(0)]
            attn.q.weight[rows, POSITION] = 300 * source.T
            attn.k.weight[rows, POSITION] = torch.eye(N_POSITIONS)
            attn.v.weight[8 * head : 8 * head + 4, READ] = torch.eye(4)
            attn.o.weight[OUT, 8 * head : 8 * head + 4] = (3 - head) * torch.eye(4)
        attn.v.weight[4, DORMANT] = 1
        attn.o.weight[OUT, 4] = torch.tensor([2.0, -2.0, 0.0, 0.0])
        native.head.weight[token(torch.arange(4), 0), OUT] = torch.eye(4)
        native.head.weight[token(torch.arange(4), 1), OUT] = 0.5 * torch.eye(4)
    return model


def one_back_pairs(n: int, *, seed: int) -> Contrast:
    """Both u and v of the token one back differ; what is read there is u."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 8, (n, N_POSITIONS), generator=generator)
    u = torch.randint(0, 4, (n,), generator=generator)
    other = (u + torch.randint(1, 4, (n,), generator=generator)) % 4
    v = torch.randint(0, 2, (n,), generator=generator)
    clean[:, TWO_BACK] = token((torch.maximum(u, other) + 1) % 4, 0)
    corrupted = clean.clone()
    clean[:, ONE_BACK], corrupted[:, ONE_BACK] = token(u, v), token(other, 1 - v)
    return Contrast.by_position(clean, corrupted, torch.full((n,), AT), token(u, 0), token(other, 0))


def two_back_pairs(n: int, *, seed: int) -> Contrast:
    """Two back u is 0 or 1, which decides; one back only v differs with it, which nothing reads."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 8, (n, N_POSITIONS), generator=generator)
    corrupted = clean.clone()
    u = torch.randint(2, 4, (n,), generator=generator)
    clean[:, TWO_BACK], corrupted[:, TWO_BACK] = token(0, 0), token(1, 0)
    clean[:, ONE_BACK], corrupted[:, ONE_BACK] = token(u, 0), token(u, 1)
    nothing = torch.zeros(n, dtype=torch.long)
    return Contrast.by_position(clean, corrupted, torch.full((n,), AT), token(nothing, 0), token(nothing + 1, 0))
