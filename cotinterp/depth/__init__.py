"""What many runs say of depth: the frontier of solved lengths, the laws fitted to it, what tokens and layers cost.

The public names are those of `__init__.pyi`, imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
