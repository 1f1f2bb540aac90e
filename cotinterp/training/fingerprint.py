"""Whether a task is still the one that a model was trained on."""

import hashlib

import numpy as np

from cotinterp.tasks import Task
from cotinterp.training.spec import json_hash
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

SAMPLE = 256


def task_fingerprint(task: Task) -> str:
    """SHA-256 over the task's name, operands, states, symbols in token order, and the totals of a fixed sample.

    Of a task that writes its own prompts, has codes that stand for one problem, several operators or steps that do not
    follow the operands in order, also over the sample as the regime `cot` writes it.

    The sample has 256 problems of each of the six shortest lengths, the same on every machine and for every version of
    numpy. A task that was changed in a way that no problem of the sample shows keeps its fingerprint.
    """
    samples = [_sample(task.n_operands, k) for k in _lengths(task)]
    totals = [task.steps(sample).total.tolist() for sample in samples]
    facts = [task.name, list(task.operands), list(task.states), Vocabulary.of(task).symbols, totals]
    if not _is_plain(task):
        facts.append([[render(task, problem, "cot").text for problem in solve(task, sample)] for sample in samples])
    return json_hash(facts)


def _is_plain(task: Task) -> bool:
    """Whether name, symbols and totals say all: the prompt is the operands, and the steps follow them in order."""
    own = type(task)
    return (
        task.in_order
        and (own.prompt, own.canonical, own.resume_from) == (Task.prompt, Task.canonical, Task.resume_from)
        and len(task.operators) == 1
    )


def _lengths(task: Task) -> range:
    return range(task.min_k, min(task.max_k, task.min_k + 5) + 1)


def _sample(n_operands: int, k: int) -> np.ndarray:
    stream = hashlib.shake_256(f"fingerprint {k}".encode()).digest(4 * SAMPLE * k)
    return (np.frombuffer(stream, dtype="<u4").reshape(SAMPLE, k) % n_operands).astype(np.int64)
