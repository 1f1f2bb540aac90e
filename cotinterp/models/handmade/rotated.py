"""The same function in another basis: a model whose residual stream is turned, to know what an alignment must find."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cotinterp.models.build import Bridge
from cotinterp.models.native.parts import why_not_native

NORMS = ("LN", "LNPre", "RMS", "RMSPre", None)
"""Normalizations that turn with the stream."""


def random_rotation(
    d_model: int, generator: torch.Generator, *, keeps_mean: bool = False
) -> Float[Tensor, "d_model d_model"]:
    """An orthogonal matrix drawn at random (float64); with `keeps_mean` one that leaves the vector of ones where it is.

    A layer norm takes the mean over coordinates out, so only a rotation of the latter kind commutes with it.
    """
    n = d_model - keeps_mean
    drawn, upper = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    drawn = drawn * torch.diagonal(upper).sign()
    if not keeps_mean:
        plain: Tensor = drawn
        return plain
    beside_ones = torch.eye(d_model, dtype=torch.float64)
    beside_ones[:, 0] = 1
    basis, _ = torch.linalg.qr(beside_ones)
    turned: Tensor = basis @ torch.block_diag(torch.ones(1, 1, dtype=torch.float64), drawn) @ basis.T
    return turned


def rotated(model: Bridge, rotation: Float[Tensor, "d_model d_model"]) -> Bridge:
    """A copy of a native model whose residual stream at every place is `x @ rotation`, and whose logits are the same.

    Gains of norms do not turn, so they are multiplied into the weights behind them.

    Raises:
        ValueError: No native model, blocks that are run in loops, a matrix that is not orthogonal or does not fit, a
            gain of 0, or a layer norm and a rotation that moves the mean over coordinates.
    """
    if (why := why_not_native(model, causal=False)) is not None:
        raise ValueError(f"model: {why}; wanted is a native model, whose weights are known by name")
    turned = copy.deepcopy(model)
    module: Any = turned.original_model
    width, norm = int(module.cfg.d_model), module.cfg.normalization_type
    _check(rotation, width, norm)
    if len({id(layer.attn.q.weight) for layer in module.layers}) < len(module.layers):
        raise ValueError("model: its blocks are run in loops, with one set of weights for several layers")
    with torch.no_grad():
        for embedding in filter(None, (module.tok_embed, module.pos)):
            embedding.weight.copy_((embedding.weight.double() @ rotation).to(embedding.weight))
        for layer in module.layers:
            attn = layer.attn
            _turn_read(layer.ln1, (attn.q, attn.k, attn.v), rotation)
            _turn_write(attn.o, rotation)
            if not module.cfg.attn_only:
                _turn_read(layer.ln2, (layer.mlp.fc_in,), rotation)
                _turn_write(layer.mlp.fc_out, rotation)
        _turn_read(module.ln_out, (module.head,), rotation)
    return turned.eval()


def _check(rotation: Tensor, width: int, norm: str | None) -> None:
    if rotation.shape != (width, width):
        raise ValueError(f"rotation: shape {tuple(rotation.shape)} for a stream of width {width}")
    if float((rotation @ rotation.T - torch.eye(width).to(rotation)).abs().max()) > 1e-6:
        raise ValueError("rotation: it is not orthogonal; random_rotation gives one that is")
    if norm not in NORMS:
        raise ValueError(f"model: normalization {norm!r} does not turn with the stream; known: {list(NORMS)}")
    if norm in ("LN", "LNPre") and float((rotation.sum(dim=0) - 1).abs().max()) > 1e-6:
        raise ValueError(
            "rotation: it moves the mean over coordinates, which a layer norm takes out, so that the model would be "
            "another one; random_rotation(..., keeps_mean=True) gives one that does not"
        )


def _turn_read(norm: Any, readers: tuple[Any, ...], rotation: Tensor) -> None:
    """Readers behind a norm; its shift turns with the stream, in units of the gain."""
    gain, shift = getattr(norm, "weight", None), getattr(norm, "bias", None)
    if gain is not None and not bool(gain.all()):
        raise ValueError("model: a norm has a gain of 0, which cannot be multiplied into the weights behind it")
    for reader in readers:
        weights = reader.weight.double()
        weights = weights if gain is None else weights * gain.double()
        reader.weight.copy_((weights @ rotation).to(reader.weight))
    if shift is not None:
        shift.copy_(((shift.double() if gain is None else shift.double() / gain.double()) @ rotation).to(shift))
    if gain is not None:
        gain.fill_(1.0)


def _turn_write(writer: Any, rotation: Tensor) -> None:
    writer.weight.copy_((rotation.T @ writer.weight.double()).to(writer.weight))
    if writer.bias is not None:
        writer.bias.copy_((writer.bias.double() @ rotation).to(writer.bias))
