"""Probes before a total is written, and whether what they read is used."""

import numpy as np
import pytest

from cotinterp.calibration.ground_truth import untrained
from cotinterp.mechanism.probing.use import probe_use
from cotinterp.models.handmade import parallel, reader, recomputer
from cotinterp.studies import probes as measured
from cotinterp.studies.probes import probe_uses, probes
from cotinterp.studies.protocol import use_pairs
from cotinterp.studies.subject import Effort
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.roles import Role
from tests.studies.z6_subjects import K_RANGE, Z6, cell_rates, subject

pytestmark = pytest.mark.slow

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


def test_too_few_problems_are_refused():
    """Of 36 problems of two operands the training side has fewer than a probe is fitted on."""
    with pytest.raises(ValueError, match="too few problems of 2 operands: a probe is fitted on 160"):
        probes(subject(parallel(Z6, K_RANGE), "direct", k_range=(2, 2)), EFFORT)


EFFORT_USE = Effort(used=8, random_subspaces=19)
MEASURES = ("probe_use", "probe_use_noise", "probe_use_whole")


def fitted_for(made, n=240):
    return made.batch(sample_problems(Z6, 4, n, split="train", rng=np.random.default_rng(0)))


@pytest.fixture(scope="module")
def decoy_use():
    """A sum of one attention average, with running totals that nothing reads."""
    return subject(parallel(Z6, K_RANGE, decoy=True), "direct")


def test_a_decoy_is_decodable_and_not_used_and_the_answer_is(decoy_use):
    rows = probe_uses(decoy_use, EFFORT_USE, fitted_for(decoy_use))
    for measure in MEASURES:
        assert cell_rates(rows, measure, step=2) == pytest.approx({"L0.resid_post|operand": 0.0}, abs=1e-6)
    denoised, noised, whole = (cell_rates(rows, measure, step=3) for measure in MEASURES)
    assert whole == pytest.approx({"L0.resid_post|prompt_end": 1.0})
    assert 0.4 < denoised["L0.resid_post|prompt_end"] < 1
    assert 0.4 < noised["L0.resid_post|prompt_end"] < 1


def test_before_its_layer_a_total_is_not_there_to_be_used():
    made = subject(recomputer(Z6, "cot", K_RANGE), "cot")
    rows = probe_uses(made, EFFORT_USE, fitted_for(made))
    denoised, noised, whole = (cell_rates(rows, measure, step=3) for measure in MEASURES)
    for net in (denoised, noised):
        assert net["L1.resid_pre|equals"] == pytest.approx(0.0, abs=1e-6)
        assert net["L1.resid_post|equals"] > 0.4
    assert whole == pytest.approx({"L1.resid_pre|equals": 0.0, "L1.resid_post|equals": 1.0}, abs=1e-6)
    assert whole == cell_rates(rows, "probe_use_whole", step=2)


@pytest.mark.parametrize(("regime", "readout"), [("direct", (Role.ANSWER, 3)), ("cot", (Role.TOTAL, 3))])
def test_pairs_differ_in_an_earlier_operand_and_not_at_the_place(decoy_use, regime, readout):
    pairs = use_pairs(subject(decoy_use.model, regime), 15, k=4)
    assert pairs.readout == readout
    for clean, corrupted in zip(pairs.clean.transcripts, pairs.corrupted.transcripts, strict=True):
        one, other = clean.problem, corrupted.problem
        assert [a != b for a, b in zip(one.operands, other.operands, strict=True)] == [False, True, False, False]
        assert all(a != b for a, b in zip(one.totals, other.totals, strict=True))
    same = pairs.clean.tokens == pairs.corrupted.tokens
    places = [(Role.OPERAND, 2), (Role.PROMPT_END, -1)] if regime == "direct" else [(Role.EQUALS, 3)]
    for role, step in places:
        assert same[pairs.clean.mask(role, step)].all()


def test_values_by_hand(decoy_use, monkeypatch):
    """Net of the mean of the random subspaces, over the gap; a pair without a gap is left out."""

    def known(*arguments, **options):
        result = probe_use(*arguments, **options)
        for test, sign in zip(result.cells[0].tests, (1.0, -1.0), strict=True):
            for name, value in {"gap": 4.0, "change": 3.0, "full": 4.0, "random": 0.5}.items():
                getattr(test, name)[...] = sign * value
            test.random[0] = sign * 10.0
            test.gap[0] = 0.0
        return result

    monkeypatch.setattr(measured, "probe_use", known)
    rows = probe_uses(decoy_use, EFFORT_USE, fitted_for(decoy_use)).set_index(["measure", "step"])
    net = 3.0 - (10.0 + 18 * 0.5) / 19
    for measure, sign, value in (("probe_use", 1, net), ("probe_use_noise", -1, net), ("probe_use_whole", 1, 4.0)):
        row = rows.loc[(measure, 2)]
        assert row["value"] == pytest.approx(sign * value, rel=1e-5)
        assert (row["trials"], row["problems"]) == (sign * 4.0, 7)


def test_too_few_random_subspaces_are_refused(decoy_use):
    with pytest.raises(ValueError, match="random subspaces"):
        probe_uses(decoy_use, Effort(used=8, random_subspaces=5), fitted_for(decoy_use))
