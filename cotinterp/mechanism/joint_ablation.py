"""Heads ablated together: what the readers do jointly, against as many other heads drawn at random.

Single ablations understate heads that stand in for one another; a joint ablation shows it. Losing several heads at once
also costs something whatever they do, and the random sets show that.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.head_evidence import intervals, relative
from cotinterp.mechanism.sites import Site


@dataclass(frozen=True)
class JointAblation:
    """Logit difference lost, in logits and per example, when several heads are resampled at once; NaN without a donor.

    Attributes:
        readers: The heads labeled as readers of some kind; possibly none.
        together: Lost without all of them; one row, or none where there are no readers.
        summed: The sum of what is lost without each alone, in the same form.
        random: Lost without random sets of as many other heads; no rows where there are too few others.
        clean: The clean logit difference.
    """

    readers: tuple[Site, ...]
    together: Float[Tensor, "one batch"]
    summed: Float[Tensor, "one batch"]
    random: Float[Tensor, "set batch"]
    clean: Float[Tensor, " batch"]

    @property
    def effect(self) -> float:
        """Share of the mean clean logit difference lost without any of the readers; NaN where no head is one.

        Above `summed_effect` the readers stood in for one another, and each alone looked less needed than it is.
        """
        return self._mean(self.together)

    @property
    def summed_effect(self) -> float:
        """The sum of the readers' single effects; NaN where no head is one."""
        return self._mean(self.summed)

    @property
    def random_effect(self) -> float:
        """What losing as many other heads costs, averaged over the random sets; NaN where there are none."""
        return self._mean(self.random)

    def frame(self) -> pd.DataFrame:
        """One row per ablation: readers, the sum of the single readers, each random set; empty without readers."""
        others = f"{len(self.readers)} others"
        named = " ".join(site.block for site in self.readers)
        parts = [("readers", named, self.together), ("sum of single readers", named, self.summed)]
        tables = [self._rows(name, heads, lost) for name, heads, lost in (*parts, ("random set", others, self.random))]
        return pd.concat(tables, ignore_index=True)

    def _mean(self, lost: Float[Tensor, "rows batch"]) -> float:
        return float(relative(lost, self.clean).mean()) if len(lost) else float("nan")

    def _rows(self, name: str, heads: str, lost: Float[Tensor, "rows batch"]) -> pd.DataFrame:
        shares = relative(lost, self.clean) if len(lost) else np.empty((0, 0))
        low, high = intervals(shares) if len(lost) else (np.empty(0), np.empty(0))
        effect = shares.mean(axis=1) if len(lost) else np.empty(0)
        return pd.DataFrame(
            {"set": name, "heads": heads, "effect": effect, "ci_low": low, "ci_high": high, "n": shares.shape[1]}
        )
