"""Minimal pairs differ in what they say and in nothing else."""

from functools import cache

import numpy as np
import pytest
import torch

from cotinterp.tasks import get_task
from cotinterp.transcripts.pairs import operand_pairs, written_total_pairs
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.roles import PROMPT_ROLES, ROLE_CODE, Role

pytestmark = pytest.mark.slow

SUM, S3 = get_task("digit-sum"), get_task("s3")


def problems(task, n=12, k=4):
    return sample_problems(task, k, n, split="heldout", rng=np.random.default_rng(0))


def rng():
    return np.random.default_rng(1)


@cache
def all_pairs(task):
    return tuple(every_pair(task))


def every_pair(task):
    for regime in ("direct", "cot", "totals"):
        for index in range(4):
            yield operand_pairs(task, problems(task), regime, index=index, rng=rng())
        if regime != "direct":
            for step in (1, 2, 3):
                yield written_total_pairs(task, problems(task), regime, step=step, rng=rng())


@pytest.mark.parametrize("task", [SUM, S3], ids=lambda task: task.name)
def test_every_pair_has_one_layout_and_differs_at_its_readout(task):
    for pairs in all_pairs(task):
        for name in ("role", "step", "part", "length"):
            assert torch.equal(getattr(pairs.clean, name), getattr(pairs.corrupted, name))
        rows = torch.arange(len(pairs))
        assert torch.equal(pairs.clean.tokens[rows, pairs.at + 1], pairs.answer)
        assert torch.equal(pairs.corrupted.tokens[rows, pairs.at + 1], pairs.foil)
        assert not (pairs.answer == pairs.foil).any()
        role, step = pairs.readout
        assert (pairs.clean.role[rows, pairs.at + 1] == ROLE_CODE[role]).all()
        assert (pairs.clean.step[rows, pairs.at + 1] == step).all()
        assert len(pairs) + pairs.dropped == len(problems(task))


@pytest.mark.parametrize("task", [SUM, S3], ids=lambda task: task.name)
def test_before_the_readout_only_the_declared_thing_differs(task):
    for pairs in all_pairs(task):
        before = torch.arange(pairs.clean.tokens.shape[1]) <= pairs.at[:, None]
        differs = (pairs.clean.tokens != pairs.corrupted.tokens) & before
        role = Role.OPERAND if pairs.family == "operand" else Role.TOTAL
        assert differs.any(dim=1).all()
        assert not (differs & ~pairs.clean.mask(role, pairs.step)).any()


@pytest.mark.parametrize(
    ("regime", "index", "readout"),
    [
        ("direct", 2, (Role.ANSWER, 3)),
        ("cot", 0, (Role.PREVIOUS_TOTAL, 1)),
        ("cot", 2, (Role.STEP_OPERAND, 2)),
        ("totals", 0, (Role.TOTAL, 1)),
        ("totals", 2, (Role.TOTAL, 2)),
    ],
)
def test_default_readout_of_an_operand(regime, index, readout):
    assert operand_pairs(SUM, problems(SUM), regime, index=index, rng=rng()).readout == readout


@pytest.mark.parametrize(
    ("regime", "step", "readout"),
    [
        ("cot", 1, (Role.PREVIOUS_TOTAL, 2)),
        ("cot", 3, (Role.ANSWER, 3)),
        ("totals", 1, (Role.TOTAL, 2)),
        ("totals", 3, (Role.ANSWER, 3)),
    ],
)
def test_default_readout_of_a_written_total(regime, step, readout):
    pairs = written_total_pairs(SUM, problems(SUM), regime, step=step, rng=rng())
    assert pairs.readout == readout
    assert all(
        clean.prompt == corrupted.prompt
        for clean, corrupted in zip(pairs.clean.transcripts, pairs.corrupted.transcripts, strict=True)
    )


def test_a_later_readout_sees_the_copy_as_well():
    pairs = written_total_pairs(SUM, problems(SUM), "cot", step=1, rng=rng(), readout=(Role.TOTAL, 2))
    assert pairs.readout == (Role.TOTAL, 2)
    before = torch.arange(pairs.clean.tokens.shape[1]) <= pairs.at[:, None]
    differs = (pairs.clean.tokens != pairs.corrupted.tokens) & before
    allowed = pairs.clean.mask(Role.TOTAL, 1) | pairs.clean.mask(Role.PREVIOUS_TOTAL, 2)
    partly = pairs.clean.mask(Role.TOTAL, 2)
    assert not (differs & ~allowed & ~partly).any()
    assert (differs & pairs.clean.mask(Role.PREVIOUS_TOTAL, 2)).any(dim=1).all()


def differing(pairs):
    """Roles and steps at which the two sides differ before the readout, in any pair."""
    before = torch.arange(pairs.clean.tokens.shape[1]) <= pairs.at[:, None]
    rows, positions = ((pairs.clean.tokens != pairs.corrupted.tokens) & before).nonzero(as_tuple=True)
    tokens = {pairs.clean.transcripts[row].tokens[i] for row, i in zip(rows.tolist(), positions.tolist(), strict=True)}
    return {(token.role, token.step) for token in tokens}


@pytest.mark.parametrize("regime", ["cot", "totals"])
@pytest.mark.parametrize("task", [SUM, S3], ids=lambda task: task.name)
def test_a_total_alone(task, regime):
    """Everything between the edited total and the readout is as it was; the foil is the continued trace's."""
    readout = (Role.TOTAL, 3)
    pairs = written_total_pairs(
        task, problems(task), regime, step=1, rng=rng(), readout=readout, first_symbol=True, continued=False
    )
    assert pairs.family == "written_total_alone"
    assert differing(pairs) == {(Role.TOTAL, 1)}
    for row, (clean, shown) in enumerate(zip(pairs.clean.transcripts, pairs.corrupted.transcripts, strict=True)):
        edited = shown.problem.totals[0]
        assert clean.problem.operands == shown.problem.operands
        rest = task.resume(np.array([clean.problem.operands]), 1, np.array([edited])).total[0]
        assert pairs.clean.vocabulary.token(task.state_text(int(rest[1]))[0]) == pairs.foil[row]
        assert pairs.clean.vocabulary.token(task.state_text(clean.problem.totals[2])[0]) == pairs.answer[row]


@pytest.mark.parametrize(
    ("regime", "expected"),
    [
        ("totals", {(Role.TOTAL, 1), (Role.TOTAL, 2)}),
        ("cot", {(Role.TOTAL, 1), (Role.PREVIOUS_TOTAL, 2), (Role.TOTAL, 2), (Role.PREVIOUS_TOTAL, 3)}),
    ],
)
def test_a_continued_trace_differs_all_the_way(regime, expected):
    pairs = written_total_pairs(S3, problems(S3), regime, step=1, rng=rng(), readout=(Role.TOTAL, 3))
    assert differing(pairs) == expected


def test_at_the_default_readout_the_total_is_alone_either_way():
    for regime in ("cot", "totals"):
        continued, alone = (
            written_total_pairs(S3, problems(S3), regime, step=1, rng=rng(), continued=way) for way in (True, False)
        )
        assert differing(continued) == differing(alone) == {(Role.TOTAL, 1)}
        assert continued.readout == alone.readout
        assert torch.equal(continued.foil, alone.foil)


def test_an_operand_change_leaves_the_rest_of_the_prompt():
    pairs = operand_pairs(SUM, problems(SUM), "cot", index=1, rng=rng())
    codes = torch.tensor([ROLE_CODE[role] for role in PROMPT_ROLES])
    in_prompt = torch.isin(pairs.clean.role, codes)
    assert ((pairs.clean.tokens != pairs.corrupted.tokens) & in_prompt).sum(dim=1).eq(1).all()


def test_pairs_are_seeded():
    first, again = (operand_pairs(SUM, problems(SUM), "cot", index=1, rng=rng()) for _ in range(2))
    assert first.corrupted.transcripts == again.corrupted.transcripts


def test_direct_has_no_written_total():
    with pytest.raises(ValueError, match="'direct' writes no totals"):
        written_total_pairs(SUM, problems(SUM), "direct", step=1, rng=rng())


@pytest.mark.parametrize(("index", "message"), [(4, "operands 0 to 3"), (-1, "operands 0 to 3")])
def test_an_operand_that_is_not_there(index, message):
    with pytest.raises(ValueError, match=message):
        operand_pairs(SUM, problems(SUM), "cot", index=index, rng=rng())


def test_a_readout_that_never_differs():
    with pytest.raises(ValueError, match="no minimal pair"):
        operand_pairs(SUM, problems(SUM), "cot", index=3, rng=rng(), readout=(Role.TOTAL, 1))


def test_no_problems():
    with pytest.raises(ValueError, match="at least one problem"):
        operand_pairs(SUM, [], "cot", index=0, rng=rng())


@pytest.mark.parametrize("regime", ["direct", "cot", "totals"])
def test_first_symbol_pairs_are_all_read_directly_before_the_readout(regime):
    """Without it some digit sums differ in the units only, and are read at their own tens."""
    chosen = problems(SUM, n=30)
    last = (Role.ANSWER, 3)
    free = operand_pairs(SUM, chosen, regime, index=3, rng=rng(), readout=last)
    strict = operand_pairs(SUM, chosen, regime, index=3, rng=rng(), readout=last, first_symbol=True)
    begins = [pairs.clean.where(*last) - 1 == pairs.at for pairs in (free, strict)]
    assert not begins[0].all()
    assert begins[1].all()
    assert len(strict) + strict.dropped == len(chosen)


@pytest.mark.parametrize(("name", "shown"), [("expressions-mod11", 3), ("pointers", 3)])
@pytest.mark.parametrize("regime", ["direct", "cot"])
def test_tasks_whose_steps_do_not_follow_the_operands_have_pairs_read_at_the_answer(name, shown, regime):
    """One symbol of the prompt differs, the tree of a pair is one, and the answers are the task's own."""
    task = get_task(name)
    pairs = operand_pairs(
        task, problems(task), regime, index=shown, rng=rng(), readout=(Role.ANSWER, 3), first_symbol=True
    )
    for clean, corrupted in zip(pairs.clean.transcripts, pairs.corrupted.transcripts, strict=True):
        before = [(a.role, a.step) for a, b in zip(clean.tokens, corrupted.tokens, strict=True) if a.symbol != b.symbol]
        assert before[0] == (Role.OPERAND, shown)
        assert sum(role in PROMPT_ROLES for role, _ in before) == 1
        for transcript in (clean, corrupted):
            steps = task.steps(np.array([transcript.problem.operands]))
            assert transcript.problem.totals == tuple(steps.total[0].tolist())


def test_a_wrong_total_of_a_tree_is_read_where_the_last_step_takes_it_up():
    task = get_task("expressions-mod11")
    pairs = written_total_pairs(task, problems(task), "cot", step=2, rng=rng(), readout=(Role.TOTAL, 3))
    for clean, corrupted in zip(pairs.clean.transcripts, pairs.corrupted.transcripts, strict=True):
        left, right = corrupted.problem.previous[2], corrupted.problem.step_operands[2]
        assert corrupted.problem.totals[1] in (left, right)
        assert (left, right) != (clean.problem.previous[2], clean.problem.step_operands[2])
