"""Every setup of teaching in the same numbers, with intervals over seeds: what a table of setups is made of.

On what `studies.measuring.as_taught` measures of runs of `sweeps.designs.taught_plan`. A setup is a curriculum, its
control (`-control`), or `direct`. The claims about some of them are those of `claims.teaching`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cotinterp.behavior.edit_kinds import SUBSTITUTE
from cotinterp.claims.cells import Cells, EvidenceIndex, MissingEvidence, Statistic, Values
from cotinterp.claims.estimate import estimate
from cotinterp.claims.statistics import difference, net_decodable, over_lengths, used_in
from cotinterp.claims.teaching import DIRECT, NAIVE
from cotinterp.studies.evidence import CONTROL_VARIANT, EditCondition, Evidence
from cotinterp.training.curriculum import CURRICULA, taught
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.regimes import get_regime

BOUNDS = dict.fromkeys(("at once", "trace", "leakage", "follows"), (0.0, 1.0)) | {"used": (-np.inf, np.inf)}
"""What a measure cannot be below or above; a difference of two shares lies between -1 and 1."""
WIDEST = 2.0
"""Of an interval, from -1 to 1, of what has no such bounds."""


def setup_table(evidence: Evidence, task: str) -> pd.DataFrame:
    """A row for each setup of a task and measure: task, setup, measure, value, ci_low, ci_high, n, unconverged.

    - `at once`, `trace`: share of new problems of three operands and more (each number of them counts alike) whose
      response is right in every symbol, asked for the answer at once and for the trace.
    - `leakage`: share of the responses, asked at once, that begin a trace.
    - `follows`: share of the answers that follow a total that was edited in a right trace.
    - `totals L0` and so on: probe accuracy for total s_j at operand j in what leaves that layer, minus the best of its
      controls (random labels, an untrained model, the bare token), mean over j. There is not yet used.
    - `used`: share of the gap that exchanging what the probe reads closes beyond random directions (`used_in`).
    - `gain`: at once, minus `direct`. `content`: at once, minus the control.
    - `over all`, where traces were shown: with the trace, minus the best of all setups at once, seed by seed.
    - `forgotten`, there too: right with the trace, of `naive`, which is shown traces to the end, minus that of the
      setup. The trace is asked for and not begun: it may be known behind its brace (`analyses.forgetting` begins it).

    The interval is that of `estimate`, 95% over seeds and problems, cut where the number cannot be; of a single seed it
    is over problems alone. `n` counts seeds; `unconverged` names those of which a run that the number is made of had
    not learned or was ended by its budget. A measure that was not taken has no row, nor has one whose interval is wider
    than WIDEST: a share of a gap that is hardly one may be anything. Nothing is corrected for the number
    of rows. Runs that were not measured so, such as those of an encoder, are passed over.
    """
    index = EvidenceIndex(evidence.of_tasks([task]))
    cells = [key for key in index.cells if (key.task, key.measure, key.condition) == (task, "exact", "asked")]
    asked = {key.variant: key.regime for key in cells}
    rows = []
    for variant in asked:
        for measure, statistic in _measures(asked, variant, index.layers[task, asked[variant], variant]).items():
            try:
                one = estimate(statistic, index, task)
            except MissingEvidence:
                continue
            fields = one.row(BOUNDS.get(measure, (-1.0, 1.0)))
            if fields["ci_high"] - fields["ci_low"] <= WIDEST:
                rows.append({"task": task, "setup": variant or "direct", "measure": measure} | fields)
    return pd.DataFrame(rows)


def _measures(asked: Mapping[str, str], variant: str, layers: int) -> dict[str, Statistic]:
    """The statistics of a setup, by name; `asked` has the regime in which each setup is asked for its answer."""
    way: dict[str, Any] = {"regime": asked[variant], "variant": variant}
    at_once, traced = (partial(_right, asked=asked, variant=variant, condition=one) for one in ("asked", "trace"))
    follows = EditCondition(SUBSTITUTE, "follows")
    found: dict[str, Statistic] = {
        "at once": at_once,
        "trace": traced,
        "leakage": lambda cells: cells.mean("leakage", **way),
        "follows": lambda cells: cells.mean("edit", condition=follows, **way),
    }
    leaving = [*(f"L{layer}.resid_pre" for layer in range(1, layers)), f"L{layers - 1}.resid_post"]
    inside = partial(net_decodable, place="operand", **way)
    found |= {f"totals L{layer}": partial(inside, site=site) for layer, site in enumerate(leaving)}
    found["used"] = partial(used_in, place="operand", **way)
    for measure, other in (("gain", DIRECT), ("content", f"{variant}{CONTROL_VARIANT}")):
        if other in asked and variant != other:
            found[measure] = partial(_beyond, asked=asked, variant=variant, other=other)
    if _shown_traces(variant):
        found["over all"] = lambda cells: difference(traced(cells), _best(cells, asked))
        if NAIVE in asked:
            found["forgotten"] = lambda cells: difference(_right(cells, asked, NAIVE, "trace"), traced(cells))
    return found


def _right(cells: Cells, asked: Mapping[str, str], variant: str, condition: str = "asked") -> Values:
    """`teaching.exact`, of a setup that may be asked in any regime."""
    return over_lengths(cells, "exact", regime=asked[variant], variant=variant, condition=condition)


def _beyond(cells: Cells, asked: Mapping[str, str], variant: str, other: str) -> Values:
    return difference(_right(cells, asked, variant), _right(cells, asked, other))


def _best(cells: Cells, asked: Mapping[str, str]) -> Values:
    best: Values = np.max([_right(cells, asked, one) for one in asked if not one.endswith(CONTROL_VARIANT)], axis=0)
    return best


def _shown_traces(variant: str) -> bool:
    if variant not in CURRICULA:
        return False
    of_any_task = taught(variant, RunSpec(task="parity", regime="direct"))
    return any(get_regime(regime).writes_totals for regime in of_any_task.regimes)
