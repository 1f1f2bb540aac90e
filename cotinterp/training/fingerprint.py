"""Whether a task is still the one that a model was trained on."""

import hashlib

import numpy as np

from cotinterp.tasks import Task
from cotinterp.training.spec import json_hash
from cotinterp.transcripts.vocabulary import Vocabulary

SAMPLE = 256


def task_fingerprint(task: Task) -> str:
    """SHA-256 over the task's name, operands, states, symbols in token order, and the totals of a fixed sample.

    The sample has 256 problems of each of the six shortest lengths, the same on every machine and for every version of
    numpy. A task that was changed in a way that no problem of the sample shows keeps its fingerprint.
    """
    totals = [task.steps(_sample(task.n_operands, k)).total.tolist() for k in _lengths(task)]
    return json_hash([task.name, list(task.operands), list(task.states), Vocabulary.of(task).symbols, totals])


def _lengths(task: Task) -> range:
    return range(task.min_k, min(task.max_k, task.min_k + 5) + 1)


def _sample(n_operands: int, k: int) -> np.ndarray:
    stream = hashlib.shake_256(f"fingerprint {k}".encode()).digest(4 * SAMPLE * k)
    return (np.frombuffer(stream, dtype="<u4").reshape(SAMPLE, k) % n_operands).astype(np.int64)
