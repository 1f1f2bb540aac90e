"""Which running totals can be read off the activations, where, and from which layer on.

A target `s_j` is the running total after step j. In a causal model nothing can hold `s_j` before operand j was read:
places before that are probed all the same, as cells in which no more may be found than the operands so far allow. A
total that has been written is the symbol at its own place, so such places are left out (`is_written`); the question is
whether it is there before that: at the operands and the end of the prompt, at the step's operand and its equals sign.
After a total was written, later places may simply look it up.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probe_controls import distinct_rows, hold_out
from cotinterp.mechanism.probe_fit import as_place, fit_probes
from cotinterp.mechanism.probe_result import ProbeCell, ProbedAt, ProbeResult
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.roles import Role

Place = tuple[Role, int]
"""A role and a step, -1 where the role belongs to none."""

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
    test_fraction: float = 0.25,
    n_controls: int = 1,
    n_shuffles: int = 1,
    penalty: float = 1.0,
    tolerance: float = 1e-4,
    seed: int = 0,
    batch_size: int | None = 256,
    labels: Mapping[str, str | int] | None = None,
) -> ProbeResult:
    """Linear probes for running totals at every place of every site, with controls, on problems unseen by the probe.

    The activations are those of a teacher-forced pass over the transcripts of `batch` by a causal model. A place is a
    role and a step, wherever in the transcript it stands; of a value of several characters it is the last, where the
    value is complete. The control task gives a random label to each distinct beginning of the problem, up to operand j
    or to the last operand that the place can see: early totals have few such beginnings, so a probe may store them, and
    then has no selectivity. Rows of the site `input` (layer -1) are the baseline that sees the current token and its
    position alone; they belong to no model and stand among the trained rows.

    Args:
        test: Problems to test on; by default a quarter of `batch`, by problem. A problem on both sides is refused.
        untrained: The same model at its initialization (another seed), probed with the same budget.
        sites: By default what enters each layer (`resid_pre`) and what leaves the last (`resid_post`).
        places: Role and step (-1 where it has none); by default `probe_places(batch)`.
        targets: Steps j whose total is the target; by default 1 to k-1, k the fewest operands of any problem here.
        written: Also probe where the target is the written symbol itself; an accuracy of 1 there says nothing.
        labels: Constant columns of the table: task, regime, seed.

    Other arguments are those of `fit_probes`.

    Raises:
        KeyError: A place that some transcript lacks.
        ValueError: A target beyond the shortest problem, nothing left to probe, and what `fit_probes` refuses.
        ProbeNotConverged: Names the cell.
    """
    everything = batch if test is None else _joined(batch, test)
    problems = distinct_rows(_operands(everything))
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
    read = {
        name: activations(one, everything.tokens, sites, positions=positions, batch_size=batch_size)
        for name, one in (("trained", model), ("untrained", untrained))
        if one is not None
    }
    cells: list[ProbeCell] = []
    for column, (role, step) in enumerate(chosen):
        here = positions[:, column]
        wanted = [j for j in steps if written or not is_written(role, step, j)]
        if not wanted:
            continue
        words = _words(everything, here, role, step)
        features = {
            as_place(site, role=role, step=step, model=name, place=words): found[site][:, column].flatten(1)
            for name, found in read.items()
            for site in sites
        }
        features[ProbedAt(site="input", role=role, step=step, place=words)] = current_token(everything, here)
        cells += fit_probes(
            features,
            {f"s_{j}": running_total(everything, j) for j in wanted},
            train,
            groups=problems,
            types={f"s_{j}": beginnings(everything, here, j) for j in wanted},
            n_controls=n_controls,
            n_shuffles=n_shuffles,
            penalty=penalty,
            tolerance=tolerance,
            seed=seed,
        ).cells
    if not cells:
        named = ", ".join(f"{role} {step}" for role, step in chosen)
        raise ValueError(f"at {named} the targets {steps} stand written; name other places, or written=True")
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


def is_written(role: Role, step: int, target: int) -> bool:
    """Whether this place is a symbol of `s_target` itself: the total, its copy in the next step, the answer."""
    return (role, step) in {
        (Role.TOTAL, target),
        (Role.PREVIOUS_TOTAL, target + 1),
        (Role.ANSWER, target),
        *([(Role.OPERAND, 0)] if target == 0 else []),
    }


def running_total(batch: Batch, step: int) -> Int[np.ndarray, " batch"]:
    """State index of `s_step` in every transcript. ValueError where a problem has no such step."""
    fewest = min(transcript.problem.k for transcript in batch.transcripts)
    if not 0 <= step < fewest:
        raise ValueError(f"no s_{step} in problems of {fewest} operands; their totals are s_0 to s_{fewest - 1}")
    problems = [transcript.problem for transcript in batch.transcripts]
    return np.array([problem.totals[step - 1] if step else problem.previous[0] for problem in problems])


def beginnings(batch: Batch, positions: Int[Tensor, " batch"], step: int) -> Int[np.ndarray, " batch"]:
    """A number for operands 0..step, as far as they stand at or before `positions`: all that `s_step` can be there."""
    place = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    seen = (batch.mask(Role.OPERAND) & (place <= positions[:, None])).sum(1).cpu().numpy()
    operands = _operands(batch)
    known = np.arange(operands.shape[1]) < np.minimum(seen, step + 1)[:, None]
    return distinct_rows(np.where(known, operands, -1))


def current_token(batch: Batch, positions: Int[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
    """One-hot current token beside one-hot position: what a probe can know without the model."""
    tokens = batch.tokens[torch.arange(len(batch), device=positions.device), positions]
    codes = (values.unique(return_inverse=True)[1] for values in (tokens, positions))
    return torch.cat([F.one_hot(code) for code in codes], dim=1).float()


def _joined(batch: Batch, test: Batch) -> Batch:
    if batch.vocabulary != test.vocabulary:
        raise ValueError("the training and test batches have different vocabularies: no one model reads both")
    return collate((*batch.transcripts, *test.transcripts), batch.vocabulary).to(batch.tokens.device)


def _operands(batch: Batch) -> Int[np.ndarray, "batch k"]:
    """Operand indices of every problem, -1 beyond the last."""
    longest = max(transcript.problem.k for transcript in batch.transcripts)
    rows = [transcript.problem.operands for transcript in batch.transcripts]
    return np.array([(*row, *(-1,) * (longest - len(row))) for row in rows])


def _steps(batch: Batch, targets: Sequence[int] | None) -> list[int]:
    fewest = min(transcript.problem.k for transcript in batch.transcripts)
    return list(range(1, fewest)) if targets is None else list(targets)


def _words(batch: Batch, positions: Int[Tensor, " batch"], role: Role, step: int) -> str:
    """`equals 2 =`: role, step, and the symbol where it is the same in every transcript."""
    symbols = {batch.transcripts[row].tokens[at].symbol for row, at in enumerate(positions.tolist())}
    words = str(role).replace("_", " ") + (f" {step}" if step >= 0 else "")
    return f"{words} {symbols.pop()}" if len(symbols) == 1 else words
