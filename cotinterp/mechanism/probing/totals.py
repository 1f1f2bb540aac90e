"""Which running totals can be read off the activations, where, and from which layer on.

A target `s_j` is the running total after step j. In a causal model nothing can hold `s_j` before operand j was read;
places before that are probed all the same, as cells in which no more may be found than the operands so far allow. At
the place where a total is written it is the symbol itself, so such places are left out (`is_written`). The question is
whether the total is there earlier: at the operands and the end of the prompt, at the step's operand and its equals
sign. At places after a total was written, the model may simply look it up.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations, stream_activations
from cotinterp.mechanism.model import HookedModel, require_causal, require_model
from cotinterp.mechanism.probing.controls import (
    FOLDS,
    Controls,
    check_split,
    distinct_rows,
    hold_out,
    input_folds,
    rename_tokens,
    renamings,
)
from cotinterp.mechanism.probing.coordinates import Coordinate
from cotinterp.mechanism.probing.fit import (
    LabelSets,
    PlannedCell,
    PreparedFeatures,
    Target,
    TrainTestSplit,
    fit_cells_as_read,
    label_sets,
)
from cotinterp.mechanism.probing.linear_probe import ProbedAt
from cotinterp.mechanism.probing.result import LeftOut, ProbeCell, ProbeResult
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.roles import Place, Role, place_words

SWEEP_BYTES = 2**29
READ_BYTES = 2**26
WITH_STEPS = frozenset({Role.OPERAND, Role.PROMPT_END, Role.STEP_OPERAND, Role.EQUALS})
WITHOUT_STEPS = frozenset({Role.OPERAND, Role.PROMPT_END, Role.TRACE_START, Role.STEP_END})


@dataclass(frozen=True, kw_only=True, eq=False)
class TotalTargets:
    """Which running totals are the targets, and in which terms.

    Attributes:
        steps: Steps j whose total is a target; by default 1 to k-1, k the fewest operands of any problem.
        coordinates: Probe each total in all of these (`coordinates(task)`): `s_2`, `parity of s_2`, ...
        written: Also probe where the target is the written symbol itself; an accuracy of 1 there says nothing.
    """

    steps: Sequence[int] | None = None
    coordinates: Mapping[str, Coordinate] | None = None
    written: bool = False

    def steps_of(self, batch: Batch) -> list[int]:
        """The steps, for these problems."""
        return list(range(1, min(problem.k for problem in batch.problems)) if self.steps is None else self.steps)


def probe_totals(
    model: HookedModel,
    batch: Batch,
    *,
    test: Batch | float = 0.25,
    sites: Sequence[Site] | None = None,
    places: Sequence[tuple[Role | str, int]] | None = None,
    targets: TotalTargets | Sequence[int] = TotalTargets(),
    left_out: LeftOut = "problems",
    controls: Controls = Controls(),
    fit: FitOptions = FitOptions(),
    labels: Mapping[str, str | int] | None = None,
) -> ProbeResult:
    """Linear probes for running totals at every place of every site, with controls, on problems unseen by the probe.

    The activations are those of a teacher-forced pass over the transcripts of `batch` by a causal model. A place is a
    role and a step, wherever in the transcript it stands; of a value of several characters it is the last, where the
    value is complete. The control task gives a random label to each distinct input that the target is made of there
    (`beginnings`): the operands up to j as far as the place can see them, from the last written total on where there is
    one. Early totals have few such inputs, and a step from a written total has few, so a probe may store them, and then
    has no selectivity; a total that was written earlier is its own input, and has none at all. Rows of the site
    `input` (layer -1) are the baseline that sees the current token and its position alone; they belong to no model and
    stand among the trained rows.

    With `left_out="inputs"` no probe is tested on an input that it was fitted on either. In a hundred dimensions nearly
    any function of 36 inputs is linear, the true one, a random one, and in an untrained model too; to read an input
    that was never shown, the total itself must lie in the same directions whatever it was made of. So the inputs are
    divided at random into four parts of about as many test problems each, and a test problem is read by the probe that
    was fitted without its part. A total that only one input makes cannot be named. Where each operand permutes the
    totals, as in a group, a probe that goes by resemblance does worse than one that guesses.

    Args:
        test: Problems to test on, or the share of `batch` that is held out, by problem. A problem on both sides is
            refused.
        sites: By default what enters each layer (`resid_pre`) and what leaves the last (`resid_post`).
        places: Role and step (-1 where it has none); by default `probe_places(batch)`.
        targets: The totals of these steps, or `TotalTargets` that say more.
        left_out: What no probe is both fitted and tested on: `problems`, or `inputs` as well.
        controls: Control tasks, shuffles, renamings, an untrained model, and the seed.
        fit: Penalty and tolerance, memory, and whether the probes are kept.
        labels: Constant columns of the table: task, regime, run_seed.

    Raises:
        KeyError: A place that some transcript lacks.
        ValueError: A target beyond the shortest problem, nothing left to probe, and what `fit_probes` refuses; probes
            are to be kept where there are four for each cell.
        ProbeNotConverged: Names the cell.
    """
    require_model(model)
    require_causal(model, "what a place holds would depend on what comes after it, padding too")
    if left_out not in ("problems", "inputs"):
        raise ValueError(f"left_out={left_out!r}; there are 'problems' and 'inputs'")
    if fit.keep and left_out == "inputs":
        raise ValueError("with left_out='inputs' each cell has four probes, and none is kept; fit one with fit_probe")
    everything = _joined(batch, test) if isinstance(test, Batch) else batch
    problems = distinct_rows(everything.operands.cpu().numpy())
    if isinstance(test, Batch):
        train, fold_seed = np.arange(len(everything)) < len(batch), [controls.seed]
    else:
        # Another stream than that of the split, which the parts of the inputs must not follow.
        train, fold_seed = hold_out(problems, fraction=test, seed=controls.seed), [controls.seed, 3]
    check_split(problems, train)
    chosen = probe_places(everything) if places is None else [(Role(role), step) for role, step in places]
    if not chosen:
        raise ValueError("no places to probe; name some as (role, step), or leave them to probe_places(batch)")
    sites = (*residual_sites(model), Site("resid_post", int(model.cfg.n_layers) - 1)) if sites is None else sites
    what = targets if isinstance(targets, TotalTargets) else TotalTargets(steps=targets)
    whole = TrainTestSplit(np.arange(len(everything)), train, problems)
    columns = _columns(everything, chosen, what, whole, controls, fold_seed if left_out == "inputs" else None)
    texts = _renamed_texts(everything, controls)
    if not columns:
        named = ", ".join(f"{role} {step}" for role, step in chosen)
        raise ValueError(
            f"at {named} the targets {what.steps_of(everything)} stand written; name other places, or written=True"
        )
    # A quarter each for what is read, what waits to be fitted, and the fits; one for what comes and goes between.
    part = (SWEEP_BYTES if fit.max_bytes is None else fit.max_bytes) // 4
    positions = torch.stack([column.positions for column in columns], dim=1)

    def planned() -> Iterator[PlannedCell]:
        # The model is causal: what comes after the last place need not be run.
        end = int(positions.max()) + 1
        for name, one in (("trained", model), ("untrained", controls.untrained)):
            if one is None:
                continue
            for draw, tokens in enumerate((everything.tokens, *texts)):
                for site, number, features in stream_places(
                    one, tokens[:, :end], sites, positions, max_bytes=part, batch_size=fit.batch_size
                ):
                    kept = fit.keep and draw == 0
                    yield from columns[number].cells(site, name, features, keep=kept, renamed=draw > 0)
        for column in columns:
            yield from column.cells("input", "trained", current_token(everything, column.positions), keep=fit.keep)

    solving = replace(fit, max_bytes=None if fit.max_bytes is None else part)
    cells = _with_renamed(fit_cells_as_read(planned(), solving, held_bytes=part))
    if left_out == "inputs":
        folds: defaultdict[tuple[ProbedAt, str], list[ProbeCell]] = defaultdict(list)
        for cell in cells:
            folds[cell.at, cell.target].append(cell)
        cells = [ProbeCell.joined(parts) for parts in folds.values()]
    sections = {(cell.at.model, cell.at.site == "input", cell.at.label): None for cell in cells}
    order = {section: number for number, section in enumerate(sorted(sections, key=lambda section: section[:2]))}
    cells.sort(key=lambda cell: order[cell.at.model, cell.at.site == "input", cell.at.label])
    return ProbeResult(tuple(cells), labels or {})


def probe_places(batch: Batch) -> tuple[Place, ...]:
    """The places probed by default, in reading order: those before a total is written that every transcript has.

    The operands and the end of the prompt; the operand and the equals sign of each step, or, where the trace has no
    such tokens, the symbol before each total.
    """
    common = set.intersection(*({(token.role, token.step) for token in x.tokens} for x in batch.transcripts))
    wanted = WITH_STEPS if any(role == Role.EQUALS for role, _ in common) else WITHOUT_STEPS
    in_order = dict.fromkeys((token.role, token.step) for token in batch.transcripts[0].tokens)
    return tuple(place for place in in_order if place in common and place[0] in wanted)


@dataclass(frozen=True, eq=False)
class _Column:
    """A place, and what is to be read off at it: of each split its label sets."""

    role: Role
    step: int
    words: str
    positions: Int[Tensor, " batch"]
    asked: Sequence[tuple[TrainTestSplit, Sequence[LabelSets]]]
    again: Sequence[tuple[TrainTestSplit, Sequence[LabelSets]]]
    """What is to be read off again where the text is renamed: the truth alone, of totals that no text shows."""

    def cells(
        self,
        site: Site | str,
        model: str,
        features: Float[Tensor, "batch d_feature"],
        *,
        keep: bool,
        renamed: bool = False,
    ) -> Iterator[PlannedCell]:
        """The cells of what one site of a model holds here."""
        at = ProbedAt(site=site, role=self.role, step=self.step, model=model, words=self.words)
        for split, asked in self.again if renamed else self.asked:
            if asked:
                prepared = PreparedFeatures.of(at, features, split, keep=keep)
                yield from (PlannedCell(prepared, labels) for labels in asked)


def _with_renamed(cells: Sequence[ProbeCell]) -> list[ProbeCell]:
    """The cells that have controls; what the others, of renamed texts, have reached is told to theirs, in order."""
    found: dict[tuple[ProbedAt, str, bytes], list[ProbeCell]] = {}
    for cell in cells:
        found.setdefault((cell.at, cell.target, cell.groups.tobytes()), []).append(cell)
    return [
        replace(first, renamed_accuracy=np.array([one.correct.mean() for one in renamed]))
        for first, *renamed in found.values()
    ]


def _columns(
    batch: Batch,
    places: Sequence[Place],
    targets: TotalTargets,
    whole: TrainTestSplit,
    controls: Controls,
    fold_seed: Sequence[int] | None,
) -> list[_Column]:
    """The places where anything is left to be read off. Inputs are left out where there is a seed to divide them by."""
    ordered = in_order(batch)
    steps = targets.steps_of(batch)
    found = []
    for role, step in places:
        at = batch.where(role, step, part=-1)
        wanted = [j for j in steps if targets.written or not is_written(role, step, j, in_order=ordered)]
        if not wanted:
            continue
        known = {f"s_{j}": Target(truth=running_total(batch, j), types=beginnings(batch, at, j)) for j in wanted}
        if fold_seed is None:
            asked = [(whole, label_sets(known, whole, controls, targets.coordinates))]
        else:
            asked = [
                (split, label_sets({name: target}, split, controls, targets.coordinates))
                for name, target in known.items()
                for split in _without_inputs(whole, target.types, fold_seed)
            ]
        hidden = [f"s_{j}" for j in wanted if j > int(last_written(batch, at).max())]
        again = [(split, [one.truth_alone() for one in sets if one.name in hidden]) for split, sets in asked]
        found.append(_Column(role, step, _words(batch, at, role, step), at, asked, again))
    return found


def _without_inputs(
    whole: TrainTestSplit, inputs: Int[np.ndarray, " n"] | None, seed: Sequence[int]
) -> list[TrainTestSplit]:
    """For each part of the inputs, its test rows and the training rows of all others."""
    assert inputs is not None
    fold_of = input_folds(whole.train, inputs, rng=np.random.default_rng(seed))
    rows = [np.flatnonzero(np.where(whole.train, fold_of != fold, fold_of == fold)) for fold in range(FOLDS)]
    return [TrainTestSplit(kept, whole.train[kept], whole.groups[kept]) for kept in rows]


def _renamed_texts(batch: Batch, controls: Controls) -> list[Int[Tensor, "batch pos"]]:
    """The same problems in other symbols. ValueError without a task, or for problems of several lengths."""
    task, n = controls.task, controls.n_renamings
    if not n:
        return []
    operands = batch.operands.cpu().numpy()
    if task is None or (operands < 0).any():
        raise ValueError(f"{n} renamings need the task (task=), and problems that all have the same number of operands")
    names = renamings(task, operands, n, rng=np.random.default_rng([controls.seed, 2]))
    return [rename_tokens(batch.tokens, task, batch.vocabulary, one) for one in names]


def _joined(batch: Batch, test: Batch) -> Batch:
    if batch.vocabulary != test.vocabulary:
        raise ValueError("the training and test batches have different vocabularies: no one model reads both")
    return collate((*batch.transcripts, *test.transcripts), batch.vocabulary).to(batch.tokens.device)


def _words(batch: Batch, positions: Int[Tensor, " batch"], role: Role, step: int) -> str:
    """`equals 2 =`: role, step, and the symbol where it is the same in every transcript."""
    symbols = {batch.transcripts[row].tokens[at].symbol for row, at in enumerate(positions.tolist())}
    words = place_words(role, step)
    return f"{words} {symbols.pop()}" if len(symbols) == 1 else words


def is_written(role: Role, step: int, target: int, *, in_order: bool = True) -> bool:
    """Whether this place is a symbol of `s_target` itself: the total, its copy in the next step, the answer.

    Where steps do not follow the operands in order (`Problem.in_order`), either value of this step or a later one may
    be a copy, in some problems, and is taken for one.
    """
    if not in_order and role in (Role.PREVIOUS_TOTAL, Role.STEP_OPERAND) and step >= target:
        return True
    return (role, step) in {
        (Role.TOTAL, target),
        (Role.PREVIOUS_TOTAL, target + 1),
        (Role.ANSWER, target),
        *([(Role.OPERAND, 0)] if target == 0 else []),
    }


def in_order(batch: Batch) -> bool:
    """Whether the steps of every problem follow its operands in order, as in a left fold."""
    return all(problem.in_order for problem in batch.problems)


def running_total(batch: Batch, step: int) -> Int[np.ndarray, " batch"]:
    """State index of `s_step` in every transcript. ValueError where a problem has no such step."""
    fewest = min(problem.k for problem in batch.problems)
    if not 0 <= step < fewest:
        raise ValueError(f"no s_{step} in problems of {fewest} operands; their totals are s_0 to s_{fewest - 1}")
    return batch.totals[:, step].cpu().numpy()


def last_written(batch: Batch, positions: Int[Tensor, " batch"]) -> Int[np.ndarray, " batch"]:
    """The last step whose total stands written at or before `positions`; 0 where none does."""
    place = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    shown = (batch.mask(Role.TOTAL) | batch.mask(Role.ANSWER)) & (place <= positions[:, None])
    steps: Int[np.ndarray, " batch"] = (batch.step * shown).amax(1).cpu().numpy()
    return steps


def beginnings(batch: Batch, positions: Int[Tensor, " batch"], step: int) -> Int[np.ndarray, " batch"]:
    """A number for all that `s_step` can be made of at `positions`: the type of input of the control task.

    That is the last total up to `s_step` that stands written there (operand 0 where none does) and the operands after
    it up to operand `step`, as far as they stand there. Where `s_step` itself has been written it is that one symbol.
    Where steps do not follow the operands in order it is all operands and all totals that stand there.
    """
    place = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    seen = (batch.mask(Role.OPERAND) & (place <= positions[:, None])).sum(1).cpu().numpy()
    start = np.minimum(last_written(batch, positions), step)
    operands, totals = batch.operands.cpu().numpy(), batch.totals.cpu().numpy()
    number = np.arange(operands.shape[1])
    if not in_order(batch):
        written = np.where(number <= last_written(batch, positions)[:, None], totals, -1)[:, 1:]
        return distinct_rows(np.column_stack([np.where(number < seen[:, None], operands, -1), written]))
    known = (number < np.minimum(seen, step + 1)[:, None]) & ((number > start[:, None]) | (start == 0)[:, None])
    shown = np.where(start > 0, np.take_along_axis(totals, start[:, None], axis=1)[:, 0], -1)
    return distinct_rows(np.column_stack([start, shown, np.where(known, operands, -1)]))


def current_token(batch: Batch, positions: Int[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
    """One-hot current token beside one-hot position: what a probe can know without the model."""
    tokens = batch.tokens[torch.arange(len(batch), device=positions.device), positions]
    codes = (values.unique(return_inverse=True)[1] for values in (tokens, positions))
    return torch.cat([F.one_hot(code) for code in codes], dim=1).float()


def stream_places(
    model: HookedModel,
    tokens: Int[Tensor, "n pos"],
    sites: Sequence[Site],
    positions: Int[Tensor, "n places"],
    *,
    max_bytes: int = READ_BYTES,
    batch_size: int | None = None,
) -> Iterator[tuple[Site, int, Float[Tensor, "n d_site"]]]:
    """What `model` holds at every place of every site: site by site, place by place, one vector an example.

    The model runs once for as many sites as fit into `max_bytes` together; one place of one site is the least. What was
    handed out is a view of what was read together, and is freed with the last of it. Errors are those of `activations`.
    """
    first = activations(model, tokens[:1], sites, positions=positions[:1])
    for part, columns in _site_parts(first, list(dict.fromkeys(sites)), len(tokens), max_bytes):
        held = {site: first[site].new_empty(len(tokens), len(columns), first[site][0, 0].numel()) for site in part}
        at = positions[:, columns]
        for rows, found in stream_activations(model, tokens, part, positions=at, batch_size=batch_size):
            for site in part:
                held[site][rows] = found[site].flatten(2)
        for site in part:
            whole = held.pop(site)
            for number, column in enumerate(columns):
                yield site, column, whole[:, number]


def _site_parts(
    first: dict[Site, Float[Tensor, "1 places *axes"]], sites: Sequence[Site], n: int, max_bytes: int
) -> Iterator[tuple[list[Site], list[int]]]:
    """Sites to read together and at which places; places are divided only where one site alone is too large."""
    places = next(iter(first.values())).shape[1]
    part: list[Site] = []
    taken = 0
    for site in sites:
        each = n * first[site].nbytes
        if part and taken + each > max_bytes:
            yield part, list(range(places))
            part, taken = [], 0
        if each > max_bytes:
            step = max(1, places * max_bytes // each)
            yield from (([site], list(range(places))[start : start + step]) for start in range(0, places, step))
        else:
            part, taken = [*part, site], taken + each
    if part:
        yield part, list(range(places))
