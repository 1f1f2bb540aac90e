"""Labels of written steps, on scripted models whose errors and chances are known."""

import numpy as np
import pytest
import torch

from cotinterp.behavior.search.labeled_steps import label_steps, written_steps
from cotinterp.models.sampling import continuation_log_prob
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("z6")
RIGHT = 0.7


def batch_of(n, *, k=4, regime="cot"):
    problems = sample_problems(TASK, k, n, split="heldout", rng=np.random.default_rng(0))
    return collate([render(TASK, problem, regime) for problem in problems], Vocabulary.of(TASK))


class Coin:
    """Writes as a policy does, but gets the total of one step right with probability RIGHT, and else one too high."""

    def __init__(self, scripted, step):
        self.model = scripted.Model(TASK, scripted.reader(TASK, "cot"))
        self.symbols, self.step = self.model.vocabulary.symbols, step

    def __call__(self, tokens):
        logits = 60 * self.model(tokens)
        for row, ids in enumerate(tokens.tolist()):
            text = "".join(self.symbols[token] for token in ids)
            at = [i for i, symbol in enumerate(text) if symbol == "=" and text[:i].count(";") == self.step - 1]
            for place in [i for i in at if ">" in text[:i]]:
                sure = int(logits[row, place].argmax())
                other = self.model.vocabulary.token(TASK.states[(TASK.states.index(self.symbols[sure]) + 1) % 6])
                logits[row, place, sure] = 60 + np.log(RIGHT)
                logits[row, place, other] = 60 + np.log(1 - RIGHT)
        return logits


def test_steps_are_cut_behind_their_separators():
    assert written_steps("{1+2=3;3+4=1}1#") == ["{1+2=3;", "3+4=1}", "1#"]
    assert written_steps("{1+2=3;3+") == ["{1+2=3;", "3+"]
    assert written_steps("") == []


def test_every_step_from_the_first_error_on_is_wrong(scripted):
    model = scripted.Model(TASK, scripted.reader(TASK, "cot", slip_at=2))
    steps = label_steps(model, TASK, batch_of(3), rng=np.random.default_rng(0), temperature=0.0, n_samples=1)
    assert steps.step.tolist() == [1, 2, 3, 4] * 3
    assert steps.right.tolist() == [True, False, False, False] * 3
    assert not steps.outcome.any()
    assert np.isnan(steps.reached).all()
    until = steps.until_first_error()
    assert until.step.tolist() == [1, 2] * 3
    assert until.right.tolist() == [True, False] * 3
    whole = steps.texts.responses[3]
    assert ["".join(written_steps(whole)[:n]) for n in (1, 2, 3, 4)] == list(steps.texts.responses[:4])
    with pytest.raises(ValueError, match="n_rollouts"):
        steps.labels("reached")


def test_a_right_model_has_right_steps_whose_probabilities_are_its_own(random_native):
    batch = batch_of(4)
    model = random_native("z6")
    steps = label_steps(model, TASK, batch, rng=np.random.default_rng(1), n_samples=8)
    texts = steps.texts
    assert len(steps)
    own = continuation_log_prob(model, texts.tokens, texts.n_prompt, texts.length)
    torch.testing.assert_close(texts.log_prob, own, atol=1e-4, rtol=0)
    assert all(text[-1] in ";}#" for text in texts.responses)
    assert texts.ended.tolist() == [text.endswith("#") for text in texts.responses]


def test_rollouts_reach_the_answer_as_often_as_the_model_is_known_to(scripted):
    # Step 2 of three is right with probability 0.7: from step 1 so many rollouts come home, behind it all or none.
    n = 400
    steps = label_steps(Coin(scripted, 2), TASK, batch_of(2), rng=np.random.default_rng(0), n_samples=6, n_rollouts=n)
    first = steps.step == 1
    assert np.abs(steps.reached[first] - RIGHT).max() < 4 * np.sqrt(RIGHT * (1 - RIGHT) / n)
    assert (steps.reached[~first] == steps.right[~first]).all()
    assert 0 < steps.right[~first].mean() < 1
    assert (steps.outcome == steps.right)[~first].all()
    # The hard estimate calls a step good from which any rollout comes home.
    assert steps.labels("reached")[first].all()


def test_a_regime_without_steps_is_refused(scripted):
    model = scripted.Model(TASK, scripted.reader(TASK, "cot"))
    for regime, words in (("direct", "writes no totals"), ("chain", "nothing between")):
        with pytest.raises(ValueError, match=words):
            label_steps(model, TASK, batch_of(2, regime=regime), rng=np.random.default_rng(0))
