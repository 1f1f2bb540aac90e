"""Ours against what one would write otherwise: the same work, the same numbers, one run. `python -m benchmarks`.

`comparison` is one work done in two ways, `measurement` how the two are timed and checked; each work has a module:
`training_step`, `whole_run`, `greedy`, `sampled`, `rollouts`, `patching`, `path_patching`,
`edge_patching`, `probes`, `start_up`, `reproduction`.
"""
