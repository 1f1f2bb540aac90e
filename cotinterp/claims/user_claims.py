"""A claim of one's own, out of one's own file."""

import importlib.util
from pathlib import Path

from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.claim import Claim


def get_claim(ref: str | Claim) -> Claim:
    """The claim that `ref` denotes: a name of the catalog, `path/to/file.py:NAME`, or a claim already.

    A file that is named is run.

    Raises:
        KeyError: No such name; those that exist are given.
        FileNotFoundError: No such file.
        ValueError: The file has no claim of that name.
    """
    if isinstance(ref, Claim):
        return ref
    path, colon, name = ref.rpartition(":")
    if colon:
        return _from_file(Path(path), name)
    known = {claim.name: claim for claim in CATALOG}
    if ref not in known:
        raise KeyError(
            f"unknown claim {ref!r}. Known: {', '.join(known)}. For a claim of your own give path/to/file.py:NAME"
        )
    return known[ref]


def _from_file(path: Path, name: str) -> Claim:
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}; a claim is given as path/to/file.py:NAME")
    spec = importlib.util.spec_from_file_location(f"cotinterp_user_claim_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(path)!r} is not a Python file; a claim is given as path/to/file.py:NAME")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    claim = getattr(module, name, None)
    if not isinstance(claim, Claim):
        found = [key for key, value in vars(module).items() if isinstance(value, Claim)]
        raise ValueError(f"{str(path)!r} has no claim {name!r}; claims in it: {found or 'none'}")
    return claim
