"""Worked by hand for one block of d_model 2, d_mlp 4 and three symbols."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cotinterp.models.flops import Cost
from cotinterp.models.native.cache import Cache, extend
from cotinterp.models.native.parts import native_parts
from cotinterp.models.spec import ModelSpec

PROJECTION, MLP, LOGITS, PAIR = 2 * 2 * 2, 2 * 2 * (2 * 4), 2 * 2 * 3, 2 * 2 * 2


@pytest.fixture
def cost():
    return Cost(ModelSpec(n_layers=1, d_model=2, n_heads=1, d_mlp=4), d_vocab=3)


def test_a_whole_pass(cost):
    tokens, pairs = 3 + 1, (1 + 2 + 3) + 1
    assert cost.forward(np.array([3, 1])) == tokens * (4 * PROJECTION + MLP + LOGITS) + pairs * PAIR
    assert cost.forward(np.array([3, 1]), read=1) == tokens * (4 * PROJECTION + MLP) + pairs * PAIR + LOGITS


def test_a_patch_of_the_only_block_computes_one_new_key_and_what_is_read(cost):
    assert cost.resumed(0, 1, 3) == 2 * PROJECTION + PROJECTION + 3 * PAIR + MLP + LOGITS
    assert cost.resumed(0, 2, 3) == cost.resumed(0, 1, 3) + PROJECTION  # its query is new as well


def test_a_patch_of_a_head_in_the_last_block_matters_where_it_is_read(cost):
    assert cost.head_patched(0, 1, 3) == 0
    assert cost.head_patched(0, 2, 3) == 2 * 2 * 2 + MLP + LOGITS


def test_after_the_last_block_only_the_logits_are_left(cost):
    assert cost.resumed(1, 0, 3) == LOGITS


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 3, 6])
def test_a_patch_costs_less_than_a_pass_and_less_the_later_it_is(layer, start):
    deep = Cost(ModelSpec(n_layers=4, d_model=8, n_heads=2, d_mlp=32), d_vocab=5)
    here = deep.resumed(layer, start, 8)
    assert here < deep.forward(np.array([8]), read=1)
    assert deep.resumed(layer + 1, start, 8) < here
    assert deep.resumed(layer, start + 1, 8) < here


def test_an_answer_with_and_without_a_cache_by_hand(cost):
    """Two prompt tokens and two written ones: three are read with a cache, two and then three without."""
    token, prompt, response = 4 * PROJECTION + MLP, np.array([2]), np.array([2])
    assert cost.answer(prompt, response) == 3 * token + (1 + 2 + 3) * PAIR + 2 * LOGITS
    assert cost.answer_without_cache(prompt, response) == 5 * token + (1 + 2 + 1 + 2 + 3) * PAIR + 2 * LOGITS


def test_one_written_token_costs_the_same_either_way(cost):
    prompt, response = np.array([2, 5]), np.array([1, 1])
    assert cost.answer(prompt, response) == cost.answer_without_cache(prompt, response)


@torch.no_grad()
def test_torch_counts_as_many_operations_when_a_model_writes_with_a_cache(spec, module):
    """Prompt of 5, response of 4: token by token, as torch counts the matrix products that really run."""
    parts, tokens = native_parts(module), torch.arange(8)[None]
    cache = Cache.empty(parts, 1, 8)
    with FlopCounterMode(display=False) as counter:
        for position in range(8):
            stream, cache = extend(parts, cache, tokens[:, position : position + 1])
            if position >= 4:
                parts.logits(stream)
    assert counter.get_total_flops() == Cost(spec, 11).answer(np.array([5]), np.array([4]))


@torch.no_grad()
def test_torch_counts_what_a_causal_mask_hides_and_otherwise_agrees_on_a_whole_pass(spec, module):
    cost, n = Cost(spec, 11), 9
    with FlopCounterMode(display=False) as counter:
        module(torch.arange(n)[None])
    hidden = n * (n - 1) // 2
    assert counter.get_total_flops() == cost.forward(np.array([n])) + spec.n_layers * hidden * cost.pair
