"""Who learns it: small transformers from specs, as TransformerLens native bridges.

`spec.ModelSpec` is the shape of a model as a value; `build` makes the module that learns (`build_module`) and the
bridge that instruments read (`build_model`, `as_bridge`), and picks a device; `weights` hashes, writes and reads what
was learned; `flops.Cost` counts what a model computes. `decoding` and `sampling` write with a model, which learning
from rewards needs as well as every measurement. `native` is the forward pass of native models without hooks, and
`handmade` has models whose mechanism is known because their weights were written by hand.

Names are imported from these modules; `spec` and `flops` do not load torch.
"""
