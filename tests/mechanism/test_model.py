import pytest
import torch

from cotinterp.mechanism.model import HookedModel, require_model


def test_a_bridge_is_a_hooked_model_and_a_plain_module_is_not(tiny_model):
    assert isinstance(tiny_model, HookedModel)
    assert not isinstance(torch.nn.Linear(2, 2), HookedModel)


def test_train_mode_is_refused_and_eval_accepted(make_tiny):
    model = make_tiny().train()
    with pytest.raises(ValueError, match=r"train mode.*model.eval\(\)"):
        require_model(model)
    require_model(model.eval())


def test_a_module_set_to_train_behind_the_back_of_its_bridge_is_refused():
    """The bridge says eval, and dropout is on all the same."""
    from cotinterp.calibration.peers import foreign_model

    model = foreign_model("gpt2")
    require_model(model)
    model.original_model.train()
    assert not model.training
    with pytest.raises(ValueError, match="or a part of it"):
        require_model(model)
