"""Sentences come from numbers: each is checked against a table small enough to work out by hand."""

import pandas as pd
import pytest

from cotinterp.report import ReportInputs, findings
from cotinterp.report.behavior_findings import accuracy_findings, edit_findings, error_findings, percent
from cotinterp.report.mechanism_findings import head_findings, is_before, patching_findings, probe_findings, target_step

RUN = {"task": "s3", "regime": "cot", "seed": 0}


def test_shares_are_never_rounded_to_all_or_nothing() -> None:
    assert [percent(share) for share in (0.0, 0.0001, 0.5, 0.9999, 1.0)] == [
        "0.0%",
        "<0.1%",
        "50.0%",
        ">99.9%",
        "100.0%",
    ]


def test_accuracy_is_that_of_held_out_problems_at_the_largest_k() -> None:
    row = {"task": "s3", "seed": 0, "n": 200, "ci_low": 0.1, "ci_high": 0.9}
    frame = pd.DataFrame(
        [
            row | {"regime": "direct", "split": "heldout", "k": 6, "correct": 50, "accuracy": 0.25},
            row | {"regime": "cot", "split": "heldout", "k": 6, "correct": 190, "accuracy": 0.95},
            row | {"regime": "direct", "split": "train", "k": 6, "correct": 200, "accuracy": 1.0},
            row | {"regime": "direct", "split": "heldout", "k": 2, "correct": 180, "accuracy": 0.9},
        ]
    )
    first, second = accuracy_findings(frame)
    assert "K = 6" in first
    assert "direct (seed 0) 25.0% of 200 (95% interval 10.0% to 90.0%)" in first
    assert "100.0%" not in first
    assert "90.0% of" not in first
    assert "70.0 points above direct (one model a regime" in second


def test_when_cot_is_worse_the_sentence_says_below() -> None:
    row = {"task": "s3", "seed": 0, "n": 9, "ci_low": 0.0, "ci_high": 1.0, "split": "heldout", "k": 3, "correct": 1}
    frame = pd.DataFrame([row | {"regime": "cot", "accuracy": 0.2}, row | {"regime": "direct", "accuracy": 0.3}])
    assert "10.0 points below direct" in accuracy_findings(frame)[1]
    assert "level with direct" in accuracy_findings(frame.assign(accuracy=0.3))[1]


def test_faults_are_counted_over_k() -> None:
    rows = [
        (2, "correct", 9),
        (2, "malformed_trace", 1),
        (3, "correct", 4),
        (3, "malformed_trace", 3),
        (3, "never_ended", 3),
    ]
    frame = pd.DataFrame([RUN | {"k": k, "category": name, "count": count, "share": 0.0} for k, name, count in rows])
    (sentence,) = error_findings(frame)
    assert "7 of 20 outputs" in sentence
    assert "\N{LEFT DOUBLE QUOTATION MARK}malformed trace\N{RIGHT DOUBLE QUOTATION MARK} (4 of 7)" in sentence
    (clean,) = error_findings(frame[frame["category"] == "correct"])
    assert "none of 13 outputs" in clean


def test_edit_rates_are_pooled_by_n_and_stand_beside_chance() -> None:
    rates = {"follows": (0.9, 0.5), "ignores": (0.1, 0.5), "other": (0.0, 0.0)}
    frame = pd.DataFrame(
        [
            RUN
            | {"edit": edit, "step": step, "outcome": outcome, "n": n, "rate": scale * rate, "ci_low": 0, "ci_high": 1}
            for edit, scale in (("substitute_total", 1.0), ("shuffled_target", 0.1))
            for outcome, by_step in rates.items()
            for step, n, rate in zip((1, 2), (300, 100), by_step, strict=True)
        ]
    )
    (sentence,) = edit_findings(frame)
    assert "80.0% of 400 answers followed the edit (by step 50.0% to 90.0%; by chance 8.0%)" in sentence
    assert "20.0% were the original answer" in sentence


@pytest.mark.parametrize(
    ("role", "step", "expected"),
    [
        ("operand", 3, True),
        ("prompt_end", -1, True),
        ("equals", 2, True),
        ("equals", 3, False),
        ("total", 1, True),
        ("total", 2, False),
        ("step_end", 2, False),
        ("previous_total", 3, False),
        ("answer", 3, False),
        ("trace_end", -1, False),
    ],
)
def test_what_comes_before_total_2_is_written(role: str, step: int, expected: bool) -> None:
    assert is_before(role, step, 2) is expected


def test_the_target_of_a_probe_by_name() -> None:
    assert [target_step(name) for name in ("s_2", "total_12", "answer")] == [2, 12, None]


def test_the_best_probe_is_looked_for_only_before_the_total_is_written() -> None:
    cell = RUN | {
        "target": "s_1",
        "n_train": 9,
        "n_test": 9,
        "control_accuracy": 0.1,
        "chance": 0.3,
        "ci_low": 0,
        "ci_high": 1,
    }
    rows = [
        ("trained", 1, "resid_pre", "equals", 1, 0.8),
        ("trained", 2, "resid_pre", "equals", 1, 0.7),
        ("untrained", 1, "resid_pre", "equals", 1, 0.35),
        ("trained", -1, "input", "equals", 1, 0.4),
        ("trained", 1, "resid_pre", "step_end", 1, 1.0),
    ]
    frame = pd.DataFrame(
        [
            cell
            | {"model": model, "layer": layer, "site": site, "role": role, "step": step}
            | {"accuracy": accuracy, "selectivity": accuracy - 0.1}
            for model, layer, site, role, step, accuracy in rows
        ]
    )
    (sentence,) = probe_findings(frame)
    assert "reads total 1 at equals 1, L1.resid_pre: accuracy 80.0%, selectivity +0.70" in sentence
    assert "untrained model 35.0%" in sentence
    assert "current token and position alone 40.0%" in sentence
    assert "largest of 2 cells" in sentence
    assert probe_findings(frame[frame["role"] == "step_end"]) == []


def test_the_largest_patch_leaves_out_the_embedding_and_the_baselines() -> None:
    cell = RUN | {"pair": "operand 1", "metric": "logit_diff", "head": None, "n": 5, "ci_low": 0.4, "ci_high": 0.6}
    rows = [
        ("full", 0, "all", -1, "denoise", 1.0),
        ("L0.resid_pre", 0, "operand", 1, "denoise", 1.0),
        ("L1.attn_out", 1, "equals", 2, "denoise", 0.5),
        ("L2.attn_out", 2, "equals", 2, "noise", 0.9),
    ]
    frame = pd.DataFrame(
        [
            cell | {"site": site, "layer": layer, "role": role, "step": step, "direction": direction, "effect": effect}
            for site, layer, role, step, direction, effect in rows
        ]
    )
    (sentence,) = patching_findings(frame)
    assert "is 0.50 (95% interval 0.40 to 0.60, n = 5) at L1.attn_out, equals 2 (the largest of 1 cells" in sentence
    (without,) = patching_findings(frame.assign(ci_low=float("nan"), ci_high=float("nan")))
    assert "no interval" in without
    assert "nan" not in without


def test_heads_are_counted_by_label_and_the_largest_ablation_may_be_negative() -> None:
    frame = pd.DataFrame(
        [
            RUN | {"layer": 0, "head": 1, "ablation_effect": -0.5, "label": "mixed"},
            RUN | {"layer": 1, "head": 0, "ablation_effect": 0.25, "label": "mixed"},
            RUN | {"layer": 1, "head": 1, "ablation_effect": float("nan"), "label": "total reader"},
        ]
    )
    (sentence,) = head_findings(frame)
    assert "of 3 heads, 2 mixed, 1 total reader" in sentence
    assert "L0H1" in sentence
    assert "-0.50" in sentence


def test_no_sentence_without_its_table(inputs: ReportInputs) -> None:
    assert {finding.table for finding in findings(inputs.tables)} == {
        "accuracy", "errors", "trace_edits", "probes", "patching", "heads"
    }  # fmt: skip
    assert findings({}) == ()
    only_heads = findings({"heads": inputs.tables["heads"]})
    assert {finding.table for finding in only_heads} == {"heads"}
