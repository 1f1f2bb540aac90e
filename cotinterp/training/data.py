"""The training set, rendered once, and which of its rows belong to which step."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad

from cotinterp.tasks import Task
from cotinterp.training.spec import Format, RunSpec
from cotinterp.transcripts.batch import collate, label_places
from cotinterp.transcripts.examples import Shots
from cotinterp.transcripts.problems import Problem, training_problems
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import Transcript, render_all_for_training, without_first_steps
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.tags import NO_TAG, training_tags
from cotinterp.transcripts.vocabulary import Vocabulary

NOT_SCORED = -100
"""Target of the positions whose prediction the loss leaves out."""


def batch_rows(seed: int, step: int, n: int, batch_size: int) -> Int[np.ndarray, " batch"]:
    """Rows of the training set in the batch of `step` (from 0): a pure function, so that a run can resume anywhere.

    Epochs are permutations of all rows, laid end to end and cut into full batches: every row comes equally often.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // n
    return np.concatenate([_order(seed, epoch, n)[places[epochs == epoch] % n] for epoch in np.unique(epochs).tolist()])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> Int[np.ndarray, " row"]:
    """The order of the rows in one epoch. Kept from one update to the next: of 100,000 rows it takes a millisecond."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    order.setflags(write=False)
    return order


def problems_of(spec: RunSpec, task: Task) -> tuple[Problem, ...]:
    """The training problems of a run, in the order of its training set; the same in every regime."""
    rng = np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(0,)))
    return training_problems(task, (spec.k_min, spec.k_max), spec.n_train, rng)


def transcripts_of(
    spec: RunSpec, task: Task, problems: Sequence[Problem] | None = None, shown: Format | None = None
) -> tuple[Transcript, ...]:
    """The problems of the run as its regime writes them.

    What is drawn for a row depends on `spec.seed` and the row alone.

    Args:
        problems: Others than the training problems.
        shown: Another way to write them.
    """
    shown = shown or Format(regime=spec.regime)

    def rng_of_row(row: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(1, row)))

    problems = problems_of(spec, task) if problems is None else problems
    rendered = render_all_for_training(task, problems, shown.regime, rng_of_row)
    if shown.skip:
        rendered = tuple(without_first_steps(one, shown.skip, dots=shown.dots) for one in rendered)
    if shown.shots:
        examples = Shots(n=shown.shots, regime=shown.shown_in, pool=problems_of(spec, task), seed=spec.seed)
        rendered = examples.before(task, rendered)
    return rendered


@dataclass(frozen=True)
class TrainingSet:
    """All training transcripts of a run.

    Attributes:
        inputs: Token ids without each row's last position. Tokens beyond `length` are never read (`Regime.reads`).
        targets: The token that follows each input where it is a scored part of the response, and in the regime
            `tagging` the state at the operands of the prompt (`training_tags`); the answer alone where it is a label;
            else NOT_SCORED.
        length: Inputs of each row that are read; stays on the CPU, where the batches are cut.
        answer: Where each row predicts the first symbol of its answer; on the CPU too.
    """

    inputs: Int[Tensor, "example pos"]
    targets: Int[Tensor, "example pos"]
    length: Int[Tensor, " example"]
    answer: Int[Tensor, " example"]

    @classmethod
    def of(cls, spec: RunSpec, task: Task, device: torch.device) -> "TrainingSet":
        """The training problems of a spec, as its regime writes them."""
        return cls.of_transcripts(transcripts_of(spec, task), spec.regime, task, device)

    @classmethod
    def of_transcripts(
        cls, transcripts: Sequence[Transcript], regime: str, task: Task, device: torch.device
    ) -> "TrainingSet":
        """These transcripts, all of one regime."""
        batch = collate(transcripts, Vocabulary.of(task))
        targets = batch.tokens.masked_fill(~batch.loss_mask, NOT_SCORED)[:, 1:]
        if get_regime(regime).tags_operands:
            tags = training_tags(task, batch)[:, :-1]
            targets = torch.where(tags == NO_TAG, targets, tags)
        answer = batch.where(Role.ANSWER) - 1
        if get_regime(regime).reads != "response":
            length, rows = label_places(batch, regime), torch.arange(len(batch))
            label = batch.tokens[rows, batch.mask(Role.ANSWER).int().argmax(1)]
            targets = torch.full_like(targets, NOT_SCORED)
            targets[rows, length - 1] = label
            return cls(batch.tokens[:, :-1].to(device), targets.to(device), length, length - 1)
        return cls(batch.tokens[:, :-1].to(device), targets.to(device), batch.length - 1, answer)

    @classmethod
    def joined(cls, sets: Sequence["TrainingSet"]) -> "TrainingSet":
        """The rows of all of them, one after the other."""
        if len(sets) == 1:
            return sets[0]
        width = max(one.inputs.shape[1] for one in sets)

        def wide(rows: Int[Tensor, "example pos"], blank: int) -> Int[Tensor, "example wide"]:
            return pad(rows, (0, width - rows.shape[1]), value=blank)

        return cls(
            torch.cat([wide(one.inputs, 0) for one in sets]),
            torch.cat([wide(one.targets, NOT_SCORED) for one in sets]),
            torch.cat([one.length for one in sets]),
            torch.cat([one.answer for one in sets]),
        )

    def rows(self, rows: Int[np.ndarray, " batch"]) -> "TrainingSet":
        """Some of the transcripts, cut to the longest of them."""
        length = self.length[rows]
        width = int(length.max())
        chosen = torch.as_tensor(rows, device=self.inputs.device)
        return TrainingSet(self.inputs[chosen, :width], self.targets[chosen, :width], length, self.answer[rows])

    @property
    def sha256(self) -> str:
        """Hash of every token and every target."""
        digest = hashlib.sha256(str(tuple(self.inputs.shape)).encode())
        for tensor in (self.inputs, self.targets):
            digest.update(tensor.cpu().contiguous().numpy().astype("<i8").tobytes())
        return digest.hexdigest()
