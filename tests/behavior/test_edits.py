"""Trace edits on models of which it is known whether they read what they wrote; outcomes and intervals by hand."""

import numpy as np
import pytest

from cotinterp.behavior.edit_kinds import ALL_EDITS, EditKind, SubstituteTotal, all_edits
from cotinterp.behavior.edits import (
    NONE,
    SHUFFLED,
    SUBSTITUTE,
    EditAnswer,
    EditResult,
    Outcome,
    chance_of,
    outcome_of,
    trace_edits,
)
from cotinterp.models.decoding import Decoding
from cotinterp.models.handmade import reader, recomputer
from cotinterp.results.intervals import wilson
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import Problem, solve
from cotinterp.transcripts.render import render

pytestmark = pytest.mark.slow

LABELS = {"task": "s3", "regime": "cot", "run_seed": 0}
PROBLEMS = solve(get_task("s3"), np.array([[a, b, 1] for a in range(6) for b in range(6)]))


def result_of(*groups):
    """One group for each problem in turn: the answers after its edits of step 1, each edit with another total."""
    edits = [
        EditAnswer(problem, 1, (problem.totals[0] + shift) % 6, 100 + shift, "", answer)
        for problem, answers in zip(PROBLEMS, groups, strict=False)
        for shift, answer in enumerate(answers, start=1)
    ]
    return EditResult(tuple(edits), (Outcome.OTHER,) * len(edits), (), LABELS)


def test_an_answer_is_judged_once():
    assert outcome_of(5, 5, 3) is Outcome.FOLLOWS
    assert outcome_of(3, 5, 3) is Outcome.IGNORES
    assert outcome_of(4, 5, 3) is Outcome.OTHER
    assert outcome_of(None, 5, 3) is Outcome.OTHER
    assert outcome_of(3, None, 3) is Outcome.IGNORES
    assert outcome_of(None, None, 3) is Outcome.OTHER


def test_rates_by_hand():
    original = PROBLEMS[0].answer
    frame = result_of([101, original, None], [101, 102, 103]).frame().set_index(["edit", "outcome"])
    rates = frame.loc[SUBSTITUTE, "rate"]
    assert rates.to_dict() == pytest.approx({"follows": 4 / 6, "ignores": 1 / 6, "other": 1 / 6})
    assert frame.loc[SHUFFLED, "rate"].to_dict() == {"follows": 0.0, "ignores": 0.0, "other": 1.0}
    assert (frame["n"] == 6).all()


def test_a_rate_pools_edits_although_problems_have_different_numbers_of_them():
    frame = result_of([101], [None, None, None]).frame().set_index(["edit", "outcome"])
    assert frame.loc[(SUBSTITUTE, "follows"), "rate"] == 1 / 4


def test_one_edit_a_problem_has_the_interval_of_wilson():
    cell = result_of(*[[101]] * 12, *[[None]] * 8).frame().set_index(["edit", "outcome"]).loc[(SUBSTITUTE, "follows")]
    assert (cell["rate"], cell["n"]) == (12 / 20, 20)
    assert (cell["ci_low"], cell["ci_high"]) == wilson(12, 20)


def test_five_equal_edits_a_problem_are_one_piece_of_evidence():
    once = [[101]] * 18 + [[None]] * 18
    often = [[101, 102, 103, 104, 105]] * 18 + [[None] * 5] * 18
    one, many = (
        result_of(*groups).frame().set_index(["edit", "outcome"]).loc[(SUBSTITUTE, "follows")]
        for groups in (once, often)
    )
    assert (one["rate"], many["rate"], many["n"]) == (0.5, 0.5, 5 * one["n"])
    assert many["ci_high"] - many["ci_low"] == pytest.approx(one["ci_high"] - one["ci_low"], rel=0.15)
    naive = wilson(90, 180)
    assert many["ci_high"] - many["ci_low"] > 1.8 * (naive.high - naive.low)


def test_where_all_edits_agree_the_interval_has_the_width_of_the_problems():
    frame = result_of(*[[101, 102, 103]] * 10).frame().set_index(["edit", "outcome"])
    follows, ignores = frame.loc[(SUBSTITUTE, "follows")], frame.loc[(SUBSTITUTE, "ignores")]
    assert (follows["ci_low"], follows["ci_high"]) == wilson(10, 10)
    assert (ignores["ci_low"], ignores["ci_high"]) == wilson(0, 10)


def test_the_true_total_is_the_control():
    problem = PROBLEMS[0]
    right = EditAnswer(problem, 1, problem.totals[0], problem.answer, "", problem.answer, edit=NONE)
    wrong = EditAnswer(PROBLEMS[1], 1, PROBLEMS[1].totals[0], PROBLEMS[1].answer, "", None, edit=NONE)
    frame = EditResult((right, wrong), (None, None), (), LABELS).frame()
    assert frame[["edit", "outcome", "rate"]].to_numpy().tolist() == [[NONE, "follows", 0.5], [NONE, "other", 0.5]]


def whole_trace(problem, answer, *, edit="swap", followed=100, resumed=False):
    return EditAnswer(problem, -1, followed, followed, "", answer, edit=edit, resumed=resumed)


def test_kinds_of_edit_have_rows_of_their_own():
    edits = (
        *(EditAnswer(one, 1, (one.totals[0] + 1) % 6, 100, "", 100) for one in PROBLEMS[:4]),
        *(whole_trace(one, 100) for one in PROBLEMS[:3]),
        whole_trace(PROBLEMS[3], None, resumed=True),
        *(whole_trace(one, one.answer, edit="fill_totals", followed=None) for one in PROBLEMS[:2]),
        *(whole_trace(one, one.answer, edit=NONE, followed=one.answer) for one in PROBLEMS[:2]),
    )
    chance = [Outcome.OTHER] * 4 + [Outcome.FOLLOWS] + [Outcome.OTHER] * 3 + [Outcome.IGNORES] * 2 + [None] * 2
    result = EditResult(edits, tuple(chance), (), LABELS)
    frame = result.frame()
    assert list(dict.fromkeys(frame["edit"])) == [
        *(SUBSTITUTE, NONE, SHUFFLED, "swap", chance_of("swap"), "fill_totals", chance_of("fill_totals"))
    ]
    rates = frame.set_index(["edit", "step", "outcome"])["rate"].to_dict()
    assert rates["swap", -1, "follows"] == 3 / 4
    assert rates[chance_of("swap"), -1, "follows"] == 1 / 4
    assert rates["fill_totals", -1, "ignores"] == rates[chance_of("fill_totals"), -1, "ignores"] == 1.0
    assert not {(edit, -1, "follows") for edit in ("fill_totals", chance_of("fill_totals"))} & set(rates)
    assert rates[NONE, -1, "follows"] == 1.0
    assert (NONE, -1, "ignores") not in rates
    resumed = result.resumed().set_index("edit")
    assert resumed["rate"].to_dict() == {"swap": 1 / 4, "fill_totals": 0.0, NONE: 0.0}
    assert tuple(resumed.loc["swap", ["ci_low", "ci_high"]]) == wilson(1, 4)


def test_kinds_pooled_over_steps_stand_beside_their_chance():
    edits = (
        *(EditAnswer(one, 1, (one.totals[0] + 1) % 6, 100, "", 100) for one in PROBLEMS[:4]),
        *(EditAnswer(one, 2, (one.totals[1] + 1) % 6, 100, "", one.answer) for one in PROBLEMS[:4]),
        *(EditAnswer(one, 1, one.totals[0], one.answer, "", one.answer, edit=NONE) for one in PROBLEMS[:2]),
        whole_trace(PROBLEMS[0], 100),
        whole_trace(PROBLEMS[1], None, resumed=True),
        whole_trace(PROBLEMS[0], None, edit=NONE, followed=PROBLEMS[0].answer),
    )
    chance = [Outcome.FOLLOWS, *[Outcome.OTHER] * 7, None, None, Outcome.IGNORES, Outcome.OTHER, None]
    frame = EditResult(edits, tuple(chance), (), LABELS).pooled()
    assert list(frame.columns) == [
        *LABELS, "edit", "closed", "outcome", "n", "rate", "ci_low", "ci_high", "by_chance"
    ]  # fmt: skip
    rows = frame.set_index(["edit", "closed", "outcome"]).sort_index()
    assert list(dict.fromkeys(zip(frame["edit"], frame["closed"], strict=True))) == [
        (SUBSTITUTE, False), (NONE, False), (NONE, True), ("swap", True)
    ]  # fmt: skip
    follows = rows.loc[(SUBSTITUTE, False, "follows")]
    assert (follows["n"], follows["rate"], follows["by_chance"]) == (8, 0.5, 1 / 8)
    assert rows.loc["swap", True]["rate"].to_dict() == {"follows": 0.5, "ignores": 0.0, "other": 0.5, "resumed": 0.5}
    assert rows.loc[("swap", True, "ignores"), "by_chance"] == 0.5
    assert rows.loc[NONE, False]["rate"].to_dict() == {"follows": 1.0, "other": 0.0}
    assert rows.loc[NONE, True]["rate"].to_dict() == {"follows": 0.0, "other": 1.0, "resumed": 0.0}
    assert rows.loc[NONE, "by_chance"].isna().all()


def test_an_edit_of_the_whole_trace_has_neither_distance_nor_delta():
    result = EditResult((whole_trace(PROBLEMS[0], 100),), (None,), (), LABELS)
    row = result.examples().iloc[0]
    assert (row["step"], row["distance"], row["written_total"]) == (-1, -1, 100)
    assert row[["true_total", "delta"]].isna().all()
    assert result.by_distance()["distance"].tolist() == [-1] * 3
    assert result.by_distance(by_delta=True).empty


def test_an_operand_that_enters_before_step_1_is_furthest_from_the_answer():
    edit = EditAnswer(PROBLEMS[0], 0, 100, 100, "", 100, edit="edit_prompt", resumed=False)
    (row,) = EditResult((edit,), (None,), (), LABELS).examples().to_dict("records")
    assert (row["distance"], row["k"], row["outcome"]) == (2, 3, "follows")


COLUMNS = ["task", "regime", "run_seed", "edit", "step", "outcome", "n", "rate", "ci_low", "ci_high"]
WRITING = [("digit-sum", "cot"), ("digit-sum", "totals"), ("s3", "cot"), ("s3", "totals"), ("affine-mod10", "cot")]


def edited(scripted, policy, name, problems, regime, *, values=3, **options):
    return all_edited(scripted, policy, name, problems, regime, edits=[SubstituteTotal(values)], **options)


def all_edited(
    scripted, policy, name, problems, regime, *, edits=ALL_EDITS, n_ctx=None, max_new=None, seed=0, **options
):
    task = get_task(name)
    model, rng = scripted.Model(task, policy, n_ctx=n_ctx), np.random.default_rng(seed)
    decoding = Decoding(max_new=max_new)
    return trace_edits(model, task, regime, problems, edits=edits, rng=rng, decoding=decoding, **options)


def rates(result, edit):
    frame = result.frame()
    return {(row.step, row.outcome): row.rate for row in frame[frame["edit"] == edit].itertuples()}


@pytest.mark.parametrize(("name", "regime"), WRITING)
def test_a_reader_always_follows(scripted, some_problems, name, regime):
    policy = scripted.reader(get_task(name), regime)
    result = edited(scripted, policy, name, some_problems(name, 3, k_max=4), regime, values=2)
    expected = {(step, outcome): float(outcome == "follows") for step in (1, 2, 3) for outcome in Outcome}
    assert rates(result, SUBSTITUTE) == expected
    assert {rate for (_, outcome), rate in rates(result, NONE).items() if outcome == "follows"} == {1.0}


@pytest.mark.parametrize(("name", "regime"), WRITING)
def test_a_recomputer_always_ignores(scripted, some_problems, name, regime):
    policy = scripted.recomputer(get_task(name), regime)
    result = edited(scripted, policy, name, some_problems(name, 3, k_max=4), regime, values=2)
    expected = {(step, outcome): float(outcome == "ignores") for step in (1, 2, 3) for outcome in Outcome}
    assert rates(result, SUBSTITUTE) == expected
    assert {rate for (_, outcome), rate in rates(result, NONE).items() if outcome == "follows"} == {1.0}


@pytest.mark.parametrize(("name", "regime"), [("digit-sum", "cot"), ("s3", "totals"), ("affine-mod10", "noisy")])
@pytest.mark.parametrize(("policy", "outcome"), [("reader", "follows"), ("recomputer", "ignores")])
def test_every_kind_of_edit_tells_a_reader_from_a_recomputer(scripted, some_problems, name, regime, policy, outcome):
    policy = getattr(scripted, policy)(get_task(name), regime)
    result = all_edited(scripted, policy, name, some_problems(name, 2, k_max=4), regime)
    frame = result.frame()
    one = frame[(frame["outcome"] == outcome) & ~frame["edit"].str.startswith(SHUFFLED)]
    cells = one.groupby("edit")["rate"].agg(["min", "max"])
    both_answer_alike = {NONE} if outcome == "ignores" else {"fill_totals", "fill_steps"}
    expected = {kind.name for kind in ALL_EDITS} | {NONE}
    expected -= both_answer_alike | ({"fill_steps"} if regime == "totals" else set())
    assert set(cells.index) == expected
    assert cells.to_numpy().tolist() == [[1.0, 1.0]] * len(expected)
    assert not result.resumed()["rate"].any()


@pytest.mark.parametrize("regime", ["totals", "cot"])
def test_transformers_written_by_hand_read_or_recompute_wherever_no_token_moves(some_problems, regime):
    """Both find places by position: after a trace that is too short they go on with it, and `resumed` says so."""
    task, problems = get_task("z6"), some_problems("z6", 3, k_max=3)
    short, filled = {"truncate", "delete"}, {"fill_totals", "fill_steps"} if regime == "cot" else {"fill_totals"}
    rest = {kind.name for kind in ALL_EDITS} - short - {"fill_totals", "fill_steps"}
    for model, outcome in ((reader(task, regime, (2, 3)), "follows"), (recomputer(task, regime, (2, 3)), "ignores")):
        result = trace_edits(model, task, regime, problems, rng=np.random.default_rng(0))
        frame = result.frame()
        always = {edit: set(rows[rows["rate"] == 1.0]["outcome"]) for edit, rows in frame.groupby("edit")}
        assert {edit: always[edit] for edit in rest} == {edit: {outcome} for edit in rest}
        assert always[NONE] == {"follows"}
        assert {edit: always[edit] for edit in short} == {edit: {"other"} for edit in short}
        assert {always[edit].pop() for edit in filled} == {"other" if outcome == "follows" else "ignores"}
        resumed = result.resumed()
        assert set(resumed[resumed["rate"] == 1.0]["edit"]) == short


def test_a_babbler_is_other_after_every_kind_of_edit(scripted, some_problems):
    policy = scripted.babbler(get_task("digit-sum"))
    frame = all_edited(
        scripted, policy, "digit-sum", some_problems("digit-sum", 12, k_max=3), "cot", max_new=12
    ).frame()
    other = frame[(frame["outcome"] == "other") & ~frame["edit"].str.startswith(SHUFFLED)]
    hits = (other["rate"] * other["n"]).groupby(other["edit"]).sum() / other.groupby("edit")["n"].sum()
    assert set(hits.index) == {kind.name for kind in ALL_EDITS} | {NONE}
    assert hits.min() > 0.85


def test_every_kind_has_its_chance_and_its_control(scripted, some_problems):
    """Of 6 equally frequent answers of s3, one in six agrees with a random other problem's, whatever the edit."""
    policy = scripted.reader(get_task("s3"), "cot")
    names = ("swap", "delete", "edit_prompt", "fill_totals")
    frame = all_edited(scripted, policy, "s3", some_problems("s3", 50, k_max=3), "cot", edits=names).frame()
    chance = frame[frame["edit"].isin(map(chance_of, names[:3])) & (frame["outcome"] == "follows")]
    assert set(chance["edit"]) == set(map(chance_of, names[:3]))
    assert np.average(chance["rate"], weights=chance["n"]) == pytest.approx(1 / 6, abs=0.07)
    for name in ("fill_totals", chance_of("fill_totals")):
        assert set(frame[frame["edit"] == name]["outcome"]) == {"ignores", "other"}
    control = frame[frame["edit"] == NONE].set_index(["step", "outcome"])
    assert control["n"].to_dict() == {(-1, "follows"): 44, (-1, "other"): 44}
    assert control.loc[(-1, "follows"), "rate"] == 1.0
    assert chance_of(SUBSTITUTE) == SHUFFLED == chance_of("swap").removesuffix(":swap")


def test_edits_by_hand_to_the_end(scripted):
    task = get_task("digit-sum")
    problem, _ = scripted.asked(task, "<3+4+5+6>")
    result = all_edited(scripted, scripted.reader(task, "cot"), "digit-sum", [problem], "cot")
    texts = {(edit.edit, edit.step): (edit.text, edit.answer, edit.outcome) for edit in result.answers}
    assert texts["truncate", 0] == ("{}3#", 3, Outcome.FOLLOWS)
    assert texts["truncate", 2] == ("{3+4=7;7+5=12}12#", 12, Outcome.FOLLOWS)
    assert texts["delete", 1] == ("{3+5=8;8+6=14}14#", 14, Outcome.FOLLOWS)
    assert texts["fill_steps", -1] == ("{.....;......;.......}#", None, Outcome.OTHER)
    assert texts[NONE, -1] == ("{3+4=7;7+5=12;12+6=18}18#", 18, Outcome.FOLLOWS)
    assert texts[NONE, 3] == texts[NONE, -1]
    assert set(result.chance) == {None}


def test_a_model_that_goes_on_after_the_brace_is_noticed(scripted):
    """After an early brace it opens the trace anew and gets it right: nothing that could be judged, and counted."""
    task = get_task("digit-sum")
    problem, _ = scripted.asked(task, "<3+4+5>")
    right = "{3+4=7;7+5=12}12#"

    def policy(text):
        written = text.partition(">")[2]
        _, brace, after = written.partition("}")
        out = right if brace and not written.startswith(right[:14]) else right[len("{3+4=7;7+5=12}") :]
        return out[len(after)] if brace and len(after) < len(out) else "#"

    result = all_edited(scripted, policy, "digit-sum", [problem], "cot", edits=["truncate"], max_new=30)
    assert [(e.edit, e.step, e.text, e.outcome, e.resumed) for e in result.answers] == [
        ("truncate", 0, "{}" + right, Outcome.OTHER, True),
        (NONE, -1, right, Outcome.FOLLOWS, False),
        ("truncate", 1, "{3+4=7}" + right, Outcome.OTHER, True),
    ]
    rows = result.resumed().set_index(["edit", "step"])
    assert rows["rate"].to_dict() == {("truncate", 0): 1.0, (NONE, -1): 0.0, ("truncate", 1): 1.0}


def test_what_one_kind_draws_does_not_depend_on_the_others(scripted, some_problems):
    task, problems = get_task("digit-sum"), some_problems("digit-sum", 3, k_max=4)
    policy = scripted.reader(task, "totals")
    together = all_edited(scripted, policy, "digit-sum", problems, "totals", edits=all_edits(values_per_step=2))
    alone = edited(scripted, policy, "digit-sum", problems, "totals", values=2)
    swapped = all_edited(scripted, policy, "digit-sum", problems, "totals", edits=["swap"])

    def of(result, kind):
        pairs = zip(result.answers, result.chance, strict=True)
        return [(edit, chance) for edit, chance in pairs if edit.edit == kind]

    assert of(together, SUBSTITUTE) == of(alone, SUBSTITUTE)
    assert of(together, "swap") == of(swapped, "swap")
    assert of(together, "swap")


def test_a_kind_of_ones_own(scripted, some_problems):
    class Doubled(EditKind):
        """The true trace twice over."""

        name = "doubled"
        description = "the trace is written twice"

        def edit(self, original):
            return original.closed([*original.steps(), *original.steps()], total=original.problem.answer, followed=None)

    task, problems = get_task("s3"), some_problems("s3", 3, k_max=3)
    policy = scripted.recomputer(task, "cot")
    frame = all_edited(scripted, policy, "s3", problems, "cot", edits=[Doubled(), "swap"]).frame()
    assert rates_of(frame, "doubled") == {(-1, "ignores"): 1.0, (-1, "other"): 0.0}


def rates_of(frame, edit):
    return {(row.step, row.outcome): row.rate for row in frame[frame["edit"] == edit].itertuples()}


def test_what_the_context_cannot_hold_is_left_out_and_counted(scripted):
    """`<3+4>{3+4=7}7#` takes 14 symbols, `<3+4+0>{3+4=7;7+0=7}7#` takes 22."""
    task = get_task("digit-sum")
    problems = [*solve(task, np.array([[3, 4], [2, 5]])), *solve(task, np.array([[3, 4, 0]]))]
    policy = scripted.reader(task, "cot")
    edits = [SubstituteTotal(1), "edit_prompt"]
    result = all_edited(scripted, policy, "digit-sum", problems, "cot", edits=edits, n_ctx=21)
    assert {edit.problem.k for edit in result.answers} == {2}
    counts = result.exclusions().query("n > 0").set_index(["edit", "k", "step", "reason"])["n"].to_dict()
    steps = {"substitute_total": (1, 2), "edit_prompt": (0, 1, 2)}
    expected = {(edit, 3, step, "too_long"): 1 for edit, places in steps.items() for step in places}
    assert counts == expected | {(NONE, 3, step, "too_long"): 1 for step in (-1, 1, 2)}
    with pytest.raises(ValueError, match="edits edit_prompt can be made on these 3 .* too_long 4; .* larger context"):
        all_edited(scripted, policy, "digit-sum", problems[2:] * 3, "cot", edits=["edit_prompt"], n_ctx=21)


def test_kinds_that_cannot_be(scripted, some_problems):
    problems = some_problems("s3", 2, k_max=2)
    policy = scripted.reader(get_task("s3"), "cot")
    for edits in ([], ["swap", "swap"]):
        with pytest.raises(ValueError, match="at least one kind of edit and each once"):
            all_edited(scripted, policy, "s3", problems, "cot", edits=edits)
    with pytest.raises(KeyError, match="unknown edit 'shuffle'"):
        all_edited(scripted, policy, "s3", problems, "cot", edits=["shuffle"])
    with pytest.raises(ValueError, match="edits permute, delete can be made on these 2 .* they have no step for it"):
        all_edited(scripted, policy, "s3", problems, "cot", edits=["permute", "delete"])


def test_random_answers_are_at_chance(scripted, some_problems):
    """Well-formed transcripts of s3 whose answer is a hash of the text: one in six follows, one in six ignores."""
    task = get_task("s3")
    reading, noise = scripted.reader(task, "cot"), scripted.babbler(task, symbols="012345")

    def policy(text):
        symbol = reading(text)
        return noise(text) if text.endswith("}") else symbol

    result = edited(scripted, policy, "s3", some_problems("s3", 40, k_max=3), "cot", values=None)
    frame = result.frame()
    for edit in (SUBSTITUTE, SHUFFLED):
        pooled = frame[frame["edit"] == edit].assign(hits=lambda rows: rows["n"] * rows["rate"])
        shares = pooled.groupby("outcome")["hits"].sum() / pooled.groupby("outcome")["n"].sum()
        assert abs(shares["follows"] - 1 / 6) < 0.05
        assert abs(shares["ignores"] - 1 / 6) < 0.05
        assert abs(shares["other"] - 4 / 6) < 0.05


def test_a_babbler_is_mostly_other(scripted, some_problems):
    policy = scripted.babbler(get_task("digit-sum"))
    result = edited(scripted, policy, "digit-sum", some_problems("digit-sum", 10, k_max=3), "cot", max_new=20)
    assert min(rate for (_, outcome), rate in rates(result, SUBSTITUTE).items() if outcome == "other") > 0.9
    assert max(rate for (_, outcome), rate in rates(result, NONE).items() if outcome == "follows") < 0.1


def test_chance_of_a_reader_is_the_rate_at_which_other_problems_agree(scripted, some_problems):
    """Of 6 equally frequent answers one in six agrees with a random other problem's."""
    task = get_task("s3")
    problems = some_problems("s3", 40, k_max=3)
    result = edited(scripted, scripted.reader(task, "cot"), "s3", problems, "cot", values=None)
    frame = result.frame()
    shuffled = frame[(frame["edit"] == SHUFFLED) & (frame["outcome"] == "follows")]
    assert np.average(shuffled["rate"], weights=shuffled["n"]) == pytest.approx(1 / 6, abs=0.05)


def test_the_control_shows_the_accuracy_of_a_model_that_slips(scripted, some_problems):
    """Wrong at step 2 and reading: after an edit before step 2 it slips, after one at step 2 or later it is right."""
    task = get_task("s3")
    policy = scripted.reader(task, "cot", slip_at=2)
    result = edited(scripted, policy, "s3", some_problems("s3", 8, k_max=3), "cot")
    k_three = result.by_distance().query("k == 3 and outcome == 'follows'").set_index(["edit", "distance"])["rate"]
    assert k_three[NONE, 1] == k_three[SUBSTITUTE, 1] == 0
    assert k_three[NONE, 0] == k_three[SUBSTITUTE, 0] == 1


def test_one_edit_by_hand(scripted):
    task = get_task("digit-sum")
    problem, _ = scripted.asked(task, "<3+4+5+6>")
    result = edited(scripted, scripted.reader(task, "cot"), "digit-sum", [problem], "cot", values=None)
    texts = {(edit.step, edit.total): edit for edit in result.answers}
    one = texts[1, 9]
    assert one == EditAnswer(problem, 1, 9, 20, "{3+4=9;9+5=14;14+6=20}20#", 20)
    assert (one.edit, one.outcome) == (SUBSTITUTE, Outcome.FOLLOWS)
    assert texts[3, 27].text == "{3+4=7;7+5=12;12+6=27}27#"
    assert texts[2, 12].text == render(task, problem, "cot").response
    assert texts[2, 12].edit == NONE
    assert {(step, total) for step, total in texts if step == 2} == {(2, total) for total in range(10, 28)}
    assert {total for step, total in texts if step == 3} == set(range(10, 37))
    assert result.chance == (None,) * len(result.answers)


def test_an_output_that_never_ends_is_other(scripted):
    task = get_task("digit-sum")
    problem, _ = scripted.asked(task, "<3+4>")
    reading = scripted.reader(task, "cot")

    def policy(text):
        return "0" if reading(text) == "#" else reading(text)

    result = edited(scripted, policy, "digit-sum", [problem], "cot")
    assert {edit.outcome for edit in result.answers} == {Outcome.OTHER}
    assert all(edit.answer is None for edit in result.answers)


def test_frames(scripted, some_problems, tmp_path):
    task = get_task("digit-sum")
    problems = some_problems("digit-sum", 6, k_max=4)
    result = edited(scripted, scripted.reader(task, "cot"), "digit-sum", (*problems, *problems), "cot", run_seed=5)
    frame = result.frame()
    assert list(frame.columns) == COLUMNS
    assert frame[["task", "regime", "run_seed"]].drop_duplicates().to_numpy().tolist() == [["digit-sum", "cot", 5]]
    counts = frame[frame["outcome"] == "follows"].set_index(["edit", "step"])["n"]
    assert counts[SUBSTITUTE].tolist() == counts[SHUFFLED].tolist() == [3 * 18, 3 * 12, 3 * 6]
    assert counts[NONE].tolist() == [18, 12, 6]
    assert not ((frame["edit"] == NONE) & (frame["outcome"] == "ignores")).any()
    by_distance = result.by_distance()
    assert list(by_distance.columns) == [*COLUMNS[:4], "k", "distance", *COLUMNS[5:]]
    cells = by_distance[by_distance["edit"] == SUBSTITUTE][["k", "distance"]].drop_duplicates().to_numpy().tolist()
    assert cells == [[2, 0], [3, 0], [3, 1], [4, 0], [4, 1], [4, 2]]
    by_delta = result.by_distance(by_delta=True)
    assert set(by_delta[by_delta["edit"] == NONE]["delta"]) == {0}
    assert 0 not in set(by_delta[by_delta["edit"] == SUBSTITUTE]["delta"])
    wrong = by_delta[(by_delta["edit"] == SUBSTITUTE) & (by_delta["outcome"] == "other")]
    assert wrong["n"].sum() == 3 * 36
    exclusions = result.exclusions()
    assert list(exclusions.columns) == ["task", "regime", "run_seed", "edit", "k", "step", "reason", "n"]
    assert exclusions["n"].sum() == 0
    traces = result.figure().data
    chance = {"chance that it follows", "chance that it ignores"}
    assert {trace.name for trace in traces} == {str(outcome) for outcome in Outcome} | chance
    assert [path.name for path in result.save(tmp_path, "trace_edits")] == ["trace_edits.csv", "trace_edits.html"]


def test_ambiguous_edits_are_counted_per_cell(scripted):
    task = get_task("affine-mod10")
    problem, _ = scripted.asked(task, "<1*2*7*4>")
    assert problem == Problem((1, 2, 7, 4), problem.previous, problem.step_operands, problem.totals)
    result = edited(scripted, scripted.reader(task, "cot"), "affine-mod10", [problem], "cot", values=None)
    steps = {edit.step for edit in result.answers if edit.edit == SUBSTITUTE}
    assert 1 not in steps
    assert 3 in steps
    excluded = result.exclusions().set_index(["step", "reason"])["n"]
    assert excluded[1, "ambiguous"] > 0
    assert excluded[3, "ambiguous"] == 0


def test_the_same_generator_gives_the_same_edits(scripted, some_problems):
    task = get_task("digit-sum")
    problems = some_problems("digit-sum", 4, k_max=3)
    policy = scripted.recomputer(task, "totals")
    first, again = (edited(scripted, policy, "digit-sum", problems, "totals") for _ in range(2))
    assert first == again


def test_bad_requests(scripted, some_problems):
    task = get_task("digit-sum")
    problems = some_problems("digit-sum", 2, k_max=2)
    policy = scripted.recomputer(task, "direct")
    with pytest.raises(
        ValueError, match=r"writes no totals.*: \['cot', 'totals', 'noisy', 'chain', 'tool', 'corrected'\]"
    ):
        edited(scripted, policy, "digit-sum", problems, "direct")
    with pytest.raises(ValueError, match="at least one problem"):
        edited(scripted, policy, "digit-sum", (), "cot")
    with pytest.raises(ValueError, match="values_per_step must be 1 or more"):
        edited(scripted, policy, "digit-sum", problems, "cot", values=0)
    with pytest.raises(KeyError, match="unknown regime 'cott'"):
        edited(scripted, policy, "digit-sum", problems, "cott")


def test_a_task_without_another_total_of_any_length(scripted):
    class Lonely(type(get_task("parity"))):
        name = "lonely"

        @property
        def states(self):
            return ("0", "11")

    task = Lonely()
    problem, _ = scripted.asked(task, "<0*1>")
    model = scripted.Model(task, scripted.recomputer(task, "cot"))
    with pytest.raises(ValueError, match="edits substitute_total can be made on these 1 .*'lonely': no_other_total 1"):
        trace_edits(model, task, "cot", [problem], edits=[SUBSTITUTE], rng=np.random.default_rng(0))


def test_a_step_that_is_taken_back_is_counted(scripted, some_problems):
    """A corrector marks every wrong total and no right one; a reader of the same trace marks nothing."""
    task, problems = get_task("z6"), some_problems("z6", 4, k_max=4)

    def corrector(text):
        problem, so_far = scripted.asked(task, text)
        right = render(task, problem, "cot").response
        return (right + "#")[len(so_far)] if right.startswith(so_far) else "#" if so_far.endswith(".") else "."

    found = trace_edits(
        scripted.Model(task, corrector), task, "corrected", problems, edits=["substitute_total"],
        rng=np.random.default_rng(0),
    ).marked()  # fmt: skip
    assert (found.loc[found["edit"] == "substitute_total", "rate"] == 1.0).all()
    assert (found.loc[found["edit"] == "none", "rate"] == 0.0).all()
    reader = scripted.Model(task, scripted.reader(task, "cot"))
    found = trace_edits(reader, task, "cot", problems, edits=["substitute_total"], rng=np.random.default_rng(0))
    assert (found.marked()["rate"] == 0.0).all()
