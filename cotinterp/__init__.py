"""cotinterp: what written reasoning tokens buy a fixed-depth transformer, and by which mechanism.

The table of contents is `__init__.pyi`. A name is imported when it is first asked for, so `import cotinterp` is cheap.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.2.0"
