# %% [markdown]
# # Bring your own task, to a verdict
#
# A task is a class of some 20 lines. It is its own oracle: data, labels, probe targets and expected edits follow from
# `step`.

# %%
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from cotinterp import accuracy_by_k, check_task, judge_all, render, sample_problems, train
from cotinterp.claims.catalog import CATALOG
from cotinterp.sweeps.replication import Measuring, base_spec, plan, replicate

folder = Path(mkdtemp())
(folder / "remainder.py").write_text(
    '''
from cotinterp import FoldTask


class RemainderMod7(FoldTask):
    """The number that the digits spell, modulo 7."""

    name, operands, operator, commutative = "remainder-mod7", "0123456", ",", False

    def step(self, total, operand):
        return (10 * total + operand) % 7
'''
)
reference = f"{folder}/remainder.py:RemainderMod7"

# %% [markdown]
# What is declared is measured: whether every total can be reached, whether the order matters.

# %%
from cotinterp import get_task

task = get_task(reference)
check_task(task)
problem = sample_problems(task, 4, 1, split="heldout", rng=np.random.default_rng(0))[0]
[render(task, problem, regime).text for regime in ("direct", "cot")]

# %% [markdown]
# One small model, and what it does. Two hundred updates are a look; verdicts want models that have learned.

# %%
base = base_spec(reference, k_max=4, n_layers=1, steps=200)
run = train(base.model_copy(update={"regime": "cot", "precision": "fp32"}), directory=folder / "one", device="cpu")
problems = sample_problems(task, 4, 100, split="heldout", rng=np.random.default_rng(0))
accuracy_by_k(run.model, task, "cot", {"heldout": problems})

# %% [markdown]
# The claims need several seeds of several regimes. Here two seeds of a tiny design: every verdict has to be open, and
# says what it lacks.

# %%
tiny = base_spec(reference, k_max=3, n_layers=1, steps=20)
planned = plan(reference, seeds=range(2), base=tiny, parts=["regimes"])
from cotinterp.studies.subject import QUICK_EVIDENCE

measuring = Measuring(effort=QUICK_EVIDENCE, jobs=0, store=folder / "rows")
evidence = replicate(planned, root=folder / "runs", measuring=measuring)
verdicts = judge_all(CATALOG, evidence)
verdicts.frame()[["claim", "verdict", "seeds"]]

# %%
verdicts.verdicts[0]
