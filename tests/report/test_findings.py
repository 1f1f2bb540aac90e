"""Sentences come from numbers: each is checked against a table small enough to work out by hand."""

import pandas as pd
import pytest

from cotinterp.figures.labels import RunKey, percent, runs_of
from cotinterp.figures.probing import is_before, target_step
from cotinterp.report import ReportInputs, findings
from cotinterp.report.behavior_findings import (
    accuracy_findings,
    edit_findings,
    edit_kind_findings,
    error_findings,
    family_findings,
    mostly_wrong,
)
from cotinterp.report.findings import circuit_findings, head_findings, patching_findings, probe_findings

RUN = {"task": "s3", "regime": "cot", "run_seed": 0}


def test_shares_are_never_rounded_to_all_or_nothing() -> None:
    assert [percent(share) for share in (0.0, 0.0001, 0.5, 0.9999, 1.0)] == [
        "0.0%",
        "<0.1%",
        "50.0%",
        ">99.9%",
        "100.0%",
    ]


def test_accuracy_is_that_of_held_out_problems_at_the_largest_k() -> None:
    row = {"task": "s3", "run_seed": 0, "n": 200, "ci_low": 0.1, "ci_high": 0.9}
    frame = pd.DataFrame(
        [
            row | {"regime": "direct", "split": "heldout", "k": 6, "correct": 50, "accuracy": 0.25},
            row | {"regime": "cot", "split": "heldout", "k": 6, "correct": 190, "accuracy": 0.95},
            row | {"regime": "direct", "split": "train", "k": 6, "correct": 200, "accuracy": 1.0},
            row | {"regime": "direct", "split": "heldout", "k": 2, "correct": 180, "accuracy": 0.9},
        ]
    )
    first, second, *_ = accuracy_findings(frame)
    assert "K = 6" in first
    assert "direct (seed 0) 25.0% of 200 (10.0% to 90.0%)" in first
    assert "100.0%" not in first
    assert "90.0% of" not in first
    assert "70.0 points above direct (one model a regime" in second


def test_the_train_split_is_set_against_held_out_problems_where_the_gap_is_largest() -> None:
    rows = [
        ("train", 2, 1.0, 0.9, 1.0),
        ("heldout", 2, 0.3, 0.1, 0.5),
        ("train", 3, 0.95, 0.9, 0.97),
        ("heldout", 3, 0.9, 0.85, 0.92),
    ]
    frame = pd.DataFrame(
        [
            RUN | {"split": split, "k": k, "n": 20, "correct": 1, "accuracy": accuracy, "ci_low": low, "ci_high": high}
            for split, k, accuracy, low, high in rows
        ]
    )
    _, gap, rise = accuracy_findings(frame)
    assert "drops most at K = 2 (of 2 values of K), from 100.0% of 20" in gap
    assert "to 30.0% of 20 (10.0% to 50.0%); the intervals of the two splits do not overlap at K = 2." in gap
    assert "held-out accuracy is lower at K = 2, 30.0% of 20" in rise
    assert "than at K = 3, 90.0% of 20" in rise
    wide = accuracy_findings(frame.assign(ci_low=0.0, ci_high=1.0))
    assert len(wide) == 2
    assert "overlap at every K" in wide[1]
    assert "do not overlap" not in wide[1]
    level = accuracy_findings(frame.assign(accuracy=0.5))
    assert "at no K are problems of the train split right more often" in level[1]


def test_when_cot_is_worse_the_sentence_says_below() -> None:
    row = {"task": "s3", "run_seed": 0, "n": 9, "ci_low": 0.0, "ci_high": 1.0, "split": "heldout", "k": 3, "correct": 1}
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
    (alone,) = error_findings(frame[frame["category"] != "never_ended"])
    assert "4 of 17 outputs were faulty" in alone
    assert "all of them \N{LEFT DOUBLE QUOTATION MARK}malformed trace" in alone


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
    assert "80.0% of 400 answers, pooled over steps, followed it (8.0% by chance)" in sentence
    assert "20.0% were the original answer" in sentence
    assert "step 1 90.0% of 300 (0.0% to 100.0%); step 2 50.0% of 100" in sentence


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
        ("trained", 1, "L1.resid_pre", "equals", 1, 0.8, "problems"),
        ("trained", 2, "L2.resid_pre", "equals", 1, 0.7, "problems"),
        ("untrained", 1, "L1.resid_pre", "equals", 1, 0.35, "problems"),
        ("trained", -1, "input", "equals", 1, 0.4, "problems"),
        ("trained", 1, "L1.resid_pre", "step_end", 1, 1.0, "problems"),
        ("trained", 2, "L2.resid_pre", "equals", 1, 0.9, "inputs"),
    ]
    frame = pd.DataFrame(
        [
            cell
            | {"model": model, "layer": layer, "site": site, "role": role, "step": step, "left_out": left_out}
            | {"accuracy": accuracy, "selectivity": accuracy - 0.1}
            for model, layer, site, role, step, accuracy, left_out in rows
        ]
    )
    (sentence,) = probe_findings(frame)
    assert "total 1, before it is written: furthest above an untrained model at equals 1, L1.resid_pre" in sentence
    assert "accuracy 80.0%" in sentence
    assert "selectivity +0.70" in sentence
    assert "untrained model 35.0%, not clearly below" in sentence
    (clear,) = probe_findings(frame.assign(ci_low=0.36), {})
    assert "untrained model 35.0%;" in clear
    (alone,) = probe_findings(frame[frame["model"] == "trained"])
    assert "most selective at equals 1, L1.resid_pre, accuracy 80.0%" in alone
    (stored,) = probe_findings(frame.assign(selectivity=-0.1, control_accuracy=0.9))
    assert "selectivity -0.10: a random label of the same input is read as well (90.0%)" in stored
    (guesses,) = probe_findings(frame, {RunKey("s3", "cot", 0): "right on 1 of 9"})
    assert guesses.endswith("This model is right on 1 of 9.")
    assert "current token and position alone 40.0%" in sentence
    assert "largest of 2 cells" in sentence
    assert probe_findings(frame[frame["role"] == "step_end"]) == []


def patches() -> pd.DataFrame:
    cell = RUN | {"pair": "operand 1 -> answer 2", "head": None, "n": 5, "ci_low": 0.4, "ci_high": 0.6}
    rows = [
        ("full", "full", -1, "all", -1, "denoise", 1.0),
        ("L3.resid_pre", "resid_pre", 3, "equals", 2, "denoise", 1.0),
        ("L1.attn_out", "attn_out", 1, "equals", 2, "denoise", 0.5),
        ("L1.attn_out", "attn_out", 1, "equals", 2, "noise", 0.25),
        ("L2.attn_out", "attn_out", 2, "equals", 2, "noise", 0.9),
        ("L2H1.z", "z", 2, "equals", 2, "denoise", -0.1),
        ("L2H3.z", "z", 2, "equals", 2, "denoise", 0.3),
    ]
    return pd.DataFrame(
        [
            cell
            | {"site": site, "kind": kind, "layer": layer, "role": role, "step": step}
            | {"direction": direction, "effect": effect, "metric": "logit_diff"}
            for site, kind, layer, role, step, direction, effect in rows
        ]
    )


def test_the_largest_patches_are_layer_outputs_and_heads_and_not_the_residual_stream() -> None:
    (sentence,) = patching_findings(patches())
    assert "operand 1 differs, read at answer 2" in sentence
    assert "of 1 cells of layer outputs, L1.attn_out at equals 2 alone restores most, 0.50" in sentence
    assert "(0.40 to 0.60, n = 5; noising it 0.25)" in sentence
    assert "of 2 cells of heads, L2H3.z at equals 2 alone restores most, 0.30" in sentence
    assert "chosen after looking" in sentence
    (without,) = patching_findings(patches().assign(ci_low=float("nan"), ci_high=float("nan")))
    assert "no interval" in without
    assert "nan" not in without


@pytest.mark.parametrize(("distinguished", "named"), [(3, True), (2, False), (0, False)])
def test_no_site_is_named_where_the_model_does_not_tell_the_pairs_apart(distinguished: int, named: bool) -> None:
    frame = patches()
    first = frame[frame["site"] == "full"].assign(metric="accuracy", n=distinguished)
    (sentence,) = patching_findings(pd.concat([frame, first]))
    assert ("L1.attn_out" in sentence) is named
    assert (
        f"undetermined; the top prediction tells clean from corrupted in {distinguished} of 5 pairs" in sentence
    ) is not named


def test_no_site_or_head_is_named_in_a_model_that_is_mostly_wrong() -> None:
    held = RUN | {"split": "heldout", "n": 100, "accuracy": 0.0, "ci_low": 0.0, "ci_high": 1.0}
    accuracy = pd.DataFrame([held | {"k": 2, "correct": 20}, held | {"k": 3, "correct": 30}])
    assert mostly_wrong(accuracy) == {RunKey("s3", "cot", 0): "right on 50 of 200 held-out problems, 25.0%"}
    assert mostly_wrong(accuracy.assign(correct=50)) == {}
    heads = pd.DataFrame([RUN | {"layer": 0, "head": 1, "ablation_effect": 0.5, "label": "total reader"}])
    inside = findings({"accuracy": accuracy, "patching": patches(), "heads": heads})
    texts = [finding.text for finding in inside if finding.table != "accuracy"]
    assert len(texts) == 2
    for text in texts:
        assert "undetermined" in text
        assert "right on 50 of 200" in text
        assert "L0H1" not in text
        assert "L1.attn_out" not in text
        assert "total reader" not in text
    sure = findings({"accuracy": accuracy.assign(correct=90), "patching": patches(), "heads": heads})
    assert all("undetermined" not in finding.text for finding in sure)
    (unlabeled,) = head_findings(heads.assign(label="undetermined"))
    assert "does not tell answer from foil" in unlabeled
    (unlabeled,) = head_findings(heads.assign(label="undecided"))
    assert "undecided; too few examples" in unlabeled


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
    assert (
        "ablating L0H1 alone adds most, 0.50 of the clean logit difference (label: mixed; the largest of 2" in sentence
    )


def test_a_circuit_is_the_smallest_that_keeps_enough() -> None:
    sizes = {0: 0.0, 12: 0.6, 24: 0.93, 48: 0.99, 479: 1.0}
    frame = pd.DataFrame(
        [
            RUN
            | {
                "pair": "total 2 -> total 3",
                "size": size,
                "connected": size // 2,
                "faithfulness": kept,
                "accuracy": 1.0,
            }
            | {"ci_low": kept - 0.05, "ci_high": kept + 0.05, "n": 24}
            for size, kept in sizes.items()
        ]
    )
    (sentence,) = circuit_findings(frame)
    assert "of 479 edges the 24 of the largest effect (12 of them connected) keep 0.93" in sentence
    assert "0.88 to 0.98, n = 24" in sentence
    ((key, _),) = runs_of(frame)
    assert circuit_findings(frame, {key: "right on 20%"}) == [
        f"{key.words}: undetermined; the model is right on 20%, so no circuit is named."
    ]


def test_no_sentence_without_its_table(inputs: ReportInputs) -> None:
    assert {finding.table for finding in findings(inputs.tables)} == {
        "accuracy", "errors", "trace_edits", "trace_edit_kinds", "pair_families", "probes", "patching", "heads",
        "faithfulness",
    }  # fmt: skip
    assert findings({}) == ()
    only_heads = findings({"heads": inputs.tables["heads"]})
    assert {finding.table for finding in only_heads} == {"heads"}


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
        "trace, 80.0% of 40 (25.0% to 75.0%; 12.5% by chance) follow, 15.0% ignore it, 5.0% other; with "
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
        "off the training distribution, 20.0% of 40 (25.0% to 75.0%; 12.5% by chance) are the right "
        "answer to the prompt all the same, 80.0% other."
    )


def test_a_table_of_replaced_totals_alone_says_nothing_here() -> None:
    assert edit_kind_findings(table(kind("substitute_total", False, 50, follows=0.9, ignores=0.1, other=0.0))) == []


def test_the_sentence_names_the_source_and_the_four_shares(inputs: ReportInputs) -> None:
    sentence = family_findings(inputs.tables["pair_families"])[0]
    assert "total 2 comes from the trace." in sentence
    assert "prompt operand in 2.0% of 100 (0.6% to 7.0%)" in sentence
    assert "written total in 95.0% of 100" in sentence
    assert "both in 99.0% of 100" in sentence
    assert "unrelated operand in 0.0% of 100" in sentence


def test_every_other_source_has_words_of_its_own(inputs: ReportInputs) -> None:
    frame = inputs.tables["pair_families"]
    said = {source: family_findings(frame.assign(source=source))[0] for source in ("prompt", "either", "undecided")}
    assert "total 2 comes from the prompt." in said["prompt"]
    assert "total 2 follows either change." in said["either"]
    assert "total 2 is undecided." in said["undecided"]
