"""What tokens buy at inference: every method with every scorer, at growing budgets, on problems of one length.

Budgets are told as multiples of the longest right response, so that lengths and tasks can be laid side by side; what
was spent is counted (`behavior.search.spent`), operations of scorers among it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from cotinterp.behavior.search.labeled_steps import label_steps
from cotinterp.behavior.search.methods import METHODS
from cotinterp.behavior.search.scoring import SCORERS, Scorer, WorstStep
from cotinterp.behavior.search.writer import Search
from cotinterp.studies.subject import Subject
from cotinterp.studies.verifiers import fitted_probe, fitted_reward
from cotinterp.training.checkpoints import Run
from cotinterp.transcripts.problems import widest_problem
from cotinterp.transcripts.render import render

TIMES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
MOST_TIMES = {"greedy": 1.0, "sample": 1.0, "force": 2.0}
"""Budgets beyond which a method that writes one response has no use for more."""


def fitted_scorers(
    run: Run, lengths: Sequence[int], *, n: int = 300, updates: int = 2000, samples: int = 4, temperature: float = 1.0
) -> dict[str, Scorer]:
    """The scorers of a run by name: `oracle` and `likelihood`, and three that are fitted on its own samples.

    `probe` reads the residual stream before the middle layer (chosen beforehand), `process reward` and `outcome reward`
    are models of its own shape and seed, trained on the oracle's labels of steps and on the answers of whole responses.
    The first two judge a response by its worst step (`scoring.WorstStep`), the last one at its end. They see `samples`
    responses to each of `n` training problems of every length. One whose labels are all alike, as those of a model
    without errors are, is left out.
    """
    subject, rng = Subject.of_run(run), np.random.default_rng([run.spec.seed, 1])
    problems = sum((subject.trained(n, k=k) for k in lengths), ())
    steps = label_steps(
        run.model, run.task, subject.batch(problems), rng=rng, n_samples=samples, temperature=temperature
    )
    found: dict[str, Scorer] = dict(SCORERS)
    if _both_kinds(steps.right):
        for one in (fitted_probe(subject, steps), fitted_reward(subject, steps, updates=updates)):
            found[one.name] = WorstStep(one)
    if _both_kinds(steps.outcome[steps.texts.ended.numpy()]):
        found["outcome reward"] = fitted_reward(subject, steps, updates=updates, labels="outcome")
    return found


def accuracy_by_compute(
    subject: Subject,
    k: int,
    scorers: Mapping[str, Scorer],
    *,
    n: int = 100,
    times: Sequence[float] = TIMES,
    methods: Sequence[str] = tuple(METHODS),
) -> pd.DataFrame:
    """One row for each method, scorer and budget on `n` held-out problems of `k` operands, the seed's own.

    Columns of `Answers.frame` behind `times`, the budget over the tokens of the longest right response, rounded. What
    is drawn for a problem depends on the seed of the run alone, so that methods that choose among whole samples choose
    among the same. `force` must write as many steps as the budget is times the right number, or as many as fit.
    """
    batch = subject.batch(subject.heldout(n, k=k))
    longest = len(render(subject.task, widest_problem(subject.task, k), subject.regime).response)
    frames = []
    for name in methods:
        for scorer in scorers.values() if METHODS[name].scored else (None,):
            for often in times:
                if often > MOST_TIMES.get(name, often):
                    continue
                search = Search(least_steps=round(often * (k - 1)) if name == "force" else 0)
                rng = np.random.default_rng([subject.run_seed, k])
                budget = max(1, round(often * longest))
                answers = METHODS[name](subject.model, subject.task, batch, scorer, budget, rng=rng, search=search)
                frames.append(answers.frame().assign(times=often))
    return pd.concat(frames, ignore_index=True).assign(run_seed=subject.run_seed)


def _both_kinds(flags: Bool[np.ndarray, " step"]) -> bool:
    return bool(flags.any() and not flags.all())
