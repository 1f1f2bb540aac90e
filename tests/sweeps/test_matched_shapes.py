"""Shapes that cost the same: nearest by count, equal to themselves, refused beyond the limits."""

import pytest

from cotinterp.depth.cost import answer_cost, equal_flops, equal_parameters
from cotinterp.models.spec import ModelSpec

SHAPE = ModelSpec(n_layers=1, d_model=64, n_heads=4, d_mlp=256, n_ctx=128)


def flops(model: ModelSpec, regime: str, k: int = 12) -> float:
    return answer_cost("s3", regime, model, k).flops


def test_by_depth_only_the_depth_changes_and_no_neighbor_is_nearer() -> None:
    found, wanted = equal_flops(SHAPE, "s3", 12), flops(SHAPE, "cot")
    assert found == SHAPE.model_copy(update={"n_layers": 4})
    for n_layers in (3, 5):
        other = SHAPE.model_copy(update={"n_layers": n_layers})
        assert abs(flops(other, "direct") - wanted) > abs(flops(found, "direct") - wanted)


def test_by_width_depth_and_the_ratio_of_the_mlp_stay() -> None:
    found, wanted = equal_flops(SHAPE, "s3", 12, by="width"), flops(SHAPE, "cot")
    assert (found.n_layers, found.d_mlp, found.d_model % found.n_heads) == (1, 4 * found.d_model, 0)
    for d_model in (found.d_model - 4, found.d_model + 4):
        other = SHAPE.model_copy(update={"d_model": d_model, "d_mlp": 4 * d_model})
        assert abs(flops(other, "direct") - wanted) > abs(flops(found, "direct") - wanted)


@pytest.mark.parametrize("by", ["depth", "width"])
def test_a_regime_that_costs_the_same_keeps_the_shape(by: str) -> None:
    assert equal_flops(SHAPE, "s3", 12, regime_to="filler", by=by) == SHAPE
    assert equal_flops(SHAPE, "s3", 12, regime_from="direct", by=by) == SHAPE


def test_as_many_parameters_in_other_depths() -> None:
    base = SHAPE.model_copy(update={"n_layers": 4})
    assert equal_parameters(base, 4) == base
    narrow, wide = equal_parameters(base, 12), equal_parameters(base, 1)
    assert (narrow.d_model, wide.d_model) == (36, 124)
    for shape in (narrow, wide):
        assert shape.n_parameters(0) == pytest.approx(base.n_parameters(0), rel=0.1)
    assert equal_parameters(base, 12, d_vocab=5000).n_parameters(5000) == pytest.approx(
        base.n_parameters(5000), rel=0.1
    )


def test_rotary_heads_keep_an_even_width() -> None:
    rotary = SHAPE.model_copy(update={"positions": "rotary", "n_layers": 4})
    assert equal_parameters(rotary, 7).d_head % 2 == 0


def test_what_the_limits_do_not_reach_is_refused_with_the_nearest() -> None:
    deep = SHAPE.model_copy(update={"n_layers": 40})
    with pytest.raises(ValueError, match=r"within 25%: the nearest, n_layers 64"):
        equal_flops(deep, "s3", 12)
    with pytest.raises(ValueError, match="parameters within 1%"):
        equal_parameters(SHAPE, 7, within=0.01)
    with pytest.raises(ValueError, match="no such shape"):
        equal_parameters(SHAPE, 65)
