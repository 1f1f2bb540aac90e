"""How a model does it: sites, activations, interventions, metrics, patching, probing, attribution.

Import from the modules; this package imports nothing, so that naming it costs nothing.
"""
