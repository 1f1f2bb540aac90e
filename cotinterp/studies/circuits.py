"""Whether one circuit reads every written total, what forms first, what another seed has too, and what is a variable.

The measures behind `claims.circuits`, each of one model that writes its totals, on held-out problems. Sites and sizes
are chosen beforehand: at the equals sign, where the next total is computed, what enters the last layer and what its
attention brings (PLACES).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from cotinterp.mechanism.circuits import Edge, Graph, edge_scores, faithfulness_curve, kept_metrics
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.matching import match_heads
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probing.alignment import AlignmentMap, align_streams
from cotinterp.mechanism.sites import Kind, Site
from cotinterp.mechanism.variables.causal import Hypothesis, causal_variables
from cotinterp.mechanism.variables.das import SubspaceSearch
from cotinterp.studies.dynamics import training_dynamics
from cotinterp.studies.events import events
from cotinterp.studies.evidence import joined, tally
from cotinterp.studies.protocol import before_total
from cotinterp.studies.subject import Effort, Subject
from cotinterp.training.checkpoints import load_run
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.pairs import written_total_pairs
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.roles import Role

WANTED = 0.9
"""Of the logit difference, the share that a circuit keeps on the pairs that it is chosen on; the fewest first edges."""
RANDOM = 20
"""Circuits of as many random edges."""
SEARCH = SubspaceSearch(rank=16)
"""Of the subspaces; their rank is at most half the width of the model."""
PLACES: tuple[Kind, ...] = ("resid_pre", "attn_out")
"""Of the last layer: what enters it, and what its attention brings. What leaves it decides the logits by itself."""
OTHER = 1000
"""Between the seed of a model and that of the one it is held against, which no plan has at so few seeds."""
MOST = Effort(evaluated=200, edited=40, edits_per_step=1, probed=800, paired=64)
"""Most that is given to each moment of a training."""


def other_seed(spec: RunSpec) -> RunSpec:
    """The run that differs in its seed alone: initialization, order of the examples, which problems it was shown."""
    return spec.model_copy(update={"seed": spec.seed + OTHER, "snapshots": ()})


def kept_by_circuits(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `circuit_kept`: of the logit difference, what a circuit keeps while all other edges are corrupted.

    For each written total but the last, pairs in which it is another and the next total is read. On half of up to
    `effort.patched` pairs every edge is patched exactly (noising), and the circuit is the fewest first edges that keep
    WANTED; on the other half it is asked what it keeps, at its own step and at the others. Value: metric of the circuit
    minus that of the corrupted run, trials: of the clean run minus that, each summed over what is asked of a pair; step
    is the one whose total is changed. Conditions: `own`; `other` (circuits of the other steps); `random` (RANDOM times
    as many random edges as the own one has); `untrained` (as many first edges of the untrained model at this step).

    Edges have no places: that the same heads read another step does not show that they find it in the same way.
    NoPairsError where a total cannot be exchanged; ValueError where fewer than two steps have one.
    """
    k = subject.k_asked[1]
    steps = range(1, k - 1)
    if not subject.writes_totals or len(steps) < 2:
        raise ValueError(f"{k} operands and regime {subject.regime!r}: circuits of two steps need four written ones")
    problems, rng = subject.heldout(effort.patched, k=k), np.random.default_rng(subject.draw)
    known, new = dict[int, Contrast](), dict[int, Contrast]()
    for step in steps:
        readout = (Role.TOTAL, step + 1)
        pairs = written_total_pairs(
            subject.task, problems, subject.regime, step=step, rng=rng, readout=readout, first_symbol=True
        )
        contrast = Contrast.from_pairs(pairs)
        half = len(contrast) // 2
        known[step], new[step] = contrast.select(slice(half)), contrast.select(slice(half, None))
    own = {step: _circuit(subject.model, known[step]) for step in steps}
    every, rows = Graph.of(subject.model).edges, []
    for step, contrast in new.items():
        size = len(own[step])
        found = {"own": [own[step]], "other": [own[other] for other in steps if other != step]}
        drawn = (rng.choice(len(every), size, replace=False) for _ in range(RANDOM))
        found["random"] = [frozenset(every[i] for i in chosen) for chosen in drawn]
        if subject.untrained is not None:
            found["untrained"] = [edge_scores(subject.untrained, known[step], require_gap=False).top(size)]
        for name, circuits in found.items():
            clean, corrupted, *kept = kept_metrics(subject.model, contrast, [every, (), *circuits])
            value, gap = np.sum(kept, axis=0) - len(kept) * corrupted, len(kept) * (clean - corrupted)
            rows.append(tally("circuit_kept", value, trials=gap, k=k, step=step, condition=name))
    return joined(rows)


def _circuit(model: HookedModel, contrast: Contrast) -> frozenset[Edge]:
    """The fewest first edges by exact patching that keep WANTED."""
    scores = edge_scores(model, contrast)
    sizes = range(len(scores.edges) + 1)
    return faithfulness_curve(model, contrast, scores, sizes=sizes).smallest(WANTED)


def interchanged(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `interchange`: whether the model writes what the task's oracle names for an exchanged variable.

    At the equals sign before the last total (PLACES: in what enters the last layer, and what its attention brings) a
    subspace is learned for the total before (`previous`) and one for that to be written (`next`), on four times
    `effort.ready` problems of the training side, and exchanged in `effort.ready` held-out pairs (distributed alignment
    search, `mechanism.variables.causal`). Of values of several symbols the first is asked for. Condition, such as
    `next:resid_pre:total`: variable, site, and what was exchanged: `total`; `shuffled`, `random` (of outcomes dealt out
    anew, and random ones that move as far, their mean); `untrained`; `whole` (the whole activation). Of the variable
    `unmapped` (the first operand, which nothing needs there, fitted alike) `total` alone.
    """
    k = subject.length(effort)
    (place,) = before_total(subject.batch(subject.heldout(1, k=k)).transcripts[0], k - 1).values()
    known = sample_problems(
        subject.task, k, 4 * effort.ready, split="train", rng=np.random.default_rng([2, subject.draw])
    )
    names = {f"s_{k - 2}": "previous", f"s_{k - 1}": "next", "x_0": "unmapped"}
    hypotheses: dict[str, Hypothesis] = {name: "unmapped" if name == "x_0" else "mapped" for name in names}
    found = causal_variables(
        subject.model,
        subject.task,
        subject.regime,
        known,
        subject.heldout(effort.ready, k=k),
        place=place,
        readout=(Role.TOTAL, k - 1),
        variables=hypotheses,
        first_symbol=True,
        sites=[Site(name, int(subject.model.cfg.n_layers) - 1) for name in PLACES],
        search=replace(SEARCH, rank=min(SEARCH.rank, max(1, int(subject.model.cfg.d_model) // 2)), seed=subject.draw),
        untrained=subject.untrained,
    )
    rows = []
    for cell in found.cells:
        of = {"total": cell.learned}
        if cell.model == "untrained":
            of = {"untrained": cell.learned}
        elif cell.hypothesis == "mapped":
            of |= {"shuffled": cell.shuffled, "random": cell.random.mean(axis=0), "whole": cell.full}
        for name, values in of.items():
            at = f"{names[cell.variable]}:{cell.site.kind}:{name}"
            rows.append(tally("interchange", values.astype(float), k=k, step=k - 1, condition=at))
    return joined(rows)


def formed(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `event`: when a measure of `studies.dynamics` came halfway for good, in doublings, log2(1 + update).

    Condition: the measure, `attention`, `read_effect`, `step_table`, `next_total`, `accuracy` and the others. No row
    for one that did not rise by a tenth, or was not halfway for good before the last moments. At most MOST is given to
    each moment. ValueError for a model that is no run's, or whose run kept no weights on its way.
    """
    run = load_run(_folder(subject), task=subject.task, device=str(subject.device))
    least = {name: min(value, getattr(effort, name)) for name, value in vars(MOST).items() if value is not None}
    found = events(training_dynamics(run, replace(effort, **least)).frame())
    k = subject.length(effort)
    return joined(
        [
            tally("event", np.log2([1 + float(event)]), k=k, condition=str(measure))
            for measure, event, state in zip(found["measure"], found["event"], found["state"], strict=True)
            if state == "passed"
        ]
    )


def shared_with_another(subject: Subject, effort: Effort) -> pd.DataFrame:
    """`shared_with` the run of `other_seed` that lies beside this one.

    ValueError for a model that is no run's; CheckpointError where the other run is missing.
    """
    folder = _folder(subject)
    spec = other_seed(load_run(folder, task=subject.task).spec)
    other = load_run(folder.parent / spec.slug, task=subject.task, device=str(subject.device))
    return shared_with(other.model, subject, effort)


def shared_with(other: HookedModel, subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of what another model of the task has too, on `effort.probed` held-out problems.

    At the equals sign before each total, at PLACES of the last layer, what the other holds there is turned into this
    basis by orthogonal Procrustes (`mechanism.probing.alignment`). Conditions begin with the place, `attn_out:seed`:

    - `stream_shared`: of the variance of what this model holds, what the other explains (value, trials: squared
      distances, by problem). Conditions: `seed`; `untrained` (of the untrained model); `shuffled` (turned by what was
      fitted on problems dealt out anew).
    - `states_carry`: whether this model, given the other's state of another problem, writes what follows there; over
      the places of a problem. The same conditions, and `own` (this model's state of that problem).
    - `heads_shared`: of each head and its match, the attention that both pay (`match_heads`, by pattern); one row a
      head. Conditions, of no place: `seed`, `untrained`.
    """
    k, models = subject.k_asked[1], {"seed": other}
    if subject.untrained is not None:
        models["untrained"] = subject.untrained
    batch = subject.batch(subject.heldout(effort.probed, k=k))
    before = [next(iter(before_total(batch.transcripts[0], step).values())) for step in range(1, k)]
    places = [(*place, place[1]) for place in before]
    sites, rows = [Site(kind, int(subject.model.cfg.n_layers) - 1) for kind in PLACES], []
    maps: Sequence[AlignmentMap] = ("rotation", "shuffled")
    for name, model in models.items():
        aligned = align_streams({"own": subject.model, "other": model}, batch, places, sites=sites, seed=subject.draw)
        for site, how in product(sites, maps if name == "seed" else maps[:1]):
            cell = aligned.of("own", "other", site, how)
            at = f"{site.kind}:{name if how == 'rotation' else how}"
            explained = cell.spread - cell.error
            rows.append(tally("stream_shared", explained, trials=cell.spread, k=k, condition=at))
            rows.append(_carried(cell.follows, k, at))
            if at.endswith("seed"):
                rows.append(_carried(cell.home_follows, k, f"{site.kind}:own"))
        heads = match_heads(subject.model, model, batch, before, by="pattern", seed=subject.draw)
        rows.append(tally("heads_shared", heads.similarity, k=k, condition=name))
    return joined(rows)


def _carried(follows: Float[np.ndarray, "problem place"], k: int, condition: str) -> pd.DataFrame:
    """Over the places of a problem at which it can be told, how many followed."""
    told = ~np.isnan(follows)
    value, trials = np.nansum(follows, axis=1), told.sum(axis=1)
    kept = trials > 0
    return tally("states_carry", value[kept], trials=trials[kept], k=k, condition=condition)


def _folder(subject: Subject) -> Path:
    if subject.directory is None:
        raise ValueError("this model is no run's: what it was on its way, and other seeds of it, are not known")
    return subject.directory
