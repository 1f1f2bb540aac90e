"""The training loop that one writes by hand: pad, forward, cross-entropy, backward, clip, AdamW, all in fp32."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from cotinterp.models.build import as_bridge, build_module
from cotinterp.tasks import get_task
from cotinterp.training.data import batch_rows, transcripts_of
from cotinterp.training.learner import learning_rate
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.vocabulary import Vocabulary

IGNORED = -100


@dataclass(frozen=True, eq=False)
class PaddedLoop:
    """A model in train mode and the same batches as ours, padded to the longest transcript of each batch.

    Attributes:
        model: A TransformerLens bridge or the raw module.
        weights: Its parameters by their names in the raw module.
        optimizer: torch's AdamW as it comes, matrices decayed and vectors not.
    """

    spec: RunSpec
    model: nn.Module
    weights: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    tokens: Int[Tensor, "example pos"]
    targets: Int[Tensor, "example pos"]
    length: Int[Tensor, " example"]

    @classmethod
    def begin(cls, spec: RunSpec, kind: Literal["bridge", "raw"], device: torch.device) -> "PaddedLoop":
        """The loop before its first step, with the initial weights and the data of the spec."""
        task = get_task(spec.task)
        module = build_module(spec.model, len(Vocabulary.of(task)), seed=spec.seed, device=device)
        weights = dict(module.named_parameters())
        chosen = spec.optimizer
        decayed = [p for p in weights.values() if p.ndim > 1]
        others = [p for p in weights.values() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": chosen.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=chosen.lr, betas=chosen.betas)
        batch = collate(transcripts_of(spec, task), Vocabulary.of(task))
        targets = batch.tokens.masked_fill(~batch.loss_mask, IGNORED)[:, 1:]
        model = (as_bridge(module) if kind == "bridge" else module).train()
        return cls(
            spec, model, weights, optimizer, batch.tokens[:, :-1].to(device), targets.to(device), batch.length - 1
        )

    def step(self, number: int) -> dict[str, Tensor]:
        """Step `number` (from 0). Returns the clipped gradient by name."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec.optimizer, number)
        rows = torch.from_numpy(batch_rows(self.spec.seed, number, len(self.length), self.spec.optimizer.batch_size))
        width = int(self.length[rows].max())
        chosen = rows.to(self.tokens.device)
        self.optimizer.zero_grad()
        logits = self.model(self.tokens[chosen, :width])
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), self.targets[chosen, :width].flatten(), ignore_index=IGNORED
        )
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights.values(), self.spec.optimizer.clip)
        self.optimizer.step()
        return gradients(self.weights)


def gradients(weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """The gradient that lies at each weight. ValueError where there is none to look at."""
    missing = [name for name, weight in weights.items() if weight.grad is None]
    if missing:
        raise ValueError(f"no gradient lies at {missing[:3]}: nothing can be compared")
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
