import pytest

from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.sites import Site

SENDER = Site("z", 0, 1)


def test_a_path_in_words():
    path = Path(SENDER, Site("k", 2, 0), "total 1", "equals 2")
    assert path.label == "L0H1.z at total 1 -> L2H0.k at equals 2"
    assert Path(SENDER, "logits").label == "L0H1.z -> logits"
    assert [Path(SENDER, end).input for end in ("any", "logits", Site("mlp_out", 0))] == ["any", "logits", "mlp_out"]


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ((Site("q", 0, 0), "any"), "L0H0.q does not write to the residual stream"),
        ((Site("resid_mid", 0), "any"), "L0.resid_mid does not write"),
        ((SENDER, Site("attn_out", 1)), "L1.attn_out is no input of a component"),
        ((SENDER, Site("q", 1)), "L1.q are all heads of a layer; name one"),
        ((SENDER, Site("q", 0, 2)), "L0H1.z cannot reach L0H2.q"),
        ((Site("mlp_out", 1), Site("mlp_out", 1)), "L1.mlp_out cannot reach L1.mlp_out"),
        ((SENDER, "logit"), "unknown receiver 'logit'"),
        ((SENDER, "logits", None, "total 1"), "'logits' is read at the readout"),
    ],
)
def test_what_is_no_path(ends, message):
    with pytest.raises(ValueError, match=message):
        Path(*ends)


def test_what_the_order_of_a_layer_allows():
    """The stream into a layer reaches its heads and its MLP, a head its own layer's MLP."""
    assert Path(Site("resid_pre", 1), Site("q", 1, 0)).check
    assert Path(Site("z", 1, 0), Site("mlp_out", 1)).check
    assert Path(Site("attn_out", 1), Site("mlp_out", 1)).check


def test_all_paths_between_heads(tiny_model, make_tiny):
    """4 senders of the first layer reach 3 inputs of 4 heads; all 8 have a sum of all paths and a direct one."""
    paths = head_paths(tiny_model)
    assert len(paths) == len(set(paths)) == 4 * 3 * 4 + 8 * 2
    assert all(path.sender.layer < path.receiver.layer for path in paths if isinstance(path.receiver, Site))
    assert len(head_paths(make_tiny(n_key_value_heads=2), ends=())) == 4 * (4 + 2 + 2)
    assert len(head_paths(tiny_model, inputs=("mlp_out",), ends=())) == 4 * 2 + 4
    named = head_paths(tiny_model, senders=[Site("resid_pre", 0)], receivers=[Site("v", 1, 3)], ends=("logits",))
    assert [path.label for path in named] == ["L0.resid_pre -> logits", "L0.resid_pre -> L1H3.v"]


def test_places_that_cannot_be_joined_are_left_out(tiny_model):
    receivers = [Site("q", 1, 0), Site("v", 1, 0)]
    options = {"senders": [SENDER], "receivers": receivers, "ends": ()}
    found = head_paths(tiny_model, sources=("a", "b", None), destinations=("a", None), **options)
    joined = {(path.input, path.source, path.destination) for path in found}
    assert len(found) == len(joined) == 11
    assert ("v", "b", "a") in joined
    assert ("q", "b", "a") not in joined


def test_what_cannot_be_listed(tiny_model):
    with pytest.raises(ValueError, match="'z' is no input of a component"):
        head_paths(tiny_model, inputs=("z",))
    with pytest.raises(ValueError, match="did you mean"):
        head_paths(tiny_model, inputs=("mlp_ot",))
    with pytest.raises(ValueError, match="no path: no sender comes before"):
        head_paths(tiny_model, senders=[Site("z", 1, 0)], inputs=("q",), ends=())
    with pytest.raises(ValueError, match="its z has heads 0 to 3"):
        head_paths(tiny_model, senders=[Site("z", 0, 9)])
