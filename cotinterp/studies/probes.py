"""Where running totals can be read before they are written, net of controls; and whether what is read is used."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import has_gap
from cotinterp.mechanism.probing.fit import MIN_TEST, MIN_TRAIN, fit_probes
from cotinterp.mechanism.probing.linear_probe import ProbedAt, as_place, fit_probe
from cotinterp.mechanism.probing.totals import beginnings, current_token, running_total
from cotinterp.mechanism.probing.use import Trial, probe_use
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.studies.evidence import ProbeCondition, joined, tally
from cotinterp.studies.protocol import OPERAND, PROMPT_END, before_total, places_of, use_pairs
from cotinterp.studies.subject import Effort, Subject
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.problems import EmptySplitError, sample_problems
from cotinterp.transcripts.roles import Place, Role, place_words

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
                place_words(*place),
                removal=None,
                n_random=effort.random_subspaces,
                batch_size=PASS,
            )
            rows += _rows(
                result.cells[0].trials, k=k, step=target, condition=ProbeCondition(site=site.label, place=word)
            )
    return joined(rows)


def _probed(subject: Subject, fitted: Batch, k: int) -> list[Probed]:
    """What is probed where: the two questions of the regime."""
    if subject.writes_totals:
        last = before_total(fitted.transcripts[0], k - 1)
        return [(word, place, target) for word, place in last.items() for target in (k - 2, k - 1) if target]
    return [(OPERAND, (Role.OPERAND, k // 2), k // 2), (PROMPT_END, (Role.PROMPT_END, -1), k - 1)]


def _rows(trials: tuple[Trial, ...], *, k: int, step: int, condition: ProbeCondition) -> list[pd.DataFrame]:
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


FOLDS = 4
"""Each quarter of the inputs is read by probes that were fitted on the other three."""
Features = Mapping[ProbedAt, Float[Tensor, "n d_feature"]]


def probes(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `probe` and `probe_control`, and those of `probe_uses` (`probe_use`, its two companions).

    A linear probe (multinomial logistic) for each running total s_j, j = 1 to k-1, at every place of `places_of`, at
    what enters each layer and what leaves the last.

    Fitted on problems of the training side, tested on held-out ones (`effort.probed` together, a quarter of them for
    the test), and on inputs that the probe was not fitted on. An input is what s_j is made of at the place: the last
    written total and the operands since, or all operands up to j. Of these there may be few, 36 for a step of six
    states and six operands; in a hundred dimensions nearly any function of 36 inputs is linear, the true one, a random
    one, and in an untrained model too. Such a probe has stored a table. To read an input that was never shown it, the
    total itself must lie in the same directions whatever it was made of. So the inputs are split into `FOLDS` parts
    of about as many test problems each, and a test problem is read by the probe that was fitted without its part.

    - `probe`: 1 where the probe names the total of the test problem, else 0. A total that only one input makes (the
      sum 0) cannot be named.
    - `probe_control`: the same for a probe of the same size, fitted to a random label for each input (Hewitt & Liang
      2019, arXiv 1909.03368): what is gained by guessing.

    Condition `trained|L2.resid_pre|equals` (model, site, place), step = j. The model `untrained` is the subject's
    control at its initialization, where it has one; `input|input|equals` sees the current token and its position alone.
    What these read, training did not put there. In tasks where each operand permutes the totals, as in a group, a probe
    that goes by resemblance does worse than guessing, since inputs that resemble the new one make other totals.

    A total that can be decoded is present in linear form at that place; that does not show that the model uses it, and
    one that cannot may be present in another form. Nothing is corrected here for looking at many places. No rows where
    a side of the split has too few problems of this length to fit and test a probe.

    Raises:
        ValueError: A total takes so many values that the training problems hold hardly two of each, or too few test
            problems fall into one part.
        ProbeNotConverged: Names the cell.
    """
    k = subject.length(effort)
    n_test = effort.probed // 4
    try:
        train = sample_problems(subject.task, k, effort.probed - n_test, split="train", rng=np.random.default_rng(0))
        test = subject.heldout(n_test, k=k)
    except EmptySplitError:
        return joined([])
    if len(train) < MIN_TRAIN * FOLDS or len(test) < MIN_TEST * FOLDS:
        return joined([])
    fitted, batch = subject.batch(train), subject.batch((*train, *test))
    shown = np.arange(len(batch)) < len(train)
    found = []
    for target in range(1, k):
        truth = running_total(batch, target)
        for word, place in places_of(batch.transcripts[0], target).items():
            at = batch.where(*place, part=-1)
            read = _read(subject, batch, place, at)
            for key, (right, control) in _across_inputs(read, truth, shown, beginnings(batch, at, target)).items():
                condition = ProbeCondition(model=key.model, site=key.row, place=word)
                found.append(tally("probe", right, k=k, step=target, condition=condition))
                found.append(tally("probe_control", control, k=k, step=target, condition=condition))
    return joined([*found, probe_uses(subject, effort, fitted)])


def _read(subject: Subject, batch: Batch, place: Place, at: Int[Tensor, " n"]) -> Features:
    """What is held at one place: by the model and its control at every site, and by the token that stands there."""
    role, step = str(place[0]), place[1]
    sites = (*residual_sites(subject.model), Site("resid_post", int(subject.model.cfg.n_layers) - 1))
    held: dict[ProbedAt, Tensor] = {as_place("input", role=role, step=step, model="input"): current_token(batch, at)}
    seen = batch.tokens[:, : int(at.max()) + 1]
    for name, model in (("trained", subject.model), ("untrained", subject.untrained)):
        if model is not None:
            read = activations(model, seen, sites, positions=at, batch_size=PASS)
            held |= {as_place(site, role=role, step=step, model=name): rows for site, rows in read.items()}
    return held


def _across_inputs(
    read: Features, truth: Int[np.ndarray, " n"], shown: Bool[np.ndarray, " n"], inputs: Int[np.ndarray, " n"]
) -> dict[ProbedAt, tuple[Float[np.ndarray, " tested"], Float[np.ndarray, " tested"]]]:
    """For all features, whether each test problem's total is named by the probe fitted without its input, and the
    same of the control; one order of problems for all."""
    part = _parts(shown, inputs)
    found: dict[ProbedAt, list[tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]] = defaultdict(list)
    for fold in range(FOLDS):
        rows = np.flatnonzero(np.where(shown, part != fold, part == fold))
        chosen = torch.from_numpy(rows)
        result = fit_probes(
            {key: features[chosen.to(features.device)] for key, features in read.items()},
            {"total": truth[rows]},
            train=shown[rows],
            types={"total": inputs[rows]},
            n_shuffles=0,
        )
        for cell in result.cells:
            found[cell.at].append((cell.correct.astype(float), cell.control_correct))
    return {
        key: (np.concatenate([right for right, _ in folds]), np.concatenate([control for _, control in folds]))
        for key, folds in found.items()
    }


def _parts(shown: Bool[np.ndarray, " n"], inputs: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Part of each row: whole inputs, at random, so that about as many test problems fall into each part."""
    kinds, index = np.unique(inputs, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(kinds))
    tested = np.bincount(index[~shown], minlength=len(kinds))[order]
    of_kind = np.empty(len(kinds), dtype=np.int64)
    of_kind[order] = np.minimum((tested.cumsum() - tested) * FOLDS // tested.sum(), FOLDS - 1)
    part: Int[np.ndarray, " n"] = of_kind[index]
    return part
