"""Every standard study of each kind of task ends with tables or a refusal in words: an untrained model of one layer."""

from dataclasses import fields, replace

import numpy as np
import pytest

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.patching.run_predictions import LEAST_PAIRS
from cotinterp.models.build import build_model
from cotinterp.models.spec import ModelSpec
from cotinterp.studies.instruments import applicable, study
from cotinterp.studies.measuring import measure
from cotinterp.studies.protocol import declared_head_pairs, standard_pairs
from cotinterp.studies.subject import FULL, QUICK, Effort, Subject, untrained_twin
from cotinterp.tasks import FoldTask, get_task
from cotinterp.transcripts.pairs import NoPairsError, Pairs
from cotinterp.transcripts.problems import EmptySplitError, sample_problems
from cotinterp.transcripts.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

SPEC = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_mlp=16, n_ctx=96)
EFFORT = replace(QUICK, evaluated=6, edited=2, reordered=4, probed=120, patched=4, paired=6, used=4, ready=4, traces=2)


class Latch(FoldTask):
    """A state that is never left: once 1, always 1."""

    name = "latch"
    operands = "01"
    commutative = True

    def step(self, total, operand):
        return np.maximum(total, operand)


class FirstOnly(FoldTask):
    """No operand matters but the first."""

    name = "first-only"
    operands = "0123"
    commutative = False

    def step(self, total, operand):
        return total.copy()


class Constant(FoldTask):
    """The answer is the same whatever is asked."""

    name = "constant"
    operands = "0123"
    commutative = True

    def initial(self, operand):
        return np.zeros_like(operand)

    def step(self, total, operand):
        return np.zeros_like(total)


class Flip(FoldTask):
    """Two states."""

    name = "flip"
    operands = "01"
    commutative = True

    def step(self, total, operand):
        return np.where(operand == 1, 1 - total, total)


def subject(task, regime, k_range) -> Subject:
    trained = []
    for k in range(k_range[0], k_range[1] + 1):
        try:
            trained += sample_problems(task, k, 30, split="train", rng=np.random.default_rng(0))
        except EmptySplitError:
            continue
    return Subject(
        model=build_model(SPEC, len(Vocabulary.of(task)), seed=0, device="cpu").eval(),
        task=task,
        regime=regime,
        run_seed=0,
        k_range=k_range,
        trained_on=tuple(trained),
        build_untrained=untrained_twin(SPEC, task, 0),
    )


def tables(name, made, effort=EFFORT):
    """The frames of a study, drawn as well; None where it is refused, in words."""
    try:
        results = study(name, made, effort)
    except ValueError as refusal:
        return None if len(str(refusal).split()) > 5 else pytest.fail(f"{refusal!r} is no refusal in words")
    for parts in results.values():
        for result in parts.values():
            result.figure()
    return {table: [result.frame() for result in parts.values()] for table, parts in results.items()}


@pytest.mark.filterwarnings("ignore:the table of probes has no rows")
@pytest.mark.parametrize(
    ("name", "regime"),
    [
        ("digit-sum", "cot"),
        ("parity", "cot"),
        ("parity", "direct"),
        ("pointers", "cot"),
        ("expressions-mod11", "cot"),
        ("random-labels", "direct"),
        ("a5", "direct"),
    ],
)
def test_every_study_of_every_kind_of_task_ends(name, regime):
    made = subject(get_task(name), regime, (max(2, get_task(name).min_k), 4))
    for each in applicable(regime):
        found = tables(each, made)
        # All tasks can be patched; heads want a left fold, probes enough problems.
        assert found is not None or each == "probe" or (each == "attribute" and not made.task.in_order)


@pytest.mark.parametrize(("task", "missing"), [(Latch(), "total-2-next"), (FirstOnly(), "operand-2"), (Flip(), None)])
@pytest.mark.parametrize("k_max", [2, 4])
def test_what_a_task_does_not_have_is_listed_and_the_rest_is_measured(task, missing, k_max):
    """In `totals` the operand that does not matter shows nowhere, and a latch that is set shows no later change."""
    made = subject(task, "totals", (2, k_max))
    found = tables("patch", made)
    assert len(found["patching"])
    assert all(len(frame) for frame in found["patching"])
    (skipped,) = found["skipped"] if k_max == 2 or missing else (None,)
    if k_max == 2:
        assert skipped.iloc[-1][["k", "pairs"]].tolist() == [2, "families"]
        assert "of 4 at least; here are 2" in skipped.iloc[-1]["why"]
    elif missing:
        row = skipped[skipped["pairs"] == missing].iloc[0]
        assert row[["study", "k"]].tolist() == ["patch", 4]
        assert row["tried"] >= 1
        assert "never gave a transcript of the same layout that differs at the readout" in row["why"]
    heads = tables("attribute", made)
    assert len(heads["attention_by_role"]) == 1


def test_heads_are_asked_by_the_last_operand_where_the_written_total_is_not_read():
    found = declared_head_pairs(subject(get_task("binary-copy"), "cot", (6, 6)), 12, k=6)
    assert [(name, isinstance(pairs, Pairs)) for name, pairs in found.items()] == [
        ("total-4-next", False),
        ("operand-5-next", True),
    ]


@pytest.mark.parametrize("name", ["patch", "attribute"])
def test_only_where_nothing_can_be_measured_it_is_an_error_that_the_command_line_can_follow(name):
    made = subject(Constant(), "totals", (2, 4))
    with pytest.raises(
        NoPairsError, match=r"no pairs to compare in task 'constant' at 4, 3, 2 operands: in too few of "
    ):
        study(name, made, EFFORT)
    with pytest.raises(NoPairsError, match=r"`cotinterp evaluate`, `edit` and `probe` need no pairs, `patch` and"):
        standard_pairs(made, 4, k=4)
    assert "readout" not in str(pytest.raises(NoPairsError, study, name, made, EFFORT).value)


def test_few_pairs_leave_the_source_open():
    found = tables("patch", subject(get_task("z6"), "cot", (2, 4)))
    (families,) = found["pair_families"]
    assert set(families["source"]) == {"undecided"}
    assert families["would_decide"].str.contains(f"only 6 pairs of .*it takes {LEAST_PAIRS} at least").all()


@pytest.mark.parametrize(("task", "regime"), [("parity", "cot"), ("pointers", "direct")])
def test_evidence_of_an_untrained_model_is_rows_or_refusals(task, regime):
    made = subject(get_task(task), regime, (max(2, get_task(task).min_k), 4))
    rows = measure(made, EFFORT)
    assert "accuracy" in set(rows["measure"])
    assert np.isfinite(rows[["value", "trials"]].to_numpy(dtype=float)).all()


@pytest.mark.filterwarnings("ignore:the table of probes has no rows")
def test_an_effort_of_one_ends_too():
    one = Effort(**{field.name: 1 for field in fields(Effort) if field.name != "max_bytes"})
    made = subject(get_task("s3"), "cot", (2, 3))
    ended = {name: tables(name, made, one) is not None for name in applicable("cot")}
    assert ended["evaluate"]
    assert ended["edit"]


@pytest.mark.parametrize("value", [0, -1, True])
@pytest.mark.parametrize("name", [field.name for field in fields(Effort)])
def test_an_effort_is_whole_numbers_of_at_least_one(name, value):
    with pytest.raises(ValueError, match=rf"{name}={value}: give a whole number of at least 1"):
        replace(FULL, **{name: value})


@pytest.mark.parametrize("value", [0, -1, True])
def test_a_budget_is_bytes(value):
    with pytest.raises(ValueError, match=f"max_bytes={value}: give a whole number of at least 1"):
        Budget(max_bytes=value)
