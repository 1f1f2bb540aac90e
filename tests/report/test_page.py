"""The page: self-contained, complete, honest about what is missing, and the same again from what was stored."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from cotinterp.report import SCHEMAS, ReportInputs, build_report, rebuild_report, write_report
from cotinterp.report.sections import sections
from cotinterp.report.texts import TEXTS

pytestmark = pytest.mark.slow


class Resources(HTMLParser):
    """What a browser would load or could be sent to, and all text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.text: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("script", "style") else ""
        self.scripts += tag == "script"
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)


def parsed(page: str) -> Resources:
    parser = Resources()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def small(inputs: ReportInputs) -> ReportInputs:
    """One trained model of every table, and one pair of its patching: pages of it are quick to make."""
    tables = {
        name: frame[(frame["task"] == "s3") & (frame["regime"] == "cot")] if "regime" in frame else frame
        for name, frame in inputs.tables.items()
    } | {"answer_lengths": inputs.tables["answer_lengths"]}
    patching = tables["patching"]
    tables["patching"] = patching[patching["pair"] == patching["pair"].iloc[0]]
    return replace(inputs, tables=tables, attention=inputs.attention[:1])


@pytest.fixture(scope="module")
def page(inputs: ReportInputs) -> str:
    return build_report(inputs)


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    links = parsed(page).links
    beside = ("tables/", "attention.json", "verdicts.json", "manifest.json")
    outside = [link for link in links if not link.startswith(("#", "data:,", *beside))]
    assert outside == []
    assert "default-src 'none'" in page
    assert "@import" not in page.split("</style>")[0]
    assert "url(" not in page.split("</style>")[0]


def test_each_library_is_in_the_page_once_and_the_page_stays_small(page: str) -> None:
    assert page.count("var CircuitsVis=") == 1
    assert len(re.findall(r"plotly\.js v\d", page)) == 1
    assert len(page) < 20_000_000


def test_every_section_has_its_question_reading_limits_and_numbers(page: str) -> None:
    text = " ".join("".join(parsed(page).text).split())
    for name, words in TEXTS.items():
        for part in (words["title"], words["question"], words["reading"], words["limits"]):
            assert " ".join(part.split()) in text, (name, part)
    for name in set(SCHEMAS) - {"label_rules", "skipped"}:
        assert f'<a href="tables/{name}.csv" download>' in page


def test_sections_stand_in_order_and_the_contents_lead_to_each(page: str) -> None:
    parser = parsed(page)
    order = [
        "verdicts",
        "accuracy",
        "budget",
        "frontier",
        "compute",
        "errors",
        "trace_edits",
        "trace_edit_kinds",
        "probes",
        "pair_families",
        "patching",
        "heads",
        "faithfulness",
        "attention",
        "run",
    ]
    assert [name for name in parser.ids if name in order] == order
    assert [link for link in parser.links if link.startswith("#")][: len(order)] == [f"#{name}" for name in order]
    assert len(parser.ids) == len(set(parser.ids))


def test_specs_hashes_and_command_are_shown(page: str, inputs: ReportInputs) -> None:
    text = "".join(parsed(page).text)
    for expected in (
        "model.d_model",
        "a3" * 32,
        "b4" * 32,
        "cotinterp reproduce --out out/example",
        "with uncommitted changes",
    ):
        assert expected in text


def test_plotly_is_told_not_to_offer_its_makers_server(page: str) -> None:
    configs = re.findall(r'"showSendToCloud":\s*(\w+)', page.split("</head>")[1])
    assert set(configs) == {"false"}
    assert "cloud.plotly.com" not in page.split("</head>")[1]


def note(name: str) -> str:
    return f"no <code>tables/{name}.csv</code>. <code>{SCHEMAS[name].command} --out DIR</code> writes it."


def test_a_missing_table_leaves_a_note_with_the_command_that_makes_it(small: ReportInputs) -> None:
    of_claims = {"verdicts", "claim_criteria", "claim_seeds", "claim_runs"}
    of_sweeps = {"frontier", "answer_lengths", "compute"}
    nothing = build_report(ReportInputs({}))
    for name in (
        set(SCHEMAS)
        - {"label_rules", "attention_by_role", "patching_scan", "skipped", "edges", "edge_agreement"}
        - of_claims
        - of_sweeps
    ):
        assert note(name) in nothing
    tables = {name: frame for name, frame in small.tables.items() if name != "errors"}
    page = build_report(ReportInputs(tables, small.attention, small.manifest))
    assert note("errors") in page
    assert page.count('class="note"') == 1


def test_what_could_not_be_measured_is_said_in_its_section(small: ReportInputs) -> None:
    labels = {"task": "s3", "regime": "cot", "run_seed": 0}
    row = labels | {"study": "patch", "k": 2, "pairs": "families", "tried": 7, "why": "too <short>"}
    page = build_report(ReportInputs({**small.tables, "skipped": pd.DataFrame([row])}, small.attention, small.manifest))
    assert page.count("Not measured:") == 1
    assert "s3 cot, seed 0: families (k = 2, 7 problems tried): too &lt;short&gt;" in page


def test_without_a_sweep_two_notes_say_how_to_come_by_one(small: ReportInputs) -> None:
    tables = {name: frame for name, frame in small.tables.items() if name not in ("frontier", "compute")}
    page = build_report(ReportInputs(tables, small.attention, small.manifest))
    assert page.count('class="note"') == 2
    for name in ("frontier", "compute"):
        assert f"no <code>tables/{name}.csv</code>. <code>cotinterp sweep analyses/grids/depth_frontier.toml" in page
    assert '<div class="simulator">' not in page


def test_a_report_of_nothing_is_only_notes_and_carries_no_library(inputs: ReportInputs) -> None:
    page = build_report(ReportInputs({}))
    assert page.count('class="note"') == 1 + len(TEXTS)
    assert len(page) < 50_000
    empty = {name: frame.head(0) for name, frame in inputs.tables.items()}
    assert build_report(ReportInputs(empty)) == page


def test_names_from_tables_and_specs_cannot_become_markup(small: ReportInputs) -> None:
    evil = "<img src=http://example.invalid/x onerror=alert(1)>"
    tables = {
        name: frame.replace({"task": {"s3": evil}}) if "task" in frame else frame
        for name, frame in small.tables.items()
    }
    assert small.manifest is not None
    manifest = replace(small.manifest, command=evil, specs={evil: {"task": evil}})
    del tables["label_rules"]
    page = build_report(ReportInputs(tables, small.attention, manifest, {"mixed": evil}))
    body = page.split("</head>")[1]
    assert evil not in body
    assert not [link for link in parsed(page).links if "example.invalid" in link]


def test_equal_inputs_give_equal_pages(small: ReportInputs) -> None:
    assert build_report(small) == build_report(small)


def test_the_page_is_rebuilt_from_what_lies_beside_it(tmp_path: Path, small: ReportInputs) -> None:
    written = write_report(small, tmp_path)
    assert written[0] == tmp_path / "report.html"
    figures = [figure.name for part in sections(small) for figure in part.figures]
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "report.html",
        "attention.json",
        "manifest.json",
        "verdicts.json",
        *(f"tables/{name}.csv" for name in SCHEMAS if name != "skipped"),
        *(f"figures/{name}.html" for name in figures),
        "figures/plotly.min.js",
    }
    first = written[0].read_text()
    for link in parsed(first).links:
        assert link.startswith(("#", "data:")) or (tmp_path / link).is_file()
    written[0].unlink()
    assert rebuild_report(tmp_path).read_text() == first


def test_an_output_folder_that_is_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotADirectoryError, match="out"):
        write_report(ReportInputs({}), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_several_seeds_share_a_color_and_are_named(inputs: ReportInputs) -> None:
    frame = inputs.tables["accuracy"]
    page = build_report(ReportInputs({"accuracy": pd.concat([frame, frame.assign(run_seed=1)])}))
    assert "means of 2 cot and 2 direct models" in page
