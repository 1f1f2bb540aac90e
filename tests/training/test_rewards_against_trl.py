"""Losses and advantages equal those of TRL on identical log probabilities."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from cotinterp.training.rewards import advantages, dpo_loss, grpo_loss

N, LENGTH = 6, 7
GENERATOR = torch.Generator().manual_seed(0)


def log_probs():
    return torch.randn(N, LENGTH, generator=GENERATOR, dtype=torch.float64).abs().neg()


@pytest.fixture(scope="module")
def written():
    """Of six responses of 1 to 7 symbols, which places are theirs."""
    return torch.arange(LENGTH) < torch.tensor([7, 3, 5, 1, 6, 2])[:, None]


def test_advantages():
    from trl.trainer.utils import nanstd

    rewards = torch.tensor([[1.0, 0, 0, 0.5], [0, 1, 1, 1]], dtype=torch.float64)
    theirs = (rewards - rewards.mean(1, keepdim=True)) / (nanstd(rewards, dim=1, keepdim=True) + 1e-4)
    torch.testing.assert_close(advantages(rewards), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kl", [0.0, 0.04])
def test_grpo(written, kl):
    """Ratios far from 1 on both sides, so that the clip bites."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    log_p, drawn, reference = log_probs(), log_probs(), log_probs()
    advantage = advantages(torch.tensor([[1.0, 0, 0], [0, 1, 1]], dtype=torch.float64)).flatten()
    trainer = MagicMock(
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=kl,
        loss_type="grpo",
        epsilon_low=0.2,
        epsilon_high=0.2,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        entropy_coef=0.0,
        use_adaptive_entropy=False,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, gradient_accumulation_steps=1),
    )
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (log_p, torch.zeros_like(log_p), None)
    trainer.accelerator.gather = lambda found: found
    inputs = {
        "prompt_ids": torch.zeros(N, 1, dtype=torch.long),
        "prompt_mask": torch.ones(N, 1),
        "completion_ids": torch.zeros(N, LENGTH, dtype=torch.long),
        "completion_mask": written.double(),
        "advantages": advantage,
        "old_per_token_logps": drawn,
        "ref_per_token_logps": reference,
    }
    theirs = GRPOTrainer._compute_loss(trainer, MagicMock(), inputs)
    ours = grpo_loss(log_p, drawn, reference, advantage, written, clip=0.2, kl=kl)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    assert abs(float(grpo_loss(log_p, drawn, reference, advantage, written, clip=0.5, kl=kl) - theirs)) > 1e-3


def test_dpo(written):
    from trl.trainer.dpo_trainer import DPOTrainer

    log_p, reference = (torch.where(written, log_probs(), 0.0) for _ in range(2))
    (right, wrong), (reference_right, reference_wrong) = (of.sum(1).chunk(2) for of in (log_p, reference))
    trainer = MagicMock(
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        beta=0.1,
        label_smoothing=0.0,
        use_weighting=False,
    )
    trainer.accelerator.device = torch.device("cpu")
    trainer.accelerator.gather_for_metrics = lambda found: found
    trainer.accelerator.gather = lambda found: found
    padded = torch.nn.functional.pad(written, (1, 0)).long()
    none = torch.zeros_like(log_p)
    outputs = SimpleNamespace(log_probs=log_p, entropy=none, mean_logits=none, is_top1=none.bool(), aux_loss=None)
    inputs = {
        "input_ids": torch.zeros_like(padded),
        "attention_mask": torch.ones_like(padded),
        "completion_mask": padded,
        "ref_chosen_logps": reference_right,
        "ref_rejected_logps": reference_wrong,
    }
    theirs = DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)
    ours = dpo_loss(right, wrong, reference_right, reference_wrong, beta=0.1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
