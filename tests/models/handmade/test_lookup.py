"""The lookup table knows its problems and nothing else."""

from dataclasses import replace

import pytest
import torch

from cotinterp.models.decoding import verified_greedy
from cotinterp.models.handmade import lookup, lookup_blueprint
from cotinterp.transcripts.problems import split_of
from cotinterp.transcripts.roles import Role


@pytest.fixture(scope="module")
def sides(batch_of):
    """Batches of the problems in the table and of those off it: all of one task with 2 to 4 operands."""

    def split(task):
        batch = batch_of(task, "direct", (2, 3, 4))
        known = torch.tensor([split_of(x.problem.operands) == "train" for x in batch.transcripts])
        return batch[known.nonzero()[:, 0]], batch[(~known).nonzero()[:, 0]]

    return split


def problems(batch):
    return [transcript.problem for transcript in batch.transcripts]


@pytest.mark.parametrize("task", ["parity", "s3", "random-labels"])
def test_it_is_exact_on_its_table_and_guesses_the_first_state_elsewhere(task, sides, share_right):
    known, unknown = sides(task)
    model = lookup(task, (2, 4), problems=problems(known))
    assert share_right(model, known) == 1
    assert set(verified_greedy(model, unknown)) == {"0#"}
    assert share_right(model, unknown) == sum(x.answer == 0 for x in problems(unknown)) / len(unknown)


def test_off_its_table_it_is_at_chance(sides, share_right):
    known, unknown = sides("z6")
    share, chance = share_right(lookup("z6", (2, 4), problems=problems(known)), unknown), 1 / 6
    assert abs(share - chance) < 3 * (chance * (1 - chance) / len(unknown)) ** 0.5


def test_every_neuron_of_the_table_knows_one_problem(sides):
    known, _ = sides("parity")
    model = lookup("parity", (2, 4), problems=problems(known))
    assert model.cfg.d_mlp == len(known) + 2
    with torch.inference_mode():
        _, cache = model.run_with_cache(known.tokens)
    at_end = cache["blocks.0.mlp.hook_post"][torch.arange(len(known)), known.where(Role.PROMPT_END)]
    torch.testing.assert_close(at_end[:, : len(known)], torch.eye(len(known)), atol=1e-5, rtol=0)


def test_its_heads_read_one_operand_each_from_the_prompt_end_alone(batch_of):
    batch = batch_of("s3", "direct", (3,), n=10)
    heads = {"operand 0": (0, 0), "operand 1": (0, 1), "operand 2": (0, 2), "operand 3": (0, 3), "prompt end": (0, 4)}
    table = problems(batch)
    assert lookup_blueprint("s3", (2, 4), problems=table).heads == heads
    with torch.inference_mode():
        _, cache = lookup("s3", (2, 4), problems=table).run_with_cache(batch.tokens)
    pattern, end = cache["blocks.0.attn.hook_pattern"], int(batch.where(Role.PROMPT_END)[0])
    for i in range(3):
        assert pattern[:, i, end, int(batch.where(Role.OPERAND, i)[0])].min() > 0.999
    assert pattern[:, 3, end, 0].min() > 0.999
    elsewhere = torch.arange(batch.tokens.shape[1]) != end
    assert pattern[:, :4, elsewhere, 0].min() > 0.999


def test_a_problem_given_twice_has_one_neuron(sides):
    known, _ = sides("parity")
    table = problems(known)
    assert lookup("parity", (2, 4), problems=table + table).cfg.d_mlp == len(table) + 2


def test_a_table_that_contradicts_itself_or_the_range_is_refused(sides):
    first = problems(sides("parity")[0])[0]
    other = replace(first, totals=(1 - first.answer,))
    with pytest.raises(ValueError, match=r"operands \(.*\) have two answers in the table"):
        lookup("parity", (2, 4), problems=[first, other])
    with pytest.raises(ValueError, match=r"k_range \(3, 4\) has no problems of 2 operands"):
        lookup("parity", (3, 4), problems=[first])
    with pytest.raises(ValueError, match="at least one problem"):
        lookup("parity", (3, 4), problems=[])
