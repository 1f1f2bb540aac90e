"""Each family differs exactly where it says, and says what a reader and a recomputer would write."""

import numpy as np
import pytest
import torch

from cotinterp.tasks import get_task
from cotinterp.transcripts.pair_families import (
    exchanged_pairs,
    pair_families,
    prompt_lookups,
    prompt_operand_pairs,
    unrelated_pairs,
)
from cotinterp.transcripts.pairs import operand_pairs
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role

SUM, S3, Z6 = (get_task(name) for name in ("digit-sum", "s3", "z6"))
FAMILIES = ("prompt_operand", "written_total", "both", "unrelated")


def problems(task, n=12, k=5):
    return sample_problems(task, k, n, split="heldout", rng=np.random.default_rng(0))


def rng():
    return np.random.default_rng(1)


def differing(pairs, other=None):
    """Roles and steps at which clean and corrupted differ before the readout, in every one of the pairs."""
    other = pairs.corrupted if other is None else other
    before = torch.arange(pairs.clean.tokens.shape[1]) <= pairs.at[:, None]
    found = [
        {(token.role, token.step) for token, differs in zip(transcript.tokens, row.tolist(), strict=False) if differs}
        for transcript, row in zip(pairs.clean.transcripts, (pairs.clean.tokens != other.tokens) & before, strict=True)
    ]
    assert all(places == found[0] for places in found)
    return found[0]


def symbol(pairs, token):
    return pairs.clean.vocabulary.symbols[int(token)]


@pytest.mark.parametrize(
    ("regime", "place", "expected"),
    [
        ("direct", (Role.ANSWER, 3), {0, 1, 2, 3}),
        ("totals", (Role.TOTAL, 1), {0, 1}),
        ("totals", (Role.TOTAL, 3), {3}),
        ("totals", (Role.ANSWER, 3), set()),
        ("cot", (Role.PREVIOUS_TOTAL, 1), {0}),
        ("cot", (Role.PREVIOUS_TOTAL, 3), set()),
        ("cot", (Role.STEP_OPERAND, 2), {2}),
        ("cot", (Role.TOTAL, 1), set()),
        ("cot", (Role.ANSWER, 3), set()),
    ],
)
def test_what_a_reader_looks_up(regime, place, expected):
    transcript = render(S3, solve(S3, np.array([[1, 2, 3, 4]]))[0], regime)
    assert prompt_lookups(transcript, place) == expected


@pytest.mark.parametrize("place", [(Role.TOTAL, 4), (Role.EQUALS, 1)])
def test_lookups_of_what_is_no_value(place):
    transcript = render(S3, solve(S3, np.array([[1, 2, 3, 4]]))[0], "cot")
    with pytest.raises(ValueError, match="is no value of '<1.*values there: .*'previous_total 1'"):
        prompt_lookups(transcript, place)


@pytest.mark.parametrize(
    ("regime", "index", "readout"),
    [
        ("totals", 0, (Role.TOTAL, 2)),
        ("totals", 1, (Role.TOTAL, 2)),
        ("totals", 3, (Role.TOTAL, 4)),
        ("totals", 4, (Role.ANSWER, 4)),
        ("cot", 0, (Role.TOTAL, 1)),
        ("cot", 3, (Role.TOTAL, 3)),
    ],
)
def test_only_the_prompt_differs_and_the_foil_is_the_recomputers(regime, index, readout):
    pairs = prompt_operand_pairs(S3, problems(S3), regime, index=index, rng=rng())
    assert (pairs.readout, pairs.family) == (readout, "prompt_operand")
    assert differing(pairs) == {(Role.OPERAND, index)}
    for row, (clean, shown) in enumerate(zip(pairs.clean.transcripts, pairs.corrupted.transcripts, strict=True)):
        assert shown.response == clean.response
        (again,) = solve(S3, np.array([shown.problem.operands]))
        assert symbol(pairs, pairs.foil[row]) == S3.state_text(again.totals[readout[1] - 1])
        assert symbol(pairs, pairs.answer[row]) == S3.state_text(clean.problem.totals[readout[1] - 1])
    assert not (pairs.foil == pairs.answer).any()


def test_a_readout_at_which_reader_and_recomputer_agree_is_refused():
    with pytest.raises(ValueError, match="looks operand 2 up in the prompt as well.*Take a later readout"):
        prompt_operand_pairs(S3, problems(S3), "totals", index=2, rng=rng(), readout=(Role.TOTAL, 2))
    with pytest.raises(ValueError, match="'direct' writes no totals, so there is no trace to read"):
        prompt_operand_pairs(S3, problems(S3), "direct", index=2, rng=rng())


@pytest.mark.parametrize("regime", ["totals", "cot"])
@pytest.mark.parametrize("task", [S3, Z6], ids=lambda task: task.name)
def test_four_families_ask_one_question(task, regime):
    families = pair_families(task, problems(task), regime, step=3, index=1, rng=rng())
    assert tuple(families) == tuple(pairs.family for pairs in families.values()) == FAMILIES
    both = families["both"]
    copied = {(Role.PREVIOUS_TOTAL, 3)} if regime == "cot" else set()
    between = {(Role.TOTAL, 1), (Role.TOTAL, 2)}
    if regime == "cot":
        between |= {(Role.STEP_OPERAND, 1), (Role.PREVIOUS_TOTAL, 2)}
    expected = {
        "prompt_operand": {(Role.OPERAND, 1)},
        "written_total": {(Role.TOTAL, 2)} | copied,
        "both": {(Role.OPERAND, 1)} | between | copied,
        "unrelated": {(Role.OPERAND, 4)},
    }
    for family, pairs in families.items():
        assert differing(pairs) == expected[family], family
        assert pairs.readout == (Role.TOTAL, 3)
        for name in ("at", "answer", "foil"):
            assert torch.equal(getattr(pairs, name), getattr(both, name)), family
        assert torch.equal(pairs.clean.tokens, both.clean.tokens)
        assert (pairs.reference is None) == (family == "both")
        if pairs.reference is not None:
            assert torch.equal(pairs.reference.tokens, both.corrupted.tokens)


def test_the_foil_follows_from_the_prompt_and_from_the_trace_alike():
    """A recomputer of the changed prompt and a reader of the changed trace write the same foil."""
    families = pair_families(S3, problems(S3), "cot", step=2, rng=rng())
    for family in ("prompt_operand", "written_total"):
        for row, shown in enumerate(families[family].corrupted.transcripts):
            problem = shown.problem
            if family == "prompt_operand":
                (solved,) = solve(S3, np.array([problem.operands]))
                value = solved.totals[1]
            else:
                value = S3.step(np.array([problem.totals[0]]), np.array([problem.operands[2]]))[0]
            assert symbol(families[family], families[family].foil[row]) == S3.state_text(int(value))


def test_totals_of_two_symbols_keep_their_width():
    families = pair_families(SUM, problems(SUM, n=30), "cot", step=2, rng=rng())
    assert len(families["both"]) + families["both"].dropped == 30
    assert len(families["both"]) > 5
    for pairs in families.values():
        assert torch.equal(pairs.clean.role, pairs.corrupted.role)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"step": 4}, "index < step < unrelated < 5"),
        ({"step": 2, "index": 2}, "operand 2 must come before step 2"),
        ({"step": 2, "unrelated": 5}, "operand 5 after it"),
        ({"step": 1}, "steps 2 to 4"),
    ],
)
def test_families_that_do_not_exist(asked, message):
    with pytest.raises(ValueError, match=message):
        pair_families(S3, problems(S3), "cot", rng=rng(), **asked)
    with pytest.raises(ValueError, match="exchanged_pairs"):
        pair_families(S3, problems(S3), "direct", step=2, rng=rng())


def test_an_operand_that_matters_is_not_unrelated():
    related = operand_pairs(S3, problems(S3), "totals", index=0, rng=rng(), readout=(Role.TOTAL, 2))
    for index in (0, 2):
        with pytest.raises(ValueError, match="depends on operands 0 to 2"):
            unrelated_pairs(S3, related, index=index, rng=rng())
    assert differing(unrelated_pairs(S3, related, index=3, rng=rng())) == {(Role.OPERAND, 3)}


def test_exchanged_operands_leave_a_sum_as_it_is():
    related = operand_pairs(SUM, problems(SUM, n=40), "direct", index=0, rng=rng(), first_symbol=True)
    pairs = exchanged_pairs(SUM, related, index=1)
    assert 0 < len(pairs) < len(related), "who repeats the operand has nothing to exchange"
    assert len(pairs) + pairs.dropped == len(related) + related.dropped
    assert differing(pairs) == {(Role.OPERAND, 1), (Role.OPERAND, 2)}
    for clean, shown, row in zip(pairs.clean.transcripts, pairs.corrupted.transcripts, pairs.answer, strict=True):
        assert sum(clean.problem.operands) == sum(shown.problem.operands)
        assert symbol(pairs, row) == SUM.state_text(sum(clean.problem.operands))[0]
    assert differing(pairs, pairs.reference) == {(Role.OPERAND, 0)}


def test_exchanged_operands_matter_where_order_does():
    related = operand_pairs(S3, problems(S3), "direct", index=0, rng=rng())
    with pytest.raises(ValueError, match="exchanging operands 1 and 2 of 's3' changes what is read at answer 4"):
        exchanged_pairs(S3, related, index=1)


def test_nothing_to_exchange():
    same = solve(SUM, np.array([[3, 1, 1], [4, 2, 2]]))
    related = operand_pairs(SUM, same, "direct", index=0, rng=rng(), first_symbol=True)
    with pytest.raises(ValueError, match="operands 1 and 2 are equal in all 2 problems"):
        exchanged_pairs(SUM, related, index=1)


@pytest.mark.parametrize("name", ["expressions-mod11", "pointers"])
def test_tasks_whose_steps_do_not_follow_the_operands_are_refused(name):
    task = get_task(name)
    asked = problems(task)
    related = operand_pairs(task, asked, "direct", index=1, rng=rng(), readout=(Role.ANSWER, 4))
    for refused in (
        lambda: prompt_operand_pairs(task, asked, "cot", index=1, rng=rng()),
        lambda: pair_families(task, asked, "cot", step=2, rng=rng()),
        lambda: unrelated_pairs(task, related, index=4, rng=rng()),
        lambda: exchanged_pairs(task, related, index=1),
    ):
        with pytest.raises(ValueError, match=f"steps of task '{name}' do not follow its operands in order"):
            refused()
