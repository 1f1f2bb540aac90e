"""The wheel is complete: built offline, unpacked elsewhere, it does in another folder what the source tree does."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import cotinterp
from cotinterp.results.shipped import here_or_shipped, is_shipped, shipped
from cotinterp.training.spec import reference_specs

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
RUN_FILES = ("evaluation.json", "metrics.jsonl", "model.safetensors", "spec.json")


def test_the_version_is_the_same_wherever_it_stands():
    version = PROJECT["version"]
    assert cotinterp.__version__ == version
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert re.search(r"^version: (\S+)$", citation, re.M).group(1) == version
    released = re.search(r"^date-released: (\S+)$", citation, re.M).group(1)
    newest = re.search(r"^## .*$", (REPOSITORY / "CHANGELOG.md").read_text(), re.M).group(0)
    assert newest == f"## {version} - {released}"


def test_in_the_source_tree_it_is_found_beside_the_package(tmp_path):
    assert shipped("checkpoints") == REPOSITORY / "checkpoints"
    assert {path.name for path in shipped("checkpoints").iterdir()} >= {spec.slug for spec in reference_specs()}
    assert here_or_shipped("tables", Path("analyses/out"), "evidence.csv").is_file()
    assert here_or_shipped("tables", tmp_path, "evidence.csv") == tmp_path / "evidence.csv"
    assert not is_shipped(shipped("checkpoints"))


def build(kind: str, source: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", REPOSITORY, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a command in an empty folder where cotinterp is nothing but the unpacked wheel."""
    place, desk = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("desk")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run, place, desk


@pytest.mark.slow
def test_the_wheel_holds_the_package_the_models_the_evidence_and_the_grids(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "cotinterp").rglob("*")}
    ours = {name for name in ours if "__pycache__" not in name and (REPOSITORY / name).is_file()}
    runs = {f"cotinterp/data/checkpoints/{spec.slug}/{name}" for spec in reference_specs() for name in RUN_FILES}
    tables = {f"cotinterp/data/tables/{name}.csv" for name in ("evidence", "runs", "depth_frontier")}
    grids = {f"cotinterp/data/grids/{path.name}" for path in (REPOSITORY / "analyses" / "grids").glob("*.toml")}
    info = {name for name in names if name.startswith(f"cotinterp-{PROJECT['version']}.dist-info/")}
    assert names - info == ours | runs | tables | grids


@pytest.mark.slow
def test_the_wheel_of_the_sdist_is_the_same(wheel, tmp_path):
    sdist, unpacked = build("sdist", REPOSITORY, tmp_path / "sdist"), tmp_path / "source"
    unpacked.mkdir()
    # As the Makefile does: tarfile wants a filter from Python 3.12 on and knows none before 3.11.4.
    subprocess.run(["tar", "-xzf", sdist, "-C", unpacked], check=True)
    (source,) = unpacked.iterdir()
    again = build("wheel", source, tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {item.filename: item.CRC for item in first.infolist()} == {
            item.filename: item.CRC for item in second.infolist()
        }


@pytest.mark.slow
def test_what_is_unpacked_works_in_another_folder_and_writes_nothing_into_itself(installed):
    run, place, desk = installed
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    spec = next(spec for spec in reference_specs() if (spec.task, spec.regime) == ("s3", "cot"))
    program = (
        "import cotinterp; from cotinterp import load_run\n"
        f"print(cotinterp.__version__, cotinterp.__file__, load_run({spec.slug!r}).spec.slug)"
    )
    assert run("-c", program).split() == [PROJECT["version"], str(place / "cotinterp" / "__init__.py"), spec.slug]
    assert run("-m", "cotinterp", "--version") == f"cotinterp {PROJECT['version']}\n"
    assert "depth-frontier" in run("-m", "cotinterp", "status", "depth_frontier")
    assert "verdicts.json" in run("-m", "cotinterp", "claims", "--task", "s3", "--claim", "gap-widens")
    run("-m", "cotinterp", "attribute", spec.slug, "--quick", "--device", "cpu")
    assert (desk / "out" / spec.slug / "attribute" / "tables" / "heads.csv").is_file()
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
