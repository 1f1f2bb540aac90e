"""Tiny models with every parameter random, biases too: TransformerLens starts those at zero, which hides mistakes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources.native import NativeModel, boot

N_LAYERS, N_HEADS, D_MODEL, D_VOCAB, N_CTX = 2, 4, 16, 13, 24


def randomize(model: TransformerBridge, *, seed: int, scale: float = 0.4) -> TransformerBridge:
    """Every parameter drawn anew, and the model in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def build_tiny(*, seed: int = 0, **changes: Any) -> TransformerBridge:
    """A native model of two layers and four heads; `changes` go to its config."""
    sizes: dict[str, Any] = {
        "n_layers": N_LAYERS,
        "n_heads": N_HEADS,
        "d_model": D_MODEL,
        "d_head": D_MODEL // N_HEADS,
        "d_mlp": 2 * D_MODEL,
        "n_ctx": N_CTX,
        "d_vocab": D_VOCAB,
        "act_fn": "gelu",
        "normalization_type": "LN",
        "seed": 0,
        "device": "cpu",
    }
    if changes.get("positional_embedding_type") != "alibi":
        return randomize(boot(TransformerBridgeConfig(**{**sizes, **changes})), seed=seed)
    from cotinterp.models.build import as_bridge, use_alibi

    module = NativeModel(TransformerBridgeConfig(**{**sizes, **changes, "positional_embedding_type": "standard"}))
    use_alibi(module)
    return randomize(as_bridge(module), seed=seed)


@pytest.fixture(scope="session")
def tiny_model() -> TransformerBridge:
    """Shared and never changed: instruments leave a model as it was (tests that change one use `make_tiny`)."""
    return build_tiny()


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., TransformerBridge]:
    """A fresh tiny model; keyword arguments go to its config, `seed` to its parameters."""
    return build_tiny


@pytest.fixture(scope="session")
def randomized() -> Callable[..., TransformerBridge]:
    """`randomized(model, seed=...)`: any model with every parameter drawn anew, in eval mode."""
    return randomize


@pytest.fixture
def tokens() -> torch.Tensor:
    """Five random sequences of eight tokens."""
    return torch.randint(0, D_VOCAB, (5, 8), generator=torch.Generator().manual_seed(1))
