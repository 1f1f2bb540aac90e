"""Learning from rewards: what a verifier sees, the losses by hand, kill and resume, what cannot be."""

import json
import shutil

import numpy as np
import pytest
import torch

from cotinterp.models.spec import ModelSpec
from cotinterp.models.weights import CheckpointError
from cotinterp.tasks import get_task
from cotinterp.training.learner import Learner, carry_over
from cotinterp.training.loop import train
from cotinterp.training.progress import METRICS_FILE, read_metrics
from cotinterp.training.rewards import Verifier, advantages, dpo_loss, grpo_loss, judge, k3, pairs
from cotinterp.training.spec import OptimizerSpec, Rewards, RunSpec
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render

CPU = torch.device("cpu")
Z6 = get_task("z6")


@pytest.fixture(scope="module")
def rewarded(tiny, trained):
    """12 updates from the tiny run."""
    optimizer = tiny.optimizer.model_copy(update={"steps": 12, "warmup": 0, "batch_size": 16})
    rewards = Rewards(method="grpo", group=4)
    return tiny.model_copy(update={"optimizer": optimizer, "start_from": trained.spec.slug, "rewards": rewards})


def with_rewards(spec, **fields):
    return spec.model_copy(update={"rewards": Rewards.model_validate(spec.rewards.model_dump() | fields)})


def learner_of(spec, root):
    verifier = Verifier.of(spec, Z6, root / spec.slug, CPU)
    learner = Learner.begin(spec, Z6, CPU, verifier=verifier)
    carry_over(learner.module, spec, Z6, root / spec.slug)
    return learner


@pytest.mark.parametrize(
    ("text", "right", "ended", "formed", "exact"),
    [
        ("{3*4=1;1*5=0}0#", True, True, True, True),
        ("0#", True, True, False, False),
        ("{3*4=2;2*5=0}0#", True, True, True, False),
        ("{1*1=1;1*1=1}0#", True, True, True, False),
        ("{3*4=1}0#", True, True, False, False),
        ("{0;0}0#", True, True, False, False),
        ("{3*4=1;1*5=0}5#", False, True, True, False),
        ("{3*4=1;1*5=0}0", False, False, False, False),
        ("{3*4=1;3*4=1;3*4=1;", False, False, False, False),
        ("{3*4=1;1*5=0}00#", False, True, False, False),
        ("}{#", False, True, False, False),
        ("", False, False, False, False),
    ],
)
def test_what_a_verifier_sees(text, right, ended, formed, exact):
    (problem,) = solve(Z6, np.array([[3, 4, 5]]))
    found = judge(Z6, render(Z6, problem, "cot"), text)
    assert (found.right, found.ended, found.formed, found.exact) == (right, ended, formed, exact)


def test_advantages_worked_out_by_hand():
    """One of four right: mean 1/4, deviation of a sample 1/2. All equal: nothing."""
    found = advantages(torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64))
    expected = torch.tensor([[0.75, -0.25, -0.25, -0.25], [0, 0, 0, 0]], dtype=torch.float64) / 0.5001
    torch.testing.assert_close(found, expected)


def test_losses_worked_out_by_hand():
    """A response of two symbols whose ratios are 2 and 1/2, one of one symbol at ratio 1; clip 0.2."""
    log = np.log
    log_p = torch.tensor([[log(0.4), log(0.2)], [log(0.5), 0.0]])
    drawn = torch.tensor([[log(0.2), log(0.4)], [log(0.5), 0.0]])
    written = torch.tensor([[True, True], [True, False]])
    gain = torch.tensor([1.0, -3.0])
    found = grpo_loss(log_p, drawn, None, gain, written, clip=0.2, kl=0.0)
    assert found.item() == pytest.approx(-((1.2 + 0.5) / 2 - 3) / 2)
    reference = torch.tensor([[log(0.2), log(0.2)], [log(0.5), 9.0]])
    with_kl = grpo_loss(log_p, drawn, reference, gain, written, clip=0.2, kl=0.1)
    assert (with_kl - found).item() == pytest.approx(0.1 * (0.5 - log(0.5) - 1) / 2 / 2)
    one = torch.ones(1)
    assert dpo_loss(0 * one, -2 * one, 0 * one, 0 * one, beta=0.5).item() == pytest.approx(log(1 + np.exp(-1)))
    none = torch.zeros(0)
    assert dpo_loss(none, none, none, none, beta=0.5).item() == 0


def test_a_divergence_is_never_negative_and_its_mean_is_that_of_the_definition():
    """The sum over symbols, by their probability under the policy."""
    p, q = (torch.randn(5, dtype=torch.float64).log_softmax(0) for _ in range(2))
    found = k3(p[None], q[None])[0]
    assert bool((found >= 0).all())
    assert (p.exp() @ found).item() == pytest.approx((p.exp() @ (p - q)).item())


def test_pairs_are_of_one_problem():
    right = np.array([[True, False, True], [True, True, True], [False, True, False]])
    assert pairs(right) == ([0, 7], [1, 6])


def test_at_ratio_one_the_gradient_is_the_policy_gradient():
    log_p = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    gain, written = torch.randn(4, dtype=torch.float64), torch.arange(3) < torch.tensor([3, 1, 2, 3])[:, None]
    (found,) = torch.autograd.grad(grpo_loss(log_p, log_p.detach(), None, gain, written, clip=0.2, kl=0.0), log_p)
    torch.testing.assert_close(found, -(gain / written.sum(1))[:, None] * written / 4)


def test_drawn_log_probs_are_those_of_the_hooked_model(rewarded, root):
    learner = learner_of(with_rewards(rewarded, temperature=1.5), root)
    rollouts = learner.verifier.draw(learner.module, np.arange(4), 3)
    found = learner.verifier.log_probs(learner.module, rollouts)
    logits = learner.module(rollouts.data.inputs).detach() / 1.5
    own = logits.log_softmax(-1).gather(2, rollouts.data.targets.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(found, own * rollouts.written, atol=1e-5, rtol=1e-4)
    assert int(rollouts.written.sum()) == rollouts.measured["sampled_tokens"]
    reference = learner.verifier.reference_log_probs(rollouts)
    torch.testing.assert_close(found, reference, atol=1e-5, rtol=1e-4)  # the run that it starts from


@pytest.mark.parametrize(
    "fields",
    [{}, {"passes": 3}, {"method": "dpo", "kl": 0.1}, {"method": "star", "kl": 0.04}],
    ids=["grpo", "passes", "dpo", "star"],
)
def test_killed_and_resumed_is_as_if_nothing_had_happened(rewarded, root, tmp_path, fields):
    spec = with_rewards(rewarded, **fields)

    def kill(event):
        if event.step == 8:
            raise KeyboardInterrupt

    shutil.copytree(root, tmp_path / "other")
    where = {"directory": root / spec.slug, "device": "cpu", "threads": 1, "checkpoint_every": 5}
    with pytest.raises(KeyboardInterrupt):
        train(spec, **where, progress=kill)
    again = train(spec, **where)
    whole = train(spec, directory=tmp_path / "other" / spec.slug, device="cpu", threads=1)
    assert again.weight_hash == whole.weight_hash
    assert again.metadata["spent"] == whole.metadata["spent"]
    lines = [read_metrics(run.directory / METRICS_FILE)[-1] for run in (again, whole)]
    clock = ("tokens_per_second", "elapsed_s")
    first, second = ({key: value for key, value in line.items() if key not in clock} for line in lines)
    assert first == second
    assert json.loads(again.metadata["spent"])["sampled_tokens"] == first["sampled_tokens"] > 12 * 16


def test_reward_alone_teaches_and_rewards_of_others_do_not(tmp_path):
    """From a model that writes answers by chance; the control shows that the first half can fail."""
    few = OptimizerSpec(steps=15, batch_size=32, lr=3e-3, warmup=5)
    shape = ModelSpec(n_layers=1, d_model=32, n_heads=2, d_mlp=64, n_ctx=12)
    base = RunSpec(task="z6", regime="direct", k_min=2, k_max=2, n_train=20, model=shape, optimizer=few)
    train(base, directory=tmp_path / base.slug, device="cpu", threads=1)
    more = few.model_copy(update={"steps": 60, "batch_size": 128, "warmup": 0})
    ends = {}
    for shuffled in (False, True):
        rewards = Rewards(method="grpo", group=8, kl=0.0, shuffled=shuffled)
        spec = base.model_copy(update={"start_from": base.slug, "optimizer": more, "rewards": rewards})
        train(spec, directory=tmp_path / spec.slug, device="cpu", threads=1)
        ends[shuffled] = read_metrics(tmp_path / spec.slug / METRICS_FILE)[-1]["right"]
    assert ends[False] > 0.4 > 0.2 > ends[True]


def test_a_run_does_not_go_on_from_another_reference(rewarded, root, tiny):
    def kill(event):
        raise KeyboardInterrupt

    where = {"directory": root / rewarded.slug, "device": "cpu", "threads": 1, "checkpoint_every": 1}
    named = rewarded.model_copy(update={"start_from": "base"})
    shutil.copytree(root / rewarded.start_from, root / "base")
    with pytest.raises(KeyboardInterrupt):
        train(named, **where, progress=kill)
    shutil.rmtree(root / "base")
    train(tiny.model_copy(update={"seed": 9}), directory=root / "base", device="cpu", threads=1)
    with pytest.raises(CheckpointError, match="whose start_from is no longer the same"):
        train(named, **where)


@pytest.mark.parametrize(
    ("rewards", "fields", "said"),
    [
        ({"method": "grpo"}, {}, "give start_from, .* or rewards.kl = 0"),
        ({"method": "dpo", "form": 0.1}, {}, "form would be ignored: method 'dpo' does not read it"),
        ({"method": "dpo", "group": 1}, {}, "compares responses to one problem"),
        ({"method": "grpo", "kl": 0.0, "group": 7}, {}, "counts responses, 7 to each problem"),
        ({"method": "star"}, {"mix": ({"regime": "direct"},)}, "so mix would be ignored"),
        ({"method": "star"}, {"optimizer": {"until": "converged"}}, "give it optimizer.steps"),
        ({"method": "star"}, {"regime": "label"}, "writes no response"),
        ({"method": "star", "teacher": "a/b"}, {}, "rewards.teacher is the slug of a run beside this one"),
    ],
    ids=str,
)
def test_specs_that_cannot_be_are_refused(rewards, fields, said):
    with pytest.raises(ValueError, match=said):
        RunSpec.model_validate({"task": "z6", "regime": "cot", "rewards": rewards} | fields, strict=False)


def test_what_is_not_set_stands_in_no_dump(tiny):
    assert "rewards" not in tiny.model_dump()
