"""Each notebook runs from its first cell to its last, in a minute, and no output is committed."""

import jupytext
import pytest
from nbclient import NotebookClient

from tests.docs.pages import REPOSITORY

FOLDER = REPOSITORY / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
SECONDS = 60


def test_there_are_no_stored_outputs():
    assert len(NOTEBOOKS) == 5
    assert not list(FOLDER.rglob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = jupytext.read(path)
    assert notebook.cells[0].source.startswith("# ")
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": REPOSITORY}}
    )
    client.execute()
    assert any(cell.get("outputs") for cell in notebook.cells)
