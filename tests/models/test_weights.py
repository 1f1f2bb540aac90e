"""Weights are hashed by their bits and read only from files that fit."""

import copy
import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from cotinterp.models.build import as_bridge, build_module
from cotinterp.models.weights import (
    MATRICES,
    CheckpointError,
    load_weights,
    matrices_moved,
    named_weights,
    read_unsealed,
    read_weights,
    weight_faults,
    weight_hash,
    write_weights,
)


@pytest.fixture
def saved(module, tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights(path, named_weights(module), {"step": "7"})
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
    assert read_weights(saved).weight_hash == weight_hash(module)
    (tmp_path / "garbage").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="is truncated or not a safetensors file"):
        read_weights(tmp_path / "garbage")


def test_what_is_written_is_read_back_bit_for_bit(module, saved):
    tensors = read_weights(saved).fitting(shapes(module))
    assert tensors.keys() == named_weights(module).keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in named_weights(module).items())
    assert read_weights(saved).metadata == {"step": "7"}


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(module, saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        read_weights(saved)


def test_garbage_is_refused(module, saved):
    saved.write_bytes(b"\x80\x04 this is not a tensor" * 50)
    with pytest.raises(CheckpointError, match=r"model.safetensors is truncated or not a safetensors file"):
        read_weights(saved)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("blocks.1.attn.k.bias"), "misses 'blocks.1.attn.k.bias'"),
        (lambda w: w.update(stray=torch.zeros(1)), "has an unknown 'stray'"),
        (
            lambda w: w.update({"unembed.weight": torch.zeros(11, 8)}),
            r"'unembed.weight' is \(11, 8\), the spec says \(11, 16\)",
        ),
        (
            lambda w: w.update({"unembed.weight": torch.zeros(11, 16).half()}),
            "'unembed.weight' is torch.float16, not torch.float32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(module, saved, change, said):
    weights = named_weights(module)
    change(weights)
    write_weights(saved, weights, {})
    with pytest.raises(CheckpointError, match=said):
        read_weights(saved).fitting(shapes(module))


def test_one_digest_is_over_everything_that_the_file_says(saved):
    """A tensor's bit, its name, its type, a field's name and its value; the file written again is as good as before."""
    tensors, metadata = load_file(saved), {**read_weights(saved).metadata, "digest": digest_in(saved)}
    name, tensor = next(iter(tensors.items()))
    flipped = tensor.clone()
    flipped.view(-1).view(torch.int32)[0] ^= 1
    others = {key: value for key, value in tensors.items() if key != name}
    for changed, fields in (
        (tensors | {name: flipped}, metadata),
        (tensors | {name: tensor.view(torch.int32)}, metadata),
        (others | {name + "x": tensor}, metadata),
        (others, metadata),
        (tensors, metadata | {"step": "8"}),
        (tensors, metadata | {"more": ""}),
        (tensors, {"digest": metadata["digest"], "stop": "7"}),
        (tensors, {"digest": metadata["digest"]}),
    ):
        save_file(changed, saved, fields)
        for read in (read_weights, read_unsealed):
            with pytest.raises(
                CheckpointError, match="model.safetensors is damaged: its content is not what its digest"
            ):
                read(saved)
    save_file(tensors, saved, metadata)
    assert read_weights(saved).metadata == {"step": "7"}


def test_a_file_without_a_digest_is_refused_and_says_how_to_get_one(saved):
    save_file(load_file(saved), saved, {"step": "7"})
    with pytest.raises(
        CheckpointError, match=r"has no digest .* seal\('.*'\)\"` checks what it can and adds one. Delete"
    ):
        read_weights(saved)
    assert read_unsealed(saved).metadata == {"step": "7"}


def digest_in(path) -> str:
    with safe_open(path, framework="pt") as file:
        return file.metadata()["digest"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(module, saved, value):
    weights = named_weights(module)
    weights["pos_embed.weight"][3, 2] = value
    write_weights(saved, weights, {})
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in \['pos_embed.weight'\]"):
        read_weights(saved).fitting(shapes(module))


def test_a_header_that_promises_more_than_the_file_holds_is_refused(module, saved):
    header = json.dumps({"unembed.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}})
    saved.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * 64)
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        read_weights(saved).fitting(shapes(module))


def test_a_model_with_the_weights_of_a_file_has_no_faults(module, saved):
    assert weight_faults(module, saved) == []
    assert weight_faults(as_bridge(module), saved) == []


def test_one_bit_of_one_weight_is_found(module, saved):
    with torch.no_grad():
        next(module.parameters())[0, 0] += 0.5
    (fault,) = weight_faults(as_bridge(module), saved)
    assert fault == "'embed.weight' is not that of the file: off by up to 0.5"


def test_what_only_one_of_the_two_has_is_found(module, tmp_path):
    tensors = named_weights(module)
    lost = {name: tensor for name, tensor in tensors.items() if name != "pos_embed.weight"}
    write_weights(tmp_path / "lost", lost, {})
    assert weight_faults(module, tmp_path / "lost") == ["the model has 'pos.weight', the file has not"]
    write_weights(tmp_path / "more", tensors | {"adapter.weight": torch.ones(2)}, {})
    assert weight_faults(module, tmp_path / "more") == ["the file has 'adapter.weight', the model has not"]
    write_weights(tmp_path / "halved", tensors | {"pos_embed.weight": tensors["pos_embed.weight"].half()}, {})
    (fault,) = weight_faults(module, tmp_path / "halved")
    assert "(torch.float32, in the file torch.float16)" in fault


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_bridge_is_held_against_the_file_of_the_model_inside(name, tmp_path):
    """GPT-2's file has queries, keys and values in one tensor, and no unembedding."""
    from cotinterp.calibration.peers import FOREIGN, wrapped

    model = FOREIGN[name]()
    bridge = wrapped(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    there = FOREIGN[name]()
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    there.save_pretrained(tmp_path)
    assert weight_faults(bridge, tmp_path / "model.safetensors") == []
    with torch.no_grad():
        bridge.blocks[1].attn.q.weight[0, 0] += 1
    (fault,) = weight_faults(bridge, tmp_path / "model.safetensors")
    assert fault.endswith("is not that of the file: off by up to 1")
    bridge.original_model.adapter = torch.nn.Linear(2, 2, bias=False)
    assert "the model has 'adapter.weight', the file has not" in weight_faults(bridge, tmp_path / "model.safetensors")


def test_a_kind_of_matrix_moved_by_a_share_of_its_norm_has_moved_by_that_share(module):
    base = copy.deepcopy(module)
    assert set(matrices_moved(module, base).values()) == {0.0}
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name.endswith(("attn.k.weight", "bias")):
                weight.mul_(1.25)
    moved = matrices_moved(module, base)
    assert moved == pytest.approx(dict.fromkeys(MATRICES, 0.0) | {"attn.k": 0.25}, abs=1e-6)
    with pytest.raises(ValueError, match="different names or shapes"):
        matrices_moved(module, nn.Linear(2, 3))
