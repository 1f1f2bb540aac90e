"""The verdicts on the page: every word, number and link of the tables, and nothing that the tables do not say."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from cotinterp.claims.catalog import CATALOG
from cotinterp.report import SCHEMAS, ReportInputs, build_report, rebuild_report, write_report
from cotinterp.report.schema import check_table, read_tables
from cotinterp.report.texts import TEXTS, VERDICT_WORDS
from cotinterp.report.verdicts import (
    ICONS,
    answer,
    details_html,
    icon,
    matrix_html,
    verdict_summary,
    verdict_tables,
    verdicts_html,
)
from tests.report.verdict_frames import made_up_verdicts, measured, verdict


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return verdict_tables(made_up_verdicts())


def words_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def rows_of(html: str) -> list[str]:
    """The rows of the verdict table, in words."""
    return [words_of(row) for row in re.findall(r"<tr>(.*?)</tr>", html.split("</table>")[0], flags=re.DOTALL)[1:]]


def judged(**words: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        (name.replace("_", "-"), task, word)
        for name, of in words.items()
        for task, word in zip("abc", of, strict=False)
    ]
    return pd.DataFrame(rows, columns=["claim", "task", "verdict"])


def test_the_answer_names_what_holds_on_every_task_and_on_none_and_counts_the_rest() -> None:
    both = judged(it_reads=("supported",) * 2, it_grows=("not supported",) * 2, it_stores=("supported", "mixed"))
    assert answer(both) == (
        "Supported on all 2 tasks: it reads. Not supported on all 2 tasks: it grows. "
        "1 of 3 claims differ between tasks, hold in part or are open."
    )
    open_ones = judged(it_reads=("supported", "inconclusive"), it_grows=("inconclusive",) * 2)
    assert answer(open_ones) == (
        "Supported wherever decided: it reads. 1 of 2 claims differ between tasks, hold in part or are open."
    )
    many = judged(**{f"a_claim_of_five_words_{i}": ("not supported",) for i in range(9)})
    assert answer(many).endswith("a claim of five words 2 and 6 more.")
    assert len(answer(many).split()) <= 40


def test_every_claim_has_a_word_for_every_task_in_the_first_table(tables: dict[str, pd.DataFrame]) -> None:
    html = str(matrix_html(tables))
    frame = tables["verdicts"]
    rows = rows_of(html.split("</p>", 1)[1])
    assert [row.replace(" ? ", " ") for row in rows] == [
        " ".join([str(claim).replace("-", " "), *of["verdict"]]) for claim, of in frame.groupby("claim", sort=False)
    ]


def test_the_tables_of_a_judgement_are_those_that_the_report_reads(tables: dict[str, pd.DataFrame]) -> None:
    for name in ("verdicts", "claim_criteria", "claim_seeds", "claim_runs"):
        assert tuple(check_table(name, tables[name]).columns)[: len(SCHEMAS[name].columns)] == SCHEMAS[name].columns


def test_a_row_says_claim_task_verdict_effect_with_interval_and_unit_sample_and_reason(
    tables: dict[str, pd.DataFrame],
) -> None:
    rows = rows_of(verdicts_html(tables))
    assert len(rows) == 4
    assert rows[0] == (
        "gap-widens The advantage of writing the trace grows with the number of operands. digit-sum supported "
        "62.0 points 57.0 to 67.0 5 seeds, n = 5,000 advantage is holds. Evidence: Accuracy by K , Trace edits"
    )
    assert rows[1].startswith("s3 partly supported 31.0 points 27.0 to 35.0")
    assert rows[3].startswith("s3 ? inconclusive 0.46 0.26 to 0.66 5 seeds")


def test_a_verdict_is_told_by_a_word_and_a_shape_and_not_by_color_alone() -> None:
    assert set(ICONS) == set(VERDICT_WORDS)
    drawn = {re.sub(r'fill="[^"]*"', "", icon(word)) for word in ICONS}
    assert len(drawn) == len(ICONS)
    assert not re.search(r"green|#0+f|#00[89a-f]", "".join(ICONS.values()).lower())


def test_what_cannot_be_said_stays_empty_instead_of_becoming_nan() -> None:
    nan = float("nan")
    unmeasured = verdict("gap-widens", "s3", "inconclusive", measured("slope", "above 0.02", nan, nan, "not measured"))
    frames = verdict_tables(replace(made_up_verdicts(), verdicts=(unmeasured,)))
    page = words_of(verdicts_html(frames) + details_html(frames))
    assert "undefined" in page
    assert "no such cell" in page
    assert not re.search(r"\bnan\b", page)


def test_the_summary_counts_each_verdict_of_each_task(tables: dict[str, pd.DataFrame]) -> None:
    summary = verdict_summary(tables["verdicts"])
    assert summary == (
        "2 claims, judged over 5 seeds. digit-sum: 1 supported, 1 not supported. "
        "s3: 1 partly supported, 1 inconclusive."
    )


def test_every_word_is_explained_and_rivals_that_are_contradicted_are_not_listed(
    tables: dict[str, pd.DataFrame],
) -> None:
    page = words_of(verdicts_html(tables))
    for word, rule in VERDICT_WORDS.items():
        assert f"{word} {rule}" in page
    assert "direct-is-lookup , digit-sum: parallel algorithm: stands; luck: neither shown nor contradicted" in page
    assert "gap-widens , digit-sum: luck: neither shown nor contradicted" in page
    none_left = tables["verdicts"].assign(rivals="luck: contradicted")
    assert "None: every rival" in words_of(verdicts_html({"verdicts": none_left}))


def test_runs_that_failed_or_did_not_converge_are_listed_or_said_to_be_none(tables: dict[str, pd.DataFrame]) -> None:
    page = words_of(details_html(tables))
    assert "s3, direct, L1, seed 3 unconverged 1.25 31.0% right on 31%" in page
    assert "s3, direct, L1, seed 4 failed stopped at step 10" in page
    assert "None: every run" in words_of(details_html(tables | {"claim_runs": tables["claim_runs"].head(0)}))
    assert "every run" not in words_of(details_html({"verdicts": tables["verdicts"]}))


def test_each_threshold_stands_with_its_side_and_its_reason() -> None:
    gap = next(claim for claim in CATALOG if claim.name == "gap-widens")
    criteria = [measured(one.name, f"above {one.threshold.value}", 0.4, 0.1, "holds") for one in gap.criteria]
    judged = replace(made_up_verdicts(), verdicts=(verdict("gap-widens", "s3", "supported", *criteria),))
    page = words_of(details_html(verdict_tables(judged, CATALOG)))
    for one in gap.criteria:
        at = f"{100 * one.threshold.value:.1f} points"
        assert f"gap-widens: {one.name} (what {one.name} is). Predicted above {at}: {one.threshold.reason}." in page


def test_a_number_that_only_rivals_speak_of_is_said_to_be_no_prediction(tables: dict[str, pd.DataFrame]) -> None:
    page = words_of(details_html(tables))
    assert "direct-is-lookup: cliff (what cliff is). No prediction; rivals speak of 30.0 points." in page
    assert "digit-sum 5.0 points 3.0 to 7.0 below" in page


def test_the_page_opens_with_them_and_every_link_into_the_page_arrives(tables: dict[str, pd.DataFrame]) -> None:
    page = build_report(ReportInputs(tables))
    ids = re.findall(r'<section id="([^"]+)"', page)
    assert ids[0] == "verdicts"
    assert page.index('id="verdicts"') > page.index('class="lead"')
    assert {link for link in re.findall(r'href="#([^"]+)"', page)} <= set(ids)
    table = page[page.index('<table class="verdicts">') :].split("</table>")[0]
    assert set(re.findall(r'href="#([^"]+)"', table)) == {"accuracy", "trace_edits"}


def test_without_evidence_the_page_says_how_to_come_by_it() -> None:
    page = build_report(ReportInputs({}))
    assert "cotinterp claims --from checkpoints --train" in page.split('<section id="run">')[0]
    assert TEXTS["verdicts"]["title"] in page
    assert '<table class="verdicts">' not in page


def test_the_four_tables_alone_rebuild_the_section(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    whole = ReportInputs(verdict_tables(made_up_verdicts(), CATALOG), verdicts_json=made_up_verdicts().json())
    first = write_report(whole, tmp_path)[0].read_text()
    assert set(read_tables(tmp_path)) == set(tables)
    assert rebuild_report(tmp_path).read_text() == first
    assert (tmp_path / "verdicts.json").read_text() == made_up_verdicts().json()
    assert (tmp_path / "figures" / "verdicts.html").is_file()


def test_texts_of_a_claim_cannot_become_markup(tables: dict[str, pd.DataFrame]) -> None:
    evil = "<img src=x onerror=alert(1)>"
    texts = (
        "claim",
        "task",
        "reason",
        "statement",
        "controls",
        "criterion",
        "words",
        "note",
        "threshold_reason",
    )
    frames = {
        name: frame.assign(**{column: evil for column in texts if column in frame.columns})
        for name, frame in tables.items()
    }
    frames["verdicts"]["rivals"] = f"{evil}: stands"
    page = verdicts_html(frames) + details_html(frames)
    assert evil not in page
    assert "&lt;img" in page
    assert evil not in build_report(ReportInputs(frames)).split("</head>")[1]
