"""Files that are whole or absent: whatever fails, no reader ever meets half a table."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

ATTEMPTS = 20
"""How often a file is written that vanishes under its temporary name: taken for a dead writer's before it was locked,
or where locks do not reach from one machine to another."""

LONGEST_NAME = 200
"""Bytes of a name; file systems take 255, an ending included."""


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write `content` (text as UTF-8, line ends untouched) to `path` in one step, replacing what was there.

    The bytes go to a temporary name in the same folder, reach the disk, and are then renamed, so `path` holds the old
    content or the new, never part of either. Any number of processes may write to one path: the last one stays. Raises
    `OSError` (the precise subclass: a full disk, a read-only folder, a folder that is missing or is a file) that names
    the path and the cause; the temporary file is gone by then. What a killed process leaves, `output_folder` removes.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _write(path, data)
            return path
        except FileNotFoundError as error:
            if attempt == ATTEMPTS or not path.parent.is_dir():
                raise explained(error, "write", path) from error
        except OSError as error:
            raise explained(error, "write", path) from error
    raise AssertionError("unreachable")


def _write(path: Path, data: bytes) -> None:
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file, _held(file):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


@contextmanager
def _held(file: BinaryIO | int) -> Iterator[bool]:
    """Locks an open file while the block runs, the sign that its writer lives; yields whether nobody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another has it, or there are no locks on this file system
        yield False
    else:
        yield True


def free_folder(path: Path | str) -> Path:
    """`path`, known to be free for a `new_folder`; its parents are made where they are missing.

    `FileExistsError` where there is anything but an empty folder; of the parent the errors of `output_folder`.
    """
    path = Path(path)
    output_folder(path.parent)
    if path.is_symlink() or (path.exists() and not path.is_dir()) or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path} is there already and no empty folder: choose another folder, or remove it")
    return path


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """A folder that is whole or absent: yields an empty one beside it, which becomes `path` where the block succeeds.

    The errors are those of `free_folder`. What the block has written is removed where it fails, and what a killed
    process leaves is removed by `output_folder` of the parent.
    """
    path = free_folder(path)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    temporary.mkdir()
    handle = os.open(temporary, os.O_RDONLY)
    try:
        with _held(handle):
            yield temporary
            try:
                os.replace(temporary, path)
            except OSError as error:
                raise explained(error, "make the folder", path) from error
    finally:
        os.close(handle)
        shutil.rmtree(temporary, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Removes the temporary files and folders of writers that are dead."""
    for leftover in folder.glob(f".{'[0-9a-f]' * 16}.tmp"):
        with suppress(OSError):
            handle = os.open(leftover, os.O_RDONLY if leftover.is_dir() else os.O_RDWR)
            try:
                with _held(handle) as dead:
                    if dead and leftover.is_dir():
                        shutil.rmtree(leftover)
                    elif dead:
                        os.unlink(leftover)
            finally:
                os.close(handle)


def single_name(name: str) -> str:
    """`name`, known to be the name of one file or folder: what is joined to a folder with it stays inside.

    Raises:
        ValueError: It is empty, `.` or `..`, too long for a file, or holds a separator of folders or a character that
            no terminal shows.
    """
    if name in ("", ".", "..") or set(name) & set("/\\") or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"{name!r:.120} is not a file name: give a name without folders, such as 'accuracy'")
    return name


@contextmanager
def believed(path: Path, remedy: str) -> Iterator[None]:
    """Whatever goes wrong inside the block, a ValueError says that the file at `path` is to blame, and the `remedy`."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged or of another version ({type(error).__name__}: {error}); {remedy}"
        ) from error


def output_folder(path: Path | str) -> Path:
    """The folder `path`, made together with its parents where it is missing, and known to be writable.

    Temporary files that killed writers left in it are removed; those of living ones are not.
    Meant to be called before the work whose output it will hold: `NotADirectoryError` where `path` or a parent is a
    file, `PermissionError` where nothing can be written there, each naming the place and the cause.
    """
    path = Path(path)
    obstacle = next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None)
    if obstacle is not None:
        raise NotADirectoryError(f"cannot make the output folder {path}: {obstacle} is a file; choose another folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, "make the folder", path) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into the output folder {path}: no permission; choose another folder")
    _clear(path)
    return path


def explained(error: OSError, verb: str, path: Path) -> OSError:
    """The same error, its text naming what was wanted. `OSError` picks the subclass that belongs to the number."""
    cause = error.strerror or str(error)
    return OSError(error.errno, f"cannot {verb} {path}: {cause}") if error.errno else OSError(f"{path}: {cause}")
