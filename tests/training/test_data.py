"""Which tokens are learned from, and in what order."""

import numpy as np
import pytest
import torch

from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.training.data import NOT_SCORED, TrainingSet, batch_rows, problems_of, transcripts_of
from cotinterp.training.learner import Learner
from cotinterp.training.spec import Format, RunSpec
from cotinterp.transcripts.problems import split_of
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

CPU = torch.device("cpu")


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (10, 10), (7, 16), (100, 64)])
def test_every_row_comes_once_an_epoch(n, batch_size):
    steps = -(-3 * n // batch_size)
    stream = np.concatenate([batch_rows(5, step, n, batch_size) for step in range(steps)])
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_batches_depend_on_seed_and_step_and_on_nothing_else():
    first = batch_rows(5, 123, 100, 8)
    np.random.default_rng(0).random(10)
    assert np.array_equal(batch_rows(5, 123, 100, 8), first)
    assert not np.array_equal(batch_rows(6, 123, 100, 8), first)
    assert not np.array_equal(batch_rows(5, 124, 100, 8), first)


def test_epochs_have_orders_of_their_own():
    assert not np.array_equal(batch_rows(5, 0, 64, 64), batch_rows(5, 1, 64, 64))


@pytest.mark.parametrize("regime", ["direct", "cot", "totals", "filler", "chain"])
def test_targets_are_the_response_and_inputs_come_one_token_earlier(tiny, regime):
    task = get_task(tiny.task)
    spec = tiny.model_copy(update={"regime": regime})
    data, vocabulary = TrainingSet.of(spec, task, CPU), Vocabulary.of(task)
    problems = problems_of(spec, task)
    assert len(problems) == len(data.length) == spec.n_train
    for row, problem in enumerate(problems):
        prompt = "<" + "*".join(task.operands[operand] for operand in problem.operands) + ">"
        scored = data.targets[row] != NOT_SCORED
        response = vocabulary.decode(data.targets[row][scored].tolist())
        assert vocabulary.decode(data.inputs[row, : data.length[row]].tolist()) == (prompt + response)[:-1]
        assert response.endswith(task.state_text(problem.answer) + "#")
        assert scored.nonzero()[0].item() == len(prompt) - 1
        assert data.length[row] == len(prompt + response) - 1


def test_tagging_adds_the_states_of_shown_beginnings_to_the_targets_of_direct(tiny):
    """Inputs are the same; and states moved by one operand, the control, are other targets."""
    task, vocabulary = get_task(tiny.task), Vocabulary.of(get_task(tiny.task))
    tagging, direct = (
        TrainingSet.of(tiny.model_copy(update={"regime": regime}), task, CPU) for regime in ("tagging", "direct")
    )
    assert torch.equal(tagging.inputs, direct.inputs)
    assert torch.equal(tagging.length, direct.length)
    late = withheld = 0
    for row, problem in enumerate(problems_of(tiny, task)):
        added = (tagging.targets[row] != direct.targets[row]).nonzero()[:, 0]
        read = vocabulary.decode(tagging.inputs[row, added].tolist())
        states = vocabulary.decode(tagging.targets[row, added].tolist())
        shown = [j for j in range(1, problem.k) if split_of(problem.operands[: j + 1]) == "train"]
        withheld += problem.k - 1 - len(shown)
        assert read == "".join(task.operands[problem.operands[j]] for j in shown)
        assert states == "".join(task.state_text(problem.totals[j - 1]) for j in shown)
        late += states == "".join(task.state_text(problem.previous[j - 1]) for j in shown)
        kept = direct.targets[row] != NOT_SCORED
        assert torch.equal(tagging.targets[row][kept], direct.targets[row][kept])
    assert late < 0.5 * tiny.n_train
    assert withheld


@pytest.mark.parametrize("regime", ["direct", "totals", "filler", "noisy", "tagging", "chain"])
def test_regimes_share_their_problems(tiny, regime):
    task = get_task(tiny.task)
    assert problems_of(tiny, task) == problems_of(tiny.model_copy(update={"regime": regime}), task)


def test_other_problems_with_another_seed(tiny):
    task = get_task(tiny.task)
    assert problems_of(tiny, task) != problems_of(tiny.model_copy(update={"seed": 1}), task)


def test_only_the_training_side_of_the_split_is_learned_from(tiny):
    assert {split_of(problem.operands) for problem in problems_of(tiny, get_task(tiny.task))} == {"train"}


def test_rows_are_cut_to_the_longest_of_them(tiny):
    data = TrainingSet.of(tiny, get_task(tiny.task), CPU)
    short = data.length.argmin().item()
    few = data.rows(np.array([short, short]))
    assert few.inputs.shape[1] == few.targets.shape[1] == int(data.length[short]) < data.inputs.shape[1]
    assert torch.equal(few.inputs[0], data.inputs[short, : few.inputs.shape[1]])
    assert (few.targets != NOT_SCORED).sum() == 2 * (data.targets[short] != NOT_SCORED).sum()


def test_the_hash_sees_every_token_and_every_target(tiny):
    data = TrainingSet.of(tiny, get_task(tiny.task), CPU)
    before = data.sha256
    assert TrainingSet.of(tiny, get_task(tiny.task), CPU).sha256 == before
    data.inputs[-1, 0] += 1
    assert data.sha256 != before
    data.inputs[-1, 0] -= 1
    data.targets[3, 0] = 1
    assert data.sha256 != before


@pytest.fixture(scope="module")
def noisy():
    """Digit sums: totals of one and of two symbols."""
    model = ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=32, n_ctx=56)
    return RunSpec(task="digit-sum", regime="noisy", n_train=150, model=model, seed=3)


def test_what_is_drawn_for_a_row_depends_on_the_seed_and_the_row_alone(noisy):
    task = get_task(noisy.task)
    rows = transcripts_of(noisy, task)
    assert transcripts_of(noisy, task) == rows
    assert problems_of(noisy, task) == tuple(row.problem for row in rows)
    other = transcripts_of(noisy.model_copy(update={"seed": 4}), task)
    for row in (0, 17, 149):
        rng = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(1, row)))
        tokens = get_regime("noisy").training_response(task, rows[row].problem, rng)
        assert "".join(token.symbol for token in tokens) == rows[row].response
    assert other != rows


def test_a_fifth_of_the_written_totals_is_replaced_and_just_these_are_not_scored(noisy):
    task, vocabulary = get_task(noisy.task), Vocabulary.of(get_task(noisy.task))
    rows, data = transcripts_of(noisy, task), TrainingSet.of(noisy, task, CPU)
    replaced = written = 0
    for row, transcript in enumerate(rows):
        free = {token.step for token in transcript.tokens if not token.scored}
        tokens = [(t.step, t.symbol) for t in transcript.tokens if t.role is Role.TOTAL and t.step in free]
        targets = data.targets[row, : data.length[row]]
        read = [
            (token.step, token.symbol)
            for token, target in zip(transcript.tokens[1:], targets.tolist(), strict=True)
            if target == NOT_SCORED and token.role is Role.TOTAL
        ]
        assert read == tokens
        assert vocabulary.decode(data.inputs[row, : data.length[row]].tolist()) == transcript.text[:-1]
        assert int((targets == NOT_SCORED).sum()) == len(transcript.prompt) - 1 + len(tokens)
        replaced, written = replaced + len(free), written + transcript.problem.k - 1
    assert replaced / written == pytest.approx(0.2, abs=3 * (0.16 / written) ** 0.5)


def test_regimes_other_than_noisy_are_trained_on_their_true_transcripts(noisy):
    task = get_task(noisy.task)
    for regime in ("direct", "cot", "totals", "filler"):
        spec = noisy.model_copy(update={"regime": regime})
        assert transcripts_of(spec, task) == tuple(render(task, problem, regime) for problem in problems_of(spec, task))


@pytest.mark.parametrize(
    ("regime", "digest"), [("cot", "c061b7a8b3b7f652"), ("direct", "d3c66409efe17453"), ("totals", "b7fc692d9c701e8f")]
)
def test_training_sets_stay_what_they_were_when_the_reference_models_were_trained(regime, digest):
    """A saved state goes on only with the training set that it began with."""
    spec = RunSpec(task="digit-sum", regime=regime, n_train=100)
    assert TrainingSet.of(spec, get_task("digit-sum"), CPU).sha256.startswith(digest)


def test_examples_in_front_are_read_and_not_learned(tiny):
    """Two formats of one prompt, told apart by the examples alone: the few-shot form of a mode token."""
    mix = tuple(Format(regime=regime, share=0.5, shots=2) for regime in ("direct", "cot"))
    wide = tiny.model_copy(update={"mix": mix, "model": tiny.model.model_copy(update={"n_ctx": 72})})
    task = get_task(wide.task)
    problems = problems_of(wide, task)
    for shown in mix:
        transcripts = transcripts_of(wide, task, shown=shown)
        plain = transcripts_of(wide, task, shown=Format(regime=shown.regime))
        rows = TrainingSet.of_transcripts(transcripts, shown.regime, task, CPU)
        alone = TrainingSet.of_transcripts(plain, shown.regime, task, CPU)
        assert [one.problem for one in transcripts] == list(problems)
        assert all(long.text.endswith(short.text) for long, short in zip(transcripts, plain, strict=True))
        assert all(one.text.count("#") == 3 for one in transcripts)
        for row in range(5):
            learned, expected = (part.targets[row][part.targets[row] != NOT_SCORED] for part in (rows, alone))
            assert torch.equal(learned, expected)
    begun = Learner.begin(wide, task, CPU)
    assert len(begun.formats) == 2
    assert begun.update(0).tokens > 3 * Learner.begin(tiny, task, CPU).update(0).tokens / 2


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (Format(regime="direct", shots=2, examples="cot"), r"3 operands behind 2 'cot' examples takes up to 53 tokens"),
        (Format(regime="direct", shots=1, examples="chained"), "unknown regime 'chained'. Did you mean 'chain'"),
    ],
    ids=str,
)
def test_examples_that_cannot_be_shown_are_refused(tiny, shown, said):
    with pytest.raises(ValueError, match=said):
        tiny.model_copy(update={"mix": (shown,)})


def test_a_format_without_examples_is_what_it_was_before_there_were_any():
    plain = Format(regime="cot", share=0.5)
    assert plain.model_dump() == {"regime": "cot", "share": 0.5, "weight": None, "skip": 0}
    with pytest.raises(ValueError, match="examples would be ignored"):
        Format(regime="cot", examples="cot")
    shown = Format(regime="direct", share=0.5, shots=2, examples="cot")
    assert Format.model_validate_json(shown.model_dump_json()) == shown
    assert shown.words == "direct(2cot)*0.5"
