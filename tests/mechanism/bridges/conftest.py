"""Bridges that this package did not build, from a Hugging Face config and without a download.

Five sequences of seven tokens: batch, positions, heads (4), key-value heads, d_head (8 or 10) and d_model (32) are all
different numbers, so that an axis taken for another one cannot pass.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge

D_VOCAB = 41
SIZES = {"vocab_size": D_VOCAB, "bos_token_id": None, "eos_token_id": None}
WITH_HIDDEN = SIZES | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OTHERS: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "gptj": (
        transformers.GPTJConfig,
        transformers.GPTJForCausalLM,
        SIZES | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24, "rotary_dim": 4},
    ),
    "opt": (
        transformers.OPTConfig,
        transformers.OPTForCausalLM,
        WITH_HIDDEN | {"ffn_dim": 48, "max_position_embeddings": 24, "word_embed_proj_dim": 32},
    ),
    "granite": (
        transformers.GraniteConfig,
        transformers.GraniteForCausalLM,
        WITH_HIDDEN | {"num_key_value_heads": 2, "intermediate_size": 48, "residual_multiplier": 0.5},
    ),
    "mamba": (
        transformers.MambaConfig,
        transformers.MambaForCausalLM,
        SIZES | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    ),
    "deepseek": (
        transformers.DeepseekV3Config,
        transformers.DeepseekV3ForCausalLM,
        WITH_HIDDEN
        | {"num_key_value_heads": 4, "intermediate_size": 48, "moe_intermediate_size": 16, "n_routed_experts": 4}
        | {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "kv_lora_rank": 8, "q_lora_rank": 16}
        | {"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8},
    ),
}


@pytest.fixture(scope="session")
def make_bridge() -> Callable[..., TransformerBridge]:
    """`make_bridge("gptj", attn_implementation="eager")`: an architecture with all parameters drawn anew."""
    from cotinterp.calibration.peers import wrapped

    def make(name: str, **changes: Any) -> TransformerBridge:
        config, model, sizes = OTHERS[name]
        with torch.random.fork_rng(devices=[]):
            return wrapped(model(config(**sizes, **changes)), seed=0, scale=0.2)

    return make


@pytest.fixture(scope="session", params=["gpt2", "llama"])
def bridge(request: pytest.FixtureRequest) -> TransformerBridge:
    """Shared and never changed."""
    from cotinterp.calibration.peers import foreign_model

    return foreign_model(request.param)


@pytest.fixture(scope="session")
def gpt2() -> TransformerBridge:
    from cotinterp.calibration.peers import foreign_model

    return foreign_model("gpt2")


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    return torch.randint(0, D_VOCAB, (5, 7), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def other(tokens: torch.Tensor) -> torch.Tensor:
    """Another token at every position."""
    return (tokens + 7) % D_VOCAB


@pytest.fixture
def question(bridge: TransformerBridge, tokens: torch.Tensor) -> Any:
    """Position 2 replaced; read out at a position of each example's own, where the change is seen most and least."""
    from tests.mechanism.contrasts import contrast_with_gap, replaced

    at = torch.tensor([5, 6, 4, 6, 3])
    contrast = contrast_with_gap(bridge, tokens, replaced(tokens, [2], d_vocab=D_VOCAB), at)
    return replace(contrast, templates=np.zeros(5, dtype=np.int64))
