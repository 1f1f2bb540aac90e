"""The standard measurements of one trained model: on which problems, how much, and against which untrained twin.

A `Subject` is the model with all that has to be known about it, an `Effort` how much each measurement is given;
`protocol` says which pairs and places are studied. `study` runs one instrument as commands, scripts and the report do;
`measure` gives the rows of `Evidence` that claims are judged by. The public names are those of `__init__.pyi`, imported
when they are first asked for: reading a table of evidence need not load every instrument.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
