"""What travels with the package, and what does not.

With it come the reference checkpoints, the stored tables of evidence, and the grids of sweeps. In a source tree they
lie beside the package, in an installed one inside it; nothing is ever written there. Packages that only some use come
with an extra.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

PACKAGE = Path(__file__).parents[1]
Shipped = Literal["checkpoints", "tables", "grids"]
IN_SOURCE_TREE: Mapping[Shipped, str] = {
    "checkpoints": "checkpoints",
    "tables": "analyses/out",
    "grids": "analyses/grids",
}


def shipped(what: Shipped) -> Path:
    """The folder of what travels with the package; it may be missing in an installation that was tampered with."""
    installed = PACKAGE / "data" / what
    return installed if installed.is_dir() else PACKAGE.parent / IN_SOURCE_TREE[what]


def is_shipped(path: Path) -> bool:
    """Whether `path` lies inside an installed package, where nothing is written."""
    return path.resolve().is_relative_to((PACKAGE / "data").resolve())


def here_or_shipped(what: Shipped, folder: Path, name: str) -> Path:
    """`folder`/`name`; what the default folder of its kind lacks is the one that travels with the package."""
    path = folder / name
    return shipped(what) / name if folder == Path(IN_SOURCE_TREE[what]) and not path.exists() else path


def optional(module: str, extra: str, wanted: str) -> ModuleType:
    """A package that only some use. Raises ModuleNotFoundError, with the command that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{wanted} needs the package {module}, which is not installed: pip install "cotinterp[{extra}]"'
        ) from error
