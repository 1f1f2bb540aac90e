"""Spending tokens when a model answers: many samples, votes, verified choices, trees of steps, forced thinking.

Every method is called as `(model, task, batch, scorer, budget, *, rng, search=...)` and returns `Answers`: what was
chosen for each problem, and what it cost in tokens, passes and operations (`Spent`), which are counted and not timed.
`METHODS` has them by name. A `Scorer` says how promising what was written so far looks.

Names are imported from these modules.
"""
