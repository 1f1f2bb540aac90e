"""What a model does: accuracy, where outputs go wrong, edits of the trace, memorization.

Each instrument is called as `(model, task, regime, problems, *, ...)` and returns a frozen result. `Decoding` says how
much a model may write. Nothing here looks inside the model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
