"""The reader is exact, reads where it says, and goes on from whatever was written."""

import numpy as np
import pytest
import torch

from cotinterp.models.decoding import prefixes, text_of, verified
from cotinterp.models.handmade import reader, reader_blueprint, recomputer
from cotinterp.models.handmade.layout import layouts
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import substitute_total, wrong_totals
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role

pytestmark = pytest.mark.slow

REGIMES = ("totals", "cot")


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("task", ["parity", "z6", "s3"])
def test_it_is_exact_on_every_problem(task, regime, batch_of, share_right):
    ks = (2, 3, 4) if task != "s3" else (2, 3)
    assert share_right(reader(task, regime, (2, 4)), batch_of(task, regime, ks)) == 1


@pytest.mark.parametrize(("task", "regime", "ks"), [("z6", "cot", (5, 8)), ("parity", "totals", (9, 12))])
def test_it_is_exact_on_a_sample_of_long_problems(task, regime, ks, batch_of, share_right):
    assert share_right(reader(task, regime, (2, ks[1])), batch_of(task, regime, ks, n=60)) == 1


def test_a_table_of_3600_steps_is_written_as_well(batch_of, share_right):
    assert share_right(reader("a5", "totals", (3, 4)), batch_of("a5", "totals", (3, 4), n=40)) == 1


def edited_and_resumed(model, task, regime, batch):
    """For every wrong total of every problem: what is written after it, and what the task's own transition says."""
    edits = [
        (render(task, substitute_total(task, x.problem, step, state), regime), step)
        for x in batch.transcripts
        for step in range(1, x.problem.k)
        for state in wrong_totals(task, x.problem, step)
    ]
    edited = collate([transcript for transcript, _ in edits], batch.vocabulary)
    cut = torch.tensor(
        [next(i for i, t in enumerate(x.tokens) if (t.role, t.step) == (Role.TOTAL, step)) + 1 for x, step in edits]
    )
    written = verified(model, prefixes(model, edited, given=cut), stop=batch.vocabulary.end, batch_size=2048)
    rests = [x.text[at:] for (x, _), at in zip(edits, cut.tolist(), strict=True)]
    return [text_of(batch.vocabulary, tokens) for tokens in written], rests


@pytest.mark.parametrize("regime", REGIMES)
def test_it_follows_every_edit_of_a_written_total_exactly(regime, batch_of):
    task, batch = get_task("z6"), batch_of("z6", regime, (2, 3, 4), n=12)
    written, rests = edited_and_resumed(reader(task, regime, (2, 4)), task, regime, batch)
    assert len(rests) == 5 * 12 * (1 + 2 + 3)
    assert written == rests


def test_the_recomputer_fails_that_test(batch_of):
    task, batch = get_task("z6"), batch_of("z6", "cot", (3, 4), n=6)
    written, rests = edited_and_resumed(recomputer(task, "cot", (3, 4)), task, "cot", batch)
    assert not any(a == b for a, b in zip(written, rests, strict=True))


@pytest.mark.parametrize("regime", REGIMES)
def test_its_heads_attend_to_their_sources_and_rest_elsewhere(regime, batch_of):
    blueprint, batch = reader_blueprint("z6", regime, (4, 4)), batch_of("z6", regime, (4,), n=20)
    assert blueprint.heads == {"prompt end": (0, 0), "total": (1, 0), "operand": (1, 1)}
    with torch.inference_mode():
        _, cache = reader("z6", regime, (4, 4)).run_with_cache(batch.tokens)
    place, start = layouts(get_task("z6"), regime, (4, 4))[0], 0
    end = place.where(Role.PROMPT_END)
    found = cache["blocks.0.attn.hook_pattern"][:, 0]
    assert found[:, end:, end].min() > 0.999
    assert found[:, :end, start].min() > 0.999
    pattern = cache["blocks.1.attn.hook_pattern"]
    read = set()
    for at, token in place.predictions():
        for head, source in enumerate(place.sources(at, token)):
            assert pattern[:, head, at, start if source is None else source].min() > 0.999
            read |= set() if source is None else {(head, place.tokens[source].role)}
    repeated = {(0, Role.PREVIOUS_TOTAL), (1, Role.STEP_OPERAND)} if regime == "cot" else set()
    assert read == {(0, Role.OPERAND), (0, Role.TOTAL), (1, Role.OPERAND)} | repeated


def test_one_neuron_for_each_place_and_one_for_each_step():
    plan, steps = (layer.neurons for layer in reader_blueprint("z6", "totals", (2, 3)).layers)
    assert len(plan) == len("{a}a#") + len("{a;b}b#")
    assert len(steps) == 6 * 6 + 6 + 6
    assert reader("z6", "totals", (2, 3)).cfg.d_mlp == 48


def test_where_a_total_is_predicted_it_holds_the_total_before_and_the_operand(batch_of, stored):
    blueprint, batch = reader_blueprint("s3", "totals", (4, 4)), batch_of("s3", "totals", (4,), n=30)
    model, hook = reader("s3", "totals", (4, 4)), "blocks.1.hook_resid_mid"
    rows = torch.arange(len(batch))
    for step in (1, 2, 3):
        at = batch.where(Role.TOTAL, step) - 1
        problems = [x.problem for x in batch.transcripts]
        for name, truth in (
            ("total", [x.previous[step - 1] for x in problems]),
            ("operand", [x.operands[step] for x in problems]),
        ):
            held = stored(model, blueprint, batch.tokens, name, hook)[rows, at]
            torch.testing.assert_close(held, torch.eye(6)[torch.tensor(truth)], atol=1e-6, rtol=0)


def test_its_decoy_holds_the_total_too_and_nothing_reads_it(batch_of, stored, logits_of):
    batch, sizes = batch_of("z6", "cot", (4,), n=40), ("z6", "cot", (4, 4))
    blueprint, model = reader_blueprint(*sizes, decoy=True), reader(*sizes, decoy=True)
    assert blueprint.unread == ("decoy",)
    assert blueprint.heads["decoy"] == (1, 2)
    hook = "blocks.1.hook_resid_mid"
    at = batch.where(Role.TOTAL, 3) - 1
    held = stored(model, blueprint, batch.tokens, "decoy", hook)[torch.arange(len(batch)), at].argmax(-1)
    assert held.tolist() == [x.problem.totals[1] for x in batch.transcripts]

    def without(subspace):
        basis = blueprint.basis(subspace)
        with model.hooks(fwd_hooks=[(hook, lambda value, **_: value - value @ basis.T @ basis)]):
            return logits_of(model, batch.tokens)

    clean = logits_of(model, batch.tokens)
    assert torch.equal(without("decoy"), clean)
    torch.testing.assert_close(clean, logits_of(reader(*sizes), batch.tokens), atol=1e-5, rtol=0)
    lost = without("total")[torch.arange(len(batch)), at].argmax(-1)
    assert (lost != batch.tokens[torch.arange(len(batch)), at + 1]).float().mean() > 0.7


def test_the_right_symbol_leads_by_the_stated_logit(batch_of, logits_of):
    batch = batch_of("z6", "cot", (2, 3, 4), n=20)
    logits = logits_of(reader("z6", "cot", (2, 4)), batch.tokens)[:, :-1]
    right, next_token = batch.loss_mask[:, 1:], batch.tokens[:, 1:, None]
    lead = logits.gather(-1, next_token)[..., 0] - logits.scatter(-1, next_token, -np.inf).amax(-1)
    torch.testing.assert_close(lead[right], torch.full((int(right.sum()),), 20.0), atol=1e-4, rtol=0)
