import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

import cotinterp
from cotinterp.figures import lines
from cotinterp.results import Result, notebook, with_labels
from cotinterp.results.result import LONGEST_VALUE

TABLE = pd.DataFrame({"k": [2, 3], "accuracy": [1.0, 1 / 3], "note": ["all, of them", None]})


@dataclass(frozen=True)
class Accuracy(Result):
    table: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        return with_labels(self.table, {"task": "digit-sum", "run_seed": 0})

    def figure(self) -> go.Figure:
        return lines(self.table, x="k", y="accuracy", title="Accuracy of <prompt>")


def test_save_writes_the_table_and_a_page_of_its_own(tmp_path: Path) -> None:
    table, page = Accuracy(TABLE).save(tmp_path / "out", "accuracy")
    assert (table, page) == (tmp_path / "out/tables/accuracy.csv", tmp_path / "out/figures/accuracy.html")
    assert table.read_text() == (
        'task,run_seed,k,accuracy,note\ndigit-sum,0,2,1.0,"all, of them"\ndigit-sum,0,3,0.3333333333333333,\n'
    )
    html = page.read_text()
    assert re.findall(r'src="([^"]*)"', html) == ["plotly.min.js"]
    assert "cdn.plot.ly/plotly" not in html
    assert len(html) < 50_000


def test_the_pages_of_a_folder_share_one_script_that_is_written_once_and_mended(tmp_path: Path) -> None:
    script = tmp_path / "figures" / "plotly.min.js"
    Accuracy(TABLE).save(tmp_path, "accuracy")
    first = script.stat()
    assert script.read_text().startswith("/**\n* plotly.js v")
    Accuracy(TABLE).save(tmp_path, "again")
    assert script.stat().st_mtime_ns == first.st_mtime_ns
    script.write_text("of another version")
    Accuracy(TABLE).save(tmp_path, "accuracy")
    assert script.stat().st_size == first.st_size
    assert sorted(path.name for path in script.parent.iterdir()) == ["accuracy.html", "again.html", "plotly.min.js"]


def test_equal_results_make_equal_files(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in Accuracy(TABLE).save(tmp_path / "a", "accuracy")]
    second = [path.read_bytes() for path in Accuracy(TABLE).save(tmp_path / "b", "accuracy")]
    assert first == second


@pytest.mark.browser
def test_the_page_draws_itself_without_a_network(tmp_path: Path, opened: Callable[[Path], str]) -> None:
    _, page = Accuracy(TABLE).save(tmp_path, "accuracy")
    document = opened(page)
    drawing = document[document.index('class="main-svg"') :]
    assert "Accuracy of &lt;prompt&gt;" in drawing
    assert drawing.count('class="point"') == len(TABLE)
    assert 'class="main-svg"' not in page.read_text()


def test_a_figure_that_fails_leaves_no_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no rows"):
        Accuracy(TABLE[:0]).save(tmp_path, "accuracy")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("kept")
    with pytest.raises(NotADirectoryError, match="out is a file"):
        Accuracy(TABLE).save(tmp_path / "out", "accuracy")
    assert (tmp_path / "out").read_text() == "kept"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/accuracy", "..\\a", "a\nb", "a\0b", "a" * 201])
def test_names_do_not_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a file name"):
        Accuracy(TABLE).save(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_labels_come_first_and_leave_the_frame_alone() -> None:
    labeled = with_labels(TABLE, {"task": "s3", "run_seed": 4})
    assert list(labeled) == ["task", "run_seed", "k", "accuracy", "note"]
    assert labeled["task"].tolist() == ["s3", "s3"]
    assert labeled["run_seed"].tolist() == [4, 4]
    assert list(TABLE) == ["k", "accuracy", "note"]
    assert list(with_labels(TABLE[:0], {"task": "s3"})) == ["task", "k", "accuracy", "note"]


def test_a_label_may_not_hide_a_column() -> None:
    with pytest.raises(ValueError, match=r"columns \['k'\] already"):
        with_labels(TABLE, {"task": "s3", "k": 4})


def test_the_three_verbs_are_asked_of_every_result() -> None:
    class Halfway(Result):
        def frame(self) -> pd.DataFrame:
            return TABLE

    with pytest.raises(TypeError, match="figure"):
        Halfway()  # type: ignore[abstract]


@dataclass(frozen=True)
class Scores(Result):
    values: np.ndarray
    pairs: tuple[Accuracy, ...]
    labels: dict[str, str | int]
    level: float = 0.95

    def frame(self) -> pd.DataFrame:
        return with_labels(pd.DataFrame({"value": self.values, "note": "<b>"}), self.labels)

    def figure(self) -> go.Figure:
        return lines(self.frame(), x="value", y="value", title="Scores")


def test_a_repr_names_fields_and_sizes_and_fits_on_a_line_or_two() -> None:
    result = Scores(np.zeros((9, 1000)), (Accuracy(TABLE),) * 5000, {"task": "s3", "run_seed": 4})
    assert repr(result) == (
        "Scores(values=<ndarray 9 x 1000>, pairs=<tuple with 5,000 entries of Accuracy>, "
        "labels={'task': 's3', 'run_seed': 4}, level=0.95)"
    )
    assert repr(Accuracy(TABLE)) == "Accuracy(table=<DataFrame 2 x 3>)"


def test_a_notebook_shows_the_head_of_the_table() -> None:
    html = Scores(np.arange(40.0), (), {"task": "s3", "run_seed": 4})._repr_html_()
    assert "<b>Scores</b>: 40 rows \N{MULTIPLICATION SIGN} 4 columns, the first 10" in html
    assert html.count("<td>s3</td>") == 10
    assert "&lt;b&gt;" in html
    assert not re.search(r'(src|href)="', html.replace(get_plotlyjs(), ""))


def test_a_figure_that_fails_or_is_too_large_leaves_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No figure: nothing to draw" in Accuracy(TABLE[:0])._repr_html_()
    monkeypatch.setattr(notebook, "LARGEST_FIGURE", 100)
    html = Accuracy(TABLE)._repr_html_()
    assert "<td>digit-sum</td>" in html
    assert "MB of data: figure() draws it" in html
    assert "<script" not in html


@pytest.mark.slow
def test_no_public_result_can_fill_more_than_a_screen_with_its_repr() -> None:
    """A field is told in its name and at most some 80 characters, whatever it holds."""
    for module in pkgutil.walk_packages(cotinterp.__path__, "cotinterp."):
        if not module.name.startswith(("cotinterp.cli", "cotinterp.explore", "cotinterp.__main__")):
            importlib.import_module(module.name)
    kinds = [kind for kind in every_kind(Result) if kind.__module__.startswith("cotinterp.")]
    assert len(kinds) > 40
    for kind in kinds:
        longest = sum(len(field.name) + LONGEST_VALUE + 10 for field in fields(kind) if field.repr)
        assert kind.__repr__ is Result.__repr__, kind
        assert len(kind.__name__) + longest <= 2000, kind
    huge = Scores(np.zeros((9, 1000)), (Accuracy(TABLE),) * 5000, {"task": "s" * 10_000})
    assert len(repr(huge)) < 200


def every_kind(of: type) -> list[type]:
    return [kind for child in of.__subclasses__() for kind in (child, *every_kind(child))]


def test_importing_results_loads_neither_plots_nor_tables() -> None:
    """What `cotinterp --help` waits for."""
    loaded = "import sys, cotinterp.results; print({'pandas', 'plotly', 'scipy', 'torch'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout == "set()\n"
