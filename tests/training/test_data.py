"""Which tokens are learned from, and in what order."""

import numpy as np
import pytest
import torch

from cotinterp.tasks import get_task
from cotinterp.training.data import NOT_SCORED, TrainingSet, batch_rows, problems_of
from cotinterp.transcripts.problems import split_of
from cotinterp.transcripts.vocabulary import Vocabulary

CPU = torch.device("cpu")


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (10, 10), (7, 16), (100, 64)])
def test_every_row_comes_once_an_epoch(n, batch_size):
    steps = -(-3 * n // batch_size)
    stream = np.concatenate([batch_rows(5, step, n, batch_size) for step in range(steps)])
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_batches_depend_on_seed_and_step_and_on_nothing_else():
    first = batch_rows(5, 123, 100, 8)
    np.random.default_rng(0).random(10)
    assert np.array_equal(batch_rows(5, 123, 100, 8), first)
    assert not np.array_equal(batch_rows(6, 123, 100, 8), first)
    assert not np.array_equal(batch_rows(5, 124, 100, 8), first)


def test_epochs_have_orders_of_their_own():
    assert not np.array_equal(batch_rows(5, 0, 64, 64), batch_rows(5, 1, 64, 64))


@pytest.mark.parametrize("regime", ["direct", "cot", "totals"])
def test_targets_are_the_response_and_inputs_come_one_token_earlier(tiny, regime):
    task = get_task(tiny.task)
    spec = tiny.model_copy(update={"regime": regime})
    data, vocabulary = TrainingSet.of(spec, task, CPU), Vocabulary.of(task)
    problems = problems_of(spec, task)
    assert len(problems) == len(data.length) == spec.n_train
    for row, problem in enumerate(problems):
        prompt = "<" + "*".join(task.operands[operand] for operand in problem.operands) + ">"
        scored = data.targets[row] != NOT_SCORED
        response = vocabulary.decode(data.targets[row][scored].tolist())
        assert vocabulary.decode(data.inputs[row, : data.length[row]].tolist()) == (prompt + response)[:-1]
        assert response.endswith(task.state_text(problem.answer) + "#")
        assert scored.nonzero()[0].item() == len(prompt) - 1
        assert data.length[row] == len(prompt + response) - 1


def test_regimes_share_their_problems(tiny):
    task = get_task(tiny.task)
    assert problems_of(tiny, task) == problems_of(tiny.model_copy(update={"regime": "direct"}), task)
    assert problems_of(tiny, task) != problems_of(tiny.model_copy(update={"seed": 1}), task)


def test_only_the_training_side_of_the_split_is_learned_from(tiny):
    assert {split_of(problem.operands) for problem in problems_of(tiny, get_task(tiny.task))} == {"train"}


def test_rows_are_cut_to_the_longest_of_them(tiny):
    data = TrainingSet.of(tiny, get_task(tiny.task), CPU)
    short = data.length.argmin().item()
    few = data.rows(np.array([short, short]))
    assert few.inputs.shape[1] == few.targets.shape[1] == int(data.length[short]) < data.inputs.shape[1]
    assert torch.equal(few.inputs[0], data.inputs[short, : few.inputs.shape[1]])
    assert (few.targets != NOT_SCORED).sum() == 2 * (data.targets[short] != NOT_SCORED).sum()


def test_the_hash_sees_every_token_and_every_target(tiny):
    data = TrainingSet.of(tiny, get_task(tiny.task), CPU)
    before = data.sha256
    assert TrainingSet.of(tiny, get_task(tiny.task), CPU).sha256 == before
    data.inputs[-1, 0] += 1
    assert data.sha256 != before
    data.inputs[-1, 0] -= 1
    data.targets[3, 0] = 1
    assert data.sha256 != before
