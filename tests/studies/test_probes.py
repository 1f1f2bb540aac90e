"""Totals that are there are found and those that are not are not, with the controls beside them."""

import pytest

from cotinterp.calibration.ground_truth import untrained
from cotinterp.models.handmade import parallel, reader
from cotinterp.studies.probes import probes
from cotinterp.studies.subject import Effort
from tests.studies.z6_subjects import K_RANGE, Z6, cell_rates, subject

EFFORT = Effort(probed=260, used=2, random_subspaces=19)


@pytest.fixture(scope="module")
def decoy():
    """Every running total is at its operand, where nothing reads it."""
    return probes(
        subject(
            parallel(Z6, K_RANGE, decoy=True),
            "direct",
            build_untrained=lambda: untrained("z6", "direct", 0, layers=1).model,
        ),
        EFFORT,
    )


def test_a_total_at_its_operand_is_decodable_beyond_its_controls(decoy):
    for target in (2, 3):
        read, control = (cell_rates(decoy, measure, step=target) for measure in ("probe", "probe_control"))
        assert read["trained|L0.resid_post|operand"] > 0.95
        assert control["trained|L0.resid_post|operand"] < 0.5
        for nothing in ("input|input|operand", "trained|L0.resid_pre|operand", "untrained|L0.resid_pre|operand"):
            assert read[nothing] < 0.4


def test_without_the_decoy_only_the_answer_is_there(decoy):
    plain = probes(subject(parallel(Z6, K_RANGE), "direct"), EFFORT)
    for target in (1, 2, 3):
        assert cell_rates(plain, "probe", step=target)["trained|L0.resid_post|operand"] < 0.4
    at_end = [cell_rates(plain, "probe", step=target)["trained|L0.resid_post|prompt_end"] for target in (1, 2, 3)]
    assert max(at_end[:2]) < 0.5
    assert at_end[2] > 0.95


def test_every_place_of_every_site_of_every_model_has_a_cell_of_all_test_problems(decoy):
    rows = [f"{model}|L0.{site}" for model in ("trained", "untrained") for site in ("resid_pre", "resid_post")]
    expected = {f"{row}|{place}" for row in (*rows, "input|input") for place in ("operand", "prompt_end")}
    for measure in ("probe", "probe_control"):
        for step in (1, 2, 3):
            assert set(cell_rates(decoy, measure, step=step)) == expected
    cells = decoy[decoy["measure"] == "probe"].groupby(["step", "condition"])
    assert set(cells["problems"].sum()) == {65}
    assert set(decoy["k"]) == {4}
    assert {"probe_use", "probe_use_noise", "probe_use_whole"} < set(decoy["measure"])


def test_a_total_is_there_where_it_is_written_from_new_inputs_too_and_not_before():
    """From the total before and the operand there are 36 inputs: a probe could store them all, were it shown them."""
    rows = probes(subject(reader(Z6, "cot", K_RANGE), "cot"), EFFORT)
    read, control = (cell_rates(rows, measure, step=2) for measure in ("probe", "probe_control"))
    last = "trained|L1.resid_post|equals"
    assert read.pop(last) > 0.95
    assert max(read.values()) < 0.4
    assert control[last] < 0.5


def test_a_table_of_inputs_is_no_total():
    """The untrained model holds all 36 inputs apart, and nothing that two inputs of one total have in common."""
    rows = probes(subject(untrained("z6", "cot", 0, layers=1).model, "cot"), EFFORT)
    assert max(cell_rates(rows, "probe", step=3).values()) < 0.4


def test_too_few_problems_give_no_rows():
    """Of 36 problems of two operands the training side has fewer than a probe is fitted on."""
    assert probes(subject(parallel(Z6, K_RANGE), "direct", k_range=(2, 2)), EFFORT).empty
