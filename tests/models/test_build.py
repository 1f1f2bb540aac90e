"""From a spec to a module and a bridge with the same logits, and the device that they lie on."""

import math

import pytest
import torch

from cotinterp.models.build import as_bridge, build_model, build_module, fast_bfloat16, resolve_device
from cotinterp.models.spec import ModelSpec
from cotinterp.models.weights import CheckpointError, load_weights, named_weights, weight_hash


def tokens(d_vocab: int = 11, n: int = 5, length: int = 12) -> torch.Tensor:
    return torch.randint(d_vocab, (n, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "fields",
    [
        *({"act_fn": name} for name in ("gelu", "gelu_new", "relu", "silu")),
        *({"normalization": name} for name in ("LNPre", "RMS", "RMSPre", None)),
        *({"positions": name} for name in ("rotary", "sinusoidal", "none", "alibi")),
        {"loops": 3},
    ],
    ids=str,
)
def test_the_bridge_has_the_logits_of_the_raw_module(spec, randomized, fields):
    module = randomized(spec.model_copy(update=fields), 11)
    with torch.no_grad():
        raw = module(tokens())
        bridged = as_bridge(module)(tokens())
    assert raw.std() > 0.01
    torch.testing.assert_close(bridged, raw, atol=1e-5, rtol=1e-5)


def test_the_bridge_is_in_eval_mode_and_says_its_shape(spec, module):
    bridge = as_bridge(module)
    assert not bridge.training
    assert (bridge.cfg.n_layers, bridge.cfg.n_heads, bridge.cfg.d_head, bridge.cfg.d_vocab) == (2, 2, 8, 11)
    assert bridge.cfg.act_fn == spec.act_fn


def test_a_hook_of_the_bridge_changes_the_logits(module):
    bridge = as_bridge(module)
    with torch.no_grad():
        before = bridge(tokens())
        with bridge.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", lambda value, **_: torch.zeros_like(value))]):
            without_mlp = bridge(tokens())
        after = bridge(tokens())
    assert (without_mlp - before).abs().max() > 1e-3
    assert torch.equal(before, after)


def test_a_module_is_wrapped_once(module):
    as_bridge(module)
    with pytest.raises(ValueError, match="wrapped already"):
        as_bridge(module)


def test_the_seed_decides_the_weights(spec):
    assert weight_hash(build_module(spec, 11, seed=3)) == weight_hash(build_module(spec, 11, seed=3))
    assert weight_hash(build_module(spec, 11, seed=3)) != weight_hash(build_module(spec, 11, seed=4))


def test_fixed_positions_are_waves_or_nothing_and_are_not_learned(spec):
    waves, nothing = (
        build_module(spec.model_copy(update={"positions": name}), 11, seed=3).pos.weight
        for name in ("sinusoidal", "none")
    )
    assert (waves.requires_grad, nothing.requires_grad) == (False, False)
    assert not nothing.any()
    # Place 3: sine and cosine of 3 rad in the fastest pair; as large as learned vectors begin, N(0, 0.64 / d_model).
    size = (2 * 0.64 / spec.d_model) ** 0.5
    assert waves[3, :2].tolist() == pytest.approx([size * math.sin(3), size * math.cos(3)], abs=1e-6)
    assert float(waves.pow(2).mean()) == pytest.approx(0.64 / spec.d_model, rel=1e-5)


def test_a_looped_model_is_the_unlooped_one_with_its_weights_copied(spec, randomized):
    looped = randomized(spec.model_copy(update={"loops": 2}), 11)
    plain = build_module(spec.model_copy(update={"n_layers": 4}), 11, seed=0)
    load_weights(plain, named_weights(looped))
    assert weight_hash(plain) == weight_hash(looped)
    assert len(list(plain.parameters())) > len(list(looped.parameters()))
    sites = [f"blocks.{layer}.hook_resid_post" for layer in range(4)]
    with torch.no_grad():
        assert torch.equal(looped(tokens()), plain(tokens()))
        (logits, cache), (own, seen) = (as_bridge(one).run_with_cache(tokens()) for one in (plain, looped))
    assert torch.equal(logits, own)
    assert all(torch.equal(cache[site], seen[site]) for site in sites)
    assert (seen[sites[2]] - seen[sites[0]]).abs().max() > 1e-3


def test_weights_that_differ_between_loops_are_refused(spec):
    untied = named_weights(build_module(spec.model_copy(update={"n_layers": 4}), 11, seed=0))
    with pytest.raises(CheckpointError, match="are not those of the loops after them"):
        load_weights(build_module(spec.model_copy(update={"loops": 2}), 11, seed=0), untied)


def test_an_untrained_model_has_the_weights_of_the_module_that_training_starts_from(spec):
    assert weight_hash(build_model(spec, 11, seed=3)) == weight_hash(build_module(spec, 11, seed=3))


def test_initial_scales_are_those_documented():
    spec = ModelSpec()
    weights = dict(build_module(spec, 200, seed=0).named_parameters())
    width = 0.8 / 128**0.5
    for name in ("tok_embed.weight", "layers.1.attn.q.weight", "layers.3.mlp.fc_in.weight"):
        assert weights[name].std().item() == pytest.approx(width, rel=0.03)
    for name in ("layers.1.attn.o.weight", "layers.3.mlp.fc_out.weight"):
        assert weights[name].std().item() == pytest.approx(width / 8**0.5, rel=0.03)
    assert not weights["layers.0.attn.o.bias"].any()


def test_building_leaves_the_global_random_state_alone(spec):
    before = torch.get_rng_state()
    build_model(spec, 11, seed=3)
    build_module(spec, 11, seed=3, device="meta")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_random_state_does_not_decide_the_weights(spec):
    first = weight_hash(build_module(spec, 11, seed=3))
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert weight_hash(build_module(spec, 11, seed=3)) == first


def test_on_meta_nothing_is_allocated():
    largest = ModelSpec(n_layers=1, d_model=4096, n_heads=32, d_mlp=16384)
    module = build_module(largest, 100, seed=0, device="meta")
    assert all(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))


def accelerator(monkeypatch, kind: str | None, count: int = 1):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind) if kind else None)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


@pytest.mark.parametrize(("kind", "chosen"), [(None, "cpu"), ("cuda", "cuda"), ("xpu", "xpu"), ("mps", "cpu")])
def test_auto_takes_the_accelerator_that_can_be_trusted(monkeypatch, kind, chosen):
    accelerator(monkeypatch, kind)
    assert resolve_device("auto").type == chosen


def test_a_named_device_is_taken(monkeypatch):
    accelerator(monkeypatch, "cuda", count=2)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(("kind", "name"), [(None, "cuda"), ("cuda", "cuda:2"), ("cuda", "mps"), (None, "meta")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, kind, name):
    accelerator(monkeypatch, kind, count=2)
    with pytest.raises(ValueError, match=rf"device '{name}' is not available; this machine has \['auto', 'cpu'"):
        resolve_device(name)


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match=r"unknown device 'gpu'; this machine has \['auto', 'cpu'"):
        resolve_device("gpu")


@pytest.mark.parametrize(("avx", "amx", "fast"), [(False, False, False), (True, False, True), (False, True, True)])
def test_a_processor_multiplies_bfloat16_fast_if_it_has_instructions_for_it(monkeypatch, avx, amx, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_bfloat16("cpu") is fast


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_so_does_a_card_from_ampere_on(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fast_bfloat16("cuda") is fast


def test_other_devices_make_no_promise():
    assert not fast_bfloat16("meta")
