"""The reads that a known mechanism rests on cost it the total; the others, and the controls, cost nothing."""

import pytest

from cotinterp.calibration.ground_truth import untrained
from cotinterp.mechanism.heads.reads import read_sources
from cotinterp.models.handmade import parallel, reader, recomputer
from cotinterp.studies.reads import ALL_VALUES_READ, READS, knock_outs
from cotinterp.studies.subject import Effort
from cotinterp.transcripts.roles import Role
from tests.studies.z6_subjects import K_RANGE, Z6, cell_rates, subject

EFFORT = Effort(paired=30)
NAMES = ("previous_total", "earlier_operands", "next_operand", "all_values")


@pytest.mark.parametrize("regime", ["totals", "cot"])
@pytest.mark.parametrize(
    ("build", "needed", "not_needed"),
    [(reader, "previous_total", "earlier_operands"), (recomputer, "earlier_operands", "previous_total")],
)
def test_what_is_read_is_needed_and_what_a_decoy_looks_at_is_not(build, needed, not_needed, regime):
    rows = knock_outs(subject(build(Z6, regime, K_RANGE, decoy=True), regime), EFFORT)
    lost = cell_rates(rows, "read_lost")
    assert lost[needed] > 0.7
    assert lost["next_operand"] > 0.7
    assert lost["all_values"] > 0.7
    assert lost[not_needed] == 0.0
    assert lost["stale_total"] == 0.0
    assert [lost[f"random:{name}"] for name in NAMES] == [0.0] * 4
    assert set(lost) == {*NAMES, "stale_total", *(f"random:{name}" for name in NAMES)}
    assert set(rows.groupby("condition")["problems"].sum()) == {30}


def test_what_is_needed_loses_all_on_average():
    """Of six values one leads to the answer and costs nothing, one to the foil and costs twice, the others once."""
    effort = Effort(paired=120)
    lost = cell_rates(knock_outs(subject(reader(Z6, "totals", K_RANGE), "totals"), effort), "read_lost")
    assert lost["previous_total"] == pytest.approx(1.0, abs=0.15)


def test_all_values_are_those_of_the_three_reads():
    made = subject(reader(Z6, "cot", K_RANGE), "cot")
    batch = made.batch(made.heldout(3, k=4))
    one_by_one = [read_sources(batch, read, Role.TOTAL, 3) for read in READS]
    together = read_sources(batch, ALL_VALUES_READ, Role.TOTAL, 3)
    assert (together == one_by_one[0] | one_by_one[1] | one_by_one[2]).all()
    assert [int(mask.sum()) for mask in (*one_by_one, together)] == [6, 15, 6, 27]


def test_of_two_steps_there_is_no_stale_total():
    short = subject(reader(Z6, "cot", K_RANGE), "cot", k_range=(2, 3))
    lost = cell_rates(knock_outs(short, EFFORT), "read_lost")
    assert "stale_total" not in lost
    assert lost["previous_total"] > 0.7


def test_an_untrained_model_has_little_to_lose():
    rows = knock_outs(subject(untrained("z6", "cot", 0).model, "cot"), EFFORT)
    known = knock_outs(subject(reader(Z6, "cot", K_RANGE), "cot"), EFFORT)
    clean, needed = (abs(table["trials"] * table["problems"]).sum() for table in (rows, known))
    assert clean < 0.1 * needed


def test_no_rows_without_written_totals_or_a_total_before_the_last():
    assert knock_outs(subject(parallel(Z6, K_RANGE), "direct"), EFFORT).empty
    assert knock_outs(subject(reader(Z6, "cot", K_RANGE), "cot", k_range=(2, 2)), EFFORT).empty
