"""Small models with every parameter random: TransformerLens starts biases at zero, which hides what forgets them."""

import pytest
import torch

from tests.models.scripted import random_native, scripted, some_problems

__all__ = ["random_native", "scripted", "some_problems"]


@pytest.fixture
def randomized():
    """A function that builds a module whose every parameter is N(0, 0.1), scales around one."""
    from cotinterp.models.build import build_module

    def build(spec, d_vocab: int):
        module = build_module(spec, d_vocab, seed=0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                center = 1.0 if ".ln" in name and name.endswith("weight") else 0.0
                parameter.copy_(center + 0.1 * torch.randn(parameter.shape, generator=generator))
        return module

    return build


@pytest.fixture
def spec():
    from cotinterp.models.spec import ModelSpec

    return ModelSpec(n_layers=2, d_model=16, n_heads=2, d_mlp=24, n_ctx=12)


@pytest.fixture
def module(spec, randomized):
    return randomized(spec, 11)
