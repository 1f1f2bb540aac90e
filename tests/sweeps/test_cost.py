"""The price of an answer, worked out by hand, and against the pass over what a model is trained on."""

import numpy as np
import pytest

from cotinterp.depth.cost import answer_cost, answer_lengths, training_flops
from cotinterp.models.flops import Cost
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.training.data import transcripts_of
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.vocabulary import Vocabulary

SHAPE = ModelSpec(n_layers=2, d_model=4, n_heads=2, d_mlp=8, n_ctx=128)
TOKEN = 4 * 2 * 4 * 4 + 4 * 4 * 8
PAIR = 4 * 4
LOGITS = 2 * 4 * len(Vocabulary.of(get_task("s3")))


def test_direct_by_hand() -> None:
    """`<a*b*c>` and `d#`: 7 given, 2 written, 8 read."""
    cost = answer_cost("s3", "direct", SHAPE, 3)
    assert (cost.prompt_tokens, cost.response_tokens, cost.passes) == (7, 2, 2)
    assert (cost.layer_operations, cost.slots_before_answer) == (4, 2)
    assert cost.flops == 2 * (8 * TOKEN + 36 * PAIR) + 2 * LOGITS
    assert cost.flops_without_cache == 2 * ((7 + 8) * TOKEN + (28 + 36) * PAIR) + 2 * LOGITS


def test_cot_by_hand() -> None:
    """`{a*b=d;d*c=e}e#`: 15 written, 13 of them before the answer; 21 tokens read."""
    cost = answer_cost("s3", "cot", SHAPE, 3)
    assert (cost.response_tokens, cost.layer_operations, cost.slots_before_answer) == (15, 30, 28)
    assert cost.flops == 2 * (21 * TOKEN + 231 * PAIR) + 15 * LOGITS


def test_the_mean_over_problems_is_taken_of_the_costs_not_of_the_lengths() -> None:
    lengths = answer_lengths("digit-sum", "cot", 3, n=50)
    assert len(set(lengths.response.tolist())) > 1
    assert set(lengths.prompt.tolist()) == {7}
    pairs = zip(lengths.prompt.tolist(), lengths.response.tolist(), strict=True)
    costs = [flops_of(prompt, response) for prompt, response in pairs]
    assert answer_cost("digit-sum", "cot", SHAPE, 3, n=50).flops == pytest.approx(np.mean(costs), rel=1e-12)


def flops_of(prompt: int, response: int) -> float:
    return Cost(SHAPE, len(Vocabulary.of(get_task("digit-sum")))).answer(np.array([prompt]), np.array([response]))


def test_filler_costs_what_the_longest_chain_costs() -> None:
    assert answer_cost("s3", "filler", SHAPE, 5) == answer_cost("s3", "cot", SHAPE, 5)


def test_a_length_with_nothing_held_out_is_priced_all_the_same() -> None:
    assert answer_cost("parity", "cot", SHAPE, 2).response_tokens == 9


def test_lengths_that_the_task_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="operands, not 1"):
        answer_cost("s3", "cot", SHAPE, 1)
    with pytest.raises(KeyError, match="unknown regime"):
        answer_cost("s3", "poem", SHAPE, 3)


@pytest.mark.parametrize("regime", ["direct", "cot"])
def test_training_costs_three_passes_over_what_is_shown(regime: str) -> None:
    """The expectation against the very transcripts of a training set, whose lengths are drawn."""
    spec = run_spec(regime, n_train=4000)
    task = get_task(spec.task)
    batch = collate(transcripts_of(spec, task), Vocabulary.of(task))
    pass_over_all = Cost(SHAPE, len(Vocabulary.of(task))).forward(
        batch.length.numpy() - 1, read=int(batch.loss_mask.sum())
    )
    expected = 3 * pass_over_all / len(batch) * spec.optimizer.batch_size * spec.optimizer.steps
    assert training_flops(spec) == pytest.approx(expected, rel=0.02)


def test_training_grows_with_steps_and_batch_alike() -> None:
    once = training_flops(run_spec("cot"))
    assert training_flops(run_spec("cot", steps=20)) == 2 * once
    assert training_flops(run_spec("cot", batch_size=16)) == 2 * once


def test_tags_cost_their_logits() -> None:
    extra = training_flops(run_spec("tagging", k=4)) - training_flops(run_spec("direct", k=4))
    assert extra == 3 * (4 - 1) * LOGITS * 8 * 10


def run_spec(regime: str, *, steps: int = 10, batch_size: int = 8, n_train: int = 10, k: int | None = None) -> RunSpec:
    return RunSpec(
        task="s3",
        regime=regime,
        k_min=k or 2,
        k_max=k or 6,
        n_train=n_train,
        model=SHAPE,
        optimizer=OptimizerSpec(steps=steps, batch_size=batch_size),
    )
