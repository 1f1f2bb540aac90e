"""The simulator's page: self-contained, with numbers before any script runs, and the measured runs it was given."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from cotinterp.depth.frontier import depth_frontier
from cotinterp.depth.simulator import NO_TASK, Sliders, length_table
from cotinterp.report.simulator import build_simulator, simulator_html, words
from cotinterp.report.texts import TEXTS
from cotinterp.tasks import get_task
from tests.depth.made_up_sweep import made_up_sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return depth_frontier(made_up_sweep(("s3", "parity"), direct=(1, 2, 4), cot=(1,), steps=(1000, 4000))).frame()


def data_of(html: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" class="sim-data">(.*?)</script>', html)
    return json.loads(text)


def test_the_page_is_self_contained_and_says_what_it_does_not_establish(runs, tmp_path: Path) -> None:
    page = build_simulator(runs, tmp_path / "simulator.html").read_text()
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", page) == ["data:,"]
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "capacities, not mechanisms" in TEXTS["frontier"]["limits"]
    assert TEXTS["frontier"]["limits"] in page.replace("&#39;", "'")


def test_a_table_of_a_sweep_is_as_good_as_its_frontier(runs) -> None:
    table = made_up_sweep(("s3", "parity"), direct=(1, 2, 4), cot=(1,), steps=(1000, 4000))
    assert simulator_html(table) == simulator_html(runs)


def test_without_runs_it_is_a_picture_of_capacities(tmp_path: Path) -> None:
    page = build_simulator(None, tmp_path / "plain.html").read_text()
    assert data_of(page)["tasks"] == {}
    assert "No measured runs lie over the charts" in page


def test_numbers_stand_in_the_page_before_any_script_runs(tmp_path: Path) -> None:
    page, at = str(simulator_html()), Sliders()
    for name, text in words(NO_TASK.readouts(at), at, NO_TASK.model, NO_TASK.d_vocab).items():
        assert f'data-say="{name}">{text}<' in page
    assert "<noscript>" in page


def test_every_measured_run_of_direct_and_cot_is_a_point_and_a_row(runs) -> None:
    page = str(simulator_html(runs))
    tasks = data_of(page)["tasks"]
    assert sum(len(task["runs"]) for task in tasks.values()) == len(runs) == 32
    assert page.count('<th scope="row">s3</th>') == 16
    last = tasks["s3"]["runs"][-1]
    row = runs[(runs["task"] == "s3") & (runs["regime"] == "direct") & (runs["n_layers"] == 4)].iloc[-1]
    assert (last["layers"], last["steps"], last["solved"], last["next"]) == (4, 4000, row["frontier"], row["next_k"])


def test_only_converged_runs_are_filled_and_what_was_not_measured_is_no_point(runs) -> None:
    changed = runs.assign(
        convergence=[
            "fitted",
            "complete",
            "stalled",
            "improving",
            "failed",
            "absent",
            *["unmeasured"] * (len(runs) - 6),
        ]
    )
    points = [run for task in data_of(str(simulator_html(changed)))["tasks"].values() for run in task["runs"]]
    assert [run["open"] for run in points] == [False, False, True, True]


def test_other_regimes_and_readings_are_left_out(runs) -> None:
    other = pd.concat([runs, runs.assign(regime="filler"), runs.assign(reading="tags")])
    assert data_of(str(simulator_html(other))) == data_of(str(simulator_html(runs)))


def test_the_depths_go_as_far_as_the_deepest_model(runs) -> None:
    page = str(simulator_html(runs.assign(n_layers=runs["n_layers"] + 14)))
    assert data_of(page)["most"]["n_layers"] == 18
    assert 'name="n_layers" min="1" max="18"' in page
    assert 'name="n_layers" min="1" max="12"' in str(simulator_html(runs))


def test_the_first_length_is_one_that_the_task_has() -> None:
    short = depth_frontier(made_up_sweep(("digit-sum",), k_max=6)).frame()
    lengths = length_table(["digit-sum"], range(2, 7))
    assert "K = 6 operands" in str(simulator_html(short, lengths))


def test_a_task_of_ones_own_needs_its_lengths(runs) -> None:
    mine = runs[runs["task"] == "s3"].assign(task="</script><b>mine")
    with pytest.raises(KeyError, match="unknown task"):
        simulator_html(mine)
    with pytest.raises(ValueError, match="no lengths of that task"):
        simulator_html(mine, length_table(["s3"], range(2, 5)))
    page = str(simulator_html(mine, tasks={"</script><b>mine": get_task("s3")}))
    assert page == str(simulator_html(mine, length_table(["s3"]).assign(task="</script><b>mine")))
    assert "<b>mine" not in page
    assert list(data_of(page)["tasks"]) == ["</script><b>mine"]
