"""What a total is computed from: the written total before it or the prompt, and which reads it rests on.

`families` changes tokens of the prompt or the trace, `knock_outs` cuts what attention reads from them.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.knock_outs import RANDOM_SOURCES, Cuts, knock_out_reads
from cotinterp.mechanism.heads.reads import (
    EARLIER_OPERANDS_READ,
    NEXT_OPERAND_READ,
    PREVIOUS_TOTAL_READ,
    ReadPattern,
    ReadTarget,
)
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.metrics import has_gap, logit_diff
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.run_predictions import PREDICTIONS, predictions
from cotinterp.studies.evidence import ReadCondition, joined, tally
from cotinterp.studies.protocol import head_pairs, standard_families
from cotinterp.studies.subject import Effort, Subject
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.pairs import Pairs
from cotinterp.transcripts.roles import Role

ANSWER, FOIL = PREDICTIONS.index("answer"), PREDICTIONS.index("foil")


def families(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `family_effect` and `family_told_apart`, on up to `effort.paired` held-out problems.

    One question, total 2, under four changes of the same problems (`transcripts.pair_families`). A changed run is a
    patched run: what enters layer 0 at a place is made of the token there and its position, so replacing tokens is the
    same as writing the corrupted run's `resid_pre` of layer 0 at their places. The effect of a family is activation
    patching in the direction of noise, at all places of the change together, as a share of what changing everything
    does (Zhang & Nanda 2023, arXiv 2309.16042; Heimersheim & Nanda 2024, arXiv 2404.15255).

    The other direction needs no runs of its own. Denoising the trace in the run of `both`, where everything was
    changed, gives the prompt of `both` before the clean trace, which is the run of `prompt_operand`. So the share of
    the gap that denoising the trace restores is 1 - effect(`prompt_operand`): necessity and sufficiency of the trace
    are both here.

    - `family_effect`, condition `prompt_operand`, `written_total`, `unrelated` or `both`: value, in nats, how far the
      logit difference between answer and foil falls from the clean run to the changed one; trials, how far it falls
      under `both`. 1 says that the change does all that changing everything does, 0 that it does nothing. A model that
      reads the written total has written_total 1 and prompt_operand 0; one that works from the prompt again, the other
      way round. The changed total is the one that the changed operand would have given, so both ask for the same foil.
      The two need not add to 1: where either suffices the sum is below, where both are needed above. `both` is 1 by
      construction; `unrelated` is the control and belongs at 0. Pairs without a gap are dropped.
    - `family_told_apart`: 1 where the clean run puts the answer first and the run of `both` the foil, else 0. Where the
      model does not tell them apart, there is no gap, and a ratio of two small numbers says nothing.

    No rows for a regime that writes no totals, a task whose steps do not follow its operands in order, or with fewer
    than four operands. An effect says where a model looks, not which of its parts does. It is behavior under a trace
    that the model may never have been trained on.

    Raises:
        ValueError: No problem of the task has an admissible change.
    """
    k = subject.length(effort)
    if (asked := standard_families(subject, effort.paired, k=k)) is None:
        return joined([])
    both = asked["both"]
    clean, first = _read(subject.model, both, both.clean)
    read = {family: _read(subject.model, both, pairs.corrupted) for family, pairs in asked.items()}
    changed, other = read["both"]
    gap = clean - changed
    kept = has_gap(gap)
    apart = (first == ANSWER) & (other == FOIL)
    effects = [
        tally("family_effect", (clean - changed)[kept], trials=gap[kept], k=k, condition=family)
        for family, (changed, _) in read.items()
    ]
    return joined([*effects, tally("family_told_apart", apart.astype(float), k=k)])


def _read(
    model: HookedModel, asked: Pairs, shown: Batch
) -> tuple[Float[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Logit difference at the readout of `asked` when the model is shown `shown`, and what it puts first there."""
    logits = run_with(model, shown.tokens, [])
    difference = logit_diff(logits, asked.at, asked.answer, asked.foil).double().cpu().numpy()
    return difference, predictions(logits, asked.at, asked.answer, asked.foil)


KNOCK_OUT_OPERANDS = 3
"""Fewest operands with a written total before the last."""
READS = (PREVIOUS_TOTAL_READ, EARLIER_OPERANDS_READ, NEXT_OPERAND_READ)
ALL_VALUES_READ = ReadPattern(
    "all_values",
    (
        ReadTarget(
            Role.TOTAL, tuple(s for read in READS for t in read.targets if t.role is Role.TOTAL for s in t.sources)
        ),
    ),
)
"""Whatever the last total can be made of: the yardstick of the others."""


def knock_outs(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `read_lost`, on up to `effort.paired` held-out problems, read where the last total is written.

    Along one read, in all heads of all layers together and from every later position, what moves is replaced by the
    values of another problem of the same template (`mechanism.heads.knock_outs`, method resample; Geva et al. 2023,
    arXiv 2304.14767). Value: the logit difference lost, in nats, between the total that follows from the written total
    and the one that follows from another; mean of two donors. Trials: the clean logit difference. Their ratio is 0
    where the read is not needed. Where it is, a donor's value favors neither answer nor foil, and all is lost: 1, but
    for donors whose value leads to the same symbol, which cost nothing. These are many where a symbol says little of
    the total (the first digit of a sum), so that what is read and needed may lose one half; `all_values` says how much
    there is to lose. Above 1 the foil is preferred, below 0 the read was in the way.

    Conditions: `previous_total` (the written total before, with its copy in the step), `earlier_operands` (the operands
    that it is made of, in prompt and trace), `next_operand` (the one to be taken up), `all_values` (all of these
    together). Controls: `random:previous_total` and so on, as many tokens drawn among those that no read names, all of
    them where there are fewer; `stale_total`, totals before the previous one, which neither a reader nor a recomputer
    needs (from four operands on).

    Problems whose template no other shares have no donor and are left out; those that remain are counted in the rows.
    No rows for a regime that writes no totals, a task whose steps do not follow its operands in order, or with fewer
    than three operands. A clean
    difference near 0 (an untrained model) leaves nothing to lose. Neither loss tells in which head a read is made, nor
    what is computed before the sources: a total on its way to being written stays as it was.

    Raises:
        ValueError: A single problem is held out, none has an admissible change, or no two share a template.
    """
    k = subject.length(effort)
    if not subject.task.in_order or not subject.writes_totals or k < KNOCK_OUT_OPERANDS:
        return joined([])
    if len(subject.heldout(effort.paired, k=k)) < 2:
        raise ValueError(f"a single held-out problem of {k} operands; a read is cut by the values of another one")
    found = knock_out_reads(
        subject.model,
        Contrast.from_pairs(head_pairs(subject, effort.paired, k=k)),
        (*READS, ALL_VALUES_READ),
        cuts=Cuts(dests=["everywhere"], scopes=["all"], methods=["resample"]),
    )
    clean = found.clean.double().cpu().numpy()
    rows = []
    for cell, lost in zip(found.cells, found.lost, strict=True):
        known = lost.isfinite().cpu().numpy()
        values = lost.double().cpu().numpy()[known]
        rows.append(
            tally(
                "read_lost",
                values,
                trials=clean[known],
                k=k,
                condition=ReadCondition(cell.read, cell.control == RANDOM_SOURCES),
            )
        )
    return joined(rows)
