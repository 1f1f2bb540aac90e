"""What probes are compared with: control labels, held-out groups, and renamed totals that mean nothing.

A probe may reach a high accuracy without reading a variable: because the test rows were in the training rows in all
but name, or because it can store a table of the inputs that recur. A split by group (`hold_out`) rules out the first.
The control task measures the second: every type of input is given a random label of its own, the same wherever that
input recurs (Hewitt & Liang 2019, arXiv 1909.03368). Selectivity is the accuracy beyond what the probe reaches there.

Random labels show how much a probe can store, but are the wrong null for whether a model knows a variable. In a group
every operand permutes the states, so true labels are balanced over each operand and random ones are not; and an
untrained model that adds up its embeddings has nearly the same features for 1, 2 and 2, 1, which have the same total in
a commutative task and different random labels. The null for that is the same problems written in other symbols: all
symbols of operands are permuted, wherever they stand, in written totals too, and the labels stay (`renamings`,
`rename_tokens`). To a model whose embeddings were drawn alike for all symbols, and which was never told what the
symbols stand for, the true writing is one among all, whatever the task, however its totals are distributed and
wherever the probe looks; what it makes more of than of the others it has learned. `renamed_totals` is the same null for
features that are given once: before any total is written, other symbols and other labels come to the same.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probing.rows import Labels, row_groups
from cotinterp.mechanism.probing.solver import whole_number
from cotinterp.results import Interval, bootstrap, wilson
from cotinterp.tasks.task import Task
from cotinterp.transcripts.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, eq=False)
class Controls:
    """What every probe is compared with, on the same features and the same rows.

    Attributes:
        n_controls: Control tasks, which give a random label to each type of input; their accuracies are averaged.
        n_shuffles: Shuffles of the labels over problems. Where every problem is a type of its own they are the same
            thing as the control tasks and are fitted once. Transfer has none.
        n_renamings: Renamings of the operands' symbols (`rename_tokens`), for `ProbeResult.scan`: 19 or more. Each is
            a pass of its own through the model, and costs as much as a control or twice that. Of `probe_totals` alone;
            other features bring theirs (`Target.renamed`).
        task: Whose problems these are; needed for renamings alone.
        untrained: The same model at its initialization (another seed), probed alike. Of `probe_totals` alone.
        seed: Of the split into training and test and of all labels that are drawn; the same for all features, so that
            sites are compared on the same controls.
    """

    n_controls: int = 1
    n_shuffles: int = 1
    n_renamings: int = 0
    task: Task | None = None
    untrained: HookedModel | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """ValueError without a control, and for numbers that are none."""
        if whole_number("n_controls", self.n_controls) < 1:
            raise ValueError(f"n_controls={self.n_controls}: an accuracy without a control says nothing; use 1 or more")
        for name in ("n_shuffles", "n_renamings", "seed"):
            whole_number(name, getattr(self, name))

    def of_features_alone(self) -> "Controls":
        """These. ValueError where they need a model or a task, for callers that have neither."""
        if self.untrained is not None or self.n_renamings:
            raise ValueError("untrained models and n_renamings are controls of probe_totals, which runs the model")
        return self


def hold_out(groups: Labels, *, fraction: float = 0.25, seed: int = 0) -> Bool[np.ndarray, " n"]:
    """True at the training rows of a random split in which all rows of one group are on the same side.

    About `fraction` of the groups, at least one, become test rows. Give each problem its own group: splitting rows or
    positions instead puts the same problem on both sides. ValueError for fewer than two groups.
    """
    groups = row_groups(groups, len(groups))
    if not 0 < fraction < 1:
        raise ValueError(f"fraction {fraction} of the groups cannot be held out; it must lie strictly between 0 and 1")
    distinct = np.unique(groups)
    if len(distinct) < 2:
        raise ValueError(f"{len(distinct)} distinct groups cannot be split into training and test; give more problems")
    n_test = min(len(distinct) - 1, max(1, round(fraction * len(distinct))))
    tested = np.random.default_rng(seed).permutation(distinct)[:n_test]
    return ~np.isin(groups, tested)


FOLDS = 4
"""Each quarter of the inputs is read by probes that were fitted on the other three."""
LEAST_INPUTS = FOLDS + 1
"""Fewest inputs of which some can be left out. Of the four pairs of bits each shares a bit with the two that have the
other sum modulo 2, and none with the one of its own: a probe of three names the fourth wrong, also where the sum is
held in a direction of its own."""


def input_folds(
    train: Bool[np.ndarray, " n"], inputs: Int[np.ndarray, " n"], *, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """One of `FOLDS` parts for each row: whole inputs, at random, about as many test rows in each part.

    ValueError for fewer than LEAST_INPUTS.
    """
    distinct, index = np.unique(inputs, return_inverse=True)
    if len(distinct) < LEAST_INPUTS:
        raise ValueError(
            f"{len(distinct)} inputs make this total; with fewer than {LEAST_INPUTS} a probe cannot be tested on those "
            "that it was not fitted on. left_out='problems' tests it on new problems alone"
        )
    order = rng.permutation(len(distinct))
    tested = np.bincount(index[~train], minlength=len(distinct))[order]
    fold_of = np.empty(len(distinct), dtype=np.int64)
    fold_of[order] = np.minimum((tested.cumsum() - tested) * FOLDS // tested.sum(), FOLDS - 1)
    folds: Int[np.ndarray, " n"] = fold_of[index]
    return folds


def check_split(groups: Int[np.ndarray, " n"], train: Bool[np.ndarray, " n"]) -> None:
    """ValueError where a group has rows on both sides: the test would ask for what the probe was shown."""
    crossing = np.intersect1d(groups[train], groups[~train])
    if len(crossing):
        rows = np.flatnonzero(groups == crossing[0]).tolist()
        raise ValueError(
            f"{len(crossing)} of {len(np.unique(groups))} groups have rows in both training and test (group "
            f"{crossing[0]}: rows {rows[:6]}). Split by group, e.g. with hold_out(groups)."
        )


def random_labels(
    labels: Int[np.ndarray, " n"], types: Int[np.ndarray, " n"], *, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Labels of a control task: those of `labels`, permuted over the distinct inputs.

    Rows of one type that had one label get one label again, so a probe that stores inputs succeeds here exactly as it
    would on the real task, and one that must generalize to unseen types can only be at chance. Where a type has several
    labels (the input does not determine the target) it has as many afterwards: the control is as ambiguous.
    With one type per row, or per problem, this is the shuffled-label control.
    """
    pairs, index = np.unique(np.stack([types, labels], axis=1), axis=0, return_inverse=True)
    return rng.permutation(pairs[:, 1])[index.reshape(-1)]


def distinct_rows(rows: Shaped[np.ndarray, "n width"]) -> Int[np.ndarray, " n"]:
    """A number for each row; equal rows have equal numbers."""
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def interval_over_groups(values: Shaped[np.ndarray, " n"], groups: Int[np.ndarray, " n"], *, seed: int = 0) -> Interval:
    """Interval of the mean of `values`, with whole groups as the units that another sample would redraw.

    Wilson's for hits and misses with one row per group; otherwise a bootstrap over groups.
    """
    _, index = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(index, weights=values.astype(np.float64)), np.bincount(index)
    if values.dtype == np.bool_ and counts.max(initial=0) <= 1:
        return wilson(int(values.sum()), len(values))

    def ratio(drawn: Float[np.ndarray, "resamples groups"], axis: int) -> Float[np.ndarray, " resamples"]:
        chosen = drawn.astype(np.int64)
        means: Float[np.ndarray, " resamples"] = sums[chosen].sum(axis) / counts[chosen].sum(axis)
        return means

    return bootstrap(np.arange(len(sums), dtype=np.float64), seed=seed, statistic=ratio)


TRIES = 50


def renamings(
    task: Task, operands: Int[np.ndarray, "n k"], n: int, *, rng: np.random.Generator
) -> Int[np.ndarray, "draws operands"]:
    """`n` permutations of the operands' symbols, drawn at random, no two of which tell the same rows apart.

    Renamings that change nothing but the names of the totals (an automorphism; the complement of every bit in a parity)
    say nothing about a probe and are not drawn, neither is the identity. Only symbols that some problem has are
    permuted. Where an operand's code says more than its symbol, as in a tree, all permutations count as different.
    ValueError where a task has fewer: parity has none, z6 has 59.
    """
    plain = task.n_operands == len(task.operands)
    used = np.unique(operands) if plain else _symbols(task, operands)

    def seen(renaming: Int[np.ndarray, " operands"]) -> bytes:
        return _partition(task, renaming[operands]) if plain else renaming.tobytes()

    renaming = np.arange(len(task.operands))
    found: dict[bytes, Int[np.ndarray, " operands"]] = {seen(renaming): renaming}
    for _ in range(TRIES * (n + 1)):
        if len(found) > n:
            return np.stack(list(found.values())[1:])
        renaming = np.arange(len(task.operands))
        renaming[used] = rng.permutation(used)
        found.setdefault(seen(renaming), renaming)
    raise ValueError(
        f"task {task.name!r} has {len(used)} operands, and only {len(found) - 1} ways of renaming them were "
        f"found that change more than the totals' names; {n} were asked for. Use fewer, or an untrained model instead"
    )


def _symbols(task: Task, operands: Int[np.ndarray, "n k"]) -> Int[np.ndarray, " used"]:
    """Which of the task's symbols for operands its prompts show."""
    shown = {symbol.text for row in operands.tolist() for symbol in task.prompt(row)}
    return np.array([index for index, symbol in enumerate(task.operands) if symbol in shown])


def rename_tokens(
    tokens: Int[Tensor, "batch pos"], task: Task, vocabulary: Vocabulary, renaming: Int[np.ndarray, " operands"]
) -> Int[Tensor, "batch pos"]:
    """The same text with the symbol of operand `renaming[i]` written as that of operand i, wherever it stands.

    A model that takes the symbols for what they stand for in the task then computes on other operands; to one that
    never learned that, features of this text and true labels are what features of the true text and `renamed_totals`
    are, where no total stands written.
    """
    codes = torch.tensor(vocabulary.encode(task.operands))
    table = torch.arange(len(vocabulary))
    table[codes[torch.from_numpy(renaming)]] = codes
    return table.to(tokens.device)[tokens]


def renamed_totals(
    task: Task, operands: Int[np.ndarray, "n k"], step: int, names: Int[np.ndarray, "draws operands"]
) -> Int[np.ndarray, "draws n"]:
    """`s_step` of every problem under each renaming of its operands: labels for features in which no total stands
    written (`Target.renamed`). ValueError where an operand's code says more than its symbol.
    """
    if task.n_operands != len(task.operands):
        raise ValueError(
            f"task {task.name!r} draws its operands from {task.n_operands} codes, which are not its "
            f"{len(task.operands)} symbols: totals of renamed symbols are not known. probe_totals renames the text"
        )
    return np.stack([task.steps(name[operands]).total[:, step - 1] for name in names])


def _partition(task: Task, operands: Int[np.ndarray, "n k"]) -> bytes:
    """Which rows have equal totals, step by step, whatever the totals are called."""
    columns = []
    for totals in task.steps(operands).total.T:
        _, first, number = np.unique(totals, return_index=True, return_inverse=True)
        columns.append(first[number.reshape(-1)])
    return np.stack(columns).tobytes()
