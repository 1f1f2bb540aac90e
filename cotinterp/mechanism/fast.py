"""Which models the instruments run from their weights instead of through hooks."""

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.model import HookedModel
from cotinterp.models.native.forward import forward
from cotinterp.models.native.parts import NativeParts, native_parts
from cotinterp.models.native.resume import resume

_PRECISE = (torch.float32, torch.float64)
# Examples on which weights and model are compared, and how far apart they may be, in units of the largest logit.
_COMPARED, _AGREEMENT = 2, 1e-4


@torch.no_grad()
def exact_parts(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> NativeParts | None:
    """The parts of a native model (without gradient) that runs in single or double precision; None for any other.

    What is computed from them is what hooks would read, up to float32 rounding. In half precision the order of
    operations would show, so that such models are left to their own forward pass. The first two of `tokens` are run in
    three ways: by the model, from its weights, and from its weights resumed in the middle of the text (a self-patch,
    which must change nothing). Where these disagree somebody replaced the forward pass: a UserWarning says so, and the
    model is left to its hooks.
    """
    parts = native_parts(model)
    if parts is None or parts.w_e.dtype not in _PRECISE or not len(tokens):
        return None
    few = tokens[:_COMPARED].to(parts.w_e.device)
    expected, (found, states) = run_with(model, few, []), forward(parts, few)
    n, rows = few.shape[1], torch.arange(len(few), device=few.device)
    at, start = torch.full_like(rows, n - 1), n // 2
    patched = resume(parts, states, layer=0, start=start, rows=rows, resid=states[0].resid_pre[:, start:], at=at)
    off = max(_distance(found, expected), _distance(patched, expected[:, -1]))
    if off <= _AGREEMENT:
        return parts
    warnings.warn(
        f"the model's logits are not those of its weights (off by {off:.1g} of the largest logit): its forward pass "
        "was replaced, so this takes the slow way, by hooks. by_hooks=True takes it without asking.",
        UserWarning,
        stacklevel=3,
    )
    return None


def _distance(found: Float[Tensor, "*logits"], expected: Float[Tensor, "*logits"]) -> float:
    """The largest difference in units of the largest logit."""
    return float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-6)
