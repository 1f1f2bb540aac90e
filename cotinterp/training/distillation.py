"""Hidden-state distillation: a student's states at the answer are drawn toward a teacher's states along its trace.

Implicit chain of thought (Deng et al. 2023, arXiv 2311.01460): what a teacher works out from left to right, one step
after the other, its student is to work out from the bottom to the top, one layer after the other. The teacher was
trained to write the trace. Its states are read on the diagonal: at the first step in the lowest layer, at the last step
in the highest (`steps_of_layers`). The student's are read where it predicts the first symbol of its answer: in the
regime `direct` at the end of the prompt.

A state is compared as a layer norm without parameters leaves it: mean 0 and variance 1 over its dimensions, which is
how the authors' code compares them. A norm stands before every block and the unembedding, so size and mean of a state
are free, and two models that compute the same differ in them. The distance of two such states is the mean square of
their difference: 2 * (1 - r), where r is the correlation of their dimensions; 0 where they agree, 2 where they have
nothing in common. It goes into the loss times `Distill.weight`, with a gradient into the student alone.

The authors train in three stages (a student that reads the teacher's states, an emulator that predicts them, both
together) and match the whole trace, token by token; here one student learns states and answer at once, and places are
steps. That the states agree does not establish that the student uses them: ask patching, and the control
(`Distill.shuffled`), whose targets are the states of other problems of the same length. An untrained teacher would be
no control: its states still tell the totals, which it reads in the trace.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cotinterp.models.native.parts import forward, native_parts, why_not_native
from cotinterp.models.weights import CheckpointError
from cotinterp.tasks import Task
from cotinterp.training.checkpoints import Run, load_beside
from cotinterp.training.data import problems_of
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import task_fingerprint
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import get_regime, regime_names
from cotinterp.transcripts.render import longest_transcript, render
from cotinterp.transcripts.roles import Role

ROWS_A_PASS = 256


@dataclass(frozen=True, eq=False)
class TeacherStates:
    """What a student's states are drawn toward.

    Attributes:
        layers: Layers of the student, and of the teacher, whose `resid_post` is compared.
        states: The teacher's, normalized, for each training problem of the student.
        weight_hash: Of the teacher's weights.
    """

    layers: tuple[int, ...]
    states: Float[Tensor, "problem layer d_model"]
    weight_hash: str


def steps_of_layers(n_steps: int, n_layers: int) -> tuple[int, ...]:
    """The step, from 1, whose state each layer of the student is compared with.

    They are evenly spaced from the first step to the last and rounded down (section 3.1 of the paper, with steps in
    place of tokens); of a single layer it is the last. `steps_of_layers(5, 4)` is (1, 2, 3, 5).
    """
    if n_layers == 1:
        return (n_steps,)
    return tuple(1 + layer * (n_steps - 1) // (n_layers - 1) for layer in range(n_layers))


def normalized(states: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """Each state with mean 0 and variance 1 over its dimensions."""
    return functional.layer_norm(states, states.shape[-1:])


def distance(
    student: Float[Tensor, "row layer d_model"], teacher: Float[Tensor, "row layer d_model"]
) -> Float[Tensor, ""]:
    """Mean square of what normalized states differ by, over rows, layers and dimensions; `teacher` is normalized."""
    return functional.mse_loss(normalized(student), teacher.detach())


def teacher_states(spec: RunSpec, task: Task, directory: Path, device: torch.device) -> TeacherStates:
    """What `spec.distill` asks for, of the teacher beside `directory`: each problem read once, with its true trace.

    Raises:
        CheckpointError: The teacher is missing, unfinished or damaged, was trained on another task, writes no totals,
            is narrower or wider than the student or has fewer layers, or has no room for the longest trace.
    """
    if spec.distill is None:
        raise ValueError(f"{spec.slug} has no teacher: give it distill")
    teacher = load_beside(directory, spec.distill.teacher, "distill.teacher", spec, task, device=str(device))
    if faults := _faults(teacher, spec, task):
        raise CheckpointError(f"{spec.distill.teacher!r} cannot teach {spec.slug}: {'; '.join(faults)}")
    layers = spec.distill.layers or tuple(range(spec.model.depth))
    problems = problems_of(spec, task)
    states = torch.cat(
        [
            diagonal(teacher, problems[start : start + ROWS_A_PASS], layers, spec.model.depth)
            for start in range(0, len(problems), ROWS_A_PASS)
        ]
    )
    if spec.distill.shuffled:
        states = states[torch.from_numpy(others_of_the_length(spec, problems)).to(states.device)]
    return TeacherStates(layers, states, teacher.weight_hash)


@torch.no_grad()
def diagonal(
    teacher: Run, problems: tuple[Problem, ...], layers: tuple[int, ...], n_layers: int
) -> Float[Tensor, "problem layer d_model"]:
    """Normalized `resid_post` of some layers of the teacher, each where it predicts the total of its step.

    `n_layers` are the student's, by which the steps are spaced.
    """
    parts = native_parts(teacher.model)
    if parts is None:
        raise ValueError(f"no states of {teacher.spec.slug}: {why_not_native(teacher.model)}")
    batch = collate([render(teacher.task, problem, teacher.spec.regime) for problem in problems], teacher.vocabulary)
    _, blocks = forward(parts, batch.tokens.to(parts.w_e.device))
    rows = torch.arange(len(batch))
    steps = torch.tensor([steps_of_layers(problem.k - 1, n_layers) for problem in problems])
    found = [blocks[layer].resid_post[rows, _predicting(batch, steps[:, layer])] for layer in layers]
    return normalized(torch.stack(found, dim=1))


def _predicting(batch: Batch, step: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """The place that predicts the first symbol of the total of a step, which is another one in each row."""
    begins = batch.mask(Role.TOTAL) & (batch.part == 0) & (batch.step == step[:, None])
    return begins.int().argmax(dim=1) - 1


def others_of_the_length(spec: RunSpec, problems: tuple[Problem, ...]) -> Int[np.ndarray, " problem"]:
    """For each training problem another one of its length: the next in an order that `spec.seed` decides.

    Short problems recur, so a few are given a problem like themselves. A length with one problem has no other.
    """
    rng = np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(3,)))
    k, other = np.array([problem.k for problem in problems]), np.empty(len(problems), dtype=np.int64)
    for length in np.unique(k):
        order = rng.permutation(np.flatnonzero(k == length))
        other[order] = np.roll(order, 1)
    return other


def _faults(teacher: Run, spec: RunSpec, task: Task) -> list[str]:
    """Why the states of this teacher cannot be those that a run is drawn toward."""
    there, here = teacher.spec.model, spec.model
    if teacher.task.name != task.name or teacher.metadata["task"] != task_fingerprint(task):
        return [f"it was trained on task {teacher.task.name!r}, and this run is of {task.name!r}"]
    able = [name for name in regime_names() if get_regime(name).writes_totals and get_regime(name).reads == "response"]
    if teacher.spec.regime not in able:
        return [f"its regime {teacher.spec.regime!r} writes no totals; those that do: {', '.join(able)}"]
    faults = []
    if there.d_model != here.d_model:
        faults.append(f"its d_model is {there.d_model}, and this run's is {here.d_model}: they must be equal")
    if there.depth < here.depth:
        faults.append(f"it has {there.depth} layers, and this run {here.depth}: give it as many or more")
    if (longest := longest_transcript(task, spec.k_max, teacher.spec.regime)) > there.n_ctx:
        faults.append(f"its n_ctx is {there.n_ctx}, and a trace of {spec.k_max} operands takes up to {longest} tokens")
    return faults
