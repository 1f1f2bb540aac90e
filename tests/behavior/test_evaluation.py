"""Which problems a run is measured on, and what is stored of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cotinterp.behavior.accuracy import evaluate_run, evaluation_problems, evaluation_record, store_evaluation
from cotinterp.models.build import build_model
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import Run, read_evaluation
from cotinterp.training.data import problems_of
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.problems import EmptySplitError, sample_problems, split_of, training_problems
from cotinterp.transcripts.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    model = ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=16)
    spec = RunSpec(task="s3", regime="totals", k_min=2, k_max=3, n_train=60, model=model, seed=3)
    task, directory = get_task("s3"), tmp_path_factory.mktemp("run")
    vocabulary = Vocabulary.of(task)
    return Run(spec, task, vocabulary, build_model(model, len(vocabulary), seed=3), directory, "ab12", {})


def test_problems_are_distinct_and_on_their_own_side():
    task = get_task("digit-sum")
    sample = training_problems(task, (2, 4), 400, np.random.default_rng(0))
    problems = evaluation_problems(task, (2, 4), sample, rng=np.random.default_rng(1), max_per_k=50)
    operands = {split: [problem.operands for problem in chosen] for split, chosen in problems.items()}
    assert {split_of(x) for x in operands["heldout"]} == {"heldout"}
    assert set(operands["train"]) <= {problem.operands for problem in sample}
    assert all(len(set(chosen)) == len(chosen) for chosen in operands.values())
    assert len(sample) > len(set(sample))
    of_two = sample_problems(task, 2, 1000, split="heldout", rng=np.random.default_rng(0))
    lengths = {
        split: [len([x for x in chosen if len(x) == k]) for k in (2, 3, 4)] for split, chosen in operands.items()
    }
    assert lengths == {"heldout": [min(50, len(of_two)), 50, 50], "train": [50, 50, 50]}


def test_a_length_without_held_out_problems_is_left_out_and_a_side_without_any_is_an_error():
    task = get_task("parity")
    empty = [k for k in range(2, 8) if not any(split_of(x) == "heldout" for x in np.ndindex((2,) * k))]
    assert empty, "the test needs a length of parity of which the hash holds out no problem"
    sample = training_problems(task, (2, 8), 300, np.random.default_rng(0))
    problems = evaluation_problems(task, (2, 8), sample, rng=np.random.default_rng(0))
    assert {problem.k for problem in problems["heldout"]} == set(range(2, 9)) - set(empty)
    with pytest.raises(EmptySplitError, match="task 'parity' has no held-out problem"):
        evaluation_problems(task, (empty[0], empty[0]), sample, rng=np.random.default_rng(0))
    with pytest.raises(EmptySplitError, match="the training sample has no problem with 8 to 8 operands"):
        evaluation_problems(task, (8, 8), [x for x in sample if x.k < 8], rng=np.random.default_rng(0))


def test_an_evaluation_asks_the_run_for_its_own_training_problems(run):
    result = evaluate_run(run, max_per_k=20)
    assert result.labels == run.labels
    asked = {output.problem for output in result.of_split("train")}
    assert asked <= set(problems_of(run.spec, run.task))
    assert not asked & {output.problem for output in result.of_split("heldout")}
    assert evaluate_run(run, max_per_k=20) == result


def test_the_record_is_the_table_with_the_hash_of_the_weights(run):
    result = evaluate_run(run, max_per_k=20)
    record = evaluation_record(result, run.weight_hash)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["weight_hash"], record["n"]) == ("ab12", len(result.outputs))
    assert record["accuracy"] == result.frame().to_dict("records")
    path = store_evaluation(run, result)
    assert path == Path(run.directory) / "evaluation.json"
    assert read_evaluation(run.directory) == record


def test_the_record_says_how_many_problems_were_asked_for_and_what_tags_were_read_where_that_is_given(run):
    result = evaluate_run(run, max_per_k=5)
    tags = result.frame()[["split", "k", "n"]]
    record = evaluation_record(result, run.weight_hash, problems_per_k=5, tags=tags)
    assert record["problems_per_k"] == 5
    assert record["tags"] == tags.to_dict("records")
    store_evaluation(run, result, problems_per_k=5, tags=tags)
    assert read_evaluation(run.directory) == record
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_record_of_another_run_is_refused(run):
    result = evaluate_run(run, max_per_k=5)
    other = replace(run, spec=run.spec.model_copy(update={"seed": 4}))
    with pytest.raises(ValueError, match="the result is labeled"):
        store_evaluation(other, result)
