"""Accuracy of models whose mistakes are known beforehand."""

import numpy as np
import pytest

from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.results.intervals import wilson
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import split_of
from cotinterp.transcripts.render import render

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


def test_a_response_without_an_end_is_wrong(scripted, problems):
    """The whole response but its last symbol fits the context: nothing but the end is missing."""
    task = get_task("digit-sum")
    heldout = [problem for problem in problems["heldout"] if problem.k == 4]
    model = scripted.Model(task, scripted.recomputer(task, "direct"), n_ctx=9 + 2)
    result = accuracy_by_k(model, task, "direct", {"heldout": heldout})
    two_digits = [output for output in result.outputs if output.problem.answer > 9]
    assert two_digits
    assert all(output.text == task.state_text(output.problem.answer) for output in two_digits)
    assert not any(output.correct or output.ended for output in two_digits)


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
