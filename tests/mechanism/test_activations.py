import pytest
import torch

from cotinterp.mechanism.activations import activations, at_positions, gradients, run_and_read, stream_activations
from cotinterp.mechanism.interventions import InertEditError
from cotinterp.mechanism.sites import KINDS, Site, head_sites, residual_sites


def test_agrees_with_the_cache_of_transformer_lens(tiny_model, tokens):
    sites = [Site(kind, 1) for kind in KINDS]
    found = activations(tiny_model, tokens, sites)
    with torch.no_grad():
        logits, cache = tiny_model.run_with_cache(tokens, names_filter=[site.hook for site in sites])
    for site in sites:
        assert torch.equal(found[site], cache[site.hook]), site
    assert torch.equal(run_and_read(tiny_model, tokens, sites)[0], logits)


def test_residual_stream_adds_up(tiny_model, tokens):
    sites = [Site("resid_pre", 0), Site("attn_out", 0), Site("mlp_out", 0), Site("resid_post", 0)]
    pre, attention, mlp, post = activations(tiny_model, tokens, sites).values()
    torch.testing.assert_close(pre + attention + mlp, post)


def test_reads_nothing_else(tiny_model, tokens):
    """Only the hooks of the wanted sites are attached, and each of them once, however many heads are wanted."""
    attached = []

    class Spy:
        cfg, training, run_with_cache = tiny_model.cfg, False, tiny_model.run_with_cache

        def hooks(self, fwd_hooks):
            attached.extend(name for name, _ in fwd_hooks)
            return tiny_model.hooks(fwd_hooks=fwd_hooks)

        def __call__(self, tokens):
            return tiny_model(tokens)

    wanted = {Site("z", 1, 0), Site("z", 1, 2), Site("mlp_out", 0)}
    assert set(activations(Spy(), tokens, wanted)) == wanted
    assert sorted(attached) == ["blocks.0.hook_mlp_out", "blocks.1.attn.hook_z"]


def test_heads_are_copies_that_do_not_hold_the_others(tiny_model, tokens):
    whole = activations(tiny_model, tokens, [Site("z", 0)])[Site("z", 0)]
    for site, part in activations(tiny_model, tokens, head_sites(tiny_model)[:4]).items():
        assert torch.equal(part, whole[:, :, site.head])
        assert part.untyped_storage().nbytes() == part.nbytes


def test_gathers_at_positions(tiny_model, tokens):
    site, head = Site("resid_post", 1), Site("pattern", 0)
    full = activations(tiny_model, tokens, [site, head])
    one = torch.tensor([7, 0, 3, 2, 5])
    found = activations(tiny_model, tokens, [site, head], positions=one)
    for row, position in enumerate(one.tolist()):
        assert torch.equal(found[site][row], full[site][row, position])
        assert torch.equal(found[head][row], full[head][row, :, position])
    two = torch.stack([one, one.flip(0)], dim=1)
    assert torch.equal(activations(tiny_model, tokens, [site], positions=two)[site], at_positions(full[site], two))
    assert torch.equal(at_positions(full[site], two)[1, 1], full[site][1, 2])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_chunks_change_nothing(tiny_model, tokens, batch_size):
    sites, positions = residual_sites(tiny_model), torch.tensor([7, 0, 3, 2, 5])
    whole = activations(tiny_model, tokens, sites, positions=positions)
    for site, part in activations(tiny_model, tokens, sites, positions=positions, batch_size=batch_size).items():
        torch.testing.assert_close(part, whole[site])


@pytest.mark.parametrize("batch_size", [2, 5, None])
def test_streaming_yields_the_same_a_batch_at_a_time(tiny_model, tokens, batch_size):
    sites, positions = [Site("z", 0, 1), Site("resid_post", 1)], torch.tensor([7, 0, 3, 2, 5])
    whole = activations(tiny_model, tokens, sites, positions=positions, batch_size=batch_size)
    streamed = list(stream_activations(tiny_model, tokens, sites, positions=positions, batch_size=batch_size))
    assert [rows.stop - rows.start for rows, _ in streamed] == {2: [2, 2, 1], 5: [5], None: [5]}[batch_size]
    for rows, found in streamed:
        assert all(torch.equal(part, whole[site][rows]) for site, part in found.items())
    with pytest.raises(ValueError, match="layers 0 to 1"):
        stream_activations(tiny_model, tokens, [Site("resid_pre", 5)])


def test_native_models_compute_nothing_behind_the_last_site(make_tiny, tokens, monkeypatch):
    """The values are those of a whole pass, bit for bit; logits, where they are wanted, still take one."""
    model, ran = make_tiny(n_layers=3), []
    whole = run_and_read(model, tokens, [Site("z", 1)])[1][Site("z", 1)]
    for layer, block in enumerate(model.original_model.layers):
        mlp = block.mlp._original_component
        monkeypatch.setattr(mlp, "act", lambda x, act=mlp.act, layer=layer: ran.append(layer) or act(x))
    assert torch.equal(activations(model, tokens, [Site("z", 1), Site("resid_pre", 0)])[Site("z", 1)], whole)
    assert ran == [0]
    run_and_read(model, tokens, [Site("z", 1)])
    assert ran == [0, 0, 1, 2]


def test_hooks_of_the_models_own_go_on_firing(make_tiny, tokens):
    model, seen = make_tiny(), []
    with model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", lambda value, **_: seen.append(len(value)))]):
        activations(model, tokens, [Site("resid_pre", 0)])
    assert seen == [5]


def test_no_gradient_no_hook_left_and_usable_for_training(tiny_model, tokens):
    found = activations(tiny_model, tokens, residual_sites(tiny_model))[Site("resid_pre", 1)]
    assert not found.requires_grad
    assert not any(point.fwd_hooks for point in tiny_model.hook_dict.values())
    weight = torch.zeros(found.shape[-1], requires_grad=True)
    (found @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, found.sum((0, 1)))


def test_half_precision_is_promoted_and_double_kept(make_tiny, tokens):
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        model = make_tiny().to(dtype)
        assert activations(model, tokens, [Site("resid_pre", 1)])[Site("resid_pre", 1)].dtype == expected


def test_what_cannot_be_read_says_so(tiny_model, make_tiny, tokens):
    with pytest.raises(ValueError, match="train mode.*eval"):
        activations(make_tiny().train(), tokens, [Site("resid_pre", 0)])
    with pytest.raises(ValueError, match="no sites"):
        activations(tiny_model, tokens, [])
    with pytest.raises(ValueError, match="layers 0 to 1"):
        activations(tiny_model, tokens, [Site("resid_pre", 5)])
    with pytest.raises(ValueError, match="the tokens have 0 to 7"):
        activations(tiny_model, tokens, [Site("resid_pre", 0)], positions=torch.tensor([0, 1, 2, 3, 8]))
    with pytest.raises(ValueError, match="3 rows of positions for 5 examples"):
        activations(tiny_model, tokens, [Site("resid_pre", 0)], positions=torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="batch_size=0"):
        activations(tiny_model, tokens, [Site("resid_pre", 0)], batch_size=0)
    with pytest.raises(ValueError, match="which is empty"):
        activations(tiny_model, tokens[:0], [Site("resid_pre", 0)])


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
