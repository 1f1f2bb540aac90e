"""Mistakes of probing: problems on both sides of the split, and the total read off where it stands written."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.calibration.mutations.trial import TASK, K, Mutation, instead, random_model, require, transcripts
from cotinterp.mechanism.probing import controls, fit, subspaces, totals
from cotinterp.mechanism.probing import fit as labels
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.mechanism.sites import Site
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

CHANCE = 1 / 6


def probed_total(batch: Batch) -> ProbeResult:
    """Total 3 of `batch`, probed at the equals sign before it."""
    places = [(Role.EQUALS, 3)]
    return totals.probe_totals(random_model(), batch, places=places, targets=[3], sites=[Site("resid_pre", 1)])


def check_split() -> None:
    """Of problems that recur, none is on both sides of the split."""
    probed_total(transcripts(80, copies=4))


def split_rows(groups: Int[np.ndarray, " n"], *, fraction: float = 0.25, seed: int = 0) -> Bool[np.ndarray, " n"]:
    """`hold_out` done wrong: rows are drawn, whatever problem they belong to."""
    return np.random.default_rng(seed).random(len(groups)) >= fraction


def check_shuffled_labels() -> None:
    """Labels shuffled over problems are at chance on problems that the probe has not seen."""
    rng = np.random.default_rng(0)
    problem = np.repeat(np.arange(100), 4)
    features = torch.from_numpy(rng.normal(size=(100, 64))[problem] + 0.01 * rng.normal(size=(400, 64))).float()
    train = controls.hold_out(problem, seed=1)
    target = {"label": rng.integers(4, size=100)[problem]}
    (cell,) = fit.fit_probes({"features": features}, target, train, groups=problem).cells
    require(cell.shuffled_accuracy < 0.5, f"shuffled labels are read with accuracy {cell.shuffled_accuracy:.2f}")


def unguarded_leak() -> AbstractContextManager[object]:
    """Rows are drawn, and nobody asks whether a problem is on both sides."""
    stack = ExitStack()
    stack.enter_context(instead(fit, "check_split", lambda groups, train: None)())
    stack.enter_context(instead(controls, "hold_out", split_rows)())
    return stack


def check_input_baseline() -> None:
    """Before a total is written, the current token and its position do not name it."""
    (row,) = [cell for cell in probed_total(transcripts(320)).cells if cell.at.site == "input"]
    accuracy = float(row.correct.mean())
    require(accuracy < 0.5, f"the input alone names the total with accuracy {accuracy:.2f}: it stands written there")


def one_late(right: Callable[..., Int[Tensor, " batch"]]) -> Callable[..., Int[Tensor, " batch"]]:
    """A lookup of positions that names the place after the one that was asked for."""

    def where(self: Batch, role: Role | str, step: int | None = None, part: int = 0) -> Int[Tensor, " batch"]:
        return right(self, role, step, part) + 1

    return where


def check_control_labels() -> None:
    """A probe that stores its inputs is no better on the true labels than on random labels of the same inputs."""
    rng = np.random.default_rng(0)
    kind = rng.integers(30, size=600)
    features = torch.eye(30)[kind]
    target = {"label": fit.Target(truth=rng.integers(5, size=30)[kind], types=kind)}
    train = controls.hold_out(np.arange(600), seed=1)
    (cell,) = fit.fit_probes({"one-hot": features}, target, train).cells
    selectivity = float((cell.correct - cell.control_correct).mean())
    require(abs(selectivity) < 0.2, f"a table of inputs is credited with a selectivity of {selectivity:.2f}")


def labels_by_row(truth: Int[np.ndarray, " n"], types: Int[np.ndarray, " n"], **options: object) -> np.ndarray:
    """A control task that forgets the types: every row gets a label of its own."""
    return np.random.default_rng(0).permutation(truth)


def check_matched_control() -> None:
    """A random subspace moves every example as far as the probe's does."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    current, donor = torch.randn(2, 50, 32, generator=generator)
    read, random = (subspaces.Subspace.random(32, rank=2, rng=rng) for _ in range(2))
    as_far = (subspaces.exchanged(current, donor, random, read) - current).norm(dim=-1)
    wanted = (subspaces.exchanged(current, donor, read) - current).norm(dim=-1)
    missed = float((as_far / wanted - 1).abs().mean())
    require(missed < 1e-4, f"the control moves examples {missed:.0%} more or less far than the probe does")


def as_it_comes(
    current: Float[Tensor, "*batch d_site"],
    donor: Float[Tensor, "*batch d_site"],
    subspace: subspaces.Subspace,
    matched_to: subspaces.Subspace | None = None,
) -> Float[Tensor, "*batch d_site"]:
    """An exchange that moves as far as its own subspace happens to reach."""
    return current + subspace.part(donor - current)


def check_renamed_text() -> None:
    """What is read off a renamed text is what the model with its embeddings permuted makes of the true one."""
    batch, seed, draws = transcripts(320), 0, 3
    places, sites = [(Role.EQUALS, 3)], [Site("resid_post", 1)]
    model = random_model()
    null = controls.Controls(task=TASK, n_renamings=draws, seed=seed)
    cell, *_ = totals.probe_totals(model, batch, places=places, targets=[3], sites=sites, controls=null).cells
    names = controls.renamings(TASK, batch.operands.numpy(), draws, rng=np.random.default_rng([seed, 2]))
    codes = torch.tensor(batch.vocabulary.encode(TASK.operands))
    own = model.W_E.detach().clone()
    for accuracy, name in zip(cell.renamed_accuracy, names, strict=True):
        with torch.no_grad():
            model.W_E[codes[torch.from_numpy(name)]] = own[codes]
        permuted, *_ = totals.probe_totals(model, batch, places=places, targets=[3], sites=sites).cells
        other = float(permuted.correct.mean())
        same = bool(abs(accuracy - other) < 1e-9)
        require(same, f"a renamed text gives {accuracy:.2f}, permuted embeddings {other:.2f}")


def rename_prompts(
    tokens: Int[Tensor, "batch pos"], task: Task, vocabulary: Vocabulary, renaming: Int[np.ndarray, " operands"]
) -> Int[Tensor, "batch pos"]:
    """A renaming that leaves out the written totals."""
    renamed = controls.rename_tokens(tokens, task, vocabulary, renaming)
    prompt = 2 * K
    return torch.cat([renamed[:, :prompt], tokens[:, prompt:]], dim=1)


PROBING_MUTATIONS = (
    Mutation(
        "leaked split: rows are held out, not problems",
        "the split is checked problem by problem",
        instead(totals, "hold_out", split_rows),
        check_split,
    ),
    Mutation(
        "leaked split, and the check of the split removed",
        "labels shuffled over problems stay at chance",
        unguarded_leak,
        check_shuffled_labels,
    ),
    Mutation(
        "probing one place late, at the written total",
        "input-only baseline: current token and position",
        instead(Batch, "where", one_late(Batch.where)),
        check_input_baseline,
    ),
    Mutation(
        "control labels given to rows, not to types of input",
        "random label per type of input (selectivity)",
        instead(labels, "random_labels", labels_by_row),
        check_control_labels,
    ),
    Mutation(
        "operands renamed in the prompt, not in written totals",
        "a renamed text is what permuted embeddings read",
        instead(totals, "rename_tokens", rename_prompts),
        check_renamed_text,
    ),
    Mutation(
        "random subspace not matched to the probe's",
        "the control moves every example exactly as far",
        instead(subspaces, "exchanged", as_it_comes),
        check_matched_control,
    ),
)
