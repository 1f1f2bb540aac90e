"""A reward model learns what its labels say, at the places where they are asked; and the ordinary learner trains it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.behavior.search.labeled_steps import label_steps
from cotinterp.behavior.search.reward_models import train_reward_model
from cotinterp.behavior.search.scoring import Scorer
from cotinterp.behavior.search.verification import auroc
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("parity")
SPEC = RunSpec(
    task="parity",
    regime="cot",
    seed=0,
    k_min=2,
    k_max=4,
    model=ModelSpec(n_layers=1, d_model=32, n_heads=2, d_mlp=64, n_ctx=48),
    optimizer=OptimizerSpec(steps=250, batch_size=32, lr=3e-3, warmup=20),
)


@pytest.fixture(scope="module")
def steps(scripted):
    """Of right responses, and of some with a slip in step 2: those to prompts that begin with a 1."""
    problems = sample_problems(TASK, 4, 8, split="train", rng=np.random.default_rng(0))
    batch = collate([render(TASK, problem, "cot") for problem in problems], Vocabulary.of(TASK))

    good, bad = scripted.reader(TASK, "cot"), scripted.reader(TASK, "cot", slip_at=2)
    model = scripted.Model(TASK, lambda text: (bad if text.startswith("<1") else good)(text))
    return label_steps(model, TASK, batch, rng=np.random.default_rng(0), temperature=0.0, n_samples=1)


def test_a_process_reward_model_learns_which_steps_are_wrong(steps):
    model = train_reward_model(SPEC, TASK, steps)
    assert isinstance(model, Scorer)
    scores = model(model.module, steps.texts).numpy()
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert auroc(scores, steps.right) > 0.99
    assert model.final_loss < 0.1
    again = train_reward_model(SPEC, TASK, steps)(model.module, steps.texts).numpy()
    assert (again == scores).all()
    # What stands behind a text, in the padding, plays no part.
    texts = replace(steps.texts, tokens=torch.nn.functional.pad(steps.texts.tokens, (0, 2), value=5))
    np.testing.assert_allclose(model(model.module, texts).numpy(), scores, atol=1e-6)
    assert [one.read for one in model.cost(model.module, steps.texts)] == steps.texts.length.tolist()


def test_an_outcome_reward_model_is_asked_at_the_end_alone(steps):
    # Right labels turned around would spoil it if they were read.
    turned = replace(steps, right=~steps.right)
    model = train_reward_model(SPEC, TASK, turned, labels="outcome")
    whole = steps.texts.ended.numpy()
    assert auroc(model(model.module, steps.texts).numpy()[whole], steps.outcome[whole]) > 0.99


def test_what_cannot_be_trained_is_refused(steps):
    with pytest.raises(ValueError, match="labels are good"):
        train_reward_model(SPEC, TASK, steps.select(steps.right))
    with pytest.raises(ValueError, match="no rollouts"):
        train_reward_model(SPEC, TASK, steps, labels="reached")
    both_ways = SPEC.model.model_copy(update={"attention": "bidirectional"})
    small = SPEC.model_copy(update={"regime": "label", "model": both_ways})
    with pytest.raises(ValueError, match="attention"):
        train_reward_model(small, TASK, steps)
