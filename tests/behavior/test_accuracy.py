"""Accuracy by number of operands, of answers left alone; which problems are measured, and what is stored of it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cotinterp.behavior.accuracy import (
    accuracy_by_k,
    evaluate_run,
    evaluation_problems,
    evaluation_record,
    labels_of,
    longest_k,
    store_evaluation,
)
from cotinterp.models.build import build_model
from cotinterp.models.decoding import Decoding
from cotinterp.models.spec import ModelSpec
from cotinterp.results.intervals import wilson
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import Run, read_evaluation
from cotinterp.training.data import problems_of
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.examples import Shots
from cotinterp.transcripts.problems import EmptySplitError, sample_problems, solve, split_of, training_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary


def test_labels_are_the_first_columns_of_every_table():
    assert list(labels_of(get_task("s3"), "cot", 4).items()) == [("task", "s3"), ("regime", "cot"), ("run_seed", 4)]


COLUMNS = ["task", "regime", "run_seed", "split", "k", "n", "correct", "accuracy", "ci_low", "ci_high"]


@pytest.fixture
def problems(some_problems):
    return {"heldout": some_problems("digit-sum", 10, k_max=4), "train": some_problems("digit-sum", 4, k_max=3, seed=1)}


def test_a_model_that_slips_at_step_two_is_right_at_k_two_only(scripted, problems):
    task = get_task("digit-sum")
    model = scripted.Model(task, scripted.reader(task, "cot", slip_at=2))
    result = accuracy_by_k(model, task, "cot", problems, run_seed=3)
    frame = result.frame()
    assert list(frame.columns) == COLUMNS
    rows = frame[["regime", "run_seed", "split", "k", "n", "correct", "accuracy"]].to_numpy().tolist()
    assert rows == [
        ["cot", 3, "heldout", 2, 10, 10, 1.0],
        ["cot", 3, "heldout", 3, 10, 0, 0.0],
        ["cot", 3, "heldout", 4, 10, 0, 0.0],
        ["cot", 3, "train", 2, 4, 4, 1.0],
        ["cot", 3, "train", 3, 4, 0, 0.0],
    ]
    assert frame.loc[0, ["ci_low", "ci_high"]].tolist() == list(wilson(10, 10))
    assert frame.loc[1, ["ci_low", "ci_high"]].tolist() == list(wilson(0, 10))


@pytest.mark.parametrize("regime", ["direct", "cot", "totals", "filler"])
def test_a_recomputer_is_always_right(scripted, problems, regime):
    task = get_task("digit-sum")
    result = accuracy_by_k(scripted.Model(task, scripted.recomputer(task, regime)), task, regime, problems)
    assert (result.frame()["accuracy"] == 1).all()
    assert all(output.exact and output.correct and output.ended for output in result.outputs)


def test_a_right_answer_is_right_whatever_the_trace_but_not_exact(scripted, problems):
    task = get_task("digit-sum")
    short = scripted.recomputer(task, "direct")
    result = accuracy_by_k(scripted.Model(task, short), task, "cot", problems)
    assert all(output.correct and not output.exact for output in result.outputs)


def test_dots_are_counted_by_nobody_but_have_to_end(scripted, problems):
    """One dot for an answer is as good as any number; dots alone, up to the limit, are no answer."""
    task = get_task("digit-sum")
    expected = scripted.recomputer(task, "direct")

    def one_dot(text):
        response = text.partition(">")[2]
        return "{.}"[len(response)] if len(response) < 3 else expected(text.replace("{.}", ""))

    few, endless = (
        accuracy_by_k(scripted.Model(task, policy), task, "filler", problems)
        for policy in (one_dot, lambda text: "{" if text.endswith(">") else ".")
    )
    assert all(output.correct and not output.exact for output in few.outputs)
    assert not any(output.correct or output.ended for output in endless.outputs)
    assert {len(output.text) for output in endless.outputs if output.problem == problems["heldout"][-1]} == {
        2 * len(render(task, problems["heldout"][-1], "filler").response) + 8
    }


def test_what_the_model_has_no_room_for_is_refused_and_not_counted_as_wrong(scripted, problems):
    """At n_ctx = 11 the whole response but its last symbol fits where an answer of four digits has two of them."""
    task = get_task("digit-sum")
    model = scripted.Model(task, scripted.recomputer(task, "direct"), n_ctx=9 + 2)
    wanted = (
        r"right 'direct' transcript of task 'digit-sum' with 4 operands takes 12 tokens, and the model's n_ctx is 11"
    )
    with pytest.raises(ValueError, match=rf"{wanted}.* This model can be asked up to k = 3"):
        accuracy_by_k(model, task, "direct", problems)
    assert longest_k(model, task, "direct") == 3
    assert longest_k(scripted.Model(task, scripted.recomputer(task, "direct")), task, "direct") == task.max_k
    short = {split: [problem for problem in some if problem.k <= 3] for split, some in problems.items()}
    assert all(output.correct for output in accuracy_by_k(model, task, "direct", short).outputs)
    with pytest.raises(ValueError, match="max_new is 2, and a right 'direct' response to . operands takes 3 symbols"):
        accuracy_by_k(model, task, "direct", short, decoding=Decoding(max_new=2))
    with pytest.raises(
        ValueError, match="with 2 operands, the fewest, takes up to 8 tokens, and the model's n_ctx is 7"
    ):
        longest_k(scripted.Model(task, scripted.recomputer(task, "direct"), n_ctx=7), task, "direct")


def test_problems_and_models_of_another_task_are_refused(scripted, problems):
    task, s3 = get_task("digit-sum"), get_task("s3")
    model = scripted.Model(task, scripted.recomputer(task, "direct"))
    of_z6 = {"heldout": solve(get_task("z6"), np.array([[5, 4, 3]]))}
    with pytest.raises(ValueError, match="was solved by another task, or edited"):
        accuracy_by_k(model, s3, "direct", of_z6)
    model.cfg = SimpleNamespace(d_vocab=len(Vocabulary.of(s3)), n_ctx=64)
    with pytest.raises(ValueError, match="the model has d_vocab = 16, and .* 20 symbols .* a model of another task"):
        accuracy_by_k(model, task, "direct", problems)


def test_a_problem_that_is_given_twice_counts_once(scripted, problems):
    task = get_task("digit-sum")
    model = scripted.Model(task, scripted.recomputer(task, "direct"))
    twice = {split: [*some, *some] for split, some in problems.items()}
    once, again = (accuracy_by_k(model, task, "direct", given).frame() for given in (problems, twice))
    assert once.equals(again)


def test_a_model_that_gives_no_logits_is_refused(scripted, problems):
    task = get_task("digit-sum")
    with pytest.raises(ValueError, match=r"maps tokens of shape .* this one gave Tensor \("):
        accuracy_by_k(lambda tokens: torch.zeros(len(tokens), 20), task, "direct", problems)


def test_what_stands_in_the_result_is_what_was_written(scripted, problems):
    task = get_task("digit-sum")
    model = scripted.Model(task, scripted.reader(task, "cot", slip_at=1))
    result = accuracy_by_k(model, task, "cot", problems)
    examples = result.examples()
    assert list(examples.columns) == ["split", "k", "operands", "text", "ended", "correct", "exact"]
    asked = [problem for split in problems.values() for problem in split]
    assert examples["operands"].tolist() == [problem.operands for problem in asked]
    first, second = asked[0].operands
    assert examples["text"][0] == f"{{{first}+{second}={first + second + 1}}}{first + second + 1}#"
    assert [output.problem for output in result.of_split("train")] == list(problems["train"])
    with pytest.raises(KeyError, match="split 'validation' was not measured; measured: heldout, train"):
        result.of_split("validation")


def test_held_out_problems_are_drawn_solid_and_training_problems_dotted(scripted, problems, tmp_path):
    task = get_task("digit-sum")
    result = accuracy_by_k(scripted.Model(task, scripted.recomputer(task, "cot")), task, "cot", problems)
    drawn = {trace.name: trace for trace in result.figure().data if "illustrative" not in trace.name}
    assert {name: trace.line.dash for name, trace in drawn.items()} == {"cot, held-out": "solid", "cot, train": "dot"}
    assert [round(k) for k in drawn["cot, held-out"].x] == [2, 3, 4]
    assert list(drawn["cot, train"].y) == [1.0, 1.0]
    assert [path.name for path in result.save(tmp_path, "accuracy")] == ["accuracy.csv", "accuracy.html"]


def test_nothing_to_measure(scripted):
    task = get_task("digit-sum")
    model = scripted.Model(task, scripted.recomputer(task, "cot"))
    with pytest.raises(ValueError, match="no problems to measure accuracy on in heldout"):
        accuracy_by_k(model, task, "cot", {"heldout": ()})
    with pytest.raises(ValueError, match="no problems to measure accuracy on in any split"):
        accuracy_by_k(model, task, "cot", {})


def test_the_fixture_is_held_out(problems):
    assert {split_of(problem.operands) for split in problems.values() for problem in split} == {"heldout"}
    assert len({problem.operands for problem in problems["heldout"]}) == np.sum([10, 10, 10])


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


def test_with_shots_the_model_reads_examples_and_answers_the_question(scripted, problems, some_problems):
    """A reader of the last question is right; the table says how it was asked, and cannot be stored as the run's."""
    task, pool = get_task("digit-sum"), some_problems("digit-sum", 20, k_max=2, seed=5)
    solver, before = scripted.reader(task, "cot"), set()

    def last_question(text):
        shown, _, question = text.rpartition("<")
        if text.count("<") < 3 or ">" not in question:
            return "#"
        before.add(shown)
        return solver(f"<{question}")

    shots = Shots(n=2, regime="direct", pool=tuple(pool))
    result = accuracy_by_k(scripted.Model(task, last_question), task, "cot", problems, shots=shots)
    frame = result.frame()
    assert frame["accuracy"].tolist() == [1.0] * len(frame)
    assert list(frame.columns)[:5] == ["task", "regime", "run_seed", "shots", "examples"]
    assert frame[["shots", "examples"]].drop_duplicates().to_numpy().tolist() == [[2, "direct"]]
    assert len(before) > 5
    assert all(re.fullmatch(r"(<\d\+\d>\d+#){2}", shown) for shown in before)
    small = build_model(
        ModelSpec(n_layers=1, d_model=8, n_heads=1, d_mlp=8, n_ctx=40), len(Vocabulary.of(task)), seed=0
    )
    with pytest.raises(ValueError, match=r"symbols of examples and a question .* n_ctx is 40: show fewer"):
        accuracy_by_k(small, task, "cot", problems, shots=shots)
