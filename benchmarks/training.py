"""Training: one step, and a whole run, against the loop that one writes by hand.

One step, on the reference batch. Timed: draw the batch, forward, backward, clip, AdamW. Peers: the same step through a
TransformerLens bridge and through the raw torch module, both padded and in fp32. Equal: the gradient of the first step,
clipped to norm 1, from the same weights on the same batch, in fp32 to 1e-5. What bf16 does to that gradient is said
beside it. Floor: three passes' worth (forward, and twice that backward) over tokens that are no padding.

A whole run: `train` against the bridge loop, from one spec, and what both have learned. Timed: everything from the spec
to the trained model; data, steps and, for ours, checkpoints and the metrics log. Equal: the intervals (Wilson, 95%) of
the two accuracies on held-out problems overlap. That interval is over problems: two runs of one spec in two roundings
are two draws of a trained model, so a difference beyond it is no error by itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from benchmarks.comparison import Agreement, Comparison, Precision, matmul_floor
from benchmarks.workload import Amounts, Workload, mixed_problems
from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.models.build import Bridge, as_bridge, build_module
from cotinterp.models.flops import Cost
from cotinterp.results import wilson
from cotinterp.tasks import get_task
from cotinterp.training.course import learning_rate
from cotinterp.training.data import batch_rows, transcripts_of
from cotinterp.training.learner import Learner
from cotinterp.training.loop import train
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


TOLERANCE = 1e-5
Gradient = Mapping[str, Tensor]
PEERS: Mapping[str, Literal["bridge", "raw"]] = {
    "TransformerLens bridge, padded, fp32": "bridge",
    "raw PyTorch module, padded, fp32": "raw",
}
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def training_steps(workload: Workload, _: Amounts) -> Iterator[Comparison]:
    """Both precisions of ours against both loops."""
    for precision in PRECISIONS:
        for peer in PEERS:
            yield training_step(workload.spec, workload.device, peer, precision)


def training_step(spec: RunSpec, device: torch.device, peer: str, precision: Precision) -> Comparison:
    """One of ours against one of theirs; each is built anew."""
    ours = _our_step(spec, precision, device)
    theirs, numbers = PaddedLoop.begin(spec, PEERS[peer], device), count()

    def agree(our: Gradient, their: Gradient) -> Agreement:
        if precision == "fp32":
            return same_gradient(our, their)
        exact = _our_step(spec, "fp32", device)()
        away = float(torch.cat([(our[name] - exact[name]).flatten() for name in exact]).norm())
        size = float(torch.cat([gradient.flatten() for gradient in exact.values()]).norm())
        return same_gradient(exact, their).also(f"in bf16 the gradient is {away / size:.2%} (L2) away from that")

    return Comparison(
        work=f"one training step, {spec.regime} batch of {spec.optimizer.batch_size}, {precision}",
        peer=peer,
        ours=ours,
        theirs=lambda: theirs.step(next(numbers)),
        agree=agree,
        floor=matmul_floor(step_flops(spec), precision),
    )


def same_gradient(ours: Gradient, theirs: Gradient) -> Agreement:
    """Equal where no entry of the clipped gradient differs by more than 1e-5."""
    difference = max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)
    return Agreement.within(difference, TOLERANCE, "clipped fp32 gradient of the first step")


def step_flops(spec: RunSpec) -> float:
    """Matrix products of a step, forward and backward, averaged over the training set."""
    task = get_task(spec.task)
    vocabulary = Vocabulary.of(task)
    batch = collate(transcripts_of(spec, task), vocabulary)
    read = int(batch.loss_mask.sum())
    once = Cost(spec.model, len(vocabulary)).forward(batch.length.numpy() - 1, read=read)
    return 3 * once * spec.optimizer.batch_size / len(batch)


def _our_step(spec: RunSpec, precision: Precision, device: torch.device) -> Callable[[], Gradient]:
    chosen = spec.model_copy(update={"precision": precision})
    learner, numbers = Learner.begin(chosen, get_task(spec.task), device), count()
    weights = dict(learner.module.named_parameters())

    def update() -> Gradient:
        learner.update(next(numbers))
        return gradients(weights)

    return update


def whole_run(workload: Workload, amounts: Amounts, steps: int) -> Comparison:
    """Ours and the bridge loop over `steps` steps, once each; the precision of ours is that of the spec."""
    spec = workload.spec.model_copy(
        update={
            "optimizer": workload.spec.optimizer.model_copy(update={"steps": steps, "warmup": min(100, steps // 2)})
        }
    )
    changed = Workload(spec, workload.task, workload.model)
    return Comparison(
        work=f"a whole {spec.regime} run of {steps} steps, {spec.precision}",
        peer="TransformerLens bridge loop, padded, fp32",
        ours=partial(_train_here, changed),
        theirs=partial(_train_padded, changed),
        agree=partial(same_accuracy, changed, amounts.decoded),
        floor=matmul_floor(step_flops(spec) * steps, spec.precision),
        unit="s",
        once=True,
    )


def same_accuracy(workload: Workload, n: int, ours: Bridge, theirs: Bridge) -> Agreement:
    """Equal where the intervals of the accuracies on the same held-out problems overlap."""
    problems = {"heldout": mixed_problems(workload, n)}
    words, intervals = [], []
    for name, model in (("ours", ours), ("theirs", theirs)):
        outputs = accuracy_by_k(model, workload.task, workload.spec.regime, problems).outputs
        hits = sum(output.correct for output in outputs)
        intervals.append(wilson(hits, len(outputs)))
        words.append(f"{name} {hits}/{len(outputs)} [{intervals[-1].low:.3f}, {intervals[-1].high:.3f}]")
    low, high = max(one.low for one in intervals), min(one.high for one in intervals)
    return Agreement(low <= high, f"held-out problems right: {', '.join(words)}")


def _train_here(workload: Workload) -> Bridge:
    with TemporaryDirectory() as folder:
        directory = Path(folder) / workload.spec.slug
        threads = torch.get_num_threads()
        return train(workload.spec, directory=directory, device=str(workload.device), threads=threads).model


def _train_padded(workload: Workload) -> Bridge:
    loop = PaddedLoop.begin(workload.spec, "bridge", workload.device)
    for number in range(workload.spec.optimizer.steps):
        loop.step(number)
    assert isinstance(loop.model, Bridge)
    return loop.model.eval()
