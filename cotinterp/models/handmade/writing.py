"""From a blueprint to a model: its weights are the blueprint's vectors, coordinate by coordinate."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import NativeModel

from cotinterp.models.build import Bridge, as_bridge
from cotinterp.models.handmade.blueprint import ALWAYS, Blueprint, Direction, Head, Neuron, Vector


def write(blueprint: Blueprint, *, device: str | torch.device = "cpu") -> Bridge:
    """The model of a blueprint: a native bridge without normalization, ReLU neurons, in eval mode.

    Layers have the heads and neurons of the fullest one; those without a purpose have zero weights.
    """
    heads = [head for layer in blueprint.layers for head in layer.heads]
    config = TransformerBridgeConfig(
        n_layers=len(blueprint.layers),
        d_model=len(blueprint.index),
        n_heads=max(len(layer.heads) for layer in blueprint.layers),
        d_head=max(max(len(head.attend), len(head.move)) for head in heads),
        d_mlp=max(len(layer.neurons) for layer in blueprint.layers),
        n_ctx=blueprint.n_ctx,
        d_vocab=len(blueprint.vocabulary),
        act_fn="relu",
        normalization_type=None,
        positional_embedding_type="standard",
    )
    with torch.random.fork_rng(devices=[]):
        module = NativeModel(config)
    weights = dict(module.named_parameters())
    with torch.no_grad():
        for weight in weights.values():
            weight.zero_()
        _write_ends(weights, blueprint)
        for i, layer in enumerate(blueprint.layers):
            for h, head in enumerate(layer.heads):
                _write_head(weights, f"layers.{i}.attn", h * config.d_head, config.d_head, head, blueprint.index)
            for n, neuron in enumerate(layer.neurons):
                _write_neuron(weights, f"layers.{i}.mlp", n, neuron, blueprint.index)
    return as_bridge(module.to(device))


def _write_ends(weights: Mapping[str, Tensor], blueprint: Blueprint) -> None:
    """Embeddings and unembedding: one-hot."""
    for token, symbol in enumerate(blueprint.vocabulary.symbols):
        weights["tok_embed.weight"][token, blueprint.index["token", symbol]] = 1
        weights["head.weight"][token, blueprint.index["logit", symbol]] = 1
    for position in range(blueprint.n_ctx):
        weights["pos.weight"][position, blueprint.index["position", position]] = 1


def _write_head(
    weights: Mapping[str, Tensor], name: str, first: int, d_head: int, head: Head, index: Mapping[Direction, int]
) -> None:
    """One dimension of the head for each pair. Scores are divided by sqrt(d_head), which the queries undo."""
    q, k, v, o = (weights[f"{name}.{part}.weight"] for part in "qkvo")
    q_bias, k_bias, v_bias = (weights[f"{name}.{part}.bias"] for part in "qkv")
    for dimension, (query, key) in enumerate(head.attend, start=first):
        _read(q[dimension], q_bias[dimension], query, index, scale=math.sqrt(d_head))
        _read(k[dimension], k_bias[dimension], key, index)
    for dimension, (read, written) in enumerate(head.move, start=first):
        _read(v[dimension], v_bias[dimension], read, index)
        _say(o[:, dimension], written, index)


def _write_neuron(
    weights: Mapping[str, Tensor], name: str, n: int, neuron: Neuron, index: Mapping[Direction, int]
) -> None:
    _read(weights[f"{name}.fc_in.weight"][n], weights[f"{name}.fc_in.bias"][n], neuron.when, index)
    _say(weights[f"{name}.fc_out.weight"][:, n], neuron.then, index)


def _read(row: Tensor, bias: Tensor, vector: Vector, index: Mapping[Direction, int], *, scale: float = 1.0) -> None:
    for direction, amount in vector.items():
        if direction == ALWAYS:
            bias.fill_(scale * amount)
        else:
            row[index[direction]] = scale * amount


def _say(column: Tensor, vector: Vector, index: Mapping[Direction, int]) -> None:
    for direction, amount in vector.items():
        column[index[direction]] = amount
