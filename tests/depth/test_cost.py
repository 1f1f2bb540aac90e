"""The price of an answer, worked out by hand, and against the pass over what a model is trained on."""

import math

import numpy as np
import pytest

from cotinterp.depth.cost import (
    answer_cost,
    answer_lengths,
    equal_flops,
    equal_parameters,
    serial_budget,
    training_flops,
)
from cotinterp.models.flops import Cost
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.training.data import transcripts_of
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

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


MATCHED = ModelSpec(n_layers=1, d_model=64, n_heads=4, d_mlp=256, n_ctx=128)


def flops(model: ModelSpec, regime: str, k: int = 12) -> float:
    return answer_cost("s3", regime, model, k).flops


def test_by_depth_only_the_depth_changes_and_no_neighbor_is_nearer() -> None:
    found, wanted = equal_flops(MATCHED, "s3", 12), flops(MATCHED, "cot")
    assert found == MATCHED.model_copy(update={"n_layers": 4})
    for n_layers in (3, 5):
        other = MATCHED.model_copy(update={"n_layers": n_layers})
        assert abs(flops(other, "direct") - wanted) > abs(flops(found, "direct") - wanted)


def test_by_width_depth_and_the_ratio_of_the_mlp_stay() -> None:
    found, wanted = equal_flops(MATCHED, "s3", 12, by="width"), flops(MATCHED, "cot")
    assert (found.n_layers, found.d_mlp, found.d_model % found.n_heads) == (1, 4 * found.d_model, 0)
    for d_model in (found.d_model - 4, found.d_model + 4):
        other = MATCHED.model_copy(update={"d_model": d_model, "d_mlp": 4 * d_model})
        assert abs(flops(other, "direct") - wanted) > abs(flops(found, "direct") - wanted)


@pytest.mark.parametrize("by", ["depth", "width"])
def test_a_regime_that_costs_the_same_keeps_the_shape(by: str) -> None:
    assert equal_flops(MATCHED, "s3", 12, regime_to="filler", by=by) == MATCHED
    assert equal_flops(MATCHED, "s3", 12, regime_from="direct", by=by) == MATCHED


def test_as_many_parameters_in_other_depths() -> None:
    base = MATCHED.model_copy(update={"n_layers": 4})
    assert equal_parameters(base, 4) == base
    narrow, wide = equal_parameters(base, 12), equal_parameters(base, 1)
    assert (narrow.d_model, wide.d_model) == (36, 124)
    for shape in (narrow, wide):
        assert shape.n_parameters(0) == pytest.approx(base.n_parameters(0), rel=0.1)
    assert equal_parameters(base, 12, d_vocab=5000).n_parameters(5000) == pytest.approx(
        base.n_parameters(5000), rel=0.1
    )


def test_rotary_heads_keep_an_even_width() -> None:
    rotary = MATCHED.model_copy(update={"positions": "rotary", "n_layers": 4})
    assert equal_parameters(rotary, 7).d_head % 2 == 0


def test_what_the_limits_do_not_reach_is_refused_with_the_nearest() -> None:
    deep = MATCHED.model_copy(update={"n_layers": 40})
    with pytest.raises(ValueError, match=r"within 25%: the nearest, n_layers 64"):
        equal_flops(deep, "s3", 12)
    with pytest.raises(ValueError, match="parameters within 1%"):
        equal_parameters(MATCHED, 7, within=0.01)
    with pytest.raises(ValueError, match="no such shape"):
        equal_parameters(MATCHED, 65)


def test_direct_has_one_pass_before_the_answer_whatever_k() -> None:
    table = serial_budget(get_task("s3"), "direct", n_layers=4, ks=range(2, 7), n=20)
    assert table["additions"].tolist() == [1, 2, 3, 4, 5]
    assert table["tree_levels"].tolist() == [1, 2, 2, 3, 3]
    assert table["slots_before_answer"].tolist() == [4.0] * 5
    # One symbol of answer and the end.
    assert table["response_tokens"].tolist() == [2.0] * 5
    assert table["layer_operations"].tolist() == [8.0] * 5


def test_a_chain_of_thought_of_one_symbol_states() -> None:
    table = serial_budget(get_task("s3"), "cot", n_layers=4, ks=range(2, 5), n=20)
    # {a*b=c} for one step, and ;c*d=e for each further one; then answer and end.
    before = [7, 13, 19]
    assert table["response_tokens"].tolist() == [b + 2.0 for b in before]
    assert table["slots_before_answer"].tolist() == [4.0 * (b + 1) for b in before]


def test_sums_are_longer_where_totals_have_two_digits() -> None:
    sums = serial_budget(get_task("digit-sum"), "cot", n_layers=2, ks=range(3, 4), n=100)
    assert 13 + 2 < sums["response_tokens"].item() < 13 + 2 + 4
    assert sums["layer_operations"].item() == pytest.approx(2 * sums["response_tokens"].item())
    again = serial_budget(get_task("digit-sum"), "cot", n_layers=2, ks=range(3, 4), n=100)
    assert math.isclose(again["response_tokens"].item(), sums["response_tokens"].item())
