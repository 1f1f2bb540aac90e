"""Is a variable of the task a causal variable of the model? Subspaces that are learned by exchanging them.

Distributed alignment search: at one site and place an orthonormal subspace is learned, by gradient through the model,
such that taking its coordinates from another problem's run (`x + P (source - x)`) makes the model write what the task's
oracle names for the exchanged variable (`transcripts.interchange_pairs`). The **interchange accuracy** (IIA) is the
share of held-out pairs in which it does: every symbol of the value, and the symbol after it. Base and source are the
whole of two problems, so a subspace that carries more than the variable is as wrong as one that carries less.

A subspace that was searched for may be found where there is nothing to find, so every fit stands beside

- `shuffled`: the same search on pairs whose counterfactuals were dealt out anew, asked about the true ones;
- `random`: subspaces of the same rank that move every example exactly as far;
- `unmapped` variables, fitted in the same way, which the model need not carry there (the only test that separates good
  alignments from any others in arXiv 2607.00267), and `rival` ones, which it would carry there if it worked otherwise;
- the same search in an untrained model;
- the whole activation (`full`), the ceiling where the place holds nothing else that the readout depends on, and
  everything but the subspace (`rest`), at which the variable should be left behind.

Pairs whose counterfactual value is the base's own are never among them. Maps are linear: others reach every accuracy on
models that compute nothing (arXiv 2507.08802). An accuracy of 1 does not show that the subspace is what the model uses
by itself (Makelov et al. 2023, arXiv 2311.17030), nor that it is the only one.

Geiger et al. 2023, arXiv 2303.02536; Wu et al. 2023, arXiv 2305.08809.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool

from cotinterp.figures.probing import causal_variables_figure
from cotinterp.mechanism.model import HookedModel, require_model
from cotinterp.mechanism.probing.subspaces import Subspace
from cotinterp.mechanism.sites import Site, residual_sites, site_columns
from cotinterp.mechanism.variables.das import (
    Bases,
    SubspaceSearch,
    own_accuracy,
    require_exchangeable,
)
from cotinterp.results import Result, wilson, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.interchange_pairs import interchange_pairs
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime
from cotinterp.transcripts.roles import Role, place_words

Hypothesis = Literal["mapped", "rival", "unmapped"]
Conclusion = Literal["carried", "not shown to be carried", "undecided"]


@dataclass(frozen=True, kw_only=True)
class VariableRule:
    """When a variable counts as carried at a site. Declared before looking, and the same for every site.

    - carried: the lower end of the interval of IIA is at least `min_iia`, and IIA lies `margin` or more above each of
      its controls: shuffled labels, the best random subspace, the same search in the untrained model where there is
      one, and every unmapped variable at this site.
    - undecided: fewer than `min_pairs` held-out pairs, or the model itself writes the base's value in less than
      `min_base` of them: what it does not compute it need not carry.
    - not shown to be carried: everything else.
    """

    min_iia: float = 0.75
    margin: float = 0.25
    min_base: float = 0.8
    min_pairs: int = 20


DECLARED = VariableRule()


@dataclass(frozen=True, kw_only=True, eq=False)
class VariableCell:
    """One variable at one site of one model: whether the model wrote the counterfactual, held-out pair by pair.

    Attributes:
        subspace: The one that was learned.
        learned, shuffled, full, rest, before: With the learned subspace exchanged, one learned on shuffled
            counterfactuals, the whole activation, all but the learned subspace, and nothing.
        random: With random subspaces that move as far as the learned one.
        train: With the learned subspace, on the pairs that it was learned on.
        base: Whether the model, left alone, writes the base's own value.
        dropped: Held-out problems of which no source tells base and counterfactual apart.
    """

    variable: str
    hypothesis: Hypothesis
    model: str
    site: Site
    place: tuple[Role, int]
    readout: tuple[Role, int]
    subspace: Subspace
    learned: Bool[np.ndarray, " batch"]
    shuffled: Bool[np.ndarray, " batch"]
    random: Bool[np.ndarray, "draws batch"]
    full: Bool[np.ndarray, " batch"]
    rest: Bool[np.ndarray, " batch"]
    before: Bool[np.ndarray, " batch"]
    train: Bool[np.ndarray, " train"]
    base: Bool[np.ndarray, " batch"]
    dropped: int

    @property
    def iia(self) -> float:
        """Share of held-out pairs in which the model writes the counterfactual."""
        return float(self.learned.mean())

    @property
    def controls(self) -> float:
        """The best of its own controls: shuffled counterfactuals, random subspaces."""
        return max(float(self.shuffled.mean()), float(self.random.mean(axis=1).max()))

    @property
    def row(self) -> dict[str, str | int | float]:
        """Its row of the table."""
        low, high = wilson(int(self.learned.sum()), len(self.learned))
        drawn = self.random.mean(axis=1)
        return {
            "model": self.model,
            "target": self.variable,
            "hypothesis": self.hypothesis,
            **site_columns(self.site),
            "role": self.place[0].value,
            "step": self.place[1],
            "readout": place_words(*self.readout),
            "rank": self.subspace.rank,
            "n": len(self.learned),
            "dropped": self.dropped,
            "iia": self.iia,
            "ci_low": low,
            "ci_high": high,
            "train_iia": float(self.train.mean()),
            "shuffled_iia": float(self.shuffled.mean()),
            "random_iia": float(drawn.mean()),
            "random_max": float(drawn.max()),
            "full_iia": float(self.full.mean()),
            "rest_iia": float(self.rest.mean()),
            "before_iia": float(self.before.mean()),
            "base_accuracy": float(self.base.mean()),
        }


@dataclass(frozen=True, eq=False)
class CausalVariables(Result):
    """Interchange accuracies of all variables, sites and models, per pair until the table; answers by `rule`."""

    cells: tuple[VariableCell, ...]
    rule: VariableRule
    labels: Mapping[str, str | int]

    @classmethod
    def joined(cls, results: Sequence["CausalVariables"]) -> "CausalVariables":
        """Several places of one model as one table. ValueError where rules or labels differ."""
        first = results[0]
        if any((other.rule, other.labels) != (first.rule, first.labels) for other in results):
            raise ValueError("only results of one rule and one run make one table")
        return cls(tuple(cell for result in results for cell in result.cells), first.rule, first.labels)

    def frame(self) -> pd.DataFrame:
        """A row per model, place, variable and site: IIA with Wilson's interval over held-out pairs, and its controls.

        `full_iia`, `rest_iia` and `before_iia` ask for the same counterfactual with the whole activation exchanged, all
        but the subspace, and nothing. `base_accuracy`: how often the model writes the base's own value.
        """
        rows = [
            {**cell.row, "answer": answer, "reason": reason}
            for cell, (answer, reason) in zip(self.cells, self.answers, strict=True)
        ]
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """IIA by site with its interval, beside the controls; a facet for each variable and model."""
        return causal_variables_figure(self.frame())

    @cached_property
    def answers(self) -> tuple[tuple[Conclusion, str], ...]:
        """For every cell the answer of the rule, and why in words."""
        return tuple(self._judged(cell) for cell in self.cells)

    def _judged(self, cell: VariableCell) -> tuple[Conclusion, str]:
        rule, n = self.rule, len(cell.learned)
        if n < rule.min_pairs:
            return "undecided", f"{n} held-out pairs; {rule.min_pairs} or more would decide"
        if cell.base.mean() < rule.min_base:
            return "undecided", f"the model itself writes the base's value in {cell.base.mean():.0%} of the pairs"
        beside = {"shuffled labels": float(cell.shuffled.mean()), "random": float(cell.random.mean(axis=1).max())}
        for other in self.cells:
            if (other.site, other.place) == (cell.site, cell.place) and other is not cell:
                if other.variable == cell.variable and other.model == "untrained" != cell.model:
                    beside["untrained"] = other.iia
                if other.hypothesis == "unmapped" and other.model == cell.model:
                    beside[f"unmapped {other.variable}"] = other.iia
        low = wilson(int(cell.learned.sum()), n).low
        numbers = {"whole activation": float(cell.full.mean()), **beside}
        said = f"IIA {cell.iia:.2f} (from {low:.2f}); " + ", ".join(f"{name} {of:.2f}" for name, of in numbers.items())
        carried = low >= rule.min_iia and all(cell.iia - value >= rule.margin for value in beside.values())
        return ("carried" if carried else "not shown to be carried"), said


def causal_variables(
    model: HookedModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    test: Sequence[Problem],
    *,
    place: tuple[Role | str, int],
    readout: tuple[Role | str, int],
    variables: Mapping[str, Hypothesis],
    first_symbol: bool = False,
    sites: Sequence[Site] | None = None,
    search: SubspaceSearch = SubspaceSearch(),
    rule: VariableRule = DECLARED,
    untrained: HookedModel | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> CausalVariables:
    """Learns a subspace for every variable at every site, on pairs of `problems`, and exchanges it in pairs of `test`.

    Args:
        place: Role and step at which the site is exchanged, of a value of several symbols at the last of them.
        readout: Role and step of the value that the model then writes. The base's own text stands before it.
        variables: By name (`s_2`, `x_3`, `s_2,x_3`; `interchange_pairs`), what each is: `mapped` where the hypothesis
            has it, `rival` where another mechanism would, `unmapped` where nothing needs it at the place. Without an
            unmapped one, nothing tells what the search itself can do.
        first_symbol: Ask for the first symbol of the value alone (`interchange_pairs`): where values have several, an
            exchange at one place reaches no more.
        sites: By default what enters each layer (`resid_pre`) and what leaves the last (`resid_post`), which are fast
            in native models; others are written by hooks.
        untrained: The same model at its initialization, searched alike.
        labels: Constant columns of the table: task, regime, run_seed.

    Raises:
        KeyError: A place or a readout that some transcript lacks.
        NoPairsError: A variable that can never matter at the readout.
        ValueError: A problem on both sides, no variables, a rank beyond the site's size, sites
            that cannot be written, a model in train mode or one that looks ahead.
    """
    require_model(model)
    sites = (*residual_sites(model), Site("resid_post", int(model.cfg.n_layers) - 1)) if sites is None else sites
    models = {"trained": model, **({} if untrained is None else {"untrained": untrained})}
    for one in models.values():
        require_exchangeable(one, sites)
    if not variables or not sites:
        raise ValueError("nothing to search for: give at least one variable and one site")
    if shared := set(problems) & set(test):
        raise ValueError(f"{len(shared)} problems are in both training and test, such as {next(iter(shared))}")
    device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
    cells = []
    for variable, hypothesis in variables.items():
        pairs, held_out = (
            interchange_pairs(
                task,
                side,
                regime,
                variable=variable,
                place=place,
                readout=readout,
                rng=np.random.default_rng([search.seed, number]),
                sources=sources,
                first_symbol=first_symbol,
            ).to(device)
            for number, (side, sources) in enumerate(((problems, search.sources), (test, 1)))
        )
        dealt = pairs.shuffled(np.random.default_rng([search.seed, 2]))
        for name, one in models.items():
            base = own_accuracy(one, held_out)
            known, shuffled, asked = (Bases.of(one, side, sites) for side in (pairs, dealt, held_out))
            for site in sites:
                learned, placebo = (side.at(site).learned(search) for side in (known, shuffled))
                exchange = asked.at(site)
                rng = np.random.default_rng([search.seed, 3])
                random = [Subspace.random(learned.d_site, learned.rank, rng) for _ in range(search.n_random)]
                cells.append(
                    VariableCell(
                        variable=variable,
                        hypothesis=hypothesis,
                        model=name,
                        site=site,
                        place=held_out.place,
                        readout=held_out.readout,
                        subspace=learned,
                        learned=exchange.written(learned),
                        shuffled=exchange.written(placebo),
                        random=np.stack([exchange.written(other, matched_to=learned) for other in random]),
                        full=exchange.written(None),
                        rest=exchange.written(learned.complement()),
                        before=exchange.written(Subspace(learned.basis[:, :0])),
                        train=known.at(site).written(learned),
                        base=base,
                        dropped=held_out.dropped,
                    )
                )
    return CausalVariables(tuple(cells), rule, dict(labels or {}))
