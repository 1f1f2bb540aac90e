"""A model, its optimizer and its training set: what one update does to them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cotinterp.models.build import build_module
from cotinterp.tasks import Task
from cotinterp.training.data import NOT_SCORED, TrainingSet, batch_rows
from cotinterp.training.packed_forward import packed_loss
from cotinterp.training.packing import PackedBatch
from cotinterp.training.schedule import learning_rate
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.transcripts.vocabulary import Vocabulary


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
