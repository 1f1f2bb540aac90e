"""What the pages take for granted: a trained run that loads, in the folder where a reader would be.

cotinterp is imported inside the fixtures: pytest may load this file before the shape checks are hooked in.
"""

import ast
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The tutorial's run in small, with its two layers: the page points at layer 1."""
    from cotinterp.training.loop import train
    from cotinterp.training.spec import RunSpec
    from tests.docs.tiny import tiny

    spec = tiny(RunSpec(task="digit-sum", regime="cot", k_max=4), n_layers=2)
    return train(spec, directory=tmp_path_factory.mktemp("docs") / spec.slug, device="cpu", threads=1)


@pytest.fixture
def desk(trained, tmp_path, monkeypatch) -> Callable[..., Path]:
    """`desk(slug, ...)`: a fresh working directory in which these runs load, in small unless the real ones exist."""
    from tests.docs.pages import REPOSITORY

    def prepare(*slugs: str) -> Path:
        for slug in slugs:
            reference = REPOSITORY / "checkpoints" / slug
            source = reference if reference.exists() else trained.directory
            shutil.copytree(source, tmp_path / "checkpoints" / slug)
        shutil.copytree(REPOSITORY / "analyses" / "out", tmp_path / "analyses" / "out", dirs_exist_ok=True)
        monkeypatch.chdir(tmp_path)
        # The small runs lie under the slugs of the real ones.
        monkeypatch.setattr("cotinterp.training.checkpoints.SLUG", "no slug")
        return tmp_path

    return prepare


@pytest.fixture(scope="session")
def public_names() -> frozenset[str]:
    """Every public function, method, class and property that the package defines."""
    import cotinterp

    found = set()
    for path in Path(cotinterp.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found.add(node.name)
    return frozenset(found)
