"""One training step on the reference batch: `Learner.update` against loops that one writes by hand.

Timed: draw the batch, forward, backward, clip, AdamW. Peers: the same step through a TransformerLens bridge and through
the raw torch module, both padded and in fp32. Equal: the gradient of the first step, clipped to norm 1, from the same
weights on the same batch, in fp32 to 1e-5. What bf16 does to that gradient is said beside it.
Floor: three passes' worth (forward, and twice that backward) over tokens that are no padding.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Literal

import torch
from torch import Tensor

from benchmarks.comparison import Agreement, Comparison, Precision, matmul_floor
from benchmarks.padded_loop import PaddedLoop, gradients
from benchmarks.subjects import Amounts, Subject
from cotinterp.models.flops import Cost
from cotinterp.tasks import get_task
from cotinterp.training.data import transcripts_of
from cotinterp.training.learner import Learner
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.vocabulary import Vocabulary

TOLERANCE = 1e-5
Gradient = Mapping[str, Tensor]
PEERS: Mapping[str, Literal["bridge", "raw"]] = {
    "TransformerLens bridge, padded, fp32": "bridge",
    "raw PyTorch module, padded, fp32": "raw",
}
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def training_steps(subject: Subject, _: Amounts) -> Iterator[Comparison]:
    """Both precisions of ours against both loops."""
    for precision in PRECISIONS:
        for peer in PEERS:
            yield training_step(subject.spec, subject.device, peer, precision)


def training_step(spec: RunSpec, device: torch.device, peer: str, precision: Precision) -> Comparison:
    """One of ours against one of theirs; each is built anew."""
    ours = _ours(spec, precision, device)
    theirs, numbers = PaddedLoop.begin(spec, PEERS[peer], device), count()

    def agree(our: Gradient, their: Gradient) -> Agreement:
        if precision == "fp32":
            return same_gradient(our, their)
        exact = _ours(spec, "fp32", device)()
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


def _ours(spec: RunSpec, precision: Precision, device: torch.device) -> Callable[[], Gradient]:
    chosen = spec.model_copy(update={"precision": precision})
    learner, numbers = Learner.begin(chosen, get_task(spec.task), device), count()
    weights = dict(learner.module.named_parameters())

    def update() -> Gradient:
        learner.update(next(numbers))
        return gradients(weights)

    return update
