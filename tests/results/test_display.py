"""What a notebook and a terminal show of things that hold thousands of numbers: little, and the right part."""

import numpy as np
import pytest

from cotinterp import (
    Contrast,
    collate,
    judge_all,
    load_run,
    read_evidence,
    render,
    sample_problems,
    written_total_pairs,
)
from cotinterp.claims.catalog import CATALOG
from cotinterp.results.result import ROWS_SHOWN, rows_html

SCREEN = 2000


@pytest.fixture(scope="module")
def shown():
    run = load_run("s3-cot-L4-s0-42df236d")
    problems = sample_problems(run.task, 4, 200, split="heldout", rng=np.random.default_rng(0))
    pairs = written_total_pairs(run.task, problems, "cot", step=2, rng=np.random.default_rng(0))
    evidence = read_evidence("analyses/out")
    return {
        "run": run,
        "transcript": render(run.task, problems[0], "cot"),
        "batch": collate([render(run.task, problem, "cot") for problem in problems], run.vocabulary),
        "pairs": pairs,
        "contrast": Contrast.from_pairs(pairs),
        "evidence": evidence,
        "verdict": judge_all(CATALOG, evidence.of_seeds(5)).verdicts[0],
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("run", "s3-cot-L4-s0-42df236d"),
        ("batch", "200 rows, the first 10"),
        ("pairs", "<th>foil</th>"),
        ("contrast", "written_total 2 -&gt; "),
        ("evidence", "<td>unconverged</td>"),
        ("verdict", "gap-widens: At equal updates"),
    ],
)
def test_it_fits_on_a_screen_and_needs_no_network(shown, name, said):
    assert len(repr(shown[name])) <= SCREEN
    html = shown[name]._repr_html_()
    assert said in html
    assert len(html) <= 10 * SCREEN
    assert "<script" not in html
    assert "http" not in html


def test_a_transcript_is_its_text(shown):
    assert repr(shown["transcript"]) == f"Transcript({shown['transcript'].text!r}, regime='cot')"


def test_a_table_shows_its_first_rows_and_escapes_what_stands_there():
    html = rows_html(object(), ("<b>",), (("<i>",) for _ in range(50)), n=50)
    assert html.count("<td>&lt;i&gt;</td>") == ROWS_SHOWN
    assert "<th>&lt;b&gt;</th>" in html
    assert "50 rows, the first 10" in html
