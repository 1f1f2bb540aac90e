"""The simulator in a real browser: what its script says is what Python says, and a slider moves the charts."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from html import unescape
from math import log2
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cotinterp.depth.frontier import depth_frontier
from cotinterp.depth.simulator import NO_TASK, PLAIN_MODEL, Simulator, Sliders, length_table
from cotinterp.report.simulator import build_simulator, words
from tests.depth.made_up_sweep import made_up_sweep

pytestmark = pytest.mark.browser

POSITIONS = (
    ("", Sliders()),
    ("", Sliders(n_layers=1, k=2, b=0.25, enough=1, floor=1, step_tokens=1)),
    ("", Sliders(n_layers=12, k=64, b=3.75, enough=12, floor=63, step_tokens=12)),
    ("s3", Sliders(n_layers=3, k=33, b=0.75, enough=4, floor=8)),
    ("s3", Sliders(n_layers=4, k=33, b=0.75, enough=4, floor=8)),
    ("digit-sum", Sliders(n_layers=7, k=11, b=1.25)),
)
PROBE = """
const seen = { errors: [], states: [] };
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.violatedDirective));
addEventListener("load", () => {
  const root = document.querySelector(".simulator");
  const field = (name) => root.querySelector(`[name="${name}"]`);
  const move = (name, value) => {
    field(name).value = value;
    field(name).dispatchEvent(new Event("input"));
  };
  const says = () => Object.fromEntries([...root.querySelectorAll("[data-say]")].map((cell) =>
    [cell.dataset.say, [cell.textContent, cell.dataset.value === undefined ? null : JSON.parse(cell.dataset.value)]]));
  const charts = () => [...root.querySelectorAll(".sim-charts svg")].map((svg) => ({
    label: svg.getAttribute("aria-label"),
    laws: [...svg.querySelectorAll(".law")].map((law) => law.getAttribute("d")),
    offers: [...svg.querySelectorAll(".offer")].map((offer) => offer.getAttribute("d")),
    points: [...svg.querySelectorAll("g.run")].map((run) => run.querySelector("title").textContent),
    open: svg.querySelectorAll("g.run .open").length,
    bright: svg.querySelectorAll("g.run:not(.other)").length,
  }));
  for (const [task, position] of POSITIONS) {
    move("task", task);
    for (const [name, value] of Object.entries(position)) move(name, value);
    const outputs = [...root.querySelectorAll("output")].map((one) => one.value);
    seen.states.push({ says: says(), charts: charts(), outputs });
  }
  move("steps", "4000");
  seen.budget = charts()[0].points.length;
  const fields = [...root.querySelectorAll("input, select")];
  seen.reachable = fields.every((one) => one.labels.length === 1 && one.tabIndex >= 0);
  seen.hidden = root.querySelectorAll("[hidden]").length;
  seen.overflow = document.documentElement.scrollWidth > innerWidth;
  document.body.setAttribute("data-facts", JSON.stringify(seen));
});
"""


@pytest.fixture
def seen(opened: Callable[[Path], str], runs: pd.DataFrame, lengths: pd.DataFrame, tmp_path: Path) -> dict[str, Any]:
    page = build_simulator(runs, tmp_path / "simulator.html", lengths=lengths)
    positions = json.dumps([(task, asdict(at)) for task, at in POSITIONS])
    script = f"<script>const POSITIONS = {positions};{PROBE}</script>"
    page.write_text(page.read_text().replace("<title>", f"{script}<title>", 1))
    facts = re.search(r'data-facts="([^"]*)"', opened(page))
    assert facts, "the probing script did not finish"
    found: dict[str, Any] = json.loads(unescape(facts.group(1)))
    return found


@pytest.fixture(scope="module")
def lengths() -> pd.DataFrame:
    return length_table(["s3", "digit-sum"])


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    found = depth_frontier(made_up_sweep(("s3", "digit-sum"), direct=(1, 4), cot=(1,), steps=(1000, 4000))).frame()
    return found.assign(convergence=["improving" if seed else "fitted" for seed in found["run_seed"]])


def test_the_page_says_what_python_says_and_draws_what_it_says(
    seen: dict[str, Any], lengths: pd.DataFrame, runs: pd.DataFrame
) -> None:
    """One page is opened once: a browser takes long to start."""
    assert seen["errors"] == []
    assert (seen["reachable"], seen["hidden"], seen["overflow"]) == (True, 0, False)
    for (task, at), state in zip(POSITIONS, seen["states"], strict=True):
        subject = Simulator.of(PLAIN_MODEL, lengths[lengths["task"] == task]) if task else NO_TASK
        numbers = subject.readouts(at)
        expected = words(numbers, at, subject.model, subject.d_vocab)
        assert {name: text for name, (text, _) in state["says"].items()} == expected
        for name, value in numbers.items():
            assert state["says"][name][1] == (None if value is None else pytest.approx(value, rel=1e-12))
        drawn = {"": 0, "s3": 12, "digit-sum": 12}[task]
        assert [len(chart["points"]) for chart in state["charts"]] == [drawn, drawn]
        assert [chart["open"] for chart in state["charts"]] == [drawn // 2] * 2
        assert heights(state["charts"][0]["offers"][0]) == pytest.approx([height(at.n_layers)] * 2, abs=0.06)
    assert seen["budget"] == 6
    one = "direct, L = 4, d_model 64, 4000 updates, seed 0: solves K up to 6; first unsolved: 7 (fitted)"
    assert one in seen["states"][3]["charts"][1]["points"]


def test_a_slider_moves_the_charts(seen: dict[str, Any]) -> None:
    """The fourth position and the fifth differ in the depth alone."""
    three, four = seen["states"][3], seen["states"][4]
    assert three["outputs"] != four["outputs"]
    for chart in (0, 1):
        assert three["charts"][chart]["laws"] == four["charts"][chart]["laws"]
        assert three["charts"][chart]["label"] != four["charts"][chart]["label"]
        assert (three["charts"][chart]["bright"], four["charts"][chart]["bright"]) == (0, 4)
    assert all(
        before != after for before, after in zip(*(at["charts"][0]["offers"] for at in (three, four)), strict=True)
    )
    first, last = seen["states"][0], seen["states"][2]
    assert first["charts"][0]["laws"] != last["charts"][0]["laws"]
    assert first["charts"][1]["laws"] != last["charts"][1]["laws"]


def heights(path: str) -> list[float]:
    """The second coordinates of a line."""
    return [float(place.split()[1]) for place in path.removeprefix("M").split("L")]


def height(layers: float) -> float:
    """Where so many layers stand in the first chart: 330 pixels down is one, 12 is 2^14."""
    return 330 - log2(layers) / 14 * (330 - 12)
