# %% [markdown]
# # Probe a reference model
#
# Where can a running total be read before it is written, is it more than its inputs, and does the model use it?

# %%
import numpy as np

from cotinterp import collate, load_run, probe_totals, render, sample_problems
from cotinterp.mechanism.probing.controls import Controls
from cotinterp.studies.subject import Subject

run = load_run("s3-cot-L4-s0-42df236d")
run


# %%
def batch(side, n):
    """Problems of one side of the split, as the model writes them."""
    problems = sample_problems(run.task, 4, n, split=side, rng=np.random.default_rng(0))
    return collate([render(run.task, problem, "cot") for problem in problems], run.vocabulary)


train, heldout = batch("train", 600), batch("heldout", 200)
train

# %% [markdown]
# A probe is fitted on problems of the training side and tested on held-out ones. Beside its accuracy stand that of a
# control task (a random label for each distinct input: what a probe can store) and that of a model at its
# initialization.

# %%
controls = Controls(untrained=Subject.of_run(run).untrained)
found = probe_totals(run.model, train, test=heldout, places=[("equals", 2), ("operand", 2)], controls=controls)
found.frame().query("target == 's_2'")[["model", "site", "role", "accuracy", "selectivity"]].round(2)

# %% [markdown]
# At `=` the total is there, and so is any function of its two inputs: selectivity is near 0, so that decodability
# says nothing more. What is used is asked by an intervention.

# %%
from cotinterp import Contrast, Site, activations, fit_probe, probe_use, running_total
from cotinterp.studies.protocol import use_pairs

site = Site("resid_pre", 3)
read = activations(run.model, train.tokens, [site], positions=train.where("equals", 3, part=-1))
probe = fit_probe(read[site], running_total(train, 3), at=site, target="s_3")
pairs = use_pairs(Subject.of_run(run), 60, k=4)
used = probe_use(run.model, Contrast.from_pairs(pairs), probe, site, "equals 3")
used.frame()
