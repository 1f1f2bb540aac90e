"""Heads ablated together: what some heads do jointly, against as many other heads drawn at random.

Single ablations understate heads that stand in for one another; a joint ablation shows it. Losing several heads at once
also costs something whatever they do, and the random sets show that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.heads.ablation import ablate_heads
from cotinterp.mechanism.heads.attribution import LogitContrast
from cotinterp.mechanism.heads.evidence import intervals, relative, simultaneous
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, head_sites


@dataclass(frozen=True)
class JointAblation:
    """Logit difference lost, in logits and per example, when several heads are resampled at once; NaN without a donor.

    Attributes:
        readers: The heads in question: those labeled as readers, or all that look at one read; possibly none.
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
        """One row per ablation: readers, the sum of the single readers, each random set; empty without readers.

        `p`: of an effect of 0, for this row alone (sign flips over examples). The readers' joint loss is one test,
        declared beforehand by what they are, not picked from the rows.
        """
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
        columns = {
            "set": name,
            "heads": heads,
            "effect": shares.mean(axis=1) if len(lost) else np.empty(0),
            "ci_low": low,
            "ci_high": high,
            "p": [float(simultaneous(row[None]).p[0]) for row in shares],
            "n": shares.shape[1],
        }
        return pd.DataFrame(columns)


def ablate_jointly(
    model: HookedModel,
    contrast: LogitContrast,
    single: Float[Tensor, "head batch"],
    clean: Float[Tensor, " batch"],
    heads: Sequence[int],
    donors: Int[np.ndarray, "draw batch"],
    *,
    n_random_sets: int,
    rng: np.random.Generator,
    batch_size: int | None = None,
) -> JointAblation:
    """`heads` (indices into `head_sites`) resampled together, and `n_random_sets` sets of as many others.

    `single` is what each head of the model loses alone, from the same donors. Where fewer others are left than `heads`,
    there are no random sets.
    """
    sites = head_sites(model)
    others = [index for index in range(len(sites)) if index not in heads]
    n_sets = n_random_sets if 0 < len(heads) <= len(others) else 0
    random = [rng.choice(others, size=len(heads), replace=False).tolist() for _ in range(n_sets)]
    chosen = [list(heads), *random] if heads else []
    lost = ablate_heads(model, contrast, [[sites[i] for i in some] for some in chosen], donors, batch_size=batch_size)
    return JointAblation(
        readers=tuple(sites[index] for index in heads),
        together=lost[:1],
        summed=single[list(heads)].sum(dim=0, keepdim=True)[: len(lost[:1])],
        random=lost[1:],
        clean=clean,
    )
