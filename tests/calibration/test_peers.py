import pytest
import torch

from cotinterp.calibration.peers import FOREIGN, foreign_model


@pytest.mark.parametrize("name", list(FOREIGN))
def test_every_parameter_is_random_and_the_same_seed_gives_the_same(name):
    model, again, another = foreign_model(name), foreign_model(name), foreign_model(name, seed=1)
    parameters = {key: value.detach() for key, value in model.named_parameters()}
    assert not [key for key, value in parameters.items() if value.numel() > 1 and float(value.std()) < 0.1]
    assert all(torch.equal(value, parameters[key]) for key, value in again.named_parameters())
    assert not any(torch.equal(value, parameters[key]) for key, value in another.named_parameters())
    assert not model.training


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    foreign_model("llama")
    assert torch.equal(torch.rand(3), expected)


def test_llama_shares_keys_between_heads_and_its_head_size_is_its_own():
    config = foreign_model("llama").cfg
    assert (config.n_heads, config.n_key_value_heads, config.d_head, config.d_model) == (4, 2, 10, 32)


def test_unknown_architectures_name_those_there_are():
    with pytest.raises(KeyError, match="no foreign architecture 'gpt-2'.*gpt2.*llama"):
        foreign_model("gpt-2")
