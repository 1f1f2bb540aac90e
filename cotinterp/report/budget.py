"""The serial-budget picture in numbers: what is to be computed in sequence, and how many passes there are for it."""

from math import ceil, log2

import numpy as np
import pandas as pd

from cotinterp.report.schema import SCHEMAS
from cotinterp.tasks import Task
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import Role


def serial_budget(task: Task, regime: str, *, n_layers: int, ks: range, n: int = 200, seed: int = 0) -> pd.DataFrame:
    """One row a K: the additions of the serial fold, the levels of a tree, and what a regime offers for them.

    `additions` is K - 1; `tree_levels` is ceil(log2 K), enough for any associative fold. `response_tokens` is the mean
    length R of the right response over `n` held-out problems, END included; each token is one pass through `n_layers`
    layers, so `layer_operations` is R * L. `slots_before_answer` counts only what can still serve the answer's first
    symbol: L, and L more for every token that is written before it. These are capacities of the picture, not
    measurements of a model: nothing says that a model uses them so.
    """
    rows = []
    for k in ks:
        problems = sample_problems(task, k, n, split="heldout", rng=np.random.default_rng([seed, k]))
        transcripts = [render(task, problem, regime) for problem in problems]
        tokens = float(np.mean([len(transcript.response) for transcript in transcripts]))
        before = float(np.mean([_before_answer(transcript) for transcript in transcripts]))
        slots = n_layers * (1 + before)
        rows.append((task.name, regime, k, n_layers, k - 1, ceil(log2(k)), tokens, tokens * n_layers, slots))
    return pd.DataFrame(rows, columns=list(SCHEMAS["budget"].columns))


def _before_answer(transcript: Transcript) -> int:
    """Tokens of the response that are written before the answer's first symbol."""
    roles = [token.role for token in transcript.tokens[transcript.n_prompt :]]
    return roles.index(Role.ANSWER)
