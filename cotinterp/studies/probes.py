"""Where running totals can be read before they are written, net of controls; and whether what is read is used."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import has_gap
from cotinterp.mechanism.probing.controls import FOLDS, Controls
from cotinterp.mechanism.probing.fit import MIN_TEST, MIN_TRAIN
from cotinterp.mechanism.probing.linear_probe import ProbedAt, fit_probe
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import probe_totals, running_total
from cotinterp.mechanism.probing.use import RandomSubspaces, UseTest, probe_use
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.studies.evidence import ProbeCondition, joined, tally
from cotinterp.studies.protocol import PROMPT_END, places_of, use_pairs, use_places
from cotinterp.studies.subject import Effort, Subject
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.problems import EmptySplitError, Problem, sample_problems
from cotinterp.transcripts.roles import Place, Role, place_words

SPARE = 2
"""Problems for each pair that is wanted: of a sum written in full, about half have a change of the same layout."""
PASS = 256
"""Most sequences that run together; they are short."""


def probe_uses(
    subject: Subject, effort: Effort, fitted: Batch, probed: Sequence[tuple[str, Place, int]] = ()
) -> pd.DataFrame:
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

    `probed`, where given, takes their place: the place by its word, and the total (`protocol.use_places`).

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
    probed = probed or use_places(fitted.transcripts[0], k=k)
    contrast = Contrast.from_pairs(use_pairs(subject, SPARE * effort.used, k=k)).select(slice(effort.used))
    sites = (*residual_sites(subject.model)[1:], Site("resid_post", int(subject.model.cfg.n_layers) - 1))
    positions = torch.stack([fitted.where(*place, part=-1) for _, place, _ in probed], dim=1)
    read = activations(subject.model, fitted.tokens, sites, positions=positions, batch_size=PASS)
    rows = []
    for column, (word, place, target) in enumerate(probed):
        truth = running_total(fitted, target)
        for site in sites:
            at = ProbedAt(site=site, role=str(place[0]), step=place[1])
            probe = fit_probe(read[site][:, column], truth, at=at, target=f"s_{target}")
            result = probe_use(
                subject.model,
                contrast,
                probe,
                site,
                place_words(*place),
                removal=None,
                copies=False,
                controls=RandomSubspaces(n=effort.random_subspaces),
                batch_size=PASS,
            )
            rows += _rows(
                result.cells[0].tests, k=k, step=target, condition=ProbeCondition(site=site.label, place=word)
            )
    return joined(rows)


def uses_on_the_way(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `probe_uses` where the answer is predicted (`prompt_end`), for totals before it that the pairs change.

    Of a model that answers at once. A total that a layer computes there and a later one reads is used before the last
    layer; of what leaves the last nothing is computed. No rows where no total comes before the answer.
    """
    k = subject.length(effort)
    steps = range(max(1, k // 2 - 1), k - 1)
    if not steps:
        return joined([])
    fitted = subject.batch(_probed_problems(subject, effort)[0])
    return probe_uses(subject, effort, fitted, [(PROMPT_END, (Role.PROMPT_END, -1), step) for step in steps])


def _rows(tests: tuple[UseTest, ...], *, k: int, step: int, condition: ProbeCondition) -> list[pd.DataFrame]:
    """The cells of one site and place: both directions net of the random subspaces, and the whole activation."""
    by_direction = {test.direction: test for test in tests}
    denoised, noised = by_direction["denoise"], by_direction["noise"]
    measured = {
        "probe_use": (denoised, denoised.change - denoised.random.mean(axis=0)),
        "probe_use_noise": (noised, noised.change - noised.random.mean(axis=0)),
        "probe_use_whole": (denoised, denoised.full),
    }
    rows = []
    for measure, (test, values) in measured.items():
        kept = has_gap(test.gap)
        rows.append(tally(measure, values[kept], trials=test.gap[kept], k=k, step=step, condition=condition))
    return rows


def totals_across_inputs(subject: Subject, effort: Effort) -> ProbeResult:
    """`probe_totals` with inputs left out, for each running total s_j, j = 1 to k-1, at every place of `places_of`.

    Fitted on problems of the training side, tested on held-out ones (`effort.probed` together, a quarter of them for
    the test). No cells where a side of the split has too few problems of this length to fit and test a probe.

    Raises:
        ValueError: A total takes so many values that the training problems hold hardly two of each, or too few test
            problems fall into one part of the inputs.
        ProbeNotConverged: Names the cell.
    """
    k = subject.length(effort)
    try:
        train, test = _probed_problems(subject, effort)
    except EmptySplitError:
        return ProbeResult((), subject.labels)
    if len(train) < MIN_TRAIN * FOLDS or len(test) < MIN_TEST * FOLDS:
        return ProbeResult((), subject.labels)
    fitted, tested = subject.batch(train), subject.batch(test)
    results = [
        probe_totals(
            subject.model,
            fitted,
            test=tested,
            places=[place],
            targets=[target],
            left_out="inputs",
            controls=Controls(untrained=subject.untrained, n_shuffles=0),
            fit=FitOptions(batch_size=PASS, max_bytes=effort.max_bytes),
        )
        for target in range(1, k)
        for place in places_of(fitted.transcripts[0], target).values()
    ]
    return ProbeResult(tuple(cell for result in results for cell in result.cells), subject.labels)


def probes(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `probe` and `probe_control`, and those of `probe_uses` (`probe_use`, its two companions).

    The cells of `totals_across_inputs`, test problem by test problem:

    - `probe`: 1 where the probe names the total of the test problem, else 0. A total that only one input makes (the
      sum 0) cannot be named.
    - `probe_control`: the same for a probe of the same size, fitted to a random label for each input (Hewitt & Liang
      2019, arXiv 1909.03368): what is gained by guessing.

    Condition `trained|L2.resid_pre|equals` (model, site, place), step = j. The model `untrained` is the subject's
    control at its initialization, where it has one; `input|input|equals` sees the current token and its position alone.
    What these read, training did not put there. In tasks where each operand permutes the totals, as in a group, a probe
    that goes by resemblance does worse than guessing, since inputs that resemble the new one make other totals.

    A total that can be decoded is present in linear form at that place; that does not show that the model uses it, and
    one that cannot may be present in another form. Nothing is corrected here for looking at many places. Errors are
    those of `totals_across_inputs`, and a ValueError where it has no cells.
    """
    result, k = totals_across_inputs(subject, effort), subject.length(effort)
    if not result.cells:
        raise ValueError(
            f"too few problems of {k} operands: a probe is fitted on {MIN_TRAIN * FOLDS} of the training side and "
            f"tested on {MIN_TEST * FOLDS} held-out ones"
        )
    fitted = subject.batch(_probed_problems(subject, effort)[0])
    found = []
    for cell in result.cells:
        step = int(cell.target.removeprefix("s_"))
        words = {place: word for word, place in places_of(fitted.transcripts[0], step).items()}
        model = "input" if cell.at.site == "input" else cell.at.model
        word = words[Role(cell.at.role), cell.at.step]
        condition = ProbeCondition(model=model, site=cell.at.label, place=word)
        found.append(tally("probe", cell.correct.astype(float), k=k, step=step, condition=condition))
        found.append(tally("probe_control", cell.control_correct, k=k, step=step, condition=condition))
    return joined([*found, probe_uses(subject, effort, fitted)])


def _probed_problems(subject: Subject, effort: Effort) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Problems to fit on and to test on. EmptySplitError where a side of the split has none of this length."""
    k, n_test = subject.length(effort), effort.probed // 4
    train = sample_problems(subject.task, k, effort.probed - n_test, split="train", rng=np.random.default_rng(0))
    return train, subject.heldout(n_test, k=k)
