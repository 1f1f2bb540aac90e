# %% [markdown]
# # Explore inside a notebook
#
# The explorer of `cotinterp explore`, over a session that you hold: what you click can be asked in Python, and the
# other way round (`pip install cotinterp[notebook]`).

# %%
from cotinterp.explore.session import Explorer, Scene
from cotinterp.explore.widget import ExplorerWidget

explorer = Explorer.load("digit-sum-direct-L4-s0-93146b24", "digit-sum-cot-L4-s0-3be51c67")
ExplorerWidget(explorer)

# %% [markdown]
# Total 2 is written as 15 instead of 12, and the model goes on:

# %%
written = explorer.write(Scene(model=1, operands=(3, 4, 5, 6), total=(2, 15)))
"".join(token["symbol"] for token in written["tokens"]), written["outcome"]

# %% [markdown]
# The call that gives these numbers, without the explorer:

# %%
print(written["python"])
