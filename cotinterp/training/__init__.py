"""How a model learns: a spec decides everything, one loop trains every regime, and checkpoints are checked when read.

`spec.RunSpec` is a run as a value with a hash, `spec_file` its file and the fingerprint of its task. `data` is the
training set and which of its rows belong to which step; `packing` a batch without padding and its loss; `learner` one
update; `loop.train` all of them, resumable to the bit after a kill; `progress` the bar on the terminal and the log;
`checkpoints` training states and finished runs (`Run`, `load_run`, `list_runs`).

Names are imported from these modules; `spec` does not load torch.
"""
