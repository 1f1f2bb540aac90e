"""A model in both forms, native and as a GPT-2 with the same weights, and a question to it."""

from typing import Any

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from tests.mechanism.conftest import D_VOCAB
from tests.mechanism.contrasts import contrast_with_gap, replaced


@pytest.fixture(scope="session")
def native() -> TransformerBridge:
    from tests.mechanism.conftest import build_tiny, randomize

    return randomize(build_tiny(), seed=3)


@pytest.fixture(scope="session")
def gpt2(native) -> TransformerBridge:
    """The same weights; never changed."""
    from cotinterp.calibration.peers import gpt2_copy

    return gpt2_copy(native)


def asked_of(model: Any, *, changed: tuple[int, ...] = (2, 4)) -> Any:
    """Five sequences of nine tokens, two tokens replaced in each, read at a position of its own."""
    tokens = torch.randint(0, D_VOCAB, (5, 9), generator=torch.Generator().manual_seed(0))
    at = torch.tensor([8, 7, 8, 6, 5])
    return contrast_with_gap(model, tokens, replaced(tokens, list(changed), d_vocab=D_VOCAB), at)


@pytest.fixture(scope="session")
def question(native) -> Any:
    return asked_of(native)
