"""A model, its optimizer and its training set: what one update does to them, and the weights that they start from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cotinterp.models.adapters import adapt
from cotinterp.models.build import build_module
from cotinterp.models.weights import CheckpointError, base_weights, named_weights
from cotinterp.tasks import Task
from cotinterp.training.checkpoints import Run, load_beside
from cotinterp.training.course import BEGINNING, CHECKED, LEAST_CHECKED, Check, Course
from cotinterp.training.data import NOT_SCORED, TrainingSet, batch_rows, problems_of, transcripts_of
from cotinterp.training.distillation import TeacherStates, distance
from cotinterp.training.packing import PackedBatch, packed_logits, packed_loss, packed_states, scored_loss
from cotinterp.training.rewards import Verifier, k3
from cotinterp.training.spec import Format, OptimizerSpec, RunSpec, ends_of_shares
from cotinterp.transcripts.problems import EmptySplitError, Problem, sample_problems
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.vocabulary import Vocabulary


def response_loss(module: nn.Module, batch: TrainingSet, *, bf16: bool = False) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over all response tokens of the batch; prompt and padding count nothing.

    Long responses weigh more than short ones, since every token weighs the same. This is the definition, padding and
    all; a run is trained on `packed_loss`, which has the same value and gradient.
    """
    seen = None
    if getattr(getattr(module, "cfg", None), "attention_dir", "causal") != "causal":
        places = torch.arange(batch.inputs.shape[1], device=batch.inputs.device)
        seen = places < batch.length.to(places.device)[:, None]
    with torch.autocast(batch.inputs.device.type, dtype=torch.bfloat16, enabled=bf16):
        logits = module(batch.inputs, attention_mask=seen)
    return functional.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=NOT_SCORED)


def adamw(module: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """The optimizer of a run: matrices are decayed, vectors (biases, normalization scales) are not."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=True)


@dataclass(frozen=True)
class Update:
    """What one update saw.

    Attributes:
        step: Updates done, this one included.
        loss: Mean cross-entropy per response token of the batch before the update, in nats.
        lr: Learning rate.
        grad_norm: Norm of the gradient over all parameters before clipping.
        tokens: Tokens that were read, padding not counted.
        distance: How far the states were off the teacher's (`distillation.distance`); None where none were compared.
        rewards: Of a run that is taught by rewards, what its responses were like (`rewards.Rollouts.measured`) and how
            far it is off its reference, in nats a symbol (`kl`).
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    distance: float | None = None
    rewards: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Learner:
    """The moving parts of a run. Their state after step `t` is a function of the spec and `t` alone.

    Attributes:
        data: The training problems in each of `formats`, one after the other.
        k: Number of operands of each training problem.
        formats: The ways in which problems are written during the run (`Format.written` is read here).
        teacher: The states that `spec.distill` asks for (`distillation.teacher_states`); else None.
        verifier: What draws and judges responses where `spec.rewards` asks for it (`rewards.Verifier`); else None.
    """

    spec: RunSpec
    task: Task
    module: nn.Module
    optimizer: torch.optim.AdamW
    data: TrainingSet
    k: Int[np.ndarray, " example"]
    formats: tuple[Format, ...]
    teacher: TeacherStates | None = None
    verifier: Verifier | None = None

    @classmethod
    def begin(
        cls,
        spec: RunSpec,
        task: Task,
        device: torch.device,
        teacher: TeacherStates | None = None,
        verifier: Verifier | None = None,
    ) -> "Learner":
        """The learner before its first update. ValueError where the spec has a teacher and none is given."""
        if (spec.distill is None) != (teacher is None):
            raise ValueError(
                f"{spec.slug} has {'no teacher' if spec.distill is None else 'a teacher'} in its spec: give "
                "teacher_states(spec, task, directory, device) where it has one, and nothing where not"
            )
        if (spec.rewards is None) != (verifier is None):
            raise ValueError(f"give {spec.slug} Verifier.of(spec, task, directory, device) if its spec has rewards")
        module = build_module(spec.model, len(Vocabulary.of(task)), seed=spec.seed, device=device)
        if spec.adapter is not None:
            adapt(module, spec.adapter, seed=spec.seed)
        problems = problems_of(spec, task)
        mixes = [*(stage.mix for stage in spec.stages), spec.mix]
        every = [one for mix in mixes for one in mix or (Format(regime=spec.regime),)]
        formats = tuple({one.written: one for one in every}.values())
        data = TrainingSet.joined([_training_set(spec, task, problems, one, device) for one in formats])
        k = np.array([problem.k for problem in problems])
        return cls(spec, task, module, adamw(module, spec.optimizer), data, k, formats, teacher, verifier)

    def update(self, step: int, course: Course = BEGINNING) -> Update:
        """Makes update `step` (from 0). Where loss or gradient are not finite the weights stay as they are."""
        lr = course.rate(self.spec, step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.verifier is not None:
            return self._rewarded(self.verifier, step, course, lr)
        mix = course.mix(self.spec)
        batch = PackedBatch.of(self.data, self._written_rows(self._rows(step, course), mix))
        loss, off = self._losses(batch, mix)
        pull = self.spec.distill.weight if self.spec.distill else 0.0
        norm = self._descend(loss if off is None else loss + pull * off)
        return Update(step + 1, loss.item(), lr, norm.item(), batch.n_tokens, None if off is None else off.item())

    def _descend(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """One step of the optimizer; returns the norm of the gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.spec.optimizer.clip)
        if torch.isfinite(loss + norm):
            self.optimizer.step()
        return norm

    def _rewarded(self, verifier: Verifier, step: int, course: Course, lr: float) -> Update:
        """An update from responses; loss, norm and divergence are those before its first pass."""
        rollouts = verifier.draw(self.module, self._rows(step, course), step)
        reference = verifier.reference_log_probs(rollouts)
        log_p = verifier.log_probs(self.module, rollouts)
        drawn, loss = log_p.detach(), verifier.loss(rollouts, log_p, log_p.detach(), reference)
        norm = self._descend(loss)
        for _ in range(1, verifier.rewards.passes):
            log_p = verifier.log_probs(self.module, rollouts)
            self._descend(verifier.loss(rollouts, log_p, drawn, reference))
        measured = dict(rollouts.measured)
        if reference is not None:
            measured["kl"] = k3(drawn, reference)[rollouts.written].mean().item()
        n_read = int(rollouts.data.length.sum())
        return Update(step + 1, loss.item(), lr, norm.item(), n_read, rewards=measured)

    def _losses(self, batch: PackedBatch, mix: Sequence[Format]) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Cross-entropy; and how far the states of problems whose totals are not written are off the teacher's."""
        bf16, weight = self.spec.precision == "bf16", self._weights(batch, mix) if len(mix) > 1 else None
        inside = [self._block(one) for one in mix if not get_regime(one.regime).writes_totals]
        if self.teacher is None or not inside:
            return packed_loss(self.module, batch, bf16=bf16, weight=weight), None
        logits, states = packed_states(self.module, batch, self.teacher.layers, bf16=bf16)
        rows = batch.sequence[batch.answer]
        compared = torch.isin(rows // len(self.k), torch.tensor(inside, device=rows.device))
        off = distance(states[compared], self.teacher.states[rows[compared] % len(self.k)])
        return scored_loss(logits, batch, weight), off

    def _rows(self, step: int, course: Course) -> Int[np.ndarray, " batch"]:
        """The problems in the batch of `step`; each stage begins its own epochs over what it shows."""
        seed, size = self.spec.seed, self.spec.optimizer.batch_size
        size //= self.spec.rewards.group if self.spec.rewards else 1
        if course.stage == len(self.spec.stages):
            return batch_rows(seed, step - course.began, len(self.k), size)
        shown = np.flatnonzero(self.k < course.lengths(self.spec).stop)
        return np.asarray(shown[batch_rows(seed, step - course.began, len(shown), size)])

    def _block(self, shown: Format) -> int:
        """Which of `formats` that is."""
        return [one.written for one in self.formats].index(shown.written)

    def _written_rows(self, rows: Int[np.ndarray, " batch"], mix: Sequence[Format]) -> Int[np.ndarray, " written"]:
        """Rows of the training set: these problems, the shares of the formats laid around the batch end to end."""
        ends = ends_of_shares(mix, len(rows))
        return np.concatenate(
            [
                self._block(one) * len(self.k) + np.take(rows, np.arange(first, last), mode="wrap")
                for one, (first, last) in zip(mix, pairwise(ends), strict=True)
            ]
        )

    def _weights(self, batch: PackedBatch, mix: Sequence[Format]) -> Float[Tensor, " scored"]:
        """What each scored token counts: the loss is the mean of the formats' mean losses, by their weights."""
        block = batch.rows // len(self.k)
        weight = torch.zeros(len(batch.targets), device=block.device)
        scored = weight[: len(block)]
        total = 0.0
        for one in mix:
            members = block == self._block(one)
            if bool(members.any()):
                scored[members] = one.loss_weight / int(members.sum())
                total += one.loss_weight
        return weight / total

    def check(self, step: int, course: Course = BEGINNING) -> Check:
        """How the model does after `step` updates on the lengths that are shown now."""
        known, shown = self._checked, course.lengths(self.spec)
        lengths = tuple(k for k in known.lengths if k in shown) or known.lengths
        own = _scores(self.module, known.training, known.rows, self.k[known.rows], lengths, self.spec)
        other = _scores(self.module, known.validation, np.arange(len(known.k)), known.k, lengths, self.spec)
        return Check(
            step, lengths, own[0], other[0], own[1], other[1], tuple(int((known.k == k).sum()) for k in lengths)
        )

    @cached_property
    def _checked(self) -> "CheckedProblems":
        return CheckedProblems.of(self)

    @property
    def adapter(self) -> str:
        """What is trained in place of the whole model, for the record of the run; empty where all of it is."""
        if self.spec.adapter is None:
            return ""
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.module.parameters()]
        trained, frozen = (sum(size for size, learned in sizes if learned is kind) for kind in (True, False))
        return f"{self.spec.adapter.words}, {trained:,} values trained beside {frozen:,} frozen"

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return all(bool(parameter.isfinite().all()) for parameter in self.module.parameters())


@dataclass(frozen=True, eq=False)
class CheckedProblems:
    """What a run is checked on: problems of its training set, and others of the validation side.

    Attributes:
        lengths: Numbers of operands with LEAST_CHECKED validation problems; all where none has so many.
        training: The training problems as the regime of the run writes them.
        rows: Rows of these, no problem twice and at most CHECKED of each length.
        validation: Transcripts of the validation side, at most CHECKED of each length.
        k: Number of operands of each of them.
    """

    lengths: tuple[int, ...]
    training: TrainingSet
    rows: Int[np.ndarray, " example"]
    validation: TrainingSet
    k: Int[np.ndarray, " other"]

    @classmethod
    def of(cls, learner: Learner) -> "CheckedProblems":
        """Those of a run, the same whenever they are asked for. ValueError where there are no validation problems."""
        spec, task = learner.spec, learner.task
        rng = np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(2,)))
        found: dict[int, tuple[Problem, ...]] = {}
        for k in range(spec.k_min, spec.k_max + 1):
            try:
                found[k] = sample_problems(task, k, CHECKED, split="validation", rng=rng)
            except EmptySplitError:
                continue
        there = [k for k in found if (learner.k == k).any()]
        lengths = tuple(k for k in there if len(found[k]) >= LEAST_CHECKED) or tuple(there)
        if not lengths:
            raise EmptySplitError(
                f"task {task.name!r} has no validation problem with {spec.k_min} to {spec.k_max} operands, so that a "
                "run until it is converged has nothing to be checked on: raise k_max, or give it a number of updates"
            )
        others = [problem for k in lengths for problem in found[k]]
        asked, device = Format(regime=spec.regime), learner.data.inputs.device
        validation = _training_set(spec, task, others, asked, device)
        if [one.written for one in learner.formats] == [asked.written]:
            training = learner.data
        else:
            training = _training_set(spec, task, problems_of(spec, task), asked, device)
        distinct = np.unique(training.inputs.cpu().numpy(), axis=0, return_index=True)[1]
        distinct.sort()
        rows = np.concatenate([distinct[learner.k[distinct] == k][:CHECKED] for k in lengths])
        return cls(lengths, training, rows, validation, np.array([problem.k for problem in others]))


def _training_set(
    spec: RunSpec, task: Task, problems: Sequence[Problem], shown: Format, device: torch.device
) -> TrainingSet:
    return TrainingSet.of_transcripts(transcripts_of(spec, task, problems, shown), shown.regime, task, device)


ROWS_A_PASS = 256


@torch.no_grad()
def _scores(
    module: nn.Module,
    data: TrainingSet,
    rows: Int[np.ndarray, " example"],
    k: Int[np.ndarray, " example"],
    lengths: Sequence[int],
    spec: RunSpec,
) -> tuple[tuple[float, ...], float]:
    """Of these rows, the share that is right in every scored token by length, and the loss averaged over lengths."""
    wrong, loss, scored = (np.zeros(len(data.length)) for _ in range(3))
    rows, k = rows[np.isin(k, lengths)], k[np.isin(k, lengths)]
    for start in range(0, len(rows), ROWS_A_PASS):
        batch = PackedBatch.of(data, rows[start : start + ROWS_A_PASS])
        logits = packed_logits(module, batch, bf16=spec.precision == "bf16")
        place = batch.rows.cpu().numpy()
        n, targets = len(place), batch.targets[: len(place)]
        nats = functional.cross_entropy(logits[:n], targets, reduction="none")
        np.add.at(wrong, place, (logits[:n].argmax(-1) != targets).double().cpu().numpy())
        np.add.at(loss, place, nats.double().cpu().numpy())
        np.add.at(scored, place, 1.0)
    right = (wrong[rows] == 0) & (scored[rows] > 0)
    of_length = [k == length for length in lengths]
    accuracy = tuple(float(right[chosen].mean()) for chosen in of_length)
    return accuracy, float(np.mean([loss[rows][chosen].sum() / scored[rows][chosen].sum() for chosen in of_length]))


BY_SYMBOL = ("embed.weight", "unembed.weight")
BY_POSITION = ("pos_embed.weight",)


def carry_over(module: nn.Module, spec: RunSpec, task: Task, directory: Path) -> str:
    """Gives a freshly initialized `module` the weights of the run that `spec.start_from` names beside `directory`.

    Embeddings and unembeddings go by symbol and position vectors by place: what the earlier run never had (a symbol
    of the new task, a place beyond its context) keeps its random values. All else must have the same shape. The
    optimizer and the learning rate begin anew. Under an adapter what keeps them would stay random, so that such symbols
    have to be trained as a whole (`Adapter.full`), and there can be no such places.

    Returns:
        Hash of the weights that were carried over, for the record of the run.

    Raises:
        CheckpointError: That run is missing, unfinished or damaged, or its model has another shape, or lacks what an
            adapter cannot teach.
    """
    start = load_beside(directory, str(spec.start_from), "start_from", spec, task)
    given, here = named_weights(start.model), base_weights(module)
    wrong = [f"has no {name!r}" for name in here if name not in given]
    wrong += [f"has {name!r}, which the new model has not" for name in given if name not in here]
    wrong += [
        f"has {tuple(given[name].shape)} for {name!r}, the new model {tuple(here[name].shape)}"
        for name in here
        if name in given and not _fits(name, given[name], here[name])
    ]
    wrong += [
        f"has {name} {getattr(start.spec.model, name)!r}, the new model {getattr(spec.model, name)!r}"
        for name in type(spec.model).model_fields
        if name != "n_ctx" and getattr(start.spec.model, name) != getattr(spec.model, name)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"start_from {spec.start_from!r} does not fit model of {spec.slug}: it {'; '.join(wrong[:3])}{more}. Only "
            "the symbols and n_ctx may differ: give both runs the same model"
        )
    if spec.adapter is not None:
        _require_known(spec, start, task)
    old, new = _shared_symbols(start.vocabulary, Vocabulary.of(task))
    with torch.no_grad():
        for name, tensor in here.items():
            if name in BY_SYMBOL:
                tensor[new] = given[name][old].to(tensor.device)
            else:
                rows = min(len(tensor), len(given[name]))
                tensor[:rows] = given[name][:rows].to(tensor.device)
    return start.weight_hash


def _require_known(spec: RunSpec, start: Run, task: Task) -> None:
    new = [symbol for symbol in Vocabulary.of(task).symbols if symbol not in start.vocabulary.symbols]
    whole = () if spec.adapter is None else spec.adapter.full
    if new and len(whole) < 2:
        raise CheckpointError(
            f"start_from {spec.start_from!r} has no symbols {new}: under an adapter they would stay as they are drawn "
            "at random. Train them with it, adapter.full = ['embed', 'unembed']"
        )
    if spec.model.positions == "standard" and spec.model.n_ctx > start.spec.model.n_ctx:
        raise CheckpointError(
            f"start_from {spec.start_from!r} has position vectors for n_ctx {start.spec.model.n_ctx}, not for "
            f"{spec.model.n_ctx}: under an adapter the others would stay random. Give both runs the same n_ctx"
        )


def _fits(name: str, given: Tensor, here: Tensor) -> bool:
    by_row = name in BY_SYMBOL or name in BY_POSITION
    return given.shape[1:] == here.shape[1:] if by_row else given.shape == here.shape


def _shared_symbols(old: Vocabulary, new: Vocabulary) -> tuple[list[int], list[int]]:
    """Tokens of the symbols that both have, in the one and in the other."""
    both = [symbol for symbol in new.symbols if symbol in old.symbols]
    return old.encode(both), new.encode(both)
