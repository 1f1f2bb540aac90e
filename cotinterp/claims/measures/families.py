"""What a total is computed from, the written total before it or the operands of the prompt: patching their tokens.

One question, total 2, under four changes of the same problems (`transcripts.pair_families`). A changed run is a patched
run: what enters layer 0 at a place is made of the token there and its position, so writing the corrupted run's
`resid_pre` of layer 0 at the places of the changed tokens is the same as replacing the tokens. The effect of a family
is therefore activation patching in the direction of noise, at layer 0 and at all places of the change together, in
units of the change of everything (Zhang & Nanda 2023, arXiv 2309.16042; Heimersheim & Nanda 2024, arXiv 2404.15255).

The other direction needs no runs of its own. In the run of `both` everything was changed; to denoise its trace, that is
to write the clean run's `resid_pre` of layer 0 at every place of the response, gives the prompt of `both` before the
clean trace: the run of `prompt_operand`. So the share of the gap that denoising the trace restores is
1 - effect(prompt_operand), and necessity and sufficiency of the trace are both in this table.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cotinterp.claims.evidence import joined, tally
from cotinterp.claims.subject import Effort, Subject
from cotinterp.mechanism.effects import has_gap
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.run_predictions import PREDICTIONS, predictions
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.pairs import Pairs

STEP = 2
"""The total that is asked about: the first one that a written total stands before."""
FEWEST = STEP + 2
"""Fewest operands: the unrelated one comes after the step."""
ANSWER, FOIL = PREDICTIONS.index("answer"), PREDICTIONS.index("foil")


def families(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `family_effect` and `family_told_apart`, on up to `effort.paired` held-out problems.

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
    than four operands. Where a model looks, not which of its
    parts does: behavior under a trace that it may never have been trained on.

    Raises:
        ValueError: No problem of the task has an admissible change.
    """
    k = subject.length(effort)
    if not subject.task.in_order or not subject.writes_totals or k < FEWEST:
        return joined([])
    asked = pair_families(
        subject.task, subject.heldout(effort.paired, k=k), subject.regime, step=STEP, rng=np.random.default_rng(0)
    )
    both = asked["both"]
    clean, first = _read(subject.model, both, both.clean)
    read = {family: _read(subject.model, both, pairs.corrupted) for family, pairs in asked.items()}
    changed, other = read["both"]
    gap = clean - changed
    kept = has_gap(gap)
    told = (first == ANSWER) & (other == FOIL)
    effects = [
        tally("family_effect", (clean - changed)[kept], trials=gap[kept], k=k, condition=family)
        for family, (changed, _) in read.items()
    ]
    return joined([*effects, tally("family_told_apart", told.astype(float), k=k)])


def _read(
    model: HookedModel, asked: Pairs, shown: Batch
) -> tuple[Float[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Logit difference at the readout of `asked` when the model is shown `shown`, and what it puts first there."""
    logits = run_with(model, shown.tokens, [])
    difference = logit_diff(logits, asked.at, asked.answer, asked.foil).double().cpu().numpy()
    return difference, predictions(logits, asked.at, asked.answer, asked.foil)
