"""Solved examples in front of a question: whose symbols are whose, and what is shown."""

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.examples import Shots, longest_with_examples, with_examples
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

SUM = get_task("digit-sum")
FIRST, SECOND, ASKED = (solve(SUM, np.array([digits]))[0] for digits in ([3, 4], [1, 1, 1], [5, 9]))


@pytest.mark.parametrize(
    ("examples", "regime", "text", "n_prompt"),
    [
        ("cot", "cot", "<3+4>{3+4=7}7#<1+1+1>{1+1=2;2+1=3}3#<5+9>{5+9=14}14#", 41),
        ("direct", "direct", "<3+4>7#<1+1+1>3#<5+9>14#", 21),
        ("cot", "direct-mode", "<3+4>{3+4=7}7#<1+1+1>{1+1=2;2+1=3}3#<5+9=14#", 41),
    ],
)
def test_examples_stand_before_the_question_and_only_its_response_is_learned(examples, regime, text, n_prompt):
    shown = with_examples(render(SUM, ASKED, regime), [render(SUM, one, examples) for one in (FIRST, SECOND)])
    assert (shown.text, shown.n_prompt, shown.problem, shown.regime) == (text, n_prompt, ASKED, regime)
    assert shown.response == render(SUM, ASKED, regime).response
    batch = collate([shown], Vocabulary.of(SUM))
    assert np.flatnonzero(batch.loss_mask[0].numpy()).tolist() == list(range(n_prompt, len(text)))
    numbers = [token.step for token in shown.tokens if token.role is Role.EXAMPLE]
    assert numbers == sorted(numbers)
    assert set(numbers) == {0, 1}


def test_places_are_those_of_the_question():
    plain, shown = render(SUM, ASKED, "cot"), with_examples(render(SUM, ASKED, "cot"), [render(SUM, FIRST, "cot")])
    batches = [collate([one], Vocabulary.of(SUM)) for one in (plain, shown)]
    for place in ((Role.OPERAND, 1), (Role.TOTAL, 1), (Role.PROMPT_END, None)):
        before, after = (int(batch.where(*place)) for batch in batches)
        assert after - before == len(render(SUM, FIRST, "cot"))
    assert int(batches[1].where(Role.EXAMPLE, 0, 3)) == 3
    assert shown.text[3] == "4"


def test_examples_are_distinct_others_than_the_question_and_drawn_row_by_row():
    pool = sample_problems(SUM, 2, 6, split="train", rng=np.random.default_rng(0))
    asked = [render(SUM, problem, "direct") for problem in pool]
    shots = Shots(n=5, regime="cot", pool=pool, seed=4)
    shown = shots.before(SUM, asked)
    for transcript in shown:
        examples = transcript.text[: -len(render(SUM, transcript.problem, "direct"))].split("#")[:-1]
        assert sorted(f"{one}#" for one in examples) == sorted(
            render(SUM, other, "cot").text for other in pool if other != transcript.problem
        )
    assert shots.before(SUM, asked[:2]) == shown[:2]
    assert Shots(n=5, regime="cot", pool=pool, seed=5).before(SUM, asked) != shown


def test_the_longest_is_a_bound_that_is_reached():
    nines = solve(SUM, np.array([[9, 9, 9]]))[0]
    longest = with_examples(render(SUM, nines, "direct"), [render(SUM, nines, "cot")] * 2)
    assert longest_with_examples(SUM, 3, "direct", 2, "cot") == len(longest)
    assert longest_with_examples(SUM, 3, "direct", 0, "cot") == len(render(SUM, nines, "direct"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n": 0, "pool": (FIRST, SECOND)}, "n must be 1 or more examples, got 0; leave shots out"),
        ({"n": 2, "pool": (FIRST, SECOND, FIRST)}, "2 examples other than .* the pool has 2 distinct problems"),
    ],
)
def test_shots_that_cannot_be_drawn_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Shots(regime="cot", **fields)
