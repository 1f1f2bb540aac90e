"""The numbers of the serial-compute simulator: what each law asks of depth, and what depth and tokens offer.

The page computes them anew in the browser whenever a slider moves; what it says is held to what these functions say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, log2

import numpy as np
import pandas as pd

from cotinterp.depth.cost import answer_lengths
from cotinterp.depth.laws import LAWS, Law
from cotinterp.models.flops import Cost
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import Task, get_task
from cotinterp.transcripts.vocabulary import Vocabulary

REGIMES = ("direct", "cot")
MOST_LAYERS, MOST_OPERANDS = 12, 64
PLAIN_MODEL = ModelSpec(n_layers=1, d_model=64, n_heads=4, d_mlp=256, n_ctx=512)
PLAIN_VOCABULARY = 16
"""Width and symbols where no task is chosen: those of the measured z6 and s3 models."""
ALMOST = 1e-9
"""Taken off before rounding up, so that (K - 1) / b is not a layer too many by rounding alone."""

LENGTH_COLUMNS = (
    *("task", "regime", "k", "d_vocab", "prompt_tokens", "response_tokens", "tokens_before_answer"),
    *("tokens_read", "attention_pairs"),
)


@dataclass(frozen=True)
class Sliders:
    """Where the sliders stand.

    Attributes:
        n_layers: L.
        k: Operands, K.
        b: Operands that a layer adds under the linear law; levels of a tree that it does under the logarithmic one.
        enough: Layers from which the constant law solves every length, c.
        floor: Longest problem of the constant law below that, and of no depth at all, k0.
        step_tokens: Tokens that a written step takes, its separator included; only where no task is chosen.
    """

    n_layers: int = 4
    k: int = 12
    b: float = 1.0
    enough: int = 2
    floor: int = 2
    step_tokens: int = 6


def layers_needed(law: Law, k: int, at: Sliders) -> int | None:
    """Fewest layers that solve `k` operands in one pass if `law` holds (`cotinterp.depth.laws`); None: none do."""
    if law == "linear":
        return max(1, ceil((k - 1) / at.b - ALMOST))
    if law == "logarithmic":
        return max(1, ceil(log2(k) / at.b - ALMOST))
    if k <= at.floor:
        return 1
    return at.enough if law == "constant" else None


def longest_solved(law: Law, n_layers: int | float, at: Sliders) -> float:
    """K*, the longest problem that `n_layers` solve if `law` holds; infinity where every length is solved."""
    if law == "linear":
        return 1 + at.b * n_layers
    if law == "logarithmic":
        return float(2 ** (at.b * n_layers))
    return inf if law == "constant" and n_layers >= at.enough else float(at.floor)


@dataclass(frozen=True)
class Lengths:
    """Tokens of a right answer to problems of one length; means over problems."""

    prompt: float
    response: float
    before: float
    read: float
    pairs: float


def plain_lengths(regime: str, k: int, at: Sliders) -> Lengths:
    """Where no task is chosen: states of one symbol, `<a*b*c>`, `d#`, and a trace between two braces.

    A written step takes `step_tokens`, the sign that separates it from the next among them; six are what `cot` writes.
    """
    prompt = 2.0 * k + 1
    before = at.step_tokens * (k - 1) + 1.0 if regime == "cot" else 0.0
    read = prompt + before + 2 - 1
    return Lengths(prompt, before + 2, before, read, read * (read + 1) / 2)


def length_table(tasks: Mapping[str, Task] | Sequence[str], ks: range = range(2, MOST_OPERANDS + 1)) -> pd.DataFrame:
    """LENGTH_COLUMNS for every task, regime (direct, cot) and K: what the page needs to count tokens and operations.

    Means over up to 200 held-out problems; of one where all states take one symbol, for then all transcripts of one
    length are equally long. Lengths that a task has not are left out. KeyError for a name that is no task.
    """
    named = tasks if isinstance(tasks, Mapping) else {name: get_task(name) for name in tasks}
    rows = []
    for name, task in named.items():
        n = 1 if len(np.unique(task.state_widths)) == 1 else 200
        for regime in REGIMES:
            for k in (k for k in ks if task.min_k <= k <= task.max_k):
                found = answer_lengths(task, regime, k, n=n)
                counted = (found.prompt, found.response, found.before_answer, found.read, found.pairs)
                rows.append((name, regime, k, len(Vocabulary.of(task)), *(float(part.mean()) for part in counted)))
    return pd.DataFrame(rows, columns=list(LENGTH_COLUMNS))


@dataclass(frozen=True)
class Simulator:
    """What the simulator counts with: models and answer lengths of one task, or of none in particular.

    Attributes:
        model: Their width; its depth is not read.
        d_vocab: Symbols.
        by_regime: Lengths by regime and K; empty where no task is chosen (`plain_lengths`).
    """

    model: ModelSpec
    d_vocab: int
    by_regime: Mapping[str, Mapping[int, Lengths]]

    @classmethod
    def of(cls, model: ModelSpec, table: pd.DataFrame) -> "Simulator":
        """From the rows of one task in `length_table`. ValueError where there are none."""
        if table.empty:
            raise ValueError("no lengths of that task: make them with `length_table`, its own task in hand")
        columns = ["prompt_tokens", "response_tokens", "tokens_before_answer", "tokens_read", "attention_pairs"]
        found: dict[str, dict[int, Lengths]] = {regime: {} for regime in REGIMES}
        for regime, k, *counted in table[["regime", "k", *columns]].itertuples(index=False, name=None):
            found[regime][k] = Lengths(*counted)
        return cls(model, int(table["d_vocab"].iloc[0]), found)

    @property
    def longest(self) -> int:
        """Largest K that there is."""
        return max(self.by_regime["cot"]) if self.by_regime else MOST_OPERANDS

    def lengths(self, regime: str, at: Sliders) -> Lengths:
        """Tokens of a right answer in that regime where the sliders stand."""
        return self.by_regime[regime][at.k] if self.by_regime else plain_lengths(regime, at.k, at)

    def readouts(self, at: Sliders) -> dict[str, float | None]:
        """Every number that the page prints where the sliders stand, by the name that it has there.

        `needed.<law>` layers for one pass (None: no number of layers), `prompt.<regime>` tokens given,
        `response.<regime>` tokens written R, `operations.<regime>` R * L, `slots.<regime>` layers that can serve the
        answer's first symbol, `flops.<regime>` matrix products with a cache of keys (`cotinterp.depth.cost`).
        """
        asked = {law: layers_needed(law, at.k, at) for law in LAWS}
        numbers = {f"needed.{law}": None if need is None else float(need) for law, need in asked.items()}
        cost = Cost(self.model.model_copy(update={"n_layers": at.n_layers}), self.d_vocab)
        for regime in REGIMES:
            lengths = self.lengths(regime, at)
            numbers[f"prompt.{regime}"] = lengths.prompt
            numbers[f"response.{regime}"] = lengths.response
            numbers[f"operations.{regime}"] = lengths.response * at.n_layers
            numbers[f"slots.{regime}"] = at.n_layers * (1 + lengths.before)
            numbers[f"flops.{regime}"] = cost.reading(lengths.read, lengths.pairs, lengths.response)
        return numbers


NO_TASK = Simulator(PLAIN_MODEL, PLAIN_VOCABULARY, {})
"""No task in particular."""
