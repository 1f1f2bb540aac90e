"""Weights as bytes: their names, their hash, and files of them that are checked before they are believed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cotinterp.models.adapters import adapted_layers, base_name, unmerged
from cotinterp.models.build import Bridge, is_wrapped
from cotinterp.models.spec import DIGEST
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

AGAIN = (
    "Delete it and train its spec again in the same directory, which gives the same weights; or restore it from a copy"
)


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every weight by its name in TransformerLens (`blocks.0.attn.q.weight`): one set for a module and its bridge.

    The zero bias that a bridge adds to an unembedding that has none is no weight of the model and is left out.

    Raises:
        ValueError: The module was taken over by a bridge; ask for the weights of that bridge. Or it has an adapter that
            is not merged; ask for its `base_weights`, or merge it.
    """
    if isinstance(model, Bridge):
        state: dict[str, Tensor] = model.state_dict()  # type: ignore[no-untyped-call]
        return {name: tensor for name, tensor in state.items() if name != "unembed.bias" or tensor.any()}
    if is_wrapped(model):
        raise ValueError("a bridge has taken this module over: ask for the weights of the bridge")
    if layers := adapted_layers(model):
        raise ValueError(unmerged(layers))
    return base_weights(model)


def base_weights(module: nn.Module) -> dict[str, Tensor]:
    """`named_weights` of a plain module without the adapter that it may have: of the frozen model alone."""
    state = {base_name(name): tensor for name, tensor in module.state_dict().items()}
    return {lens_name(name): tensor for name, tensor in state.items() if name}


MATRICES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.in", "mlp.out")


def matrices_moved(model: nn.Module, base: nn.Module) -> dict[str, float]:
    """How far each kind of matrix of the blocks (MATRICES) is from that of `base`: the Frobenius norm of the
    difference over that of `base`, over all blocks together.

    0 where nothing moved. What training does to a matrix depends on its optimizer and rate as well: AdamW moves every
    entry about as far in a step, and what adds up is what keeps its direction.

    Raises:
        ValueError: Models of other shapes.
    """
    here, there = named_weights(model), named_weights(base)
    if {name: one.shape for name, one in here.items()} != {name: one.shape for name, one in there.items()}:
        raise ValueError("the two models have matrices of different names or shapes: give one that began as the other")
    found = {}
    for kind in MATRICES:
        names = [name for name in there if name.endswith(f".{kind}.weight")]
        moved = sum(float((here[name] - there[name]).double().square().sum()) for name in names)
        found[kind] = (moved / sum(float(there[name].double().square().sum()) for name in names)) ** 0.5
    return found


def lens_name(name: str) -> str:
    """TransformerLens's name for a weight of the plain module: `layers.0.mlp.fc_in.bias` -> `blocks.0.mlp.in.bias`."""
    return ".".join(LENS_NAMES.get(part, part) for part in name.split("."))


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies named weights into a plain module.

    Raises:
        CheckpointError: Layers that share their weights in the module have several in `tensors`.
    """
    state = {name: tensors[lens_name(name)] for name in module.state_dict()}
    module.load_state_dict(state)
    untied = [lens_name(name) for name, own in module.state_dict().items() if not torch.equal(own.cpu(), state[name])]
    if untied:
        raise CheckpointError(
            f"the weights {untied[:3]} are not those of the loops after them, and the spec says that they are the same"
        )


def weight_hash(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights: equal where and only where all bits are."""
    return tensors_hash(named_weights(model))


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weight_faults(model: nn.Module, path: Path) -> list[str]:
    """What keeps the weights of `model` from being those of a safetensors file, bit for bit; empty where nothing does.

    The file may have the names of TransformerLens, or those of the module inside a bridge, as Hugging Face's
    `save_pretrained` writes them. A weight that shares its memory with one that was compared (a tied unembedding;
    queries, keys and values, where the file has them in one) needs no name of its own there. What else the file lacks,
    such as an adapter that was not merged, is a fault, as is what only the file has.

    Raises:
        CheckpointError: The file cannot be read, or is not what its digest was made of.
    """
    stored = read_unsealed(path).tensors
    inside = getattr(model, "original_model", model).state_dict()
    namings = [{_plain(name): tensor for name, tensor in inside.items()}]
    namings += [named_weights(model)] if isinstance(model, Bridge) or not is_wrapped(model) else []
    here = max(namings, key=lambda names: len(names.keys() & stored.keys()))
    faults = [f"the file has {name!r}, the model has not" for name in sorted(stored.keys() - here.keys())]
    for name in sorted(stored.keys() & here.keys()):
        there, found = stored[name], here[name].detach().cpu()
        if found.shape != there.shape:
            faults.append(f"{name!r} is {tuple(found.shape)}, in the file {tuple(there.shape)}")
        elif found.dtype != there.dtype or not torch.equal(found, there):
            off = float((found.double() - there.double()).abs().max())
            kinds = "" if found.dtype == there.dtype else f" ({found.dtype}, in the file {there.dtype})"
            faults.append(f"{name!r} is not that of the file: off by up to {off:.2g}{kinds}")
    compared = {here[name].untyped_storage().data_ptr() for name in stored.keys() & here.keys()}
    for name, parameter in model.named_parameters():
        if parameter.untyped_storage().data_ptr() not in compared:
            faults.append(f"the model has {_plain(name)!r}, the file has not")
    return faults


def _plain(name: str) -> str:
    """The name of a weight before a bridge wrapped the module that it belongs to."""
    return name.replace("._original_component", "")


@dataclass(frozen=True, eq=False)
class Stored:
    """Everything that a file of weights says, known to be what was written (`read_weights`).

    Attributes:
        path: The file.
        tensors: By name.
        metadata: What the file says of itself, its digest left out.
        weight_hash: Of the tensors: `weight_hash` of a model that has them.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    weight_hash: str

    def fitting(self, expected: Shapes) -> dict[str, Tensor]:
        """The tensors, which must be exactly those expected, in fp32 and finite.

        Raises:
            CheckpointError: They are not; the first that differ are named.
        """
        wrong = [f"misses {name!r}" for name in expected if name not in self.tensors]
        wrong += [f"has an unknown {name!r}" for name in sorted(set(self.tensors) - set(expected))]
        for name in sorted(set(self.tensors) & set(expected)):
            shape, dtype = tuple(self.tensors[name].shape), self.tensors[name].dtype
            if shape != tuple(expected[name]):
                wrong.append(f"{name!r} is {shape}, the spec says {tuple(expected[name])}")
            if dtype != torch.float32:
                wrong.append(f"{name!r} is {dtype}, not torch.float32")
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise CheckpointError(f"{self.path} does not fit its spec: it {'; '.join(wrong[:5])}{more}")
        broken = [name for name in expected if not self.tensors[name].isfinite().all()]
        if broken:
            raise CheckpointError(f"{self.path} holds NaN or infinite values in {broken[:5]}; train it again")
        return {name: self.tensors[name] for name in expected}


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file in one piece: readers see the old file or the new one, never a part of it.

    One more field of its metadata is a digest over all others and over names, types, shapes and bytes of the tensors.
    """
    # Cloned, because a file has no two names for one tensor: weights of a block that is run in loops stand there often.
    on_cpu = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digest = _digest(metadata, tensors_hash(on_cpu))
    write_atomic(path, save(on_cpu, {**metadata, DIGEST: digest}))


def read_weights(path: Path) -> Stored:
    """What a safetensors file holds, checked against the digest in it: every byte that says something is read, once.

    Nothing in such a file is believed, its metadata neither, unless all of it is as it was written.

    Raises:
        CheckpointError: The file is truncated, damaged or no safetensors file, or has no digest.
        FileNotFoundError: There is none.
    """
    tensors, metadata = _parsed(path)
    if DIGEST not in metadata:
        raise CheckpointError(
            f"{path} has no digest (version 0.1 wrote none): it cannot be told from a damaged one. Of a finished run, "
            f'`python -c "from cotinterp.training.checkpoints import seal; seal({str(path.parent)!r})"` checks what it '
            f"can and adds one. {AGAIN}"
        )
    digest, weights = metadata.pop(DIGEST), tensors_hash(tensors)
    if digest != _digest(metadata, weights):
        raise CheckpointError(f"{path} is damaged: its content is not what its digest was made of. {AGAIN}")
    return Stored(path, tensors, metadata, weights)


def read_unsealed(path: Path) -> Stored:
    """`read_weights` of a file that may lack a digest; one that it has is checked. For `checkpoints.seal` alone.

    Raises:
        CheckpointError: As `read_weights`, but for a missing digest.
    """
    tensors, metadata = _parsed(path)
    return read_weights(path) if DIGEST in metadata else Stored(path, tensors, metadata, tensors_hash(tensors))


def _digest(metadata: Mapping[str, str], weights: str) -> str:
    return hashlib.sha256(json.dumps([sorted(metadata.items()), weights]).encode()).hexdigest()


def _parsed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, mapped into memory, and metadata as the file has them; its header has been held against its length."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({error}). {AGAIN}") from error
