"""The oracle names what a model should write with another problem's variable; pairs that could not show it are out."""

from collections import Counter

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.interchange_pairs import counterfactual, interchange_pairs, variable_parts
from cotinterp.transcripts.pairs import NoPairsError
from cotinterp.transcripts.problems import sample_problems, solve

TASK = get_task("digit-sum")
BASE, SOURCE = solve(TASK, np.array([[3, 4, 5, 6], [9, 8, 1, 2]]))
"""3, 7, 12, 18 and 9, 17, 18, 20."""


def pairs(problems=(BASE, SOURCE), regime="cot", seed=0, **changes):
    asked = {"variable": "s_2", "place": ("equals", 3), "readout": ("total", 3), **changes}
    return interchange_pairs(TASK, problems, regime, rng=np.random.default_rng(seed), **asked)


@pytest.mark.parametrize(
    ("variable", "totals"),
    [
        ("s_2", (7, 18, 24)),
        ("s_1", (17, 22, 28)),
        ("x_3", (7, 12, 14)),
        ("x_0", (13, 18, 24)),
        ("s_2,x_3", (7, 18, 20)),
        ("s_3", (7, 12, 20)),
    ],
)
def test_what_the_oracle_names(variable, totals):
    assert counterfactual(TASK, BASE, SOURCE, variable).totals == totals


def test_a_counterfactual_with_the_own_value_is_the_problem_itself():
    for variable in ("s_1", "s_3", "x_0", "s_2,x_3"):
        assert counterfactual(TASK, BASE, BASE, variable) == BASE


def test_the_base_stands_as_it_was_up_to_the_readout_and_then_what_the_oracle_names():
    found = pairs()
    assert [one.text for one in found.base.transcripts] == [
        "<3+4+5+6>{3+4=7;7+5=12;12+6=24}",
        "<9+8+1+2>{9+8=17;17+1=18;18+2=14}",
    ]
    assert [one.text for one in found.own.transcripts] == [
        "<3+4+5+6>{3+4=7;7+5=12;12+6=18}",
        "<9+8+1+2>{9+8=17;17+1=18;18+2=20}",
    ]
    assert found.source.transcripts[0].text == "<9+8+1+2>{9+8=17;17+1=18;18+2=20}20#"
    assert found.given.tolist() == [28, 30]
    assert (found.at == found.given - 1).all(), "the equals sign stands right before the total"
    assert found.source_at.tolist() == [29, 27]


def test_a_value_of_other_length_is_written_whole():
    short, long = solve(TASK, np.array([[1, 1, 1], [9, 9, 1]]))
    found = pairs((short, long), variable="s_1", place=("total", 1), readout=("previous_total", 2))
    assert [one.text for one in found.base.transcripts] == ["<1+1+1>{1+1=2;18+", "<9+9+1>{9+9=18;2+"]
    assert found.at.tolist() == [12, 13], "of two symbols the last"


def test_of_a_value_of_several_symbols_the_first_may_be_asked_for_alone():
    found = pairs(first_symbol=True)
    assert [one.text for one in found.base.transcripts] == [
        "<3+4+5+6>{3+4=7;7+5=12;12+6=2",
        "<9+8+1+2>{9+8=17;17+1=18;18+2=1",
    ]
    close = solve(TASK, np.array([[3, 4, 5, 6], [4, 4, 5, 1]]))
    assert pairs(close).dropped == 0, "18 and 19"
    with pytest.raises(NoPairsError):
        pairs(close, first_symbol=True)


def test_sources_that_name_the_own_value_are_not_among_them():
    same, other = solve(TASK, np.array([[3, 4, 5, 1], [4, 3, 5, 2]])), solve(TASK, np.array([[9, 9, 9, 9]]))
    found = pairs((*same, *other))
    assert found.dropped == 0
    assert {one.problem.operands for one in found.source.transcripts[:2]} == {(9, 9, 9, 9)}
    with pytest.raises(NoPairsError, match="taking s_2 from another never changes total 3 in 2 problems"):
        pairs(same)
    alone = solve(TASK, np.array([[1, 2, 3]]))
    assert pairs((*same, *other, *alone), readout=("total", 2), place=("equals", 2), variable="s_1").dropped == 1


def test_shuffled_labels_are_those_of_other_pairs():
    problems = sample_problems(TASK, 4, 60, split="train", rng=np.random.default_rng(1))
    true = pairs(problems)
    dealt = true.shuffled(np.random.default_rng(2))
    before, after = (
        [(one.text[:n], one.text[n:]) for one, n in zip(some.base.transcripts, some.given.tolist(), strict=True)]
        for some in (true, dealt)
    )
    assert [given for given, _ in after] == [given for given, _ in before]
    assert Counter(value for _, value in after) == Counter(value for _, value in before)
    assert sum(one == other for one, other in zip(after, before, strict=True)) < 15


def test_selected_pairs_are_the_same_pairs():
    found = pairs(sample_problems(TASK, 4, 20, split="train", rng=np.random.default_rng(1)))
    some = found.select(np.array([3, 7]))
    assert [one.text for one in some.base.transcripts] == [found.base.transcripts[i].text for i in (3, 7)]
    assert some.at.tolist() == found.at[[3, 7]].tolist()


def test_what_is_refused():
    assert variable_parts("s_2, x_3") == (("s", 2), ("x", 3))
    with pytest.raises(ValueError, match="no variable 'total 2': give a running total, 's_2', an operand"):
        variable_parts("total 2")
    with pytest.raises(ValueError, match="no s_4: totals of these problems are s_1 to s_3"):
        pairs(variable="s_4")
    with pytest.raises(ValueError, match="no s_0: totals"):
        pairs(variable="s_0")
    with pytest.raises(ValueError, match="total 3 does not stand before total 3"):
        pairs(place=("total", 3))
    with pytest.raises(KeyError, match="no total 3 in"):
        pairs(regime="direct", place=("operand", 2))
    with pytest.raises(ValueError, match="regime 'label' writes no response"):
        pairs(regime="label", place=("operand", 2), readout=("answer", 3))
    tree = get_task("expressions-mod11")
    asked = {"variable": "s_1", "place": ("equals", 2), "readout": ("total", 2), "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match="do not follow its operands in order"):
        interchange_pairs(
            tree, sample_problems(tree, 3, 4, split="train", rng=np.random.default_rng(0)), "cot", **asked
        )
