"""The recomputer writes what the reader writes, and nothing that it wrote matters to it."""

import numpy as np
import pytest
import torch

from cotinterp.models.handmade import reader, reader_blueprint, recomputer, recomputer_blueprint
from cotinterp.models.handmade.recomputer import answer_copied, every_other_step, two_steps_back
from cotinterp.transcripts.roles import Role

REGIMES = ("totals", "cot")


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("task", ["parity", "z6"])
def test_it_is_exact_on_every_problem(task, regime, batch_of, share_right):
    assert share_right(recomputer(task, regime, (2, 4)), batch_of(task, regime, (2, 3, 4))) == 1


@pytest.mark.parametrize(
    ("task", "regime", "ks"), [("z6", "cot", (5, 8)), ("parity", "totals", (9, 12)), ("z60", "totals", (2, 5))]
)
def test_it_is_exact_on_a_sample_of_long_problems_and_large_sums(task, regime, ks, batch_of, share_right):
    assert share_right(recomputer(task, regime, (2, ks[1])), batch_of(task, regime, ks, n=60)) == 1


WRITTEN = {
    "totals": (Role.TOTAL, Role.ANSWER),
    "cot": (Role.PREVIOUS_TOTAL, Role.STEP_OPERAND, Role.TOTAL, Role.ANSWER),
}


@pytest.mark.parametrize("decoy", [False, True])
@pytest.mark.parametrize("regime", REGIMES)
def test_no_edit_of_what_it_wrote_changes_a_logit(regime, decoy, batch_of, logits_of, scrambled):
    batch = batch_of("z6", regime, (2, 3, 4, 5), n=25)
    edited = scrambled(batch, WRITTEN[regime])
    assert torch.equal(edited != batch.tokens, batch.loss_mask & (batch.value >= 0))
    model, follower = recomputer("z6", regime, decoy=decoy), reader("z6", regime)
    written = batch.loss_mask.roll(-1, dims=1)
    change = (logits_of(model, edited) - logits_of(model, batch.tokens))[written].abs()
    assert change.max() < 1e-5
    followed = (logits_of(follower, edited) - logits_of(follower, batch.tokens))[written].abs()
    assert followed.amax(-1).gt(10).float().mean() > 0.2


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("back", [answer_copied, every_other_step, two_steps_back])
def test_a_half_reader_is_exact_and_reads_what_it_says_alone(back, regime, batch_of, share_right, logits_of, scrambled):
    """A replaced total of step j changes the totals and the answer that `back` makes of it, and no other value."""
    sizes = ("z6", regime, (2, 5))
    model, batch = recomputer(*sizes, back=back), batch_of("z6", regime, (5,), n=25)
    assert share_right(model, batch) == 1
    assert recomputer_blueprint(*sizes, back=back).heads["written"] == (1, 5)
    tokens = batch.transcripts[0].tokens
    for step in range(1, 5):
        edited = batch.tokens.clone()
        at = batch.where(Role.TOTAL, step)
        rows = torch.arange(len(batch))
        edited[rows, at] = scrambled(batch, (Role.TOTAL,))[rows, at]
        change = (logits_of(model, edited) - logits_of(model, batch.tokens)).abs().amax(-1)
        for place, token in enumerate(tokens):
            if place > int(at[0]) and token.value >= 0:
                moved = change[:, place - 1]
                reads = back(token) == step
                assert bool((moved > 10).all() if reads else (moved < 1e-5).all()), (step, token)


def test_an_edit_of_the_prompt_does(batch_of, logits_of, scrambled):
    batch = batch_of("z6", "cot", (4,), n=25)
    logits = logits_of(recomputer("z6", "cot"), scrambled(batch, (Role.OPERAND,)))
    first = logits[torch.arange(len(batch)), batch.where(Role.PREVIOUS_TOTAL, 1) - 1].argmax(-1)
    assert (first != batch.tokens[torch.arange(len(batch)), batch.where(Role.PREVIOUS_TOTAL, 1)]).all()


def test_it_adds_up_the_operands_so_far_wherever_a_value_is_due(batch_of, stored):
    batch = batch_of("z6", "cot", (4,), n=30)
    blueprint, model = recomputer_blueprint("z6", "cot"), recomputer("z6", "cot")
    held = stored(model, blueprint, batch.tokens, "sum", "blocks.1.hook_resid_mid")[..., 0]
    operands = np.array([x.problem.operands for x in batch.transcripts])
    sums = {
        (Role.TOTAL, 2): operands[:, :3].sum(1),
        (Role.PREVIOUS_TOTAL, 2): operands[:, :2].sum(1),
        (Role.STEP_OPERAND, 2): operands[:, 2],
        (Role.ANSWER, 3): operands.sum(1),
    }
    for (role, step), expected in sums.items():
        at = batch.where(role, step) - 1
        np.testing.assert_allclose(held[torch.arange(len(batch)), at].numpy(), expected, atol=1e-5)
    assert held[torch.arange(len(batch)), batch.where(Role.EQUALS, 2) - 1].abs().max() < 1e-9


def test_its_heads_look_at_the_prompt_alone(batch_of):
    batch = batch_of("z6", "totals", (5,), n=20)
    assert recomputer_blueprint("z6").heads == {"prompt end": (0, 0), **{f"operand {i}": (1, i) for i in range(5)}}
    with torch.inference_mode():
        _, cache = recomputer("z6").run_with_cache(batch.tokens)
    pattern = cache["blocks.1.attn.hook_pattern"]
    at = int((batch.where(Role.TOTAL, 2) - 1)[0])
    for i in range(5):
        source = int(batch.where(Role.OPERAND, i)[0]) if i <= 2 else 0
        assert pattern[:, i, at, source].min() > 0.999


def test_one_neuron_for_each_place_and_each_knot():
    plan, knots = (layer.neurons for layer in recomputer_blueprint("z6", "totals", (2, 3)).layers)
    assert len(plan) == len("{a}a#") + len("{a;b}b#")
    assert len(knots) == (3 * 5 + 1) + 1


def test_its_decoy_looks_and_holds_as_a_reader_would(batch_of, stored):
    """Same attention as the reader's total head, the same total stored, and no use of it (see the edits above)."""
    batch, sizes = batch_of("z6", "cot", (4,), n=30), ("z6", "cot", (4, 4))
    blueprint, model = recomputer_blueprint(*sizes, decoy=True), recomputer(*sizes, decoy=True)
    assert blueprint.unread == ("decoy",)
    assert blueprint.heads["decoy"] == (1, 4)
    name = "blocks.1.attn.hook_pattern"
    with torch.inference_mode():
        _, mine = model.run_with_cache(batch.tokens, names_filter=[name])
        _, its = reader(*sizes).run_with_cache(batch.tokens, names_filter=[name])
    total = reader_blueprint(*sizes).heads["total"][1]
    torch.testing.assert_close(mine[name][:, 4], its[name][:, total], atol=1e-6, rtol=0)
    held = stored(model, blueprint, batch.tokens, "decoy", "blocks.1.hook_resid_post")
    for step in (1, 2, 3):
        here = held[torch.arange(len(batch)), batch.where(Role.TOTAL, step) - 1]
        truth = torch.eye(6)[torch.tensor([x.problem.previous[step - 1] for x in batch.transcripts])]
        torch.testing.assert_close(here, truth, atol=1e-6, rtol=0)
