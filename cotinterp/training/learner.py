"""A model, its optimizer and its training set: what one update does to them, and the weights that they start from."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cotinterp.models.build import build_module
from cotinterp.models.weights import CheckpointError, named_weights
from cotinterp.tasks import Task
from cotinterp.training.checkpoints import Run, is_finished, load_run
from cotinterp.training.data import NOT_SCORED, TrainingSet, batch_rows
from cotinterp.training.packing import PackedBatch, packed_loss
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.training.spec_file import SPEC_FILE, read_json
from cotinterp.transcripts.vocabulary import Vocabulary


def learning_rate(optimizer: OptimizerSpec, step: int) -> float:
    """Rate of update `step` (from 0): linear rise over the warm-up, then half a cosine down to the final fraction.

    The last step of the warm-up and the first after it have the highest rate, the last update has the lowest.
    """
    if step < optimizer.warmup:
        return optimizer.lr * (step + 1) / optimizer.warmup
    span = optimizer.steps - 1 - optimizer.warmup
    progress = (step - optimizer.warmup) / span if span > 0 else 0.0
    shape = 0.5 * (1 + math.cos(math.pi * progress))
    return optimizer.lr * (optimizer.final_lr_fraction + (1 - optimizer.final_lr_fraction) * shape)


def response_loss(module: nn.Module, batch: TrainingSet, *, bf16: bool = False) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over all response tokens of the batch; prompt and padding count nothing.

    Long responses weigh more than short ones, since every token weighs the same. This is the definition, padding and
    all; a run is trained on `packed_loss`, which has the same value and gradient.
    """
    with torch.autocast(batch.inputs.device.type, dtype=torch.bfloat16, enabled=bf16):
        logits = module(batch.inputs)
    return functional.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=NOT_SCORED)


def adamw(module: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """The optimizer of a run: matrices are decayed, vectors (biases, normalization scales) are not."""
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=True)


@dataclass(frozen=True)
class Update:
    """What one update saw.

    Attributes:
        step: Updates done, this one included.
        loss: Mean cross-entropy per response token of the batch before the update, in nats.
        lr: Learning rate.
        grad_norm: Norm of the gradient over all parameters before clipping.
        tokens: Tokens that were read, padding not counted.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int


@dataclass(frozen=True, eq=False)
class Learner:
    """The moving parts of a run. Their state after step `t` is a function of the spec and `t` alone."""

    spec: RunSpec
    module: nn.Module
    optimizer: torch.optim.AdamW
    data: TrainingSet

    @classmethod
    def begin(cls, spec: RunSpec, task: Task, device: torch.device) -> "Learner":
        """The learner before its first update."""
        module = build_module(spec.model, len(Vocabulary.of(task)), seed=spec.seed, device=device)
        return cls(spec, module, adamw(module, spec.optimizer), TrainingSet.of(spec, task, device))

    def update(self, step: int) -> Update:
        """Makes update `step` (from 0). Where loss or gradient are not finite the weights stay as they are."""
        spec = self.spec.optimizer
        lr = learning_rate(spec, step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        rows = batch_rows(self.spec.seed, step, len(self.data.length), spec.batch_size)
        batch = PackedBatch.of(self.data, rows)
        self.optimizer.zero_grad(set_to_none=True)
        loss = packed_loss(self.module, batch, bf16=self.spec.precision == "bf16")
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), spec.clip)
        if torch.isfinite(loss + norm):
            self.optimizer.step()
        return Update(step + 1, loss.item(), lr, norm.item(), batch.n_tokens)

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return all(bool(parameter.isfinite().all()) for parameter in self.module.parameters())


BY_SYMBOL = ("embed.weight", "unembed.weight")
BY_POSITION = ("pos_embed.weight",)


def carry_over(module: nn.Module, spec: RunSpec, task: Task, directory: Path) -> str:
    """Gives a freshly initialized `module` the weights of the run that `spec.start_from` names beside `directory`.

    Embeddings and unembeddings go by symbol and position vectors by place: what the earlier run never had (a symbol
    of the new task, a place beyond its context) keeps its random values. All else must have the same shape. The
    optimizer and the learning rate begin anew.

    Returns:
        Hash of the weights that were carried over, for the record of the run.

    Raises:
        CheckpointError: That run is missing, unfinished or damaged, or its model has another shape.
    """
    start = _start_run(spec, task, directory)
    given, here = named_weights(start.model), named_weights(module)
    wrong = [f"has no {name!r}" for name in here if name not in given]
    wrong += [f"has {name!r}, which the new model has not" for name in given if name not in here]
    wrong += [
        f"has {tuple(given[name].shape)} for {name!r}, the new model {tuple(here[name].shape)}"
        for name in here
        if name in given and not _fits(name, given[name], here[name])
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"start_from {spec.start_from!r} does not fit model of {spec.slug}: it {'; '.join(wrong[:3])}{more}. Only "
            "the symbols and n_ctx may differ: give both runs the same model"
        )
    old, new = _shared_symbols(start.vocabulary, Vocabulary.of(task))
    with torch.no_grad():
        for name, tensor in here.items():
            if name in BY_SYMBOL:
                tensor[new] = given[name][old].to(tensor.device)
            else:
                rows = min(len(tensor), len(given[name]))
                tensor[:rows] = given[name][:rows].to(tensor.device)
    return start.weight_hash


def _start_run(spec: RunSpec, task: Task, directory: Path) -> Run:
    beside = directory.parent / str(spec.start_from)
    if not is_finished(beside):
        raise CheckpointError(
            f"{spec.slug} is to start from {spec.start_from!r}, and there is no finished run in {beside}; train that "
            "one first, in a directory of that name beside this one"
        )
    there = read_json(beside / SPEC_FILE)
    same = there.get("task") == spec.task or (spec.definition and there.get("definition") == spec.definition)
    return load_run(beside, task=task if same else None)


def _fits(name: str, given: Tensor, here: Tensor) -> bool:
    by_row = name in BY_SYMBOL or name in BY_POSITION
    return given.shape[1:] == here.shape[1:] if by_row else given.shape == here.shape


def _shared_symbols(old: Vocabulary, new: Vocabulary) -> tuple[list[int], list[int]]:
    """Tokens of the symbols that both have, in the one and in the other."""
    both = [symbol for symbol in new.symbols if symbol in old.symbols]
    return old.encode(both), new.encode(both)
