"""Formulas: codes, prompts and evaluation, operation by operation."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from cotinterp.tasks import TreeTask, get_task
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.render import render

pytestmark = pytest.mark.slow

TASK = get_task("expressions-mod11")
CATALAN = {2: 1, 3: 2, 4: 5, 5: 14}


def code(value, operator="+", level=0):
    return value + 11 * (TASK.operators.index(operator) + 3 * level)


def codes(text):
    """Codes of `3 +1 4 *0 5`: values, and before each but the first its operator and its level."""
    first, *rest = text.split()
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return np.array([[code(int(first)), *(code(int(value), sign[0], int(sign[1:])) for sign, value in pairs)]])


def written(operands):
    return "".join(symbol.text for symbol in TASK.prompt(operands[0].tolist()))


@pytest.mark.parametrize(
    ("text", "prompt", "previous", "operator", "operand", "total"),
    [
        ("3 +1 4 *0 5", "((3+4)*5)", [3, 7], "+*", [4, 5], [7, 2]),
        ("3 +0 4 *1 5", "(3+(4*5))", [4, 3], "*+", [5, 9], [9, 1]),
        ("3 +5 4 *5 5", "((3+4)*5)", [3, 7], "+*", [4, 5], [7, 2]),
        ("1 +9 2 *3 3 -7 4", "((1+2)*(3-4))", [1, 3, 3], "+-*", [2, 4, 10], [3, 10, 8]),
        ("1 -0 2 -1 3 -2 4", "(1-(2-(3-4)))", [3, 2, 1], "---", [4, 10, 3], [10, 3, 9]),
        ("1 -2 2 -1 3 -0 4", "(((1-2)-3)-4)", [1, 10, 7], "---", [2, 3, 4], [10, 7, 3]),
    ],
)
def test_trees_by_hand(text, prompt, previous, operator, operand, total):
    operands = codes(text)
    steps = TASK.steps(operands)
    assert written(operands) == prompt
    assert [steps.previous.tolist(), steps.operand.tolist(), steps.total.tolist()] == [[previous], [operand], [total]]
    assert "".join(TASK.operators[i] for i in steps.operator[0]) == operator


def test_every_symbol_of_a_prompt_says_of_which_step_it_is():
    """The product is step 3: its brackets are the outermost, its operator stands before leaf 2."""
    symbols = [tuple(symbol) for symbol in TASK.prompt(codes("1 +9 2 *3 3 -7 4")[0].tolist())]
    assert symbols == [
        ("(", "bracket", 3, -1, 0),
        ("(", "bracket", 1, -1, 0),
        ("1", "operand", 0, 1, 0),
        ("+", "operator", 1, -1, 0),
        ("2", "operand", 1, 2, 0),
        (")", "bracket", 1, -1, 1),
        ("*", "operator", 3, -1, 0),
        ("(", "bracket", 2, -1, 0),
        ("3", "operand", 2, 3, 0),
        ("-", "operator", 2, -1, 0),
        ("4", "operand", 3, 4, 0),
        (")", "bracket", 2, -1, 1),
        (")", "bracket", 3, -1, 1),
    ]


def test_canonical_levels_are_depths_and_the_first_leaf_has_only_a_value():
    raw = codes("1 +9 2 *3 3 -7 4")
    raw[0, 0] = code(1, "*", 5)
    assert TASK.canonical(raw).tolist() == codes("1 +1 2 *0 3 -1 4").tolist()


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_codes_with_one_prompt_are_one_problem(k):
    raw = np.random.default_rng(k).integers(TASK.n_operands, size=(800, k))
    canonical = TASK.canonical(raw)
    assert np.array_equal(TASK.canonical(canonical), canonical)
    prompts = [written(row[None]) for row in raw]
    assert prompts == [written(row[None]) for row in canonical]
    assert len(set(prompts)) == len({tuple(row) for row in canonical.tolist()})
    assert len(set(map(len, prompts))) == 1
    assert all(np.array_equal(a, b) for a, b in zip(*map(_columns, (raw, canonical)), strict=True))


def _columns(operands):
    steps = TASK.steps(operands)
    return steps.previous, steps.operator, steps.operand, steps.total


@pytest.mark.parametrize("k", [2, 3])
def test_all_problems_of_a_length_are_listed_once(k):
    every = TASK.every(k)
    assert len(every) == TASK.n_problems(k) == 11**k * 3 ** (k - 1) * CATALAN[k]
    assert np.array_equal(TASK.canonical(every), every)
    assert len(np.unique(every, axis=0)) == len(every)


def test_every_shape_of_four_leaves_comes_as_often_as_among_the_orders_of_three_operations():
    """Of the 6 orders two give the balanced tree, and each other shape has one."""
    expected = Counter()
    for order in permutations(range(3)):
        expected[tuple(TASK.canonical(np.array([[0, *(code(0, "+", level) for level in order)]]))[0])] += 1
    assert sorted(expected.values()) == [1, 1, 1, 1, 2]
    assert len(expected) == CATALAN[4]
    raw = np.random.default_rng(0).integers(TASK.n_operands, size=(12000, 4))
    found = Counter(map(tuple, (TASK.canonical(raw) // 33 * 33).tolist()))
    assert set(found) == set(expected)
    for shape, count in found.items():
        assert count / 12000 == pytest.approx(expected[shape] / 6, abs=0.015)


def test_how_many_problems_there_are():
    assert [TASK.n_problems(k) // (11**k * 3 ** (k - 1)) for k in CATALAN] == list(CATALAN.values())


def test_a_later_step_takes_up_what_stands_written_wherever_it_stands():
    """(1 + 2) * (3 + 4): the last step takes up both totals, so a wrong first one is not forgotten at the second."""
    operands = codes("1 +1 2 *0 3 +1 4")
    assert TASK.steps(operands).total.tolist() == [[3, 7, 10]]
    rest = TASK.resume(operands, 1, np.array([5]))
    assert (rest.previous.tolist(), rest.operand.tolist(), rest.total.tolist()) == ([[3, 5]], [[4, 7]], [[7, 2]])
    rest = TASK.resume(operands, 2, np.array([8]))
    assert (rest.previous.tolist(), rest.operand.tolist(), rest.total.tolist()) == ([[3]], [[8]], [[2]])
    rest = TASK.resume_from(operands, np.array([[5, 8]]))
    assert (rest.previous.tolist(), rest.operand.tolist(), rest.total.tolist()) == ([[5]], [[8]], [[7]])
    with pytest.raises(ValueError, match="steps 1 to 3, not 4"):
        TASK.resume(operands, 4, np.array([0]))


def test_replacements_change_one_value_and_not_the_tree():
    operands = codes("1 +1 2 *0 3 -1 4")[0].tolist()
    others = TASK.replacements(operands, 2)
    texts = [written(np.array([[*operands[:2], other, operands[3]]])) for other in others]
    assert texts == [f"((1+2)*({value}-4))" for value in "012456789A"]


def test_an_operation_that_leaves_the_values_names_what_left():
    class Unbounded(TreeTask):
        name = "unbounded"
        operands = "012"
        operators = ("+",)
        commutative = False

        def combine(self, left, operator, right):
            return left + right

    with pytest.raises(ValueError, match=r"combine\(2, 0, 2\) = 4 leaves its 3 states"):
        Unbounded().steps(np.array([[2, 2]]))


def value_of(expression):
    return eval(expression.replace("A", "10")) % 11


@pytest.mark.parametrize("k", [2, 3, 5, 7, 11])
def test_prompts_and_steps_are_what_python_makes_of_them(k):
    for problem in solve(TASK, np.random.default_rng(k).integers(TASK.n_operands, size=(200, k))):
        transcript = render(TASK, problem, "cot")
        assert value_of(transcript.prompt.strip("<>")) == problem.answer
        steps = transcript.response.partition("}")[0].strip("{").split(";")
        assert len(steps) == k - 1
        for step, total in zip(steps, problem.totals, strict=True):
            operation, _, result = step.partition("=")
            assert value_of(operation) == value_of(result) == total


def test_a_wrong_operator_fails_that_test():
    """Negative control: exchange + and - in the prompt and most values change."""
    problems = solve(TASK, np.random.default_rng(0).integers(TASK.n_operands, size=(200, 5)))
    prompts = [render(TASK, problem, "direct").prompt.strip("<>") for problem in problems]
    exchanged = [prompt.translate(str.maketrans("+-", "-+")) for prompt in prompts]
    same = [value_of(prompt) == problem.answer for prompt, problem in zip(exchanged, problems, strict=True)]
    assert np.mean(same) < 0.5


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_no_prompt_is_on_two_sides_of_the_split(k):
    sides = [
        {render(TASK, problem, "direct").prompt for problem in sample_problems(TASK, k, 400, split=split, rng=rng)}
        for split, rng in (("train", np.random.default_rng(0)), ("heldout", np.random.default_rng(1)))
    ]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_zero_is_the_commonest_answer():
    answers = TASK.steps(np.random.default_rng(0).integers(TASK.n_operands, size=(40000, 7))).total[:, -1]
    share = np.bincount(answers, minlength=11) / 40000
    assert share[0] == pytest.approx(0.135, abs=0.006)
    assert share[1:] == pytest.approx(np.full(10, (1 - 0.135) / 10), abs=0.006)
