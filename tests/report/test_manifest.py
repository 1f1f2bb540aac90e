"""The manifest: what is stored comes back, and a revision is claimed only for a checkout that tracks the code."""

import subprocess
from pathlib import Path

import pytest

from cotinterp.report import Manifest, ReportInputs, collect_manifest, read_manifest, write_manifest
from cotinterp.report.inputs import git_state


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "package").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "package" / "code.py").write_text("one = 1\n")
    return folder


def test_revision_and_cleanliness_of_a_checkout(checkout: Path) -> None:
    package = checkout / "package"
    assert git_state(package) == (None, None)
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    revision = git(checkout, "rev-parse", "HEAD")
    assert git_state(package) == (revision, False)
    (checkout / "notes.txt").write_text("untracked files do not change the code")
    assert git_state(package) == (revision, False)
    (package / "code.py").write_text("one = 2\n")
    assert git_state(package) == (revision, True)


def test_a_package_that_merely_lies_in_somebody_elses_checkout_has_no_revision(checkout: Path) -> None:
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    installed = checkout / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("")
    assert git_state(installed) == (None, None)
    assert git_state(checkout.parent) == (None, None)


def test_collected_from_this_machine() -> None:
    manifest = collect_manifest(
        command="cotinterp reproduce",
        specs={"a": {"seed": 3}, "b": {"seed": 1}, "c": {"seed": 3}},
        weight_hashes={"a": "00"},
        data_hashes={},
        threads=2,
        wall_time_seconds=1.23456,
    )
    assert manifest.seeds == [1, 3]
    assert manifest.wall_time_seconds == 1.235
    assert {"python", "torch", "transformer-lens", "cotinterp"} <= set(manifest.versions)
    assert manifest.versions["torch"]
    assert manifest.cpu_count
    assert manifest.platform


def test_what_is_written_comes_back(tmp_path: Path, inputs: ReportInputs) -> None:
    assert isinstance(inputs.manifest, Manifest)
    path = write_manifest(inputs.manifest, tmp_path)
    assert read_manifest(tmp_path) == inputs.manifest
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert read_manifest(tmp_path / "nowhere") is None


def test_a_file_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    for text in ("{", '{"command": "x"}', "[]"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json is not a manifest"):
            read_manifest(tmp_path)
