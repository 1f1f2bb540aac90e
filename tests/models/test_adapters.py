"""Adapters on a plain module: equal at the start, equal when merged, and never read before they are."""

import pytest
import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module

from cotinterp.mechanism.model import require_model
from cotinterp.models.adapters import adapt, adapted_layers, merged
from cotinterp.models.build import as_bridge, build_module
from cotinterp.models.native.parts import forward, native_parts
from cotinterp.models.spec import Adapter, ModelSpec
from cotinterp.models.weights import base_weights, named_weights, weight_hash

SPEC = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_mlp=24, n_ctx=12)
EVERYWHERE = Adapter(rank=3, alpha=6.0, targets=("q", "k", "v", "o", "in", "out"))
TOKENS = torch.arange(20).reshape(2, 10) % 11


def random_module(adapter=None):
    """Every parameter random, those of the adapter too: a B of zero would hide a scale that is wrong."""
    module = build_module(SPEC, 11, seed=0)
    if adapter is not None:
        adapt(module, adapter, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def test_an_adapter_begins_as_the_model_it_is_put_on_and_leaves_the_random_state_alone():
    module, plain, state = build_module(SPEC, 11, seed=0), build_module(SPEC, 11, seed=0), torch.get_rng_state()
    adapt(module, EVERYWHERE, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(module(TOKENS), plain(TOKENS))
    assert {name: tensor.tolist() for name, tensor in base_weights(module).items()} == {
        name: tensor.tolist() for name, tensor in named_weights(plain).items()
    }
    drawn = [part for name, part in module.named_parameters() if "lora_A" in name]
    again, other = (build_module(SPEC, 11, seed=0) for _ in range(2))
    for twin, seed in ((again, 5), (other, 6)):
        adapt(twin, EVERYWHERE, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    assert not any(torch.equal(drawn[0], part) for part in other.parameters())


@pytest.mark.parametrize("targets", [("q",), ("k", "v"), ("o", "in"), ("out",)], ids=str)
@pytest.mark.parametrize("full", [(), ("embed", "unembed")], ids=str)
def test_only_the_adapter_and_what_is_declared_has_a_gradient(targets, full):
    module, adapter = build_module(SPEC, 11, seed=0), Adapter(rank=3, targets=targets, full=full)
    adapt(module, adapter, seed=0)
    learned = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    whole = {"embed": "tok_embed.weight", "unembed": "head.weight"}
    layers = {name for name in learned if ".lora_" in name}
    assert learned - layers == {whole[name] for name in full}
    inside = {"in": "mlp.fc_in", "out": "mlp.fc_out"}
    assert {name.split(".lora_")[0] for name in layers} == {
        f"layers.{layer}.{inside.get(target, f'attn.{target}')}" for layer in range(2) for target in targets
    }
    size = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    assert size == adapter.n_parameters(SPEC, 11)


def test_merged_equals_adapted_and_differs_from_the_frozen_model():
    module = random_module(EVERYWHERE)
    assert len(adapted_layers(module)) == 12
    assert adapted_layers(merged(module)) == ()
    before = {name: tensor.clone() for name, tensor in base_weights(module).items()}
    plain = merged(module)
    with torch.no_grad():
        torch.testing.assert_close(plain(TOKENS), module(TOKENS), atol=1e-5, rtol=0.0)
        torch.testing.assert_close(forward(native_parts(module), TOKENS)[0], module(TOKENS), atol=1e-5, rtol=0.0)
        torch.testing.assert_close(as_bridge(plain)(TOKENS), module(TOKENS), atol=1e-5, rtol=0.0)
    assert set(named_weights(merged(module))) == set(before)
    changed = [name for name, tensor in named_weights(merged(module)).items() if not torch.equal(tensor, before[name])]
    assert len(changed) == 2 * len(EVERYWHERE.targets)
    assert all(name.endswith(".weight") for name in changed)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base_weights(module).items())


def test_a_merged_weight_by_hand():
    """W + alpha / rank * B A."""
    module = random_module(Adapter(rank=3, alpha=6.0, targets=("q",)))
    layer = module.layers[1].attn.q
    expected = layer.base_layer.weight + 2.0 * layer.lora_B.default.weight @ layer.lora_A.default.weight
    found = named_weights(merged(module))["blocks.1.attn.q.weight"]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0.0)
    assert (found - layer.base_layer.weight).abs().max() > 0.1


def test_the_parts_pass_the_gradient_on_to_the_adapter():
    module = random_module(EVERYWHERE)
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad is True]
    expected = torch.autograd.grad(module(TOKENS).square().mean(), learned)
    found = torch.autograd.grad(forward(native_parts(module), TOKENS)[0].square().mean(), learned)
    assert min(float(part.abs().max()) for part in expected) > 1e-4
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_what_is_not_merged_is_refused_by_name():
    module = random_module(Adapter(targets=("v",)))
    for read in (as_bridge, named_weights, weight_hash):
        with pytest.raises(ValueError, match=r"layers.0.attn.v has an adapter that is not merged \(2 layers have\)"):
            read(module)
    with pytest.raises(ValueError, match="has an adapter already"):
        adapt(module, Adapter(), seed=0)
    around = {"architecture": "TransformerLensNative", "tl_config": module.cfg, "model_name": "theirs"}
    require_model(build_bridge_from_module(merged(module), **around).eval())
    with pytest.raises(ValueError, match=r"model: .*attn.v.* has an adapter that is not merged .* Merge first"):
        require_model(build_bridge_from_module(module, **around).eval())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rank": 0}, "greater than or equal to 1"),
        ({"targets": ("w",)}, "'q', 'k', 'v', 'o', 'in' or 'out'"),
        ({"targets": ()}, "targets are empty: name some of q, k, v, o, in, out"),
        ({"targets": ("q", "q")}, r"targets \['q', 'q'\] has one of them twice"),
        ({"full": ("pos_embed",)}, "'embed' or 'unembed'"),
        ({"alpha": 0.0}, "greater than 0"),
    ],
    ids=str,
)
def test_impossible_adapters_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Adapter(**fields)


def test_without_peft_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ModuleNotFoundError, match=r'training an adapter needs .* pip install "cotinterp\[lora\]"'):
        adapt(build_module(SPEC, 11, seed=0), Adapter(), seed=0)
