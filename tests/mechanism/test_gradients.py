import pytest
import torch

from cotinterp.mechanism.activations import activations, gradients
from cotinterp.mechanism.interventions import InertEditError
from cotinterp.mechanism.sites import Site

LAST = Site("resid_post", 1)


def score(logits):
    return logits[:, 5, 3]


def test_on_a_linear_readout_the_gradient_is_the_weight(make_tiny, tokens):
    model = make_tiny(normalization_type=None)
    found = gradients(model, tokens, [LAST], score)[LAST]
    torch.testing.assert_close(found[:, 5], model.W_U[:, 3].detach().expand(5, -1))
    assert not found[:, :5].any()
    assert not found[:, 6:].any()


def test_examples_do_not_mix(tiny_model, tokens):
    site = Site("z", 0)
    together = gradients(tiny_model, tokens, [site], score)[site]
    alone = torch.cat([gradients(tiny_model, tokens[[row]], [site], score)[site] for row in range(5)])
    torch.testing.assert_close(together, alone)


def test_asking_for_one_site_more_changes_nothing(tiny_model, tokens):
    sites = [Site("resid_pre", 0), Site("q", 1), Site("pattern", 1), LAST]
    together = gradients(tiny_model, tokens, sites, score)
    for site in sites:
        torch.testing.assert_close(together[site], gradients(tiny_model, tokens, [site], score)[site])


def test_gradients_can_be_taken_elsewhere(tiny_model, tokens):
    """At the other tokens' first resid_pre the gradient is that of the other tokens."""
    first, other = Site("resid_pre", 0), (tokens + 1) % 13
    written = {first: activations(tiny_model, other, [first])[first]}
    found = gradients(tiny_model, tokens, [Site("z", 0)], score, written=written)[Site("z", 0)]
    expected = gradients(tiny_model, other, [Site("z", 0)], score)[Site("z", 0)]
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, gradients(tiny_model, tokens, [Site("z", 0)], score)[Site("z", 0)])


class Discarding:
    """Runs the model, but on what it had before the hooks: as a hook that only decorates a copy."""

    def __init__(self, model):
        self.model, self.cfg, self.training = model, model.cfg, False

    def run_with_cache(self, *args, **kwargs):
        return self.model.run_with_cache(*args, **kwargs)

    def hooks(self, fwd_hooks):
        def ignoring(function):
            def call(activation, hook):
                function(activation, hook=hook)

            return call

        return self.model.hooks(fwd_hooks=[(name, ignoring(function)) for name, function in fwd_hooks])

    def __call__(self, tokens):
        return self.model(tokens)


def test_a_hook_whose_value_is_discarded_is_reported(tiny_model, tokens):
    with pytest.raises(InertEditError, match=r"does not depend on what is written at \['L1.resid_post'\]"):
        gradients(Discarding(tiny_model), tokens, [LAST], score)


def test_what_cannot_be_asked(tiny_model, make_tiny, tokens):
    with pytest.raises(ValueError, match="train mode"):
        gradients(make_tiny().train(), tokens, [LAST], score)
    with pytest.raises(ValueError, match="L1H2.z is one head; gradients are taken at whole hooks, here L1.z"):
        gradients(tiny_model, tokens, [Site("z", 1, 2)], score)
    with pytest.raises(ValueError, match="layers 0 to 1"):
        gradients(tiny_model, tokens, [Site("z", 2)], score)
    with pytest.raises(ValueError, match="cannot be written"):
        gradients(tiny_model, tokens, [Site("resid_mid", 0)], score)
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        gradients(tiny_model, tokens, [LAST], score)
