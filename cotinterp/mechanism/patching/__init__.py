"""Which places, heads and paths carry the difference between two runs.

`sweep` patches every place; `path_patching` one way at a time; `attribution_patching` estimates all of them from one
gradient, and says how well. `scan` corrects for looking at many; `run_predictions` says what is to be explained at all.
"""
