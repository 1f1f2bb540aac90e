"""Native models of three layers with every parameter random, over norms, positions and activations.

cotinterp is imported inside the fixtures: pytest may load this file before the shape checks are hooked in.
"""

import pytest
import torch

KINDS = [
    {"normalization": norm, "positions": positions, "act_fn": act}
    for norm, positions, act in [
        ("LN", "standard", "gelu"),
        ("RMS", "rotary", "silu"),
        ("LNPre", "rotary", "relu"),
        ("RMSPre", "standard", "gelu_new"),
        (None, "standard", "gelu"),
        ("LN", "rotary", "gelu_new"),
        ("LN", "sinusoidal", "gelu"),
        ("LN", "alibi", "gelu"),
    ]
]
D_VOCAB = 11


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def kind(request):
    return request.param


@pytest.fixture
def native(kind, randomized):
    """The plain module, in eval mode."""
    from cotinterp.models.spec import ModelSpec

    return randomized(ModelSpec(n_layers=3, d_model=16, n_heads=2, d_mlp=24, n_ctx=12, **kind), D_VOCAB).eval()


@pytest.fixture
def bridge(native):
    from cotinterp.models.build import as_bridge

    return as_bridge(native)


@pytest.fixture
def tokens():
    return torch.randint(0, D_VOCAB, (4, 9), generator=torch.Generator().manual_seed(3))
