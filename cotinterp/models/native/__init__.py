"""The forward pass of native models, straight from their weights: no hooks, so that a caller computes what it needs.

`parts` takes a model apart; its `forward` puts the pieces together again, with the model's own logits. Training
without padding, decoding with a cache and patching from a prefix are other ways of putting them together.
"""
