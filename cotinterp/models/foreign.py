"""Tiny bridges that are none of ours: Hugging Face architectures with random weights, made from a config.

They ask whether an instrument leans on something that only native models have. GPT-2 has LayerNorm, learned positions,
fused query-key-value weights, biases everywhere and a tied unembedding. Llama has RMSNorm, rotary positions,
grouped-query attention (two key-value heads for four heads), a gated MLP, no biases, and here a head size that is not
d_model / n_heads. Nothing is downloaded.
"""

from collections.abc import Callable, Mapping

import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from cotinterp.models.build import Bridge

N_LAYERS, N_HEADS, D_MODEL, D_VOCAB, N_CTX = 2, 4, 32, 41, 24


def _gpt2() -> PreTrainedModel:
    config = GPT2Config(
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        n_embd=D_MODEL,
        vocab_size=D_VOCAB,
        n_positions=N_CTX,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def _llama() -> PreTrainedModel:
    config = LlamaConfig(
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS // 2,
        hidden_size=D_MODEL,
        head_dim=10,
        intermediate_size=48,
        vocab_size=D_VOCAB,
        max_position_embeddings=N_CTX,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


FOREIGN: Mapping[str, Callable[[], PreTrainedModel]] = {"gpt2": _gpt2, "llama": _llama}


def foreign_model(name: str, *, seed: int = 0, scale: float = 0.5) -> Bridge:
    """A tiny `gpt2` or `llama` of 2 layers, 4 heads, 41 tokens and 24 positions, as a bridge in eval mode.

    Every parameter, biases and the scales of norms included, is drawn from N(0, scale²): Hugging Face starts them at 0
    and 1, which hides mistakes. The global random state is left alone. KeyError naming the architectures.
    """
    if name not in FOREIGN:
        raise KeyError(f"no foreign architecture {name!r}; there are {list(FOREIGN)}")
    with torch.random.fork_rng(devices=[]):
        model = FOREIGN[name]()
    return wrapped(model, seed=seed, scale=scale)


def wrapped(model: PreTrainedModel, *, seed: int, scale: float = 0.5) -> Bridge:
    """Any Hugging Face model with all parameters drawn anew, in eval mode, as a bridge that takes it over."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    name = type(model).__name__
    return build_bridge_from_module(model, architecture=name, hf_config=model.config, model_name=name).eval()
