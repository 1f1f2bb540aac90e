"""Sentences about kinds of edit, each against rows that can be read off by eye."""

import pandas as pd

from cotinterp.report.findings import edit_kind_findings

RUN = {"task": "s3", "regime": "cot", "run_seed": 0}


def kind(edit: str, closed: bool, n: int, **rates: float) -> list[dict[str, object]]:
    measured = {"n": n, "ci_low": 0.25, "ci_high": 0.75}
    chance = {"by_chance": None if edit == "none" else 0.125}
    cell = RUN | {"edit": edit, "closed": closed}
    return [cell | {"outcome": outcome, "rate": rate} | measured | chance for outcome, rate in rates.items()]


def table(*kinds: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in kinds for row in rows]).astype({"by_chance": float})


def test_a_cut_trace_has_its_control_beside_it_and_the_replaced_total_is_told_elsewhere() -> None:
    (sentence,) = edit_kind_findings(
        table(
            kind("substitute_total", False, 50, follows=0.9, ignores=0.1, other=0.0),
            kind("none", False, 40, follows=0.975, other=0.025),
            kind("none", True, 40, follows=0.5, other=0.5, resumed=0.0),
            kind("swap_prefix", False, 40, follows=0.8, ignores=0.15, other=0.05),
        )
    )
    assert sentence == (
        "s3, cot, seed 0: where another problem's trace is written up to a total, and the model writes the rest of the "
        "trace, 80.0% of 40 (95% interval 25.0% to 75.0%; 12.5% by chance) follow, 15.0% ignore it, 5.0% other; with "
        "the true trace 97.5% are right."
    )


def test_a_closed_trace_asks_only_whether_the_last_total_is_copied_and_who_goes_on_is_told() -> None:
    early, swapped = edit_kind_findings(
        table(
            kind("none", True, 40, follows=1.0, other=0.0, resumed=0.0),
            kind("truncate", True, 40, follows=0.0, ignores=0.0, other=1.0, resumed=1.0),
            kind("swap", True, 20, follows=0.5, ignores=0.1, other=0.4, resumed=0.1),
        )
    )
    assert "where the trace is closed early, and only the answer is left, 0.0% of 40" in early
    assert "100.0% other (all by going on with the trace after its closing brace, without an answer); with" in early
    assert "follow, which asks no more than a copy of the last total that is shown, 10.0% ignore it" in swapped
    assert "40.0% other (10.0% by going on with the trace after its closing brace, without an answer)" in swapped
    assert swapped.endswith("; with the true trace 100.0% are right.")


def test_filler_leaves_nothing_to_follow() -> None:
    (sentence,) = edit_kind_findings(table(kind("fill_steps", True, 40, ignores=0.2, other=0.8, resumed=0.0)))
    assert sentence == (
        "s3, cot, seed 0: where filler stands for every step, in no training transcript and with nothing to follow, so "
        "off the training distribution, 20.0% of 40 (95% interval 25.0% to 75.0%; 12.5% by chance) are the right "
        "answer to the prompt all the same, 80.0% other."
    )


def test_a_table_of_replaced_totals_alone_says_nothing_here() -> None:
    assert edit_kind_findings(table(kind("substitute_total", False, 50, follows=0.9, ignores=0.1, other=0.0))) == []
