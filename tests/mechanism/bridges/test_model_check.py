"""What a model's sites are good for, on models in which something is wrong."""

import re
from contextlib import contextmanager

import pytest
import torch

from cotinterp.mechanism.model_check import LAWS, check_model
from cotinterp.mechanism.sites import KINDS

pytestmark = pytest.mark.slow

SOUND = tuple(kind for kind in KINDS if kind != "resid_mid")


class Rewired:
    """A bridge whose hook of one name is another one, or whose hooks discard what they are given."""

    def __init__(self, model, name, instead="", *, discard=False):
        self.model, self.name, self.instead, self.discard = model, name, instead, discard
        self.cfg, self.run_with_cache, self.W_O, self.b_O = model.cfg, model.run_with_cache, model.W_O, model.b_O

    def __call__(self, tokens):
        return self.model(tokens)

    @contextmanager
    def hooks(self, fwd_hooks):
        def wire(name, function):
            if name != self.name:
                return name, function
            return (name, discarding(function)) if self.discard else (self.instead, function)

        def discarding(function):
            def call(now, hook):
                function(now, hook=hook)

            return call

        with self.model.hooks(fwd_hooks=[wire(*each) for each in fwd_hooks]):
            yield


def test_everything_but_resid_mid_is_sound(bridge, tokens):
    result = check_model(bridge, tokens)
    assert result.sound() == SOUND
    table = result.frame()
    assert len(table) == 2 * len(KINDS)
    writable = table[table["kind"] != "resid_mid"]
    assert (writable["own"] == 0).all()
    assert (writable["moved"] > 1e-3).all()
    assert (writable["law_error"] < 1e-5).all()
    assert [line.split(":")[0] for line in result.problems()] == ["L0.resid_mid", "L1.resid_mid"]
    assert result.figure().data


def test_native_models_are_sound(tiny_model):
    tokens = torch.randint(0, 13, (3, 7), generator=torch.Generator().manual_seed(0))
    assert check_model(tiny_model, tokens, layers=[1]).sound() == SOUND


def test_what_each_architecture_lacks(make_bridge, tokens):
    expected = {
        "gptj": {"pattern": "was discarded", "resid_mid": "no such hook"},
        "opt": {"pattern": "attn_implementation='eager'", "resid_mid": "cannot be written"},
        "granite": {"z": r"attn_out = sum of z @ W_O over heads \+ b_O is off by 1", "resid_mid": "cannot be written"},
        "deepseek": dict.fromkeys(("q", "k", "v", "z"), "mixed up") | {"resid_mid": "cannot be written"},
    }
    for name, lacking in expected.items():
        result = check_model(make_bridge(name), tokens, layers=[1])
        assert result.sound() == tuple(kind for kind in KINDS if kind not in lacking), name
        notes = {check.site.kind: check.note for check in result.checks}
        for kind, note in lacking.items():
            assert re.search(note, notes[kind]), (name, kind, notes[kind])


def test_a_hook_that_discards_is_found(gpt2, tokens):
    """It fires and it is handed a new value; only the logits tell."""
    broken = Rewired(gpt2, "blocks.1.hook_mlp_out", discard=True)
    check = check_model(broken, tokens, layers=[1]).of("mlp_out", 1)
    assert check.read
    assert (check.written, check.moved) == (False, 0.0)
    assert "fired and moved no logit" in check.note


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        ("resid_pre", "blocks.1.ln1.hook_in"),
        ("attn_out", "blocks.1.hook_mlp_out"),
        ("resid_post", "blocks.1.hook_attn_out"),
    ],
)
def test_a_hook_that_is_somewhere_else_breaks_its_law(gpt2, tokens, kind, instead):
    """The logits move, so that alone would not show it."""
    broken = Rewired(gpt2, f"blocks.1.hook_{kind}", instead)
    check = check_model(broken, tokens, layers=[1]).of(kind, 1)
    assert check.written
    assert check.law_error > 1e-2
    assert LAWS[kind] in check.note


def test_tokens_that_cannot_be_compared_are_refused(bridge, tokens):
    with pytest.raises(ValueError, match="at least two different examples"):
        check_model(bridge, tokens[:1])
    with pytest.raises(ValueError, match="of shape .5, 7."):
        check_model(bridge, tokens, other=tokens[:, :3])
    with pytest.raises(KeyError, match="no z of layer 7"):
        check_model(bridge, tokens[:2], layers=[0]).of("z", 7)
