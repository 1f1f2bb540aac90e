import errno
import fcntl
import os
import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cotinterp.results import output_folder, write_atomic
from cotinterp.results.atomic import new_folder


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


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    """The lock on the file tells them apart: the system takes it away with the process."""
    left, alive, foreign = (tmp_path / name for name in (f".{'0' * 16}.tmp", f".{'a' * 16}.tmp", ".mine.tmp"))
    for path in (left, alive, foreign):
        path.write_text("half")
    with alive.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        output_folder(tmp_path)
        assert set(tmp_path.iterdir()) == {alive, foreign}
    output_folder(tmp_path)
    assert set(tmp_path.iterdir()) == {foreign}


def test_a_temporary_file_that_vanishes_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine may take a living writer for a dead one where locks do not reach from one to the other."""
    replace, seen = os.replace, []

    def vanishing(source: Path, target: Path) -> None:
        seen.append(source)
        if len(seen) < 3:
            os.unlink(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", vanishing)
    assert write_atomic(tmp_path / "a", "new").read_text() == "new"
    seen.clear()
    monkeypatch.setattr(os, "replace", lambda source, target: replace(tmp_path / "gone", target))
    with pytest.raises(FileNotFoundError, match=r"cannot write .*/a: No such file"):
        write_atomic(tmp_path / "a", "newer")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new"}


def test_many_writers_in_one_folder_leave_whole_files_and_nothing_else(tmp_path: Path) -> None:
    contents = [str(number) * 20_000 for number in range(8)]

    def write(content: str) -> None:
        for _ in range(10):
            write_atomic(output_folder(tmp_path) / "table.csv", content)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, contents))
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() in contents


def test_a_new_folder_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "new"
    with new_folder(path) as new:
        (new / "a").write_text("one")
        assert not path.exists()
        output_folder(path.parent)
        assert (new / "a").exists(), "its writer lives"
    assert [entry.name for entry in path.parent.iterdir()] == ["new"]
    assert (path / "a").read_text() == "one"
    with pytest.raises(FileExistsError, match="new is there already"), new_folder(path):
        raise AssertionError("the block does not begin")
    assert (path / "a").read_text() == "one"


def test_a_new_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "new") as new:
        (new / "no folder" / "a").write_text("one")
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as new:
        (new / "a").write_text("one")
    assert (tmp_path / "empty" / "a").exists()


def test_the_folder_of_a_killed_writer_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{'0' * 16}.tmp" / "deeper").mkdir(parents=True)
    output_folder(tmp_path)
    assert not list(tmp_path.iterdir())
