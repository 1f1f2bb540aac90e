import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.sites import HEAD_AXIS, KINDS, Site, as_kind, head_sites, refuse_write, residual_sites


@pytest.mark.parametrize(
    ("site", "label", "hook"),
    [
        (Site("z", layer=1, head=3), "L1H3.z", "blocks.1.attn.hook_z"),
        (Site("resid_pre", 2), "L2.resid_pre", "blocks.2.hook_resid_pre"),
        (Site("pattern", 0), "L0.pattern", "blocks.0.attn.hook_pattern"),
        (Site("mlp_out", 11), "L11.mlp_out", "blocks.11.hook_mlp_out"),
    ],
)
def test_labels_and_hooks(site, label, hook):
    assert (str(site), site.label, site.hook) == (label, label, hook)
    assert Site.parse(label) == site


def test_every_site_parses_back():
    for kind in KINDS:
        for head in (None, 0, 12) if kind in HEAD_AXIS else (None,):
            assert Site.parse(Site(kind, 3, head).label) == Site(kind, 3, head)


@pytest.mark.parametrize("text", ["z", "L1.", "L1H.z", "l1.z", "LxH2.z", "L1H2.z "])
def test_labels_of_another_form_are_refused(text):
    with pytest.raises(ValueError, match="is not a site label"):
        Site.parse(text)


def test_sites_sort_in_the_order_of_the_forward_pass(tiny_model, tokens):
    reached = []
    sites = [Site(kind, layer) for kind in KINDS for layer in range(2)]
    hooks = [(site.hook, lambda _, hook, site=site: reached.append(site)) for site in sites]  # noqa: ARG005
    with tiny_model.hooks(fwd_hooks=hooks), torch.no_grad():
        tiny_model(tokens)
    assert reached == sorted(sites)
    assert sorted([Site("z", 0, 1), Site("z", 0), Site("z", 0, 0)]) == [Site("z", 0), Site("z", 0, 0), Site("z", 0, 1)]


def test_unknown_kinds_name_the_nearest():
    with pytest.raises(ValueError, match=r"unknown kind 'residpre'; did you mean \['resid_pre'"):
        as_kind("residpre")
    with pytest.raises(ValueError, match="unknown kind 'mlp_ou'; did you mean.*mlp_out"):
        Site.parse("L0.mlp_ou")


def test_scores_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="discards what is written there.*'pattern'"):
        Site.parse("L0H1.attn_scores")


def test_heads_belong_to_kinds_that_have_them():
    with pytest.raises(ValueError, match="resid_pre has no heads"):
        Site("resid_pre", 0, 1)
    with pytest.raises(ValueError, match="negative"):
        Site("z", 0, -1)
    with pytest.raises(ValueError, match="negative"):
        Site("z", -1)
    with pytest.raises(ValueError, match="layer True of z is no whole number"):
        Site("z", True)


def test_check_knows_the_size_of_the_model(tiny_model):
    assert Site("z", 1, 3).check(tiny_model) == Site("z", 1, 3)
    with pytest.raises(ValueError, match="L2.resid_pre is outside the model: it has layers 0 to 1"):
        Site("resid_pre", 2).check(tiny_model)
    with pytest.raises(ValueError, match="heads 0 to 3"):
        Site("z", 0, 4).check(tiny_model)


def test_grouped_queries_have_fewer_keys(make_tiny):
    model = make_tiny(n_key_value_heads=2)
    assert len(head_sites(model)) == 8
    assert head_sites(model, "k") == (Site("k", 0, 0), Site("k", 0, 1), Site("k", 1, 0), Site("k", 1, 1))
    with pytest.raises(ValueError, match="heads 0 to 1"):
        Site("v", 0, 2).check(model)


def test_constructors(tiny_model):
    assert residual_sites(tiny_model, "attn_out") == (Site("attn_out", 0), Site("attn_out", 1))
    assert [site.label for site in head_sites(tiny_model)][3:5] == ["L0H3.z", "L1H0.z"]
    with pytest.raises(ValueError, match="no heads"):
        head_sites(tiny_model, "mlp_out")


@pytest.mark.parametrize("kind", ["q", "k", "v", "z"])
def test_of_takes_the_head_and_not_the_position(kind):
    # As many positions as heads: the wrong axis would have the right shape.
    activation = torch.arange(2.0 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    assert torch.equal(Site(kind, 0, 2).of(activation), activation[:, :, 2])
    assert torch.equal(Site(kind, 0).of(activation), activation)


def test_of_takes_the_head_of_a_pattern():
    pattern = torch.arange(2.0 * 4 * 4 * 4).reshape(2, 4, 4, 4)
    assert torch.equal(Site("pattern", 0, 2).of(pattern), pattern[:, 2])
    assert torch.equal(Site("pattern", 0).by_position(pattern)[:, 1], pattern[:, :, 1])


def test_head_axis_agrees_with_the_model(tiny_model, tokens):
    """attn_out is the sum over heads of z[head] @ W_O[head], plus b_O: only with the right axis."""
    z = activations(tiny_model, tokens, [*head_sites(tiny_model), *residual_sites(tiny_model, "attn_out")])
    with torch.no_grad():
        total = sum(z[Site("z", 1, head)] @ tiny_model.W_O[1, head] for head in range(4)) + tiny_model.b_O[1]
    torch.testing.assert_close(total, z[Site("attn_out", 1)])


def test_write_everywhere_at_one_position_and_under_a_mask():
    activation = torch.zeros(2, 3, 2)
    site = Site("resid_pre", 0)
    assert torch.equal(site.write(activation, torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]).expand(2, 3, 2))
    one_each = site.write(activation, torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.tensor([2, 0]))
    assert one_each[..., 0].tolist() == [[0, 0, 1], [2, 0, 0]]
    mask = torch.tensor([[True, False, True], [False, False, False]])
    donor = torch.arange(12.0).reshape(2, 3, 2) + 1
    assert site.write(activation, donor, mask)[..., 0].tolist() == [[1, 0, 5], [0, 0, 0]]
    assert not activation.any(), "the given activation was changed in place"


def test_write_touches_one_head_alone():
    activation = torch.zeros(2, 4, 4, 3)
    written = Site("z", 0, 1).write(activation, torch.ones(2, 3), torch.tensor([3, 0]))
    assert written.nonzero()[:, :3].unique(dim=0).tolist() == [[0, 3, 1], [1, 0, 1]]
    pattern = Site("pattern", 0, 1).write(torch.zeros(1, 4, 4, 4), torch.ones(1, 4), torch.tensor([2]))
    assert pattern.nonzero()[:, :3].unique(dim=0).tolist() == [[0, 1, 2]]
    all_heads = Site("pattern", 0).write(torch.zeros(1, 2, 4, 4), torch.ones(()), torch.eye(4, dtype=torch.bool)[[2]])
    assert all_heads.nonzero()[:, :3].unique(dim=0).tolist() == [[0, 0, 2], [0, 1, 2]]


def test_write_keeps_the_dtype_of_the_model():
    written = Site("resid_pre", 0).write(torch.zeros(1, 2, 2, dtype=torch.bfloat16), torch.ones(2))
    assert written.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("value", "positions", "message"),
    [
        (torch.zeros(5), None, r"value of shape \(5,\) does not fit L0.resid_pre, which takes \(2, 3, 4\)"),
        (torch.zeros(2, 3, 4), torch.tensor([0, 1]), r"does not fit L0.resid_pre, which takes \(2, 4\)"),
        (torch.zeros(4), torch.tensor([0, 3]), "leave the 3 positions"),
        (torch.zeros(4), torch.tensor([-1, 0]), "counted from 0"),
        (torch.zeros(4), torch.tensor([0, 1, 2]), r"expected \(2,\)"),
        (torch.zeros(4), torch.ones(2, 2, dtype=torch.bool), r"expected \(2, 3\)"),
    ],
)
def test_values_and_positions_that_do_not_fit(value, positions, message):
    with pytest.raises(ValueError, match=message):
        Site("resid_pre", 0).write(torch.zeros(2, 3, 4), value, positions)


def test_resid_mid_is_not_written_because_the_stream_goes_around_it(tiny_model, tokens):
    """The reason for the refusal, checked on the model: writing it all does not give the donor's logits."""
    site, other = Site("resid_mid", 1), tokens.roll(1, 0)
    donor = activations(tiny_model, other, [site])[site]
    with torch.no_grad(), tiny_model.hooks(fwd_hooks=[(site.hook, lambda _, hook: donor)]):  # noqa: ARG005
        hooked = tiny_model(tokens)
    with torch.no_grad():
        assert (hooked - tiny_model(other)).abs().max() > 0.1
    with pytest.raises(ValueError, match="L1.resid_mid cannot be written"):
        refuse_write(site)
