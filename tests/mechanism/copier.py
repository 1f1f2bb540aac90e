"""A model whose only mechanism is known: a head that copies the previous token."""

from collections.abc import Callable
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

WRITES = 3.0
BIAS = 0.5
BIASED_TOKEN = 1


def previous_token_copier(make_tiny: Callable[..., TransformerBridge], **changes: Any) -> TransformerBridge:
    """One layer without MLP or norm, two heads, eight tokens, eight positions; `changes` go to the config.

    Head 0 attends from each position to the one before and adds `WRITES` to the logit of the token there (the first
    position attends to itself). Head 1 has no weights: it attends evenly and writes nothing. b_O adds `BIAS` to the
    logit of `BIASED_TOKEN`. Nothing else reaches the logits.
    """
    sizes = {"n_layers": 1, "n_heads": 2, "d_head": 8, "d_model": 24, "d_vocab": 8, "n_ctx": 8}
    model = make_tiny(**{**sizes, "attn_only": True, "normalization_type": None, **changes})
    native = model.original_model
    token, position, output = slice(0, 8), slice(8, 16), slice(16, 24)
    eye = torch.eye(8)
    with torch.no_grad():
        for parameter in native.parameters():
            parameter.zero_()
        native.tok_embed.weight[:, token] = eye
        native.pos.weight[:, position] = eye
        attn = native.layers[0].attn
        first_head = slice(0, 8)
        previous = torch.zeros(8, 8)
        previous[torch.arange(7), torch.arange(1, 8)] = 1
        previous[0, 0] = 1
        attn.q.weight[first_head, position] = 300 * previous
        attn.k.weight[first_head, position] = eye
        attn.v.weight[first_head, token] = eye
        attn.o.weight[output, first_head] = WRITES * eye
        attn.o.bias[output.start + BIASED_TOKEN] = BIAS
        native.head.weight[:, output] = eye
    return model
