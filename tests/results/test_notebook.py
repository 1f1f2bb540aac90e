"""What a notebook carries: plotly.js once, figures that an exported page draws from it, and nothing from a network."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from cotinterp.results import notebook
from tests.results.test_result import TABLE, Accuracy

CARRIED = '<script data-carried="Plotly">'
SOURCE = "from tests.results.test_result import TABLE, Accuracy\nresult = Accuracy(TABLE)\nresult"


@pytest.mark.browser
@pytest.mark.slow
def test_an_exported_notebook_draws_every_figure_from_one_script(tmp_path: Path, opened: Callable[[Path], str]) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (SOURCE, "result", "display(result); display(result)")]
    book = nbformat.v4.new_notebook(cells=cells)
    place = {"metadata": {"path": str(Path(__file__).parents[2])}}
    NotebookClient(book, timeout=60, kernel_name="python3", resources=place).execute()
    outputs = [output["data"]["text/html"] for cell in book.cells for output in cell.outputs]
    assert [CARRIED in html for html in outputs] == [True, False, False, False]
    assert max(map(len, outputs[1:])) < 5000
    page = tmp_path / "exported.html"
    page.write_text(f"<!DOCTYPE html><body>{''.join(outputs)}</body>")
    document = opened(page)
    assert document.count('class="js-plotly-plot"') == 4
    assert document.count('class="point"') == 4 * len(TABLE)


def test_a_cell_that_is_run_again_carries_its_script_again(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SimpleNamespace(execution_count=1)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: session))

    def shown(cell: str, run: int) -> bool:
        session.execution_count, session.get_parent = run, lambda: {"metadata": {"cellId": cell}}
        return CARRIED in Accuracy(TABLE)._repr_html_()

    assert [shown("a", 1), shown("a", 1), shown("b", 2), shown("a", 3), shown("a", 3), shown("b", 4)] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.browser
def test_outside_of_a_notebook_the_piece_is_complete(tmp_path: Path, opened: Callable[[Path], str]) -> None:
    page = tmp_path / "piece.html"
    page.write_text(Accuracy(TABLE)._repr_html_())
    assert 'class="js-plotly-plot"' in opened(page)


def test_data_cannot_close_the_script_that_holds_it() -> None:
    html = Accuracy(TABLE.assign(accuracy=["</script>", "<!--"]))._repr_html_()
    assert html.count("</script>") == html.count("<script")
    assert notebook.inline("</script>") == "\\u003c/script>"
