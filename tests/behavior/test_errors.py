"""One category for every output, by hand and by planted faults; counts by number of operands and step."""

import numpy as np
import pytest

from cotinterp.behavior.accuracy import Output
from cotinterp.behavior.errors import (
    BOOKKEEPING,
    COPYING,
    CORRECT_ANSWER,
    Category,
    Fault,
    categories,
    classify,
    diagnose,
    error_taxonomy,
)
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import Problem, solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

C = Category
DIGIT_SUM = get_task("digit-sum")


def problem_of(*operands, task=DIGIT_SUM) -> Problem:
    return solve(task, np.array([operands]))[0]


PROBLEM = problem_of(3, 4, 5, 6)

COT = {
    "{3+4=7;7+5=12;12+6=18}18#": (C.CORRECT, None),
    # an arithmetic slip, at each step, whatever comes of it
    "{3+4=8;8+5=13;13+6=19}19#": (C.ARITHMETIC_SLIP, 1),
    "{3+4=7;7+5=13;13+6=19}19#": (C.ARITHMETIC_SLIP, 2),
    "{3+4=7;7+5=12;12+6=19}19#": (C.ARITHMETIC_SLIP, 3),
    "{3+4=7;7+5=13;12+6=18}19#": (C.ARITHMETIC_SLIP, 2),
    "{3+4=7;7+5=13;9+9=18}#": (C.ARITHMETIC_SLIP, 2),
    # wrong copies
    "{4+4=8;8+5=13;13+6=19}19#": (C.COPIED_WRONG_TOTAL, 1),
    "{3+4=7;8+5=13;13+6=19}19#": (C.COPIED_WRONG_TOTAL, 2),
    "{3+4=7;7+5=12;7+6=13}13#": (C.COPIED_WRONG_TOTAL, 3),
    "{3+5=8;8+5=13;13+6=19}19#": (C.COPIED_WRONG_OPERAND, 1),
    "{3+4=7;7+5=12;12+5=17}17#": (C.COPIED_WRONG_OPERAND, 3),
    "{3+4=7;7+6=13}13#": (C.COPIED_WRONG_OPERAND, 2),
    "{3+4=7;8+9=3;12+6=18}3#": (C.COPIED_WRONG_TOTAL, 2),
    "{3+4=7;7+9=3;12+6=18}3#": (C.COPIED_WRONG_OPERAND, 2),
    # number of steps
    "{3+4=7;7+5=12}12#": (C.WRONG_NUMBER_OF_STEPS, 3),
    "{3+4=7}7#": (C.WRONG_NUMBER_OF_STEPS, 2),
    "{3+4=7;7+5=12;12+6=18;18+6=24}24#": (C.WRONG_NUMBER_OF_STEPS, 4),
    # malformed
    "{3+4=7;7+5=12;12+6=18": (C.NEVER_ENDED, None),
    "{3+4=7;7+5=12;12+6=18#": (C.MALFORMED_TRACE, 4),
    "{3+4=7;7+5=12;12+6=1818#": (C.MALFORMED_TRACE, 3),
    "{3+4=7;;7+5=12;12+6=18}19#": (C.MALFORMED_TRACE, 2),
    "{3+4=7;7+5=12;12+6=18;}19#": (C.MALFORMED_TRACE, 4),
    "{3+4=7;12;12+6=18}19#": (C.MALFORMED_TRACE, 2),
    "{7;12;18}19#": (C.MALFORMED_TRACE, 1),
    "{}19#": (C.MALFORMED_TRACE, 1),
    "{3+4=07;7+5=12;12+6=18}19#": (C.MALFORMED_TRACE, 1),
    "{3+4=7;_7+5=12;12+6=18}19#": (C.MALFORMED_TRACE, 2),
    "19#": (C.MALFORMED_TRACE, 1),
    "#": (C.MALFORMED_TRACE, 1),
    # a faultless trace and a wrong answer
    "{3+4=7;7+5=12;12+6=18}12#": (C.ANSWER_DIFFERS_FROM_LAST_TOTAL, None),
    "{3+4=7;7+5=12;12+6=18}#": (C.RIGHT_TOTAL_NO_ANSWER, None),
    "{3+4=7;7+5=12;12+6=18}1818#": (C.RIGHT_TOTAL_NO_ANSWER, None),
    "{3+4=7;7+5=12;12+6=18}18}#": (C.RIGHT_TOTAL_NO_ANSWER, None),
    # the right answer after a faulty trace
    "18#": (C.CORRECT_WITH_FAULTY_TRACE, 1),
    "{3+4=7;7+5=13;12+6=18}18#": (C.CORRECT_WITH_FAULTY_TRACE, 2),
    "{3+4=7;7+5=12}18#": (C.CORRECT_WITH_FAULTY_TRACE, 3),
    "{3+4=7;7+5=12;12+6=18;}18#": (C.CORRECT_WITH_FAULTY_TRACE, 4),
    # never ended
    "": (C.NEVER_ENDED, None),
    "{": (C.NEVER_ENDED, None),
    "{3+4=7;7+5=12;12+6=18}18": (C.NEVER_ENDED, None),
    "{3+4=8;8+5=13;13+": (C.NEVER_ENDED, 1),
    "{3+4=7;7+": (C.NEVER_ENDED, None),
    "{3+4=7;7+5=12;12+6=18;18+6=24;24+6=30;": (C.NEVER_ENDED, 4),
    # what stands after the end is not read
    "{3+4=7;7+5=12;12+6=18}18#18#": (C.CORRECT, None),
}

TOTALS = {
    "{7;12;18}18#": (C.CORRECT, None),
    "{7;13;19}19#": (C.ARITHMETIC_SLIP, 2),
    "{7;12}12#": (C.WRONG_NUMBER_OF_STEPS, 3),
    "{7;12;18;18}19#": (C.WRONG_NUMBER_OF_STEPS, 4),
    "{7;12;3+4=7}19#": (C.MALFORMED_TRACE, 3),
    "{7;12;18}12#": (C.ANSWER_DIFFERS_FROM_LAST_TOTAL, None),
    "{7;12;18}#": (C.RIGHT_TOTAL_NO_ANSWER, None),
    "{7;18}18#": (C.CORRECT_WITH_FAULTY_TRACE, 2),
    "{7;12;18": (C.NEVER_ENDED, None),
}

DIRECT = {
    "18#": (C.CORRECT, None),
    "19#": (C.WRONG_ANSWER, None),
    "#": (C.WRONG_ANSWER, None),
    "1+8#": (C.WRONG_ANSWER, None),
    "018#": (C.WRONG_ANSWER, None),
    "{7;12;18}18#": (C.CORRECT_WITH_FAULTY_TRACE, 1),
    "{7;12;18}19#": (C.WRONG_ANSWER, 1),
    "18": (C.NEVER_ENDED, None),
    "": (C.NEVER_ENDED, None),
}

DOTS = {1: 7 * ".", 2: 8 * ".", 3: 7 * "."}
"""Of each step: `9+9=18;`, `18+9=27;`, `27+9=36`."""
ALL = "".join(DOTS.values())

FILLER = {
    f"{{{ALL}}}18#": (C.CORRECT, None),
    f"{{{ALL}}}19#": (C.WRONG_ANSWER, None),
    f"{{{ALL}}}#": (C.WRONG_ANSWER, None),
    f"{{{ALL}}}18": (C.NEVER_ENDED, None),
    # the number of dots, and where it begins to be wrong
    f"{{{ALL[1:]}}}18#": (C.CORRECT_WITH_FAULTY_TRACE, 3),
    f"{{{ALL[1:]}}}19#": (C.WRONG_ANSWER, 3),
    f"{{{DOTS[1]}}}18#": (C.CORRECT_WITH_FAULTY_TRACE, 2),
    f"{{{DOTS[1][1:]}}}18#": (C.CORRECT_WITH_FAULTY_TRACE, 1),
    "{}18#": (C.CORRECT_WITH_FAULTY_TRACE, 1),
    f"{{{ALL}.}}18#": (C.CORRECT_WITH_FAULTY_TRACE, 4),
    f"{{{ALL}.}}19#": (C.WRONG_ANSWER, 4),
    # another symbol
    "18#": (C.CORRECT_WITH_FAULTY_TRACE, 1),
    "19#": (C.WRONG_ANSWER, 1),
    f"{{{DOTS[1]};{DOTS[2][1:]}{DOTS[3]}}}18#": (C.CORRECT_WITH_FAULTY_TRACE, 2),
    "{7;12;18}19#": (C.WRONG_ANSWER, 1),
    f"{{{ALL};}}18#": (C.CORRECT_WITH_FAULTY_TRACE, 4),
    f"{{{ALL}18#": (C.WRONG_ANSWER, 4),
    f"{{{ALL}#": (C.WRONG_ANSWER, 4),
    f"{{{DOTS[1]}#": (C.WRONG_ANSWER, 2),
    # without an end: what is there is judged, not what is missing
    f"{{{DOTS[1]}": (C.NEVER_ENDED, None),
    f"{{{DOTS[1]}7": (C.NEVER_ENDED, 2),
    f"{{{ALL}....": (C.NEVER_ENDED, 4),
}

TABLE = [
    (regime, text, *expected)
    for regime, table in (("cot", COT), ("totals", TOTALS), ("direct", DIRECT), ("filler", FILLER))
    for text, expected in table.items()
]


@pytest.mark.parametrize(("regime", "text", "category", "step"), TABLE)
def test_by_hand(regime, text, category, step):
    diagnosis = diagnose(DIGIT_SUM, PROBLEM, regime, text)
    assert diagnosis.category is category
    assert (None if diagnosis.fault is None else diagnosis.fault.step) == step
    assert classify(DIGIT_SUM, PROBLEM, regime, text) is category


def test_the_fault_behind_a_right_answer_and_behind_an_endless_output_is_named():
    lucky = diagnose(DIGIT_SUM, PROBLEM, "cot", "{3+4=7;7+5=13;12+6=18}18#")
    assert (lucky.fault, lucky.n_steps) == (Fault(C.ARITHMETIC_SLIP, 2), 3)
    endless = diagnose(DIGIT_SUM, PROBLEM, "cot", "{3+4=7;7+5=12;12+6=18;18+6=24;24+6=30;")
    assert endless.fault == Fault(C.WRONG_NUMBER_OF_STEPS, 4)


def test_miscounted_dots_and_strange_ones_are_faults_of_their_own():
    short, strange = (diagnose(DIGIT_SUM, PROBLEM, "filler", text).fault for text in (f"{{{ALL[1:]}}}18#", "{7}18#"))
    assert (short, strange) == (Fault(C.WRONG_NUMBER_OF_STEPS, 3), Fault(C.MALFORMED_TRACE, 1))
    endless = diagnose(DIGIT_SUM, PROBLEM, "filler", f"{{{ALL}..")
    assert endless.fault == Fault(C.WRONG_NUMBER_OF_STEPS, 4)
    assert diagnose(DIGIT_SUM, PROBLEM, "filler", f"{{{ALL}#").fault == Fault(C.MALFORMED_TRACE, 4)


def test_faults_of_written_totals_are_of_one_kind_each():
    faults = set(categories("cot")) - CORRECT_ANSWER
    assert BOOKKEEPING | COPYING | {C.ARITHMETIC_SLIP} == faults
    assert not BOOKKEEPING & COPYING
    assert C.ARITHMETIC_SLIP not in BOOKKEEPING | COPYING


def test_an_operand_that_is_wrong_but_leads_to_the_right_total_is_still_a_wrong_copy():
    """In s3 with the identity 0: copying 0 for 0 is right, and two wrongs cannot make a right."""
    task = get_task("s3")
    problem = problem_of(1, 2, 3, task=task)
    good = render(task, problem, "cot").response
    assert classify(task, problem, "cot", good) is C.CORRECT
    first = f"1*2={task.state_text(problem.totals[0])}"
    assert good.startswith("{" + first)
    wrong = good.replace(first, f"1*3={task.state_text(problem.totals[0])}")
    assert diagnose(task, problem, "cot", wrong).fault == Fault(C.COPIED_WRONG_OPERAND, 1)


def test_the_faults_of_a_tree_by_hand():
    """(1 + 2) * (3 + 4): the values of step 3 are both totals, and its operator is one of three."""
    task = get_task("expressions-mod11")
    problem = problem_of(1, 2 + 33, 3 + 22, 4 + 33, task=task)
    good = "{1+2=3;3+4=7;3*7=A}A#"
    assert classify(task, problem, "cot", good) is C.CORRECT
    faults = {
        "{1+2=3;3+4=7;3+7=A}9#": Fault(C.COPIED_WRONG_OPERAND, 3),
        "{1+2=3;3+4=7;7*7=A}9#": Fault(C.COPIED_WRONG_TOTAL, 3),
        "{1+2=3;3+4=8;3*8=2}2#": Fault(C.ARITHMETIC_SLIP, 2),
        "{3+4=7;1+2=3;7*3=A}1#": Fault(C.COPIED_WRONG_TOTAL, 1),
        "{1+2=3;3+4=7}7#": Fault(C.WRONG_NUMBER_OF_STEPS, 3),
    }
    assert {text: diagnose(task, problem, "cot", text).fault for text in faults} == faults


@pytest.mark.parametrize("name", ["digit-sum", "s3", "affine-mod10", "a5"])
@pytest.mark.parametrize("regime", ["direct", "cot", "totals", "filler"])
def test_any_text_has_exactly_one_category_of_its_regime(name, regime):
    task = get_task(name)
    rng = np.random.default_rng(0)
    symbols = np.array(Vocabulary.of(task).symbols)
    allowed = set(categories(regime))
    for _ in range(150):
        k = int(rng.integers(2, 6))
        problem = solve(task, rng.integers(task.n_operands, size=(1, k)))[0]
        response = render(task, problem, regime).response
        noise = "".join(rng.choice(symbols, size=int(rng.integers(0, 30))))
        cut, other = (int(rng.integers(len(response) + 1)) for _ in range(2))
        changed = response[:cut] + str(rng.choice(symbols)) + response[cut + 1 :]
        for text in (noise, noise + "#", response[:cut] + noise, changed, response[:cut] + response[other:], response):
            diagnosis = diagnose(task, problem, regime, text)
            assert diagnosis.category in allowed
            end = text.partition("#")
            assert (diagnosis.category is C.CORRECT) == (end[0] + end[1] == response)
            assert (diagnosis.category is C.NEVER_ENDED) == ("#" not in text)
            if diagnosis.category not in CORRECT_ANSWER and regime in ("cot", "totals") and "#" in text:
                named = {diagnosis.fault.category} if diagnosis.fault else set()
                answers = {C.ANSWER_DIFFERS_FROM_LAST_TOTAL, C.RIGHT_TOTAL_NO_ANSWER}
                assert diagnosis.category in (named or answers)


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
