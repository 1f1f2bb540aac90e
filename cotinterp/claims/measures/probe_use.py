"""Whether a running total that a probe reads is what the model goes on with: what is read is exchanged."""

import numpy as np
import pandas as pd
import torch

from cotinterp.claims.evidence import joined, tally
from cotinterp.claims.measures.places import OPERAND, PROMPT_END, Place, before_total
from cotinterp.claims.subject import Effort, Subject
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast, place_label
from cotinterp.mechanism.effects import has_gap
from cotinterp.mechanism.probing.linear_probe import fit_probe
from cotinterp.mechanism.probing.place import as_place
from cotinterp.mechanism.probing.totals import running_total
from cotinterp.mechanism.probing.use import probe_use
from cotinterp.mechanism.probing.use_result import Trial
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.pairs import Pairs, operand_pairs
from cotinterp.transcripts.roles import Role

Probed = tuple[str, Place, int]
"""A place by its word, its role and step, and the total that is probed there."""

SPARE = 2
"""Problems for each pair that is wanted: of a sum written in full, about half have a change of the same layout."""
PASS = 256
"""Most sequences that run together; they are short."""


def probe_uses(subject: Subject, effort: Effort, fitted: Batch) -> pd.DataFrame:
    """Rows of `probe_use`, `probe_use_noise`, `probe_use_whole`, on up to `effort.used` pairs of held-out problems.

    What a linear probe for a total reads at one place is taken from the other run of the pair, and nothing else
    (`mechanism.probing.use`, interchange). Values are per pair and in nats; trials: the gap between the two runs.

    - `probe_use`: how far the logit difference of the corrupted run moves when the clean reading is written into it
      (does it suffice?), minus how far it moves on average when one of `effort.random_subspaces` random subspaces of
      the same rank is written instead, which move the activation exactly as far. 0 says: no more than any directions.
    - `probe_use_noise`: the same with the corrupted reading written into the clean run (is it needed?).
    - `probe_use_whole`: the movement when the whole activation is written, nothing subtracted: 1 where everything that
      tells the runs apart passes through this place, 0 where nothing does. What no activation carries, no probe can.

    A random subspace that moves the activation as far holds a part of the same difference, about the square root of
    its share of the dimensions. So a total that carries everything does not reach 1 after the subtraction, the less so
    the more values it takes: of 30 directions among 128 about one half.

    The pairs: operand k // 2 - 1 of the prompt is another, and everything that the response says of it on the way, so
    that a model that is right tells them apart however it works. Read is the last total where totals are written, else
    the answer. Pairs without a gap are dropped. Condition `L2.resid_pre|equals` (site, place), step = the total that
    the probe reads. Sites are what enters each layer but the first, and what leaves the last. Places and totals:

    - Where totals are written, the symbol before the last total (`equals`; in `totals` `before_total`): the total
      before, which was written and may have been brought here to be used, and the last one, about to be written.
    - Else total k // 2 at its `operand`, the first that comes after the change, where both runs have the same symbol
      and differ in nothing but what attention brought; and the answer at `prompt_end`.

    `equals`, `before_total` and `prompt_end` are where the logits are read. What leaves the last layer there is decoded
    into the answer by the model itself: use in such a cell shows that the intervention works, not that a total is used
    on the way. "No more than random" speaks of this place alone; a copy elsewhere may be used.

    Probes are fitted on `fitted`: problems of the training side. Geiger et al. 2021, arXiv 2106.02997; Makelov et al.
    2023, arXiv 2311.17030.

    Raises:
        ValueError: No problem has an admissible change; too few random subspaces; a total with a single value.
        ProbeNotConverged: Names the cell.
    """
    k = subject.length(effort)
    probed = _probed(subject, fitted, k)
    contrast = Contrast.from_pairs(use_pairs(subject, SPARE * effort.used, k=k)).select(slice(effort.used))
    sites = (*residual_sites(subject.model)[1:], Site("resid_post", int(subject.model.cfg.n_layers) - 1))
    positions = torch.stack([fitted.where(*place, part=-1) for _, place, _ in probed], dim=1)
    read = activations(subject.model, fitted.tokens, sites, positions=positions, batch_size=PASS)
    rows = []
    for column, (word, place, target) in enumerate(probed):
        truth = running_total(fitted, target)
        for site in sites:
            at = as_place(site, role=str(place[0]), step=place[1])
            probe = fit_probe(read[site][:, column], truth, at=at, target=f"s_{target}")
            result = probe_use(
                subject.model,
                contrast,
                probe,
                site,
                place_label(*place),
                removal=None,
                n_random=effort.random_subspaces,
                batch_size=PASS,
            )
            rows += _rows(result.cells[0].trials, k=k, step=target, condition=f"{site.label}|{word}")
    return joined(rows)


def use_pairs(subject: Subject, n: int, *, k: int) -> Pairs:
    """Up to `n` held-out problems with prompt operand k // 2 - 1 replaced, and all that follows from it on the way.

    Read at the last total where totals are written, else at the answer. ValueError where no problem has such a pair.
    """
    return operand_pairs(
        subject.task,
        subject.heldout(n, k=k),
        subject.regime,
        index=k // 2 - 1,
        rng=np.random.default_rng(0),
        readout=(Role.TOTAL if subject.writes_totals else Role.ANSWER, k - 1),
        first_symbol=True,
    )


def _probed(subject: Subject, fitted: Batch, k: int) -> list[Probed]:
    """What is probed where: the two questions of the regime."""
    if subject.writes_totals:
        last = before_total(fitted.transcripts[0], k - 1)
        return [(word, place, target) for word, place in last.items() for target in (k - 2, k - 1) if target]
    return [(OPERAND, (Role.OPERAND, k // 2), k // 2), (PROMPT_END, (Role.PROMPT_END, -1), k - 1)]


def _rows(trials: tuple[Trial, ...], *, k: int, step: int, condition: str) -> list[pd.DataFrame]:
    """The cells of one site and place: both directions net of the random subspaces, and the whole activation."""
    by_direction = {trial.direction: trial for trial in trials}
    denoised, noised = by_direction["denoise"], by_direction["noise"]
    measured = {
        "probe_use": (denoised, denoised.change - denoised.random.mean(axis=0)),
        "probe_use_noise": (noised, noised.change - noised.random.mean(axis=0)),
        "probe_use_whole": (denoised, denoised.full),
    }
    rows = []
    for measure, (trial, values) in measured.items():
        kept = has_gap(trial.gap)
        rows.append(tally(measure, values[kept], trials=trial.gap[kept], k=k, step=step, condition=condition))
    return rows
