"""The parallel sum: exact everywhere, with the mean at one place and no part of the sum at any other."""

import numpy as np
import pytest
import torch

from cotinterp.models.handmade import parallel, parallel_blueprint
from cotinterp.transcripts.roles import Role


@pytest.mark.parametrize("decoy", [False, True])
@pytest.mark.parametrize("task", ["parity", "z6"])
def test_it_is_exact_on_every_problem(task, decoy, batch_of, share_right):
    assert share_right(parallel(task, (2, 4), decoy=decoy), batch_of(task, "direct", (2, 3, 4))) == 1


@pytest.mark.parametrize(("task", "ks"), [("parity", (20, 31)), ("z6", (9, 12)), ("z60", (2, 5))])
def test_it_is_exact_on_a_sample_of_long_problems_and_large_sums(task, ks, batch_of, share_right):
    assert share_right(parallel(task, ks), batch_of(task, "direct", ks, n=100)) == 1


def test_one_layer_one_head_and_a_block_of_bumps_for_each_length():
    model = parallel("z6", (2, 3))
    assert (model.cfg.n_layers, model.cfg.n_heads) == (1, 1)
    assert model.cfg.d_mlp == (2 * 5 + 2) + (3 * 5 + 2) + 1
    assert parallel_blueprint("z6").heads == {"average": (0, 0)}
    assert parallel_blueprint("z6").unread == ()


def test_the_head_averages_from_the_prompt_end_and_rests_elsewhere(batch_of, stored):
    batch = batch_of("z6", "direct", (4,), n=30)
    model, blueprint = parallel("z6"), parallel_blueprint("z6")
    with torch.inference_mode():
        _, cache = model.run_with_cache(batch.tokens)
    pattern, end = cache["blocks.0.attn.hook_pattern"][:, 0], int(batch.where(Role.PROMPT_END)[0])
    operands = [int(batch.where(Role.OPERAND, i)[0]) for i in range(4)]
    torch.testing.assert_close(pattern[:, end, operands], torch.full((30, 4), 0.25), atol=1e-6, rtol=0)
    assert pattern[:, :end, 0].min() > 0.999
    assert pattern[:, end + 1 :, end].min() > 0.999
    mean = stored(model, blueprint, batch.tokens, "mean", "blocks.0.hook_resid_mid")[..., 0]
    truth = np.mean([x.problem.operands for x in batch.transcripts], axis=1)
    np.testing.assert_allclose(mean[:, end].numpy(), truth, atol=1e-5)
    mean[:, end] = 0
    assert mean.abs().max() < 1e-9


def test_before_the_prompt_end_no_place_knows_of_another(batch_of, scrambled):
    """Every operand of the prompt but the last is changed, and the residual stream at the last one is the same."""
    batch, hook = batch_of("z6", "direct", (4,), n=30), "blocks.0.hook_resid_post"
    last = batch.where(Role.OPERAND, 3)
    edited = scrambled(batch, (Role.OPERAND,))
    edited[torch.arange(30), last] = batch.tokens[torch.arange(30), last]

    def change(model):
        with torch.inference_mode():
            before, after = (model.run_with_cache(x, names_filter=[hook])[1][hook] for x in (batch.tokens, edited))
        return (before - after)[torch.arange(30), last].abs().max()

    assert change(parallel("z6")) < 1e-9
    assert change(parallel("z6", decoy=True)) > 0.1


def test_the_order_of_the_operands_changes_nothing(batch_of, logits_of):
    batch = batch_of("z6", "direct", (4,), n=30)
    places = [int(batch.where(Role.OPERAND, i)[0]) for i in range(4)]
    reordered = batch.tokens.clone()
    reordered[:, places] = batch.tokens[:, places[::-1]]
    end, model = int(batch.where(Role.PROMPT_END)[0]), parallel("z6")
    difference = logits_of(model, reordered)[:, end] - logits_of(model, batch.tokens)[:, end]
    assert (reordered != batch.tokens).any()
    assert difference.abs().max() < 1e-3


def test_its_decoy_has_every_running_total_and_no_reader(batch_of, stored, logits_of):
    batch = batch_of("z6", "direct", (2, 3, 4), n=30)
    model, blueprint = parallel("z6", decoy=True), parallel_blueprint("z6", decoy=True)
    assert blueprint.unread == ("decoy",)
    assert blueprint.heads == {"average": (0, 0), "decoy": (0, 1)}
    four = batch[torch.arange(60, 90)]
    held = stored(model, blueprint, four.tokens, "decoy", "blocks.0.hook_resid_post")
    for j in range(4):
        so_far = [(x.problem.operands[0], *x.problem.totals)[j] for x in four.transcripts]
        here = held[torch.arange(30), four.where(Role.OPERAND, j)]
        torch.testing.assert_close(here, torch.eye(6)[torch.tensor(so_far)], atol=1e-4, rtol=0)
    difference = logits_of(model, batch.tokens) - logits_of(parallel("z6"), batch.tokens)
    assert difference[batch.loss_mask.roll(-1, dims=1)].abs().max() < 1e-3
