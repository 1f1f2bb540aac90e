"""From a spec to a model: the plain torch module that learns, and the bridge that instruments read."""

import torch
from torch import nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.model_bridge.sources.native import NativeModel, initialize_native_model

from cotinterp.models.spec import ModelSpec

Bridge = TransformerBridge
"""TransformerLens's hooked model, under the name that the rest of the package uses."""


def build_module(spec: ModelSpec, d_vocab: int, *, seed: int, device: str | torch.device = "cpu") -> NativeModel:
    """A freshly initialized model, as the plain torch module that trains fast.

    Weights are N(0, 0.64 / d_model), those that write into the residual stream smaller by sqrt(2 * n_layers)
    (after Radford et al., 2019, GPT-2); biases are zero. The same seed gives the same weights on every device, and
    the global random state is left alone. On the device "meta" nothing is allocated and nothing initialized.
    """
    config = TransformerBridgeConfig(
        n_layers=spec.n_layers,
        d_model=spec.d_model,
        n_heads=spec.n_heads,
        d_head=spec.d_head,
        d_mlp=spec.d_mlp,
        n_ctx=spec.n_ctx,
        d_vocab=d_vocab,
        act_fn=spec.act_fn,
        normalization_type=spec.normalization,
        positional_embedding_type=spec.positions,
        init_mode="gpt2",
        seed=seed,
    )
    on_meta = torch.device(device).type == "meta"
    with torch.random.fork_rng(devices=[]), torch.device("meta" if on_meta else "cpu"):
        module = NativeModel(config)
    if on_meta:
        return module
    initialize_native_model(module, config)
    return module.to(device)


def as_bridge(module: NativeModel) -> Bridge:
    """The module as a TransformerLens bridge in eval mode: same weights, same logits up to rounding, with hooks.

    The bridge takes the module over (its submodules are wrapped in place), so train first and wrap afterwards.

    Raises:
        ValueError: The module is wrapped already; use the bridge that was made of it.
    """
    if is_wrapped(module):
        raise ValueError("this module is wrapped already: use the bridge that as_bridge returned the first time")
    bridge = build_bridge_from_module(
        module, architecture="TransformerLensNative", tl_config=module.cfg, model_name="cotinterp"
    )
    return bridge.eval()


def is_wrapped(module: nn.Module) -> bool:
    """Whether a bridge has taken this plain module over."""
    return any("_original_component" in name for name, _ in module.named_modules())


def build_model(spec: ModelSpec, d_vocab: int, *, seed: int, device: str | torch.device = "cpu") -> Bridge:
    """An untrained model, hooked and in eval mode: the control of probing is this with a seed of its own."""
    return as_bridge(build_module(spec, d_vocab, seed=seed, device=device))
