import errno
import os
import resource
import stat
from pathlib import Path

import pytest

from cotinterp.results import output_folder, write_atomic


def test_text_arrives_as_it_is(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "a.csv", "k,rate\r\n2,½\n")
    assert path.read_bytes() == "k,rate\r\n2,½\n".encode()
    assert write_atomic(str(path), b"\x00\xff").read_bytes() == b"\x00\xff"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write_atomic(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = write_atomic(tmp_path / "a.csv", "old")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=rf"cannot write .*a\.csv: {os.strerror(number)}") as caught:
        write_atomic(path, "new")
    assert caught.value.errno == number
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """A size limit on files, which the kernel enforces, after part of the bytes are already down."""
    path = write_atomic(tmp_path / "a.csv", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*a\.csv: File too large"):
            write_atomic(path, "n" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", "new")
    assert list(tmp_path.iterdir()) == []


def test_no_folder_or_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot write .*missing/a"):
        write_atomic(tmp_path / "missing" / "a", "x")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(NotADirectoryError, match=r"cannot write .*file/a"):
        write_atomic(tmp_path / "file" / "a", "x")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError, match=r"cannot write .*/a: "):
        write_atomic(tmp_path / "a", "x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_long_names_that_the_disk_allows_are_allowed(tmp_path: Path) -> None:
    assert write_atomic(tmp_path / ("n" * 255), "x").read_text() == "x"


def test_the_folder_is_made_with_its_parents_and_may_exist(tmp_path: Path) -> None:
    folder = output_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert output_folder(str(folder)) == folder


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "out").write_text("kept")
    with pytest.raises(NotADirectoryError, match=r"cannot make the output folder .*: .*/out is a file; choose another"):
        output_folder(tmp_path / "out" / below)
    assert (tmp_path / "out").read_text() == "kept"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match=r"cannot make the folder .*/out: Read-only file system"):
        output_folder(tmp_path / "out")


def test_a_read_only_folder_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    with pytest.raises(PermissionError, match=r"cannot write into the output folder .*: no permission"):
        output_folder(tmp_path)
