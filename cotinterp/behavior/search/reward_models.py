"""Reward models: a small transformer that reads what was written and says how likely it is to be right.

A process reward model is trained at the end of every step, on the oracle's labels (Lightman et al. 2023, arXiv
2305.20050) or on whether any rollout from there came to the right answer (Math-Shepherd, arXiv 2312.08935); an outcome
reward model at the end of whole responses alone, on their answers (Cobbe et al. 2021, arXiv 2110.14168), and what it
says of a beginning is then an extrapolation. The head is the unembedding, of which the first two outputs stand for bad
and good; so a run's own learner, loss and packing train it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cotinterp.behavior.search.labeled_steps import LabeledSteps, LabelName
from cotinterp.behavior.search.scoring import Texts
from cotinterp.behavior.search.spent import Spent, cost_of, reading_of
from cotinterp.models.build import build_module
from cotinterp.models.decoding import LanguageModel, context_length, reading
from cotinterp.tasks.task import Task
from cotinterp.training.data import NOT_SCORED, TrainingSet
from cotinterp.training.learner import Learner, adamw
from cotinterp.training.spec import Format, RunSpec

BAD, GOOD = 0, 1
"""Outputs of the head. What symbols they are in a model that writes plays no part here."""


@dataclass(frozen=True, eq=False)
class RewardModel:
    """A trained reward model as a scorer: the probability that what is written is good. Costs one read of the text.

    Attributes:
        name: `process reward`, `rollout reward` or `outcome reward`, by the labels that it was trained on.
        final_loss: Mean cross-entropy of its last updates, in nats per label.
    """

    module: nn.Module
    name: str
    final_loss: float

    def __call__(self, model: LanguageModel, texts: Texts) -> Float[Tensor, " texts"]:
        return self.at(model, texts, texts.length[:, None] - 1)[:, 0]

    def at(
        self,
        model: LanguageModel,  # noqa: ARG002
        texts: Texts,
        places: Int[Tensor, "text place"],
    ) -> Float[Tensor, "text place"]:
        """The same of what is written up to each place, in one read of the text."""
        found = torch.zeros(places.shape, dtype=torch.float64)
        with reading(self.module) as read:
            for rows in texts.length.argsort(stable=True).split(256) if len(texts) else ():
                logits = read(texts.tokens[rows, : int(texts.length[rows].max())]).cpu().double()
                found[rows] = logits[torch.arange(len(rows))[:, None], places[rows], : GOOD + 1].softmax(-1)[..., GOOD]
        return found

    def cost(self, model: LanguageModel, texts: Texts) -> tuple[Spent, ...]:  # noqa: ARG002
        own = cost_of(self.module)
        return tuple(reading_of(own, length, 1) for length in texts.length.tolist())


NAMES: dict[LabelName, str] = {"right": "process reward", "reached": "rollout reward", "outcome": "outcome reward"}


def train_reward_model(
    spec: RunSpec,
    task: Task,
    steps: LabeledSteps,
    *,
    labels: LabelName = "right",
    device: torch.device | str = "cpu",
) -> RewardModel:
    """A reward model of the shape, seed and optimizer of `spec`, trained on these steps; nothing else of it is read.

    `labels`: `right` and `reached` are asked at the end of every step, `outcome` at the end of each response alone.

    Raises:
        ValueError: A spec with a mix, stages, a teacher, an adapter, a start or no fixed number of updates; a model
            that is not causal or has too small a context; steps of one label alone, or without rollouts for `reached`.
        FloatingPointError: Weights that are not finite at the end.
    """
    names = ("mix", "stages", "distill", "adapter", "start_from")
    unread = [name for name in names if getattr(spec, name)]
    if unread or spec.optimizer.until != "steps" or spec.model.attention != "causal":
        what = ", ".join(unread) or ("until" if spec.optimizer.until != "steps" else "attention")
        raise ValueError(f"{what} of {spec.slug} plays no part for a reward model; give a plain causal spec of `steps`")
    data, k = _training_set(steps, steps.labels(labels), whole=labels == "outcome", device=torch.device(device))
    module = build_module(spec.model, len(steps.texts.batch.vocabulary), seed=spec.seed, device=torch.device(device))
    room = context_length(module)
    if room is not None and data.inputs.shape[1] > room:
        raise ValueError(f"texts of {data.inputs.shape[1]} symbols do not fit into n_ctx={room} of the reward model")
    formats = (Format(regime=spec.regime),)
    learner = Learner(spec, task, module, adamw(module, spec.optimizer), data, k, formats)
    losses = [learner.update(step).loss for step in range(spec.optimizer.steps)]
    if not learner.is_finite():
        raise FloatingPointError("the weights of the reward model are not finite: lower optimizer.lr")
    last = losses[-max(1, len(losses) // 10) :]
    return RewardModel(module.eval(), NAMES[labels], float(np.mean(last)))


def _training_set(
    steps: LabeledSteps, good: np.ndarray, *, whole: bool, device: torch.device
) -> tuple[TrainingSet, np.ndarray]:
    """A row for each response, labels where its steps end; and the number of operands of each."""
    texts, length = steps.texts, steps.texts.length.numpy()
    order = np.lexsort((steps.step, steps.trace))
    traces, begins = np.unique(steps.trace[order], return_index=True)
    ends = np.append(begins[1:], len(order)) - 1
    longest = order[ends]
    asked = longest[texts.ended.numpy()[longest]] if whole else order
    if len(set(good[asked].tolist())) < 2:
        raise ValueError(
            f"all {len(asked)} labels are {'good' if len(asked) and good[asked][0] else 'bad'}: give both kinds, such "
            "as responses drawn at a higher temperature or from a model that errs more"
        )
    inputs = texts.tokens[torch.from_numpy(longest)]
    targets = torch.full_like(inputs, NOT_SCORED)
    row = np.searchsorted(traces, steps.trace[asked])
    targets[torch.from_numpy(row), torch.from_numpy(length[asked] - 1)] = torch.from_numpy(good[asked].astype(np.int64))
    rows = torch.from_numpy(np.unique(row))
    last = torch.from_numpy(length[longest])[rows]
    k = np.array([problem.k for problem in texts.problems])[longest][rows.numpy()]
    width = int(last.max())
    return TrainingSet(inputs[rows, :width].to(device), targets[rows, :width].to(device), last, last - 1), k
