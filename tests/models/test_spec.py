"""The shape of a model is checked before anything is built."""

import pytest
from pydantic import ValidationError

from cotinterp.models.build import build_module
from cotinterp.models.spec import MAX_PARAMETERS, ModelSpec


@pytest.mark.parametrize("normalization", ["LN", "LNPre", "RMS", "RMSPre", None])
@pytest.mark.parametrize("positions", ["standard", "rotary", "alibi", "sinusoidal", "none"])
@pytest.mark.parametrize("loops", [1, 2])
def test_the_parameter_count_is_that_of_the_built_module(normalization, positions, loops):
    kinds = {"normalization": normalization, "positions": positions, "loops": loops}
    spec = ModelSpec(n_layers=3, d_model=12, n_heads=2, d_mlp=20, n_ctx=9, **kinds)
    module = build_module(spec, 7, seed=0, device="meta")
    assert spec.n_parameters(7) == sum(
        parameter.numel() for parameter in module.parameters() if parameter.requires_grad
    )


def test_the_reference_model_has_the_size_worked_out_by_hand():
    block = 4 * (128 * 128 + 128) + 2 * 128 * 512 + 512 + 128 + 2 * 2 * 128
    assert ModelSpec().n_parameters(18) == 4 * block + 2 * 128 + 64 * 128 + 2 * 18 * 128


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n_layers": 10**9}, "less than or equal to 64"),
        ({"d_model": 10**9, "n_heads": 1}, "less than or equal to 4096"),
        ({"n_ctx": 10**9}, "less than or equal to 2048"),
        ({"n_layers": 0}, "greater than or equal to 1"),
        ({"d_model": 130, "n_heads": 4}, "d_model 130 is not divisible by n_heads 4"),
        ({"d_model": 12, "n_heads": 4, "positions": "rotary"}, "must be even"),
        ({"d_model": 4096, "n_layers": 64, "d_mlp": 16384}, f"at most {MAX_PARAMETERS:,}"),
        ({"n_layers": 33, "loops": 2}, "n_layers 33 run in loops 2 are 66 layers; at most 64"),
        ({"act_fn": "gleu"}, "'gelu'"),
        ({"n_layers": "4"}, "valid integer"),
        ({"n_layers": 4.0}, "valid integer"),
        ({"n_layer": 4}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_shapes_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        ModelSpec(**fields)


def test_what_came_later_stands_in_no_file_until_it_is_set():
    assert "loops" not in ModelSpec().model_dump()
    assert ModelSpec(loops=2).model_dump()["loops"] == 2
    assert ModelSpec(n_layers=2, loops=3).depth == 6
    assert ModelSpec().architecture == ""
    assert (
        ModelSpec(n_layers=2, loops=3, positions="alibi", normalization=None).architecture == "no-norm alibi looped-2"
    )


def test_specs_are_values():
    assert ModelSpec(n_layers=2) == ModelSpec(n_layers=2)
    assert len({ModelSpec(), ModelSpec(n_layers=4), ModelSpec(n_layers=2)}) == 2
    with pytest.raises(ValidationError, match="frozen"):
        ModelSpec().n_layers = 3
    with pytest.raises(TypeError, match="positional"):
        ModelSpec(4)


def test_a_copy_with_changes_is_validated():
    assert ModelSpec().model_copy(update={"n_layers": 2}) == ModelSpec(n_layers=2)
    with pytest.raises(ValidationError, match="divisible"):
        ModelSpec().model_copy(update={"n_heads": 3})
