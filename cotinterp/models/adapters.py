"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685) on a native module, made by PEFT (extra `lora`).

They are put into the plain module before it is trained, and merged into its weights before anything reads it: a bridge
around a module with an adapter has the right logits and, as `W_Q` and the like, the weights of the frozen model alone.
"""

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge.sources.native import NativeModel

from cotinterp.models.spec import Adapter
from cotinterp.results.shipped import optional

Module = TypeVar("Module", bound=nn.Module)
MODULE_NAMES = {"in": "fc_in", "out": "fc_out"}
"""Of targets, those that the plain module has another name for."""


def adapt(module: NativeModel, adapter: Adapter, *, seed: int) -> None:
    """Freezes the module and puts an adapter into it, in place; its logits are what they were.

    What is left with a gradient is the adapter, and what it names in `full`. The same seed gives the same adapter on
    every device, and the global random state is left alone.

    Raises:
        ModuleNotFoundError: PEFT is not installed; says the command that does it.
        ValueError: There is an adapter in it already.
    """
    peft = optional("peft", "lora", "training an adapter")
    if found := adapted_layers(module):
        raise ValueError(f"{found[0]} has an adapter already: merge it first, or build the module anew")
    names = [MODULE_NAMES.get(target, target) for target in adapter.targets]
    config = peft.LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=names)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        peft.inject_adapter_in_model(config, module)
    for name in adapter.full:
        {"embed": module.tok_embed, "unembed": module.head}[name].requires_grad_(True)


def adapted_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers of a module, or of a bridge around one, that PEFT has put an adapter into."""
    return tuple(name for name, part in model.named_modules() if "lora_A" in part._modules)


def unmerged(layers: tuple[str, ...]) -> str:
    """That these layers have an adapter, and what to do about it."""
    name = layers[0].replace("._original_component", "")
    return (
        f"{name} has an adapter that is not merged ({len(layers)} layers have): what is read as its weights would be "
        "those of the frozen model alone. Merge first: as_bridge(cotinterp.models.adapters.merged(module)); of a "
        "Hugging Face model with PEFT, boot the bridge from model.merge_and_unload()"
    )


def full_weight(layer: Any) -> Tensor:
    """What a linear layer multiplies by: of one with an adapter W + alpha / rank * B A, with gradients for both."""
    weight: Tensor = layer.weight
    if "lora_A" not in layer._modules or layer.merged:
        return weight
    changes: list[Tensor] = [layer.get_delta_weight(name) for name in layer.active_adapters]
    return sum(changes, weight)


def merged(module: Module) -> Module:
    """A plain module whose weights are those of the frozen model and its adapter together; `module` stays as it is."""
    plain = deepcopy(module)
    plain.__dict__.pop("peft_config", None)
    with torch.no_grad():
        for name in adapted_layers(plain):
            layer: Any = plain.get_submodule(name)
            base = layer.get_base_layer()
            base.weight.copy_(full_weight(layer))
            plain.set_submodule(name, base)
    return plain


def base_name(name: str) -> str:
    """Name that a parameter of the frozen model has in the plain module; "" for one of an adapter."""
    return "" if ".lora_" in name else name.replace(".base_layer", "")
