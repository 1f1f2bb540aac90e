"""Which running totals can be read off the activations, where, and from which layer on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations, stream_activations
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probing.controls import check_split, distinct_rows, hold_out, renamed_totals, renamings
from cotinterp.mechanism.probing.coordinates import Coordinate
from cotinterp.mechanism.probing.fit import Fitting, LabelSets, Question, Readable, answer_as_read, as_place, label_sets
from cotinterp.mechanism.probing.linear_probe import ProbedAt
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.roles import Place, Role, place_words


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
    return all(transcript.problem.in_order for transcript in batch.transcripts)


def running_total(batch: Batch, step: int) -> Int[np.ndarray, " batch"]:
    """State index of `s_step` in every transcript. ValueError where a problem has no such step."""
    fewest = min(transcript.problem.k for transcript in batch.transcripts)
    if not 0 <= step < fewest:
        raise ValueError(f"no s_{step} in problems of {fewest} operands; their totals are s_0 to s_{fewest - 1}")
    return _totals(batch)[:, step]


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
    operands = all_operands(batch)
    number = np.arange(operands.shape[1])
    if not in_order(batch):
        totals = np.where(number <= last_written(batch, positions)[:, None], _totals(batch), -1)[:, 1:]
        return distinct_rows(np.column_stack([np.where(number < seen[:, None], operands, -1), totals]))
    known = (number < np.minimum(seen, step + 1)[:, None]) & ((number > start[:, None]) | (start == 0)[:, None])
    shown = np.where(start > 0, np.take_along_axis(_totals(batch), start[:, None], axis=1)[:, 0], -1)
    return distinct_rows(np.column_stack([start, shown, np.where(known, operands, -1)]))


def current_token(batch: Batch, positions: Int[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
    """One-hot current token beside one-hot position: what a probe can know without the model."""
    tokens = batch.tokens[torch.arange(len(batch), device=positions.device), positions]
    codes = (values.unique(return_inverse=True)[1] for values in (tokens, positions))
    return torch.cat([F.one_hot(code) for code in codes], dim=1).float()


def all_operands(batch: Batch) -> Int[np.ndarray, "batch k"]:
    """Operand indices of every problem, -1 beyond the last."""
    longest = max(transcript.problem.k for transcript in batch.transcripts)
    rows = [transcript.problem.operands for transcript in batch.transcripts]
    return np.array([(*row, *(-1,) * (longest - len(row))) for row in rows])


def _totals(batch: Batch) -> Int[np.ndarray, "batch k"]:
    """States s_0, s_1, ... of every problem, -1 beyond the last."""
    problems = [transcript.problem for transcript in batch.transcripts]
    longest = max(problem.k for problem in problems)
    return np.array([(problem.previous[0], *problem.totals, *(-1,) * (longest - problem.k)) for problem in problems])


READ_BYTES = 2**26


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
    for part, columns in _parts(first, list(dict.fromkeys(sites)), len(tokens), max_bytes):
        held = {site: first[site].new_empty(len(tokens), len(columns), first[site][0, 0].numel()) for site in part}
        at = positions[:, columns]
        for rows, found in stream_activations(model, tokens, part, positions=at, batch_size=batch_size):
            for site in part:
                held[site][rows] = found[site].flatten(2)
        for site in part:
            whole = held.pop(site)
            for number, column in enumerate(columns):
                yield site, column, whole[:, number]


def _parts(
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


SWEEP_BYTES = 2**29
WITH_STEPS = frozenset({Role.OPERAND, Role.PROMPT_END, Role.STEP_OPERAND, Role.EQUALS})
WITHOUT_STEPS = frozenset({Role.OPERAND, Role.PROMPT_END, Role.TRACE_START, Role.STEP_END})


def probe_totals(
    model: HookedModel,
    batch: Batch,
    *,
    test: Batch | None = None,
    untrained: HookedModel | None = None,
    sites: Sequence[Site] | None = None,
    places: Sequence[tuple[Role | str, int]] | None = None,
    targets: Sequence[int] | None = None,
    written: bool = False,
    coordinates: Mapping[str, Coordinate] | None = None,
    task: Task | None = None,
    n_renamings: int = 0,
    test_fraction: float = 0.25,
    n_controls: int = 1,
    n_shuffles: int = 1,
    penalty: float = 1.0,
    tolerance: float = 1e-4,
    max_bytes: int | None = None,
    keep: bool = False,
    seed: int = 0,
    batch_size: int | None = 256,
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

    Args:
        test: Problems to test on; by default a quarter of `batch`, by problem. A problem on both sides is refused.
        untrained: The same model at its initialization (another seed), probed with the same budget.
        sites: By default what enters each layer (`resid_pre`) and what leaves the last (`resid_post`).
        places: Role and step (-1 where it has none); by default `probe_places(batch)`.
        targets: Steps j whose total is the target; by default 1 to k-1, k the fewest operands of any problem here.
        written: Also probe where the target is the written symbol itself; an accuracy of 1 there says nothing.
        coordinates: Probe each total in all of these coordinates (`coordinates(task)`): `s_2`, `parity of s_2`, ...
        task: Whose problems these are; needed for renamings alone.
        n_renamings: How many renamings of the operands to fit as well (`null`), for `ProbeResult.scan`: 19 or
            more. Each costs as much as a control.
        max_bytes: About how much activations, features made ready and the fits that run together may take at a time,
            however many sites there are; by default 512 MiB. Less makes the model run more often.
        labels: Constant columns of the table: task, regime, seed.

    Other arguments are those of `fit_probes`.

    Raises:
        KeyError: A place that some transcript lacks.
        ValueError: A target beyond the shortest problem, nothing left to probe, and what `fit_probes` refuses.
        ProbeNotConverged: Names the cell.
    """
    everything = batch if test is None else _joined(batch, test)
    problems = distinct_rows(all_operands(everything))
    train = (
        hold_out(problems, fraction=test_fraction, seed=seed)
        if test is None
        else np.arange(len(everything)) < len(batch)
    )
    chosen = probe_places(everything) if places is None else [(Role(role), step) for role, step in places]
    if not chosen:
        raise ValueError("no places to probe; name some as (role, step), or leave them to probe_places(batch)")
    steps = _steps(everything, targets)
    sites = (*residual_sites(model), Site("resid_post", int(model.cfg.n_layers) - 1)) if sites is None else sites
    positions = torch.stack([everything.where(role, step, part=-1) for role, step in chosen], dim=1)
    check_split(problems, train)
    null = _Null.of(everything, task, n_renamings, seed)
    ordered = in_order(everything)
    columns: dict[int, _Column] = {}
    for number, (role, step) in enumerate(chosen):
        here = positions[:, number]
        wanted = [j for j in steps if written or not is_written(role, step, j, in_order=ordered)]
        if not wanted:
            continue
        asked = label_sets(
            {f"s_{j}": running_total(everything, j) for j in wanted},
            train,
            problems,
            {f"s_{j}": beginnings(everything, here, j) for j in wanted},
            coordinates=coordinates,
            renamed={} if null is None else null.labels(everything, here, wanted),
            n_controls=n_controls,
            n_shuffles=n_shuffles,
            seed=seed,
        )
        columns[number] = _Column(role, step, _words(everything, here, role, step), asked)
    if not columns:
        named = ", ".join(f"{role} {step}" for role, step in chosen)
        raise ValueError(f"at {named} the targets {steps} stand written; name other places, or written=True")
    total = SWEEP_BYTES if max_bytes is None else max_bytes
    # A quarter each for what is read, what waits to be fitted, and the fits; one for what comes and goes between.
    part = total // 4

    def questions() -> Iterator[Question]:
        at = positions[:, list(columns)]
        # The model is causal: what comes after the last place need not be run.
        seen = int(at.max()) + 1
        wanted = list(columns.values())
        for name, one in (("trained", model), ("untrained", untrained)):
            if one is None:
                continue
            for site, number, features in stream_places(
                one, everything.tokens[:, :seen], sites, at, max_bytes=part, batch_size=batch_size
            ):
                column = wanted[number]
                where = Readable.of(column.at(site, name), features, train, keep=keep)
                yield from (Question(where, labels) for labels in column.asked)
        for number, column in columns.items():
            features = current_token(everything, positions[:, number])
            where = Readable.of(column.at("input", "trained"), features, train, keep=keep)
            yield from (Question(where, labels.unnamed()) for labels in column.asked)

    fitting = Fitting(penalty=penalty, tolerance=tolerance, max_bytes=None if max_bytes is None else part)
    cells = answer_as_read(questions(), train, problems, fitting, max_bytes=part)
    sections = {(cell.at.model, cell.at.site == "input", cell.at.row): None for cell in cells}
    order = {section: number for number, section in enumerate(sorted(sections, key=lambda section: section[:2]))}
    cells.sort(key=lambda cell: order[cell.at.model, cell.at.site == "input", cell.at.row])
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
    """A place, and what is asked at it."""

    role: Role
    step: int
    words: str
    asked: Sequence[LabelSets]

    def at(self, site: Site | str, model: str) -> ProbedAt:
        """This place of a site of a model."""
        return as_place(site, role=self.role, step=self.step, model=model, place=self.words)


@dataclass(frozen=True, eq=False)
class _Null:
    """The renamings of one sweep, the same at all of its places."""

    task: Task
    operands: Int[np.ndarray, "n k"]
    names: Int[np.ndarray, "draws operands"]

    @classmethod
    def of(cls, batch: Batch, task: Task | None, n: int, seed: int) -> "_Null | None":
        """None where none are asked for. ValueError without a task, or for problems of several lengths."""
        if not n:
            return None
        operands = all_operands(batch)
        if task is None or (operands < 0).any():
            raise ValueError(
                f"{n} renamings need the task (task=), and problems that all have the same number of operands"
            )
        return cls(task, operands, renamings(task, operands, n, rng=np.random.default_rng([seed, 2])))

    def labels(
        self, batch: Batch, positions: Int[Tensor, " batch"], steps: Sequence[int]
    ) -> dict[str, Int[np.ndarray, "draws batch"]]:
        """Labels of each total under each renaming; totals that stand written at the place are left out."""
        after = int(last_written(batch, positions).max())
        shown = running_total(batch, after) if after else None
        return {
            f"s_{j}": renamed_totals(self.task, self.operands, j, self.names, after=after, shown=shown)
            for j in steps
            if j > after
        }


def _joined(batch: Batch, test: Batch) -> Batch:
    if batch.vocabulary != test.vocabulary:
        raise ValueError("the training and test batches have different vocabularies: no one model reads both")
    return collate((*batch.transcripts, *test.transcripts), batch.vocabulary).to(batch.tokens.device)


def _steps(batch: Batch, targets: Sequence[int] | None) -> list[int]:
    fewest = min(transcript.problem.k for transcript in batch.transcripts)
    return list(range(1, fewest)) if targets is None else list(targets)


def _words(batch: Batch, positions: Int[Tensor, " batch"], role: Role, step: int) -> str:
    """`equals 2 =`: role, step, and the symbol where it is the same in every transcript."""
    symbols = {batch.transcripts[row].tokens[at].symbol for row, at in enumerate(positions.tolist())}
    words = place_words(role, step)
    return f"{words} {symbols.pop()}" if len(symbols) == 1 else words
