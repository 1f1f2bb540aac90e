"""The state of an unfinished run: weights, both moments of AdamW and the step, in one file that is whole or absent."""

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor, nn

from cotinterp.models.weights import CheckpointError, read_metadata, read_tensors, write_tensors

STATE_FILE = "training_state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


def installed_version() -> str:
    """Version of this package, "unknown" where it runs from a source tree that was never installed."""
    try:
        return version("cotinterp")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, kw_only=True)
class Record:
    """How far a run has come and what it was made of: the metadata of its safetensors files.

    Attributes:
        step: Updates done.
        elapsed_s: Seconds spent on them, over all processes that worked on the run.
        threads: CPU threads that computed them.
        spec: Hash of the run's spec.
        task: Fingerprint of its task.
        data: Hash of its training set.
        start: Hash of the weights that `start_from` names; "" where the run began with random ones, and not stored.
        cotinterp: Version that trained it.
        torch: Version of torch that computed it.
    """

    step: int
    elapsed_s: float
    threads: int
    spec: str
    task: str
    data: str
    start: str = ""
    cotinterp: str = field(default_factory=installed_version)
    torch: str = torch.__version__

    def metadata(self) -> dict[str, str]:
        """As safetensors stores it."""
        fields = {name: repr(value) if isinstance(value, float) else str(value) for name, value in vars(self).items()}
        return fields if self.start else {name: text for name, text in fields.items() if name != "start"}

    @classmethod
    def parse(cls, metadata: dict[str, str], path: Path) -> "Record":
        """From what safetensors stored. Raises CheckpointError where a field is missing or no number."""
        try:
            return cls(
                step=int(metadata["step"]),
                elapsed_s=float(metadata["elapsed_s"]),
                threads=int(metadata["threads"]),
                spec=metadata["spec"],
                task=metadata["task"],
                data=metadata["data"],
                start=metadata.get("start", ""),
                cotinterp=metadata["cotinterp"],
                torch=metadata["torch"],
            )
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path} does not say how far its run had come ({error!r}); delete it") from error


def read_record(path: Path) -> Record:
    """How far the run had come whose state is in `path`."""
    return Record.parse(read_metadata(path), path)


def save_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, record: Record) -> None:
    """Replaces the state on disk by the present one."""
    write_tensors(path, _tensors(module, optimizer), record.metadata())


def restore_state(path: Path, module: nn.Module, optimizer: torch.optim.AdamW) -> None:
    """Puts weights and moments back as they were, bit for bit; the step count of every parameter is the run's.

    Values are copied into memory that torch allocated: sums over memory of another alignment can round otherwise.
    """
    step = read_record(path).step
    expected = {name: tuple(tensor.shape) for name, tensor in _weights(module).items()}
    expected |= {f"{moment}.{name}": shape for name, shape in expected.items() for moment in MOMENTS}
    saved = read_tensors(path, expected)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(saved[name])
            state = {moment: torch.empty_like(parameter).copy_(saved[f"{moment}.{name}"]) for moment in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **state}


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    moments = {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in module.named_parameters()
        for moment in MOMENTS
    }
    return {**_weights(module), **moments}
