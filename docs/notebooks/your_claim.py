# %% [markdown]
# # Write a claim
#
# A claim names its statistic, thresholds and rivals before anything is measured. A statistic is arithmetic on the
# cells of one seed.

# %%
from functools import partial

from cotinterp import Claim, judge, read_evidence
from cotinterp.claims import Cells, Criterion, Rival, Threshold, Values


def lost(cells: Cells, regime: str) -> Values:
    """Held-out accuracy at the shortest length minus that at the longest."""
    accuracy = partial(cells.mean, "accuracy", regime=regime, condition="heldout")
    ks = cells.ks("accuracy", regime=regime, condition="heldout")
    return accuracy(k=ks[0]) - accuracy(k=ks[-1])


TENTH = Threshold(0.1, "a tenth of the problems")
LENGTH_COSTS = Claim(
    name="length-costs-direct",
    statement="Longer problems cost direct accuracy, and cot none.",
    source="this notebook",
    criteria=(
        Criterion("direct", "accuracy of direct lost with length", partial(lost, regime="direct"), TENTH),
        Criterion("cot", "accuracy of cot lost with length", partial(lost, regime="cot"), TENTH),
    ),
    predicts={"direct": "above", "cot": "below"},
    rivals=(Rival("length costs both", "neither keeps up", {"direct": "above", "cot": "above"}),),
)

# %% [markdown]
# It is judged on the evidence that travels with the package, and on any of your own.

# %%
evidence = read_evidence("analyses/out")
evidence

# %%
judge(LENGTH_COSTS, evidence, task="s3")

# %%
judge(LENGTH_COSTS, evidence, task="digit-sum").reason
