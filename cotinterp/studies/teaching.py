"""What a way of teaching left behind: one model asked for its answer at once, and asked to write its trace."""

from dataclasses import replace

import numpy as np
import pandas as pd

from cotinterp.studies.answers import answers, edits
from cotinterp.studies.evidence import joined, tally
from cotinterp.studies.instruments import evaluated
from cotinterp.studies.probes import probes
from cotinterp.studies.subject import Effort, Subject

TRACE = "cot"
"""The regime in which a trace is asked for: its prompts end with `>`."""


def as_taught(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows about one model that may have learned several ways of responding.

    - `exact`, condition `asked` or `trace`: held-out problems; 1 where the whole response is the right one and nothing
      else, asked in the regime of the subject and after the prompt of `cot`. A model that writes its trace where it was
      asked for the answer has not answered at once, right as its answer may be (`accuracy` counts it).
    - `accuracy` and its companions (`answers`), asked in the regime of the subject, which writes no totals.
    - `leakage`: held-out problems, so asked; 1 where the response begins a trace that was not asked for. 0 in regimes
      whose own responses begin with one (filler).
    - `edit`, `edit_by_step` (`edits`), asked as `cot`: none where no edited trace is followed or ignored.
    - `probe`, `probe_control`, `probe_use` and its companions (`probes`), in the prompt, asked in its own regime: can
      running totals be read inside before the answer, and is what is read used?

    What is decodable or used says nothing of where training put it: compare with the control of the same phases.

    Raises:
        ValueError: The subject is asked in a regime that writes totals.
    """
    if subject.writes_totals:
        raise ValueError(
            f"regime {subject.regime!r} writes totals: ask the model for its answer at once ('direct', 'direct-mode')"
        )
    traced = replace(subject, regime=TRACE)
    asked, written = (evaluated(one, effort).of_split("heldout") for one in (subject, traced))
    has_trace = subject.batch(subject.heldout(1)).transcripts[0].response.startswith("{")
    rows = [answers(subject, effort)]
    for condition, outputs in (("asked", asked), ("trace", written)):
        for k in sorted({one.problem.k for one in outputs}):
            exact = [one.exact for one in outputs if one.problem.k == k]
            rows.append(tally("exact", np.array(exact, dtype=float), k=k, condition=condition))
    for k in sorted({one.problem.k for one in asked}):
        leaked = [not has_trace and one.text.startswith("{") for one in asked if one.problem.k == k]
        rows.append(tally("leakage", np.array(leaked, dtype=float), k=k))
    return joined([*rows, edits(traced, effort), probes(subject, effort)])
