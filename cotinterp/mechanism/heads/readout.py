"""The readout of one logit difference as a linear function of the final residual stream.

With the scale of the final norm frozen at the value that it has on this input, the norm is affine, so

    logit[answer] - logit[foil] = <direction, residual> + constant

holds exactly. `direction` is W_U[:, answer] - W_U[:, foil] pulled back through the frozen norm; whatever sums to the
residual stream then also sums to the logit difference. Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits" (transformer-circuits.pub/2021/framework); nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.model import HookedModel

NormFamily = Literal["layer norm", "rms norm", "no norm"]

NORM_FAMILIES: dict[str | None, NormFamily] = {
    "LN": "layer norm",
    "LNPre": "layer norm",
    "RMS": "rms norm",
    "RMSPre": "rms norm",
    None: "no norm",
}


@dataclass(frozen=True)
class Readout:
    """One logit difference for each example, as a linear function of its final residual stream (float64).

    `direction`: what a unit of residual stream adds to the logit difference. `constant`: the bias of the final norm
    and of the unembedding, which no part of the residual stream carries.
    """

    direction: Float[Tensor, "batch d_model"]
    constant: Float[Tensor, " batch"]

    def of(self, part: Float[Tensor, "batch d_model"]) -> Float[Tensor, " batch"]:
        """How much `part` of the residual stream adds to the logit difference; positive favors the answer."""
        return einsum(part.to(self.direction), self.direction, "batch d_model, batch d_model -> batch")


def frozen_readout(
    model: HookedModel,
    residual: Float[Tensor, "batch d_model"],
    answer: Int[Tensor, " batch"],
    foil: Int[Tensor, " batch"],
) -> Readout:
    """The readout of answer against foil, with the final norm's scale frozen at its value on `residual`.

    Exact on `residual` itself. It does not say what the logits of *another* residual stream would be: there the scale
    differs. ValueError for a model whose readout is not linear after the norm (soft-capped logits, an unknown norm).
    """
    family = _norm_family(model.cfg)
    unembedding = weight(model, "W_U").double()
    gain, shift = _norm_parameters(model, residual.shape[-1])
    toward_answer = rearrange(unembedding[:, answer] - unembedding[:, foil], "d_model batch -> batch d_model")

    stream = residual.double()
    if family == "layer norm":
        stream = stream - stream.mean(dim=-1, keepdim=True)
    direction = toward_answer * gain
    if family == "layer norm":
        direction = direction - direction.mean(dim=-1, keepdim=True)
    if family != "no norm":
        direction = direction / (stream.square().mean(dim=-1, keepdim=True) + model.cfg.eps).sqrt()

    bias = getattr(model, "b_U", None)
    constant = toward_answer @ shift
    if bias is not None:
        constant = constant + (bias[answer] - bias[foil]).detach().double()
    return Readout(direction=direction, constant=constant)


def weight(model: HookedModel, name: str) -> Tensor:
    """The weight `name` ("W_O", "W_U") of a TransformerLens-style model, detached.

    ValueError if the model offers no such accessor: without it the parts of the residual stream cannot be named.
    """
    found = getattr(model, name, None)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the model ({type(model).__name__}) offers no {name}. Attribution needs the TransformerLens accessors "
            "W_O and W_U; wrap the model in a TransformerBridge of an architecture that has them."
        )
    return found.detach()


def _norm_family(cfg: Any) -> NormFamily:
    if getattr(cfg, "output_logits_soft_cap", 0.0) > 0:
        raise ValueError(
            f"the logits are soft-capped at {cfg.output_logits_soft_cap}: they are not linear in the residual stream, "
            "so no attribution sums to their difference."
        )
    name = cfg.normalization_type
    if name not in NORM_FAMILIES:
        raise ValueError(f"normalization_type {name!r} is not understood; known: {sorted(map(str, NORM_FAMILIES))}.")
    family = NORM_FAMILIES[name]
    return "rms norm" if getattr(cfg, "final_rms", False) else family


def _norm_parameters(model: HookedModel, d_model: int) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
    """Gain and shift of the final norm: one and zero where it has none."""
    like = weight(model, "W_U")
    gain = torch.ones(d_model, dtype=torch.float64, device=like.device)
    shift = torch.zeros_like(gain)
    norm = getattr(model, "ln_final", None)
    for name in ("weight", "w"):
        found = getattr(norm, name, None)
        if isinstance(found, Tensor):
            offset = 1.0 if getattr(model.cfg, "rmsnorm_uses_offset", False) else 0.0
            gain = found.detach().double() + offset
            break
    for name in ("bias", "b"):
        found = getattr(norm, name, None)
        if isinstance(found, Tensor):
            shift = found.detach().double()
            break
    return gain, shift
