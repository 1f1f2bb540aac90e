"""Weights as bytes: their names, their hash, and files of them that are checked before they are believed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cotinterp.models.build import Bridge, is_wrapped
from cotinterp.models.spec import CheckpointError as CheckpointError
from cotinterp.results import write_atomic

LENS_NAMES = {
    "tok_embed": "embed",
    "pos": "pos_embed",
    "layers": "blocks",
    "fc_in": "in",
    "fc_out": "out",
    "ln_out": "ln_final",
    "head": "unembed",
}

Shapes = Mapping[str, tuple[int, ...]]


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every weight by its name in TransformerLens (`blocks.0.attn.q.weight`): one set for a module and its bridge.

    The zero bias that a bridge adds to an unembedding that has none is no weight of the model and is left out.

    Raises:
        ValueError: The module was taken over by a bridge; ask for the weights of that bridge.
    """
    if isinstance(model, Bridge):
        state: dict[str, Tensor] = model.state_dict()  # type: ignore[no-untyped-call]
        return {name: tensor for name, tensor in state.items() if name != "unembed.bias" or tensor.any()}
    if is_wrapped(model):
        raise ValueError("a bridge has taken this module over: ask for the weights of the bridge")
    return {lens_name(name): tensor for name, tensor in model.state_dict().items()}


def lens_name(name: str) -> str:
    """TransformerLens's name for a weight of the plain module: `layers.0.mlp.fc_in.bias` -> `blocks.0.mlp.in.bias`."""
    return ".".join(LENS_NAMES.get(part, part) for part in name.split("."))


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies named weights into a plain module."""
    module.load_state_dict({name: tensors[lens_name(name)] for name in module.state_dict()})


def weight_hash(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights: equal where and only where all bits are."""
    return tensors_hash(named_weights(model))


def stored_weight_hash(path: Path) -> str:
    """`weight_hash` of the model whose weights are in a safetensors file; no model is built.

    Raises:
        CheckpointError: The file is truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return tensors_hash({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file in one piece: readers see the old file or the new one, never a part of it."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(on_cpu, dict(metadata)))


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; its tensors are not read.

    Raises:
        CheckpointError: The file is truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def read_tensors(path: Path, expected: Shapes) -> dict[str, Tensor]:
    """The fp32 tensors of a safetensors file that must hold exactly those expected, all finite.

    Names, shapes and types are compared in the file's header before any tensor is read.

    Raises:
        CheckpointError: The file is truncated, no safetensors file, does not fit, or holds NaN or infinity.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            wrong = [f"misses {name!r}" for name in expected if name not in names]
            wrong += [f"has an unknown {name!r}" for name in sorted(names - set(expected))]
            for name in sorted(names & set(expected)):
                view = file.get_slice(name)
                shape, dtype = tuple(view.get_shape()), view.get_dtype()
                if shape != tuple(expected[name]):
                    wrong.append(f"{name!r} is {shape}, the spec says {tuple(expected[name])}")
                if dtype != "F32":
                    wrong.append(f"{name!r} is {dtype}, not F32")
            if wrong:
                more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
                raise CheckpointError(f"{path} does not fit its spec: it {'; '.join(wrong[:5])}{more}")
            tensors = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise _unreadable(path, error) from error
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path} holds NaN or infinite values in {broken[:5]}; train it again")
    return tensors


def _unreadable(path: Path, error: SafetensorError) -> CheckpointError:
    return CheckpointError(f"{path} is truncated or not a safetensors file ({error}); restore it or train it again")
