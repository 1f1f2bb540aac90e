"""What follows from evidence: claims with their rivals and thresholds, and verdicts with their reasons.

`catalog` holds the claims on trial. `Cells` are the numbers that the statistics of a claim are functions of, `estimate`
gives them an interval over trained models and problems, and `judge` the verdict. `depth_law` judges which law of depth
the frontiers of a sweep follow. `session` is what the command does. Nothing here runs a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
