"""Categories counted by k, and the steps at which outputs go wrong."""

import numpy as np
import pytest

from cotinterp.behavior.accuracy import Output
from cotinterp.behavior.errors import CORRECT_ANSWER, categories, error_taxonomy
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import Problem, solve
from cotinterp.transcripts.render import render

DIGIT_SUM = get_task("digit-sum")


def problem_of(*operands) -> Problem:
    return solve(DIGIT_SUM, np.array([operands]))[0]


PROBLEM = problem_of(3, 4, 5, 6)


def outputs_of(texts, problem=PROBLEM, regime="cot"):
    expected = render(DIGIT_SUM, problem, regime).response
    right = f"}}{problem.answer}#"
    return [Output(problem, "heldout", text, "#" in text, text.endswith(right), text == expected) for text in texts]


def test_frame_by_hand():
    short = problem_of(1, 2)
    outputs = outputs_of(
        ["{3+4=7;7+5=12;12+6=18}18#"] * 6 + ["{3+4=7;7+5=13;13+6=19}19#", "{3+4=7;7+5=13;12+6=18}18#"]
    ) + outputs_of(["{1+2=3}3#", "{1+2=3}"], short)
    result = error_taxonomy(DIGIT_SUM, "cot", outputs, run_seed=7)
    frame = result.frame()
    assert list(frame.columns) == ["task", "regime", "run_seed", "k", "category", "count", "share"]
    assert frame[["task", "regime", "run_seed"]].drop_duplicates().to_numpy().tolist() == [["digit-sum", "cot", 7]]
    counts = frame.set_index(["k", "category"])["count"]
    assert counts[4, "correct"] == 6
    assert counts[4, "arithmetic_slip"] == 1
    assert counts[4, "correct_with_faulty_trace"] == 1
    assert counts[2, "correct"] == 1
    assert counts[2, "never_ended"] == 1
    assert counts.sum() == len(outputs)
    assert frame.groupby("k")["share"].sum().tolist() == [1.0, 1.0]
    assert len(frame) == 2 * len(categories("cot"))
    steps = result.by_step()
    assert list(steps.columns) == ["task", "regime", "run_seed", "k", "category", "fault", "step", "count", "share"]
    assert steps[["k", "category", "fault", "step", "count", "share"]].to_numpy().tolist() == [
        [4, "arithmetic_slip", "arithmetic_slip", 2, 1, 0.125],
        [4, "correct_with_faulty_trace", "arithmetic_slip", 2, 1, 0.125],
    ]


def test_accuracy_is_the_share_of_the_two_categories_with_a_right_answer():
    texts = ["{3+4=7;7+5=12;12+6=18}18#", "18#", "{3+4=7;7+5=12}18#", "{3+4=7;7+5=12;12+6=18}12#", ""]
    frame = error_taxonomy(DIGIT_SUM, "cot", outputs_of(texts)).frame()
    right = frame[frame["category"].isin(sorted(CORRECT_ANSWER))]
    assert right["share"].sum() == pytest.approx(3 / 5)


def test_figure_shows_the_faulty_outputs_alone():
    good, slip = "{3+4=7;7+5=12;12+6=18}18#", "{3+4=7;7+5=13;13+6=19}19#"
    easy = outputs_of(["{1+2=3}3#"], problem_of(1, 2))
    result = error_taxonomy(DIGIT_SUM, "cot", easy + outputs_of([good] * 99 + [slip]))
    bars = {trace.name: list(trace.y) for trace in result.figure().data if trace.type == "bar"}
    assert bars == {"arithmetic slip": [0, 1]}


def test_figure_of_a_model_without_errors(tmp_path):
    result = error_taxonomy(DIGIT_SUM, "cot", outputs_of(["{3+4=7;7+5=12;12+6=18}18#"]))
    assert [trace.type for trace in result.figure().data] == ["scatter"]
    assert result.by_step().empty
    assert [path.name for path in result.save(tmp_path, "errors")] == ["errors.csv", "errors.html"]


def test_no_outputs():
    with pytest.raises(ValueError, match="no outputs to diagnose"):
        error_taxonomy(DIGIT_SUM, "cot", [])
