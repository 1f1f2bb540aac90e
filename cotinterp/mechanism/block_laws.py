"""What has to hold in a transformer block, also in a run in which one of its activations was overwritten."""

from collections.abc import Mapping

from einops import einsum
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.heads.readout import weight
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import KINDS, Kind, Site

STREAM, NEXT, OUTPUT, VALUES = (
    "resid_post = resid_pre + attn_out + mlp_out",
    "resid_pre of the next layer (logits of the last) = resid_post",
    "attn_out = sum of z @ W_O over heads + b_O",
    "z = pattern @ v",
)
LAWS: Mapping[Kind, str] = {
    "resid_pre": STREAM,
    "attn_out": STREAM,
    "mlp_out": STREAM,
    "resid_post": NEXT,
    "z": OUTPUT,
    "q": VALUES,
    "k": VALUES,
    "v": VALUES,
    "pattern": VALUES,
}
"""What has to hold in a run in which this kind was written."""

Held = Mapping[Site, Tensor]


def law_error(
    model: HookedModel,
    site: Site,
    held: Held,
    edited: Float[Tensor, "batch pos d_vocab"],
    donor: Float[Tensor, "batch pos d_vocab"],
) -> float:
    """Largest violation of the law of this kind in a run in which the site was written, relative to its largest number.

    `held`: what the sites of the layer, and `resid_pre` of the next, hold in that run; `edited`: its logits; `donor`:
    logits of the run whose activation was written. NaN where a term of the law is not in `held` or W_O is not offered.
    """
    at = {kind: held[Site(kind, site.layer)] for kind in KINDS if Site(kind, site.layer) in held}
    try:
        match LAWS[site.kind]:
            case law if law == STREAM:
                branches = [at["attn_out"], *([at["mlp_out"]] if "mlp_out" in at else [])]
                return _relative(at["resid_post"], at["resid_pre"] + sum(branches))
            case law if law == NEXT:
                following = held.get(Site("resid_pre", site.layer + 1))
                return _relative(edited, donor) if following is None else _relative(following, at["resid_post"])
            case law if law == OUTPUT:
                return _relative(at["attn_out"], _through_output(model, site.layer, at["z"]))
            case _:
                values = at["v"].repeat_interleave(at["pattern"].shape[1] // at["v"].shape[2], dim=2)
                mixed = einsum(at["pattern"], values, "batch head dest src, batch src head d -> batch dest head d")
                return _relative(at["z"], mixed)
    except (KeyError, ValueError):
        return float("nan")


def _through_output(
    model: HookedModel, layer: int, z: Float[Tensor, "batch pos head d_head"]
) -> Float[Tensor, "batch pos d_model"]:
    written = einsum(z, weight(model, "W_O")[layer].to(z), "b pos head d, head d d_model -> b pos d_model")
    bias = getattr(model, "b_O", None)
    return written if bias is None else written + bias[layer].detach()


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / found.abs().max().clamp_min(1e-12))
