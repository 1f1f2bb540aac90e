"""Where running totals can be read before they are written, net of controls; and whether what is read is used."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.claims.evidence import joined, tally
from cotinterp.claims.measures.places import Place, places_of
from cotinterp.claims.measures.probe_use import probe_uses
from cotinterp.claims.subject import Effort, Subject
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.probing.cells import MIN_TEST, MIN_TRAIN
from cotinterp.mechanism.probing.fit import fit_probes
from cotinterp.mechanism.probing.place import ProbedAt, as_place
from cotinterp.mechanism.probing.rows import beginnings, current_token, running_total
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.problems import EmptySplitError, sample_problems

FOLDS = 4
"""Each quarter of the inputs is read by probes that were fitted on the other three."""
PASS = 256
"""Most sequences that run together; they are short."""

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
    total itself must lie in the same directions whatever it was made of. So the inputs are dealt into `FOLDS` parts
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
                condition = f"{key.model}|{key.row}|{word}"
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
    """Part of each row: whole inputs, dealt at random so that about as many test problems fall into each part."""
    kinds, index = np.unique(inputs, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(kinds))
    tested = np.bincount(index[~shown], minlength=len(kinds))[order]
    of_kind = np.empty(len(kinds), dtype=np.int64)
    of_kind[order] = np.minimum((tested.cumsum() - tested) * FOLDS // tested.sum(), FOLDS - 1)
    part: Int[np.ndarray, " n"] = of_kind[index]
    return part
