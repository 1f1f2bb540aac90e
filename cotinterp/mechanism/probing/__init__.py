"""What can be read off activations by a linear probe, what that is worth, and whether the model uses it.

`totals` probes running totals everywhere; `fit` any targets on any features; `scan` corrects for looking at many cells;
`use` intervenes on what a probe reads; `transfer` reads one place with the probe of another.
"""
