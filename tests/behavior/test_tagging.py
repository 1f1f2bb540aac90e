"""States named at operands: models that are right, late or wrong by construction, and which words were shown before."""

import numpy as np
import pytest
import torch

from cotinterp.behavior.tagging import tag_accuracy
from cotinterp.models.spec import ModelSpec
from cotinterp.results.intervals import wilson
from cotinterp.tasks import get_task
from cotinterp.training.loop import train
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("s3")
PROBLEMS = {
    split: tuple(p for k in (2, 3, 4) for p in sample_problems(TASK, k, 4, split=split, rng=np.random.default_rng(k)))
    for split in ("train", "heldout")
}


class Names:
    """At every operand it names the state of `lag` operands before; `slip` names another one at that step."""

    def __init__(self, task, lag=0, slip=None):
        self.task, self.lag, self.slip, self.vocabulary = task, lag, slip, Vocabulary.of(task)

    def __call__(self, tokens):
        logits = torch.zeros(*tokens.shape, len(self.vocabulary))
        for row, ids in enumerate(tokens.tolist()):
            read = []
            for position, token in enumerate(ids):
                symbol = self.vocabulary.symbols[token]
                if symbol in self.task.operands:
                    read.append(self.task.operands.index(symbol))
                    logits[row, position, self.vocabulary.token(self.named(read))] = 1.0
        return logits

    def named(self, read):
        step = len(read) - 1 - self.lag
        if step < 1:
            return self.task.state_text(read[0])
        state = solve(self.task, np.array([read]))[0].totals[step - 1]
        return self.task.state_text((state + (step == self.slip)) % self.task.n_states)


def test_the_right_states_are_right_everywhere():
    frame = tag_accuracy(Names(TASK), TASK, "tagging", PROBLEMS, run_seed=3).frame()
    columns = ["task", "regime", "run_seed", "split", "reading", "k", "n", "correct", "accuracy", "ci_low", "ci_high"]
    assert list(frame.columns) == columns
    assert frame[["split", "reading", "k"]].to_numpy().tolist() == [
        [split, reading, k] for split in ("heldout", "train") for k in (2, 3, 4) for reading in ("tags", "all")
    ]
    assert (frame["correct"] == frame["n"]).all()
    assert set(frame["n"]) == {4}
    assert frame.loc[0, ["task", "regime", "run_seed"]].tolist() == ["s3", "tagging", 3]
    assert frame.loc[0, ["ci_low", "ci_high"]].tolist() == list(wilson(4, 4))


def test_states_one_operand_late_are_noticed():
    """The control: right states at the wrong places. They agree only where an operand changes nothing."""
    frame = tag_accuracy(Names(TASK, lag=1), TASK, "tagging", PROBLEMS).frame()
    found = frame.groupby("reading")[["correct", "n"]].sum()
    expected = sum(
        ([problem.operands[0], *problem.totals][-2] == problem.answer) for part in PROBLEMS.values() for problem in part
    )
    assert found.loc["tags", "correct"] == expected
    assert found.loc["tags", "correct"] < 0.5 * found.loc["tags", "n"]


def test_a_slip_at_step_two_leaves_the_last_state_of_longer_words_right_but_not_all_of_them():
    frame = tag_accuracy(Names(TASK, slip=2), TASK, "tagging", PROBLEMS).frame()
    accuracy = frame[frame["split"] == "heldout"].set_index(["reading", "k"])["accuracy"]
    assert accuracy["tags"].tolist() == [1.0, 0.0, 1.0]
    assert accuracy["all"].tolist() == [1.0, 0.0, 0.0]


def test_what_is_named_is_kept_and_batches_change_nothing():
    result = tag_accuracy(Names(TASK), TASK, "tagging", {"heldout": PROBLEMS["heldout"]})
    for tags in result.tags:
        assert tags.named == tuple(TASK.state_text(total) for total in tags.problem.totals)
        assert tags.right == (True,) * (tags.problem.k - 1)
    assert tag_accuracy(Names(TASK), TASK, "tagging", {"heldout": PROBLEMS["heldout"]}, batch_size=5) == result
    assert len(result.examples()) == 12


def test_a_trained_run_learns_states_that_the_same_run_of_direct_does_not(tmp_path):
    """Parity of two and three bits: the untaught model is at chance or below, as it may name any symbol."""
    spec = RunSpec(
        task="parity",
        regime="tagging",
        k_max=3,
        n_train=60,
        model=ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=32, n_ctx=10),
        optimizer=OptimizerSpec(steps=160, batch_size=16, warmup=10, lr=1e-2),
    )
    runs = [train(one, directory=tmp_path / one.slug, device="cpu") for one in (spec, as_direct(spec))]
    problems = {"train": sample_problems(get_task("parity"), 3, 8, split="train", rng=np.random.default_rng(0))}
    results = [tag_accuracy(run.model, run.task, run.spec.regime, problems, run_seed=run.spec.seed) for run in runs]
    taught, untaught = (result.frame().set_index("reading")["accuracy"] for result in results)
    assert taught["tags"] > 0.9
    assert untaught["tags"] < 0.7
    assert results[0].labels == runs[0].labels


def as_direct(spec):
    return spec.model_copy(update={"regime": "direct"})


def test_no_problems_and_tasks_that_cannot_be_tagged_are_refused():
    with pytest.raises(ValueError, match="no problems to read states on in heldout"):
        tag_accuracy(Names(TASK), TASK, "tagging", {"heldout": ()})
    digits = get_task("digit-sum")
    with pytest.raises(ValueError, match="writes '10'"):
        tag_accuracy(Names(digits), digits, "tagging", {"train": solve(digits, np.array([[1, 2]]))})


def test_the_figure_tells_readings_and_splits_apart():
    figure = tag_accuracy(Names(TASK), TASK, "tagging", PROBLEMS).figure()
    assert len([trace for trace in figure.data if trace.showlegend]) == 4
