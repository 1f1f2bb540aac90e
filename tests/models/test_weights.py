"""Weights are hashed by their bits and read only from files that fit."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from cotinterp.models.build import as_bridge, build_module
from cotinterp.models.weights import (
    CheckpointError,
    load_weights,
    named_weights,
    read_metadata,
    read_tensors,
    stored_weight_hash,
    weight_hash,
    write_tensors,
)


@pytest.fixture
def saved(module, tmp_path):
    path = tmp_path / "model.safetensors"
    write_tensors(path, named_weights(module), {"step": "7"})
    return path


def shapes(module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in named_weights(module).items()}


def test_a_bridge_has_the_names_and_the_hash_of_its_module(module):
    names, digest = set(named_weights(module)), weight_hash(module)
    bridge = as_bridge(module)
    assert set(named_weights(bridge)) == names
    assert weight_hash(bridge) == digest
    with pytest.raises(ValueError, match="weights of the bridge"):
        weight_hash(module)


def test_an_unembedding_bias_given_to_a_bridge_is_a_weight(module):
    bridge = as_bridge(module)
    before = weight_hash(bridge)
    with torch.no_grad():
        bridge.b_U[2] = 1.0
    assert weight_hash(bridge) != before


def test_loading_is_the_inverse_of_naming(spec, module):
    copy = build_module(spec, 11, seed=5)
    load_weights(copy, named_weights(module))
    assert weight_hash(copy) == weight_hash(module)


def test_the_hash_sees_one_changed_bit_of_any_weight(module):
    before = weight_hash(module)
    for parameter in module.parameters():
        flat = parameter.detach().view(-1).view(torch.int32)
        flat[-1] ^= 1
        assert weight_hash(module) != before
        flat[-1] ^= 1
    assert weight_hash(module) == before


def test_the_hash_sees_names_and_shapes():
    one, other = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        other.weight.copy_(one.weight.reshape(2, 3))
    assert weight_hash(one) != weight_hash(other)
    assert weight_hash(torch.nn.Sequential(one)) != weight_hash(one)


def test_the_hash_of_a_file_is_that_of_the_model_in_it(module, saved, tmp_path):
    assert stored_weight_hash(saved) == weight_hash(module)
    (tmp_path / "garbage").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="is truncated or not a safetensors file"):
        stored_weight_hash(tmp_path / "garbage")


def test_what_is_written_is_read_back_bit_for_bit(module, saved):
    tensors = read_tensors(saved, shapes(module))
    assert tensors.keys() == named_weights(module).keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in named_weights(module).items())
    assert read_metadata(saved) == {"step": "7"}


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(module, saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    for read in (read_metadata, lambda path: read_tensors(path, shapes(module))):
        with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
            read(saved)


def test_garbage_is_refused(module, saved):
    saved.write_bytes(b"\x80\x04 this is not a tensor" * 50)
    with pytest.raises(CheckpointError, match=r"model.safetensors is truncated or not a safetensors file"):
        read_tensors(saved, shapes(module))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("blocks.1.attn.k.bias"), "misses 'blocks.1.attn.k.bias'"),
        (lambda w: w.update(stray=torch.zeros(1)), "has an unknown 'stray'"),
        (
            lambda w: w.update({"unembed.weight": torch.zeros(11, 8)}),
            r"'unembed.weight' is \(11, 8\), the spec says \(11, 16\)",
        ),
        (lambda w: w.update({"unembed.weight": torch.zeros(11, 16).half()}), "'unembed.weight' is F16, not F32"),
    ],
)
def test_weights_that_do_not_fit_are_refused(module, saved, change, said):
    weights = named_weights(module)
    change(weights)
    save_file(weights, saved)
    with pytest.raises(CheckpointError, match=said):
        read_tensors(saved, shapes(module))


def test_shapes_are_compared_before_any_tensor_is_read(module, saved):
    weights = named_weights(module) | {"unembed.weight": torch.full((11, 16), torch.nan), "stray": torch.zeros(1)}
    save_file(weights, saved)
    with pytest.raises(CheckpointError, match="stray"):
        read_tensors(saved, shapes(module))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(module, saved, value):
    weights = named_weights(module)
    weights["pos_embed.weight"][3, 2] = value
    write_tensors(saved, weights, {})
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in \['pos_embed.weight'\]"):
        read_tensors(saved, shapes(module))


def test_a_header_that_promises_more_than_the_file_holds_is_refused(module, saved):
    header = json.dumps({"unembed.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}})
    saved.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * 64)
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        read_tensors(saved, shapes(module))
