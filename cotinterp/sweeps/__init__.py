"""Many runs: which ones (grids, plans), where they are carried out (executors), and the one table of what came out.

The public names are those of `__init__.pyi`, imported when they are first asked for: a worker process that runs
something else need not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
