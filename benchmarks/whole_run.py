"""A whole training run: `train` against the hand-written bridge loop, from one spec, and what both have learned.

Timed: everything from the spec to the trained model; data, steps and, for ours, checkpoints and the metrics log. Equal:
the intervals (Wilson, 95%) of the two accuracies on held-out problems overlap. That interval is over problems: two runs
of one spec in two roundings are two draws of a trained model, so a difference beyond it is no error by itself.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.comparison import Agreement, Comparison, matmul_floor
from benchmarks.padded_loop import PaddedLoop
from benchmarks.subjects import Amounts, Subject, mixed_problems
from benchmarks.training_step import step_flops
from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.models.build import Bridge
from cotinterp.results import wilson
from cotinterp.training.loop import train


def whole_run(subject: Subject, amounts: Amounts, steps: int) -> Comparison:
    """Ours and the bridge loop over `steps` steps, once each; the precision of ours is that of the spec."""
    spec = subject.spec.model_copy(
        update={"optimizer": subject.spec.optimizer.model_copy(update={"steps": steps, "warmup": min(100, steps // 2)})}
    )
    changed = Subject(spec, subject.task, subject.model)
    return Comparison(
        work=f"a whole {spec.regime} run of {steps} steps, {spec.precision}",
        peer="TransformerLens bridge loop, padded, fp32",
        ours=partial(_ours, changed),
        theirs=partial(_theirs, changed),
        agree=partial(same_accuracy, changed, amounts.decoded),
        floor=matmul_floor(step_flops(spec) * steps, spec.precision),
        unit="s",
        once=True,
    )


def same_accuracy(subject: Subject, n: int, ours: Bridge, theirs: Bridge) -> Agreement:
    """Equal where the intervals of the accuracies on the same held-out problems overlap."""
    problems = {"heldout": mixed_problems(subject, n)}
    words, intervals = [], []
    for name, model in (("ours", ours), ("theirs", theirs)):
        outputs = accuracy_by_k(model, subject.task, subject.spec.regime, problems).outputs
        hits = sum(output.correct for output in outputs)
        intervals.append(wilson(hits, len(outputs)))
        words.append(f"{name} {hits}/{len(outputs)} [{intervals[-1].low:.3f}, {intervals[-1].high:.3f}]")
    low, high = max(one.low for one in intervals), min(one.high for one in intervals)
    return Agreement(low <= high, f"held-out problems right: {', '.join(words)}")


def _ours(subject: Subject) -> Bridge:
    with TemporaryDirectory() as folder:
        directory = Path(folder) / subject.spec.slug
        threads = torch.get_num_threads()
        return train(subject.spec, directory=directory, device=str(subject.device), threads=threads).model


def _theirs(subject: Subject) -> Bridge:
    loop = PaddedLoop.begin(subject.spec, "bridge", subject.device)
    for number in range(subject.spec.optimizer.steps):
        loop.step(number)
    assert isinstance(loop.model, Bridge)
    return loop.model.eval()
