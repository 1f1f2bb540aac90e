"""Which state is asked for at which symbol of a prompt, by hand."""

import numpy as np
import pytest

from cotinterp.tasks import get_task, task_names
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems, solve, split_of
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.tags import NO_TAG, operand_tags, training_tags
from cotinterp.transcripts.vocabulary import Vocabulary

TAGGABLE = [name for name in task_names() if get_regime("tagging").refusal(get_task(name)) is None]


def batch_of(task, problems, regime="tagging"):
    return collate([render(task, problem, regime) for problem in problems], Vocabulary.of(task))


def shown(task, batch):
    """Each transcript's symbols with the state asked for at them."""
    tags = operand_tags(task, batch)
    named = [["" if tag == NO_TAG else batch.vocabulary.symbols[tag] for tag in row] for row in tags.tolist()]
    return [dict(enumerate(row)) for row in named]


def test_tags_by_hand():
    """`<3*4*5>` modulo 6: nothing at 3, 3+4 = 1 at 4, 1+5 = 0 at 5; rows of other lengths do not disturb each other."""
    task = get_task("z6")
    problems = [*solve(task, np.array([[3, 4, 5]])), *solve(task, np.array([[2, 2]]))]
    batch = batch_of(task, problems)
    assert batch.transcripts[0].text == f"<3{task.operator}4{task.operator}5>0#"
    long, short = ({place: state for place, state in row.items() if state} for row in shown(task, batch))
    assert long == {3: "1", 5: "0"}
    assert short == {3: "4"}


@pytest.mark.parametrize("name", TAGGABLE)
def test_every_operand_but_the_first_has_the_state_that_the_task_arrives_at_there(name):
    task, rng = get_task(name), np.random.default_rng(0)
    problems = [p for k in (2, 3, 5) for p in sample_problems(task, k, 5, split="train", rng=rng)]
    batch = batch_of(task, problems)
    tags = operand_tags(task, batch)
    assert ((tags != NO_TAG) == (batch.mask(Role.OPERAND) & (batch.step > 0))).all()
    for row, problem in enumerate(problems):
        for step, total in enumerate(problem.totals, start=1):
            (place,) = batch[[row]].where(Role.OPERAND, step).tolist()
            assert batch.vocabulary.symbols[tags[row, place]] == task.state_text(total)


def test_tags_do_not_depend_on_what_is_written_after_the_prompt():
    task = get_task("s3")
    problems = sample_problems(task, 4, 6, split="train", rng=np.random.default_rng(0))
    direct, cot = (batch_of(task, problems, regime) for regime in ("direct", "cot"))
    width = int(direct.n_prompt.max())
    assert (operand_tags(task, direct)[:, :width] == operand_tags(task, cot)[:, :width]).all()
    assert (operand_tags(task, cot)[:, width:] == NO_TAG).all()


@pytest.mark.parametrize(
    ("name", "reason"), [("digit-sum", "one symbol, and the task writes '10'"), ("pointers", "take another order")]
)
def test_tasks_whose_states_cannot_be_named_at_their_operands_are_refused(name, reason):
    task = get_task(name)
    batch = batch_of(task, sample_problems(task, 3, 2, split="train", rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match=reason):
        operand_tags(task, batch)


def test_no_beginning_that_the_split_holds_out_is_a_target_of_training():
    """All others are, with the state that `operand_tags` gives; some are held out, or this would show nothing."""
    task = get_task("s3")
    problems = [p for k in (2, 4, 6) for p in sample_problems(task, k, 40, split="train", rng=np.random.default_rng(k))]
    batch = batch_of(task, problems)
    every, trained = operand_tags(task, batch), training_tags(task, batch)
    hidden = 0
    for row, problem in enumerate(problems):
        for step in range(1, problem.k):
            (place,) = batch[[row]].where(Role.OPERAND, step).tolist()
            shown = split_of(problem.operands[: step + 1]) == "train"
            assert trained[row, place] == (every[row, place] if shown else NO_TAG)
            hidden += not shown
    assert hidden > 20
    assert ((trained != NO_TAG) <= (every != NO_TAG)).all()
