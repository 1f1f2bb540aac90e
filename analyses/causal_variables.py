"""Are the running totals causal variables of a model, and where?

At a place of a transcript a subspace is learned for each variable of the task, such that taking it from another
problem's run makes the model write what the task computes from the other's value (distributed alignment search; Geiger
et al. 2023, arXiv 2303.02536). Where totals are written, the last but one is asked about at each token of the last step
up to the equals sign, together with the step's operand, and the last total at the equals sign; in `direct` the total
so far at its operand, and the answer at the end of the prompt. Of values of several symbols the first is asked for.
Beside them stand a total of another step, the first operand, an untrained model, shuffled labels, random subspaces and
the whole activation.

    python -m analyses.causal_variables [--quick]
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from analyses.publishing import publish, reference_runs
from cotinterp import Site, Subject, sample_problems
from cotinterp.cli.parsing import script
from cotinterp.mechanism.variables.causal import CausalVariables, Hypothesis, VariableCell, causal_variables
from cotinterp.mechanism.variables.das import SubspaceSearch
from cotinterp.training.checkpoints import Run
from cotinterp.transcripts.roles import Place, Role, place_words

K = 4
QUICK = SubspaceSearch(rank=4, steps=3, sources=1, n_random=2)


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/causal_variables")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    results = {f"{run.task.name}-{run.spec.regime}": aligned(run, quick=quick) for run in reference_runs(root)}
    return publish(
        out,
        tables={f"causal_variables-{name}": result.frame() for name, result in results.items()},
        figures={f"causal_variables-{name}": result.figure() for name, result in results.items()},
        answer=[line for name, result in results.items() for line in answer(name, result)],
    )


def asked(*, written: bool) -> Iterator[tuple[Place, dict[str, Hypothesis]]]:
    """Places, and what is asked about there: the totals s_1 to s_{K-1} of a problem of K operands x_0 to x_{K-1}."""
    before, last, operand = f"s_{K - 2}", f"s_{K - 1}", f"x_{K - 1}"
    if written:
        yield (Role.PREVIOUS_TOTAL, K - 1), {before: "mapped", f"s_{K - 3}": "rival", "x_0": "unmapped"}
        yield (Role.STEP_OPERAND, K - 1), {operand: "mapped", before: "rival", "x_0": "unmapped"}
        yield (Role.EQUALS, K - 1), {before: "mapped", operand: "mapped", last: "mapped", "x_0": "unmapped"}
    else:
        yield (Role.OPERAND, K - 2), {before: "mapped", f"x_{K - 2}": "rival", operand: "unmapped"}
        yield (Role.PROMPT_END, -1), {last: "mapped", before: "rival", "x_0": "unmapped"}


def aligned(run: Run, *, quick: bool) -> CausalVariables:
    """Every variable of one run at every place and site, as one table."""
    subject = Subject.of_run(run)
    n_train, n_test = (24, 20) if quick else (500, 200)
    train = sample_problems(run.task, K, n_train, split="train", rng=np.random.default_rng(0))
    n_layers = int(run.model.cfg.n_layers)
    sites = [Site("resid_pre", layer) for layer in range(n_layers)]
    return CausalVariables.joined(
        [
            causal_variables(
                run.model,
                run.task,
                run.spec.regime,
                train,
                subject.heldout(n_test, k=K),
                place=place,
                readout=(Role.TOTAL if subject.writes_totals else Role.ANSWER, K - 1),
                variables=variables,
                first_symbol=True,
                sites=sites[1:2] if quick else sites,
                search=QUICK if quick else SubspaceSearch(rank=16),
                untrained=None if quick else subject.untrained,
                labels=run.labels,
            )
            for place, variables in asked(written=subject.writes_totals)
        ]
    )


def answer(name: str, result: CausalVariables) -> list[str]:
    """One line a variable and place of the trained model, at the site where its accuracy is highest."""
    best: dict[tuple[Place, str], tuple[VariableCell, str, str]] = {}
    for cell, (found, reason) in zip(result.cells, result.answers, strict=True):
        key = (cell.place, cell.variable)
        if cell.model == "trained" and (key not in best or cell.iia > best[key][0].iia):
            best[key] = (cell, found, reason)
    return [
        f"{name}, {cell.variable} ({cell.hypothesis}) at {place_words(*cell.place)}, {cell.site}: {found}; {reason}"
        for cell, found, reason in best.values()
    ]


if __name__ == "__main__":
    script(main, __doc__)
