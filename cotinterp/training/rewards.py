"""Learning from rewards: what a model wrote is judged by its answer alone, and what was right is made likelier.

Each update draws `group` responses to each of some training problems (`models.sampling`) from a generator that the seed
and the number of the update decide, so that a run goes on bit for bit. `Rewards.method` says what follows from them:

- "grpo" (Shao et al. 2024, arXiv 2402.03300): rewards normalized within the group of a problem are the advantages of
  all symbols of a response; the ratio to the policy that wrote is clipped; the divergence from the run that it started
  from is estimated without bias by exp(r - p) - (r - p) - 1 (Schulman's k3), p and r being log probabilities.
- "dpo" (Rafailov et al. 2023, arXiv 2305.18290): pairs of a right and a wrong response to one problem, which the run
  that it started from, or a teacher, wrote.
- "star" (Zelikman et al. 2022, arXiv 2203.14465, without the hints and from the present weights on): cross-entropy of
  the responses that are right. With a teacher it is distillation of what that one writes (rejection sampling).

The verifier sees the end of a response. What else may raise a reward is counted beside it (`Judged`): a form without
content, an answer without a trace or with a wrong one, responses without an end. That the reward rose does not
establish that the model reasons: ask trace edits and patching.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cotinterp.models.decoding import prefixes, text_of
from cotinterp.models.flops import Cost
from cotinterp.models.sampling import sample_continuations
from cotinterp.models.weights import CheckpointError
from cotinterp.tasks import Task
from cotinterp.training.checkpoints import Run, load_beside
from cotinterp.training.data import NOT_SCORED, TrainingSet, problems_of
from cotinterp.training.packing import PackedBatch, packed_logits
from cotinterp.training.spec import Rewards, RunSpec
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.parsing import ParsedResponse, final_answer, parse_response
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.vocabulary import Vocabulary

SPREAD = 1e-4
"""Added to the standard deviation of the rewards of a group (the value of TRL): a group of equal ones has none."""


@dataclass(frozen=True)
class Judged:
    """One response, judged.

    Attributes:
        right: It ended, and its answer is the task's.
        ended: The stop symbol was written.
        formed: It has the form of the right response: a trace or none, as many steps, each made of the same parts.
        exact: It is the right response, symbol for symbol.
    """

    right: bool
    ended: bool
    formed: bool
    exact: bool


def judge(task: Task, expected: Transcript, text: str) -> Judged:
    """What a verifier says of a response to the problem of `expected`, and what it does not see."""
    separator = get_regime(expected.regime).separator
    form, own = (_form(parse_response(task, one, separator=separator)) for one in (text, expected.response))
    return Judged(
        right=final_answer(task, text) == expected.problem.answer,
        ended="#" in text,
        formed=form == own,
        exact=text == expected.response,
    )


def _form(parsed: ParsedResponse) -> tuple[object, ...]:
    steps = [(step.style, step.previous is None, step.operand is None, step.total is None) for step in parsed.steps]
    return parsed.opened, parsed.closed, steps, parsed.answer is None, parsed.ended, parsed.trailing


def advantages(rewards: Float[Tensor, "problem group"]) -> Float[Tensor, "problem group"]:
    """How far each reward is above the mean of its group, in standard deviations (of a sample, n - 1)."""
    mean = reduce(rewards, "problem group -> problem 1", "mean")
    return (rewards - mean) / (rewards.std(dim=1, keepdim=True) + SPREAD)


def k3(log_p: Float[Tensor, "response pos"], reference: Float[Tensor, "response pos"]) -> Float[Tensor, "response pos"]:
    """Estimate of KL(policy || reference) in nats from each symbol that the policy drew: never negative."""
    return (reference - log_p).exp() - (reference - log_p) - 1


def grpo_loss(
    log_p: Float[Tensor, "response pos"],
    drawn: Float[Tensor, "response pos"],
    reference: Float[Tensor, "response pos"] | None,
    advantage: Float[Tensor, " response"],
    written: Bool[Tensor, "response pos"],
    *,
    clip: float,
    kl: float,
) -> Float[Tensor, ""]:
    """Equation 3 of the paper, negated: the mean over responses of the mean over the symbols of each.

    Args:
        log_p: Natural log of the policy's probability of each written symbol.
        drawn: The same when the responses were drawn; a constant.
        reference: The same of the reference; not read where `kl` is 0.
        advantage: Of each response, for all its symbols.
        written: Which places were written by the model.
        clip: How far the ratio may be from 1 before it earns nothing more.
        kl: Weight of the divergence from the reference.
    """
    ratio, gain = (log_p - drawn).exp(), rearrange(advantage, "response -> response 1")
    loss = -torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    if kl and reference is not None:
        loss = loss + kl * k3(log_p, reference)
    return ((loss * written).sum(1) / written.sum(1).clamp(min=1)).mean()


def dpo_loss(
    right: Float[Tensor, " pair"],
    wrong: Float[Tensor, " pair"],
    reference_right: Float[Tensor, " pair"],
    reference_wrong: Float[Tensor, " pair"],
    *,
    beta: float,
) -> Float[Tensor, ""]:
    """Equation 7 of the paper: the mean over pairs, 0 without any; the arguments are log probabilities of responses."""
    margin = (right - reference_right) - (wrong - reference_wrong)
    return -functional.logsigmoid(beta * margin).sum() / max(len(margin), 1)


def pairs(right: Bool[np.ndarray, "problem group"]) -> tuple[list[int], list[int]]:
    """Right and wrong responses, by their number in the batch: the first of each kind of a problem, the second, ..."""
    found: tuple[list[int], list[int]] = [], []
    for problem, flags in enumerate(right):
        kinds = np.flatnonzero(flags), np.flatnonzero(~flags)
        n = min(map(len, kinds))
        for numbers, kind in zip(found, kinds, strict=True):
            numbers += (problem * len(flags) + kind[:n]).tolist()
    return found


@dataclass(frozen=True, eq=False)
class Rollouts:
    """The responses of one update, the group of each problem together.

    Attributes:
        data: Prompts and responses; what the model wrote is scored.
        judged: What the verifier says of each.
        reward: What each is taught with: of another response of the batch where rewards are `shuffled`.
        right: Whether each counts as right, in the same way.
        measured: For the log: rewards as they were earned, shares of the responses, mean length, symbols written.
    """

    data: TrainingSet
    judged: tuple[Judged, ...]
    reward: Float[np.ndarray, "problem group"]
    right: Bool[np.ndarray, "problem group"]
    measured: Mapping[str, float]

    @property
    def written(self) -> Bool[Tensor, "response pos"]:
        """Places that predict a symbol which the model wrote."""
        return self.data.targets != NOT_SCORED


@dataclass(frozen=True, eq=False)
class Verifier:
    """What a run with `RunSpec.rewards` draws, judges and learns from.

    Attributes:
        problems: Its training problems as the regime writes them: prompts, and what is right.
        reference: The run that it started from; None where it is not asked.
        teacher: Who writes the responses in place of the present weights; None for these.
    """

    spec: RunSpec
    rewards: Rewards
    task: Task
    problems: Batch
    reference: Run | None
    teacher: Run | None

    @classmethod
    def of(cls, spec: RunSpec, task: Task, directory: Path, device: torch.device) -> "Verifier":
        """That of a run in `directory`, beside which its reference and teacher lie.

        Raises:
            CheckpointError: One of them is missing, unfinished or damaged, or has other symbols or a shorter context.
        """
        if spec.rewards is None:
            raise ValueError(f"{spec.slug} is not taught by rewards: give it rewards")

        def beside(slug: str | None, field: str) -> Run | None:
            run = None if slug is None else load_beside(directory, slug, field, spec, task, device=str(device))
            if run is not None and run.vocabulary != Vocabulary.of(task):
                raise CheckpointError(f"{field} {slug!r} writes other symbols than {task.name!r} has")
            if run is not None and run.spec.model.n_ctx < spec.model.n_ctx:
                raise CheckpointError(
                    f"{field} {slug!r} reads {run.spec.model.n_ctx} symbols, and {spec.slug} may write up to "
                    f"{spec.model.n_ctx}: give both the same n_ctx"
                )
            return run

        reference = beside(spec.start_from, "start_from") if spec.rewards.asks_reference else None
        teacher = beside(spec.rewards.teacher, "rewards.teacher")
        transcripts = [render(task, problem, spec.regime) for problem in problems_of(spec, task)]
        problems = collate(transcripts, Vocabulary.of(task))
        return cls(spec, spec.rewards, task, problems, reference, teacher)

    def draw(self, module: nn.Module, rows: Int[np.ndarray, " problem"], step: int) -> Rollouts:
        """The responses of update `step` (from 0) to these problems, judged."""
        rng = np.random.default_rng(np.random.SeedSequence(self.spec.seed, spawn_key=(4, step)))
        asked, group = self.problems[rows.tolist()], self.rewards.group
        writer = self.teacher or (self.reference if self.rewards.method == "dpo" else None)
        model = module if writer is None else writer.model
        found = sample_continuations(
            model,
            prefixes(model, asked),
            stop=asked.vocabulary.end,
            rng=rng,
            temperature=self.rewards.temperature,
            n_samples=group,
        )
        length = found.length.flatten()
        prompt = asked.n_prompt.repeat_interleave(group)
        data = responses(asked, found.tokens, found.length, next(module.parameters()).device)
        texts = [
            text_of(asked.vocabulary, tuple(tokens[:n]))
            for tokens, n in zip(found.tokens.flatten(0, 1).tolist(), length.tolist(), strict=True)
        ]
        expected = [one for one in asked.transcripts for _ in range(group)]
        judged = tuple(judge(self.task, one, text) for one, text in zip(expected, texts, strict=True))
        right, formed = (np.array([getattr(one, name) for one in judged]) for name in ("right", "formed"))
        earned = (1 - self.rewards.form) * right + self.rewards.form * formed
        given = rng.permutation(len(right)) if self.rewards.shuffled else np.arange(len(right))
        cost = Cost((writer.spec if writer else self.spec).model, len(asked.vocabulary))
        measured = {
            "reward": float(earned.mean()),
            "right": float(right.mean()),
            "ended": float(np.mean([one.ended for one in judged])),
            "formed": float(formed.mean()),
            "right_not_exact": float(np.mean([one.right and not one.exact for one in judged])),
            "response_length": float(length.double().mean()),
            "sampled_tokens": int(length.sum()),
            "flops": cost.answer(prompt.numpy(), length.numpy()) + self._flops(prompt + length - 1, length),
        }
        return Rollouts(data, judged, earned[given].reshape(-1, group), right[given].reshape(-1, group), measured)

    def _flops(self, read: Int[Tensor, " response"], scored: Int[Tensor, " response"]) -> float:
        """Passes forward and backward (twice as much) over the responses, and forward those of the reference."""
        own, n = Cost(self.spec.model, len(self.problems.vocabulary)), int(scored.sum())
        passes = 3 * self.rewards.passes + (self.reference is not None)
        return passes * own.forward(read.numpy(), read=n)

    def log_probs(self, model: nn.Module, rollouts: Rollouts) -> Float[Tensor, "response pos"]:
        """Natural log of the probability of each symbol that was written, under what was drawn from; else 0."""
        batch = PackedBatch.of(rollouts.data, np.arange(len(rollouts.judged)))
        rows = batch.rows
        logits = packed_logits(model, batch, bf16=self.spec.precision == "bf16")[: len(rows)]
        if self.rewards.method == "grpo":
            logits = logits / self.rewards.temperature
        found = logits.log_softmax(-1).gather(1, batch.targets[: len(rows), None])[:, 0]
        blank = found.new_zeros(rollouts.written.shape)
        return blank.masked_scatter(rollouts.written, found[rows.argsort(stable=True)])

    def reference_log_probs(self, rollouts: Rollouts) -> Float[Tensor, "response pos"] | None:
        """The same of the reference; None where it is not asked."""
        with torch.no_grad():
            return None if self.reference is None else self.log_probs(self.reference.model, rollouts)

    def loss(
        self,
        rollouts: Rollouts,
        log_p: Float[Tensor, "response pos"],
        drawn: Float[Tensor, "response pos"],
        reference: Float[Tensor, "response pos"] | None,
    ) -> Float[Tensor, ""]:
        """What the method makes of the responses; 0 with a gradient of 0 where none teaches anything."""
        if self.rewards.method == "grpo":
            gains = advantages(torch.as_tensor(rollouts.reward, dtype=log_p.dtype, device=log_p.device)).flatten()
            kl, clip = self.rewards.kl, self.rewards.clip
            return grpo_loss(log_p, drawn, reference, gains, rollouts.written, clip=clip, kl=kl)
        if reference is not None:  # dpo
            right, wrong = pairs(rollouts.right)
            own, other = log_p.sum(1), reference.sum(1)
            return dpo_loss(own[right], own[wrong], other[right], other[wrong], beta=self.rewards.kl)
        kept = torch.from_numpy(rollouts.right.flatten()).to(log_p.device)
        symbols = int(rollouts.written[kept].sum())
        return -log_p[kept].sum() / max(symbols, 1)


def responses(
    asked: Batch, written: Int[Tensor, "problem group new"], length: Int[Tensor, "problem group"], device: torch.device
) -> TrainingSet:
    """Prompts with what was written after each, as something to be trained on; all that was written is scored."""
    group, new = written.shape[1:]
    prompt = asked.n_prompt.repeat_interleave(group)
    total = prompt + length.flatten()
    width = int(total.max())
    tokens = functional.pad(asked.tokens.repeat_interleave(group, 0), (0, new))[:, :width]
    places = torch.arange(width)
    own = (places >= prompt[:, None]) & (places < total[:, None])
    symbols = written.flatten(0, 1)[torch.arange(new) < length.flatten()[:, None]]
    tokens = torch.where(places < prompt[:, None], tokens, 0).masked_scatter(own, symbols)
    targets = tokens.masked_fill(~own, NOT_SCORED)[:, 1:]
    return TrainingSet(tokens[:, :-1].to(device), targets.to(device), total - 1, prompt - 1)
