import numpy as np
import pytest

from cotinterp.claims import statistics as mechanism
from cotinterp.claims.cells import Book, MissingEvidence, as_measured
from cotinterp.studies.evidence import tally
from tests.claims.worlds import evidence, rows


def cells(*parts):
    return as_measured(Book(evidence(parts)), "toy", 0)


def effect(measure, condition, changes, gaps, regime="cot", step=-1):
    labels = {"task": "toy", "regime": regime, "variant": "", "n_layers": 4, "run_seed": 0}
    made = tally(measure, np.array(changes), k=4, step=step, condition=condition, trials=np.array(gaps))
    return made.assign(**labels)


def test_effects_are_shares_of_the_gap():
    made = cells(
        effect("family_effect", "written_total", [8.0, 7.0], [10.0, 10.0]),
        effect("family_effect", "prompt_operand", [1.0, 2.0], [10.0, 10.0]),
        effect("family_effect", "unrelated", [-1.0, -1.0], [10.0, 10.0]),
    )
    assert mechanism.patch_margin(made) == pytest.approx(0.75 - 0.15)
    assert mechanism.unrelated_effect(made) == pytest.approx(0.1)


def test_reads_are_compared_by_what_is_lost_without_them():
    made = cells(
        effect("read_lost", "previous_total", [5.0], [10.0]),
        effect("read_lost", "earlier_operands", [1.0], [10.0]),
        effect("read_lost", "random:previous_total", [0.5], [10.0]),
    )
    assert mechanism.read_margin(made) == pytest.approx(0.4)
    assert mechanism.random_cut(made) == pytest.approx(0.05)


def probe(model, right, step, measure="probe", site="L3.resid_pre", place="equals"):
    return rows(measure, right, 100, condition=f"{model}|{site}|{place}", step=step)


PROBES = (
    *(probe("trained", right, step) for step, right in ((1, 90), (2, 80))),
    *(probe("trained", right, step, "probe_control") for step, right in ((1, 30), (2, 10))),
    *(probe("untrained", right, step) for step, right in ((1, 20), (2, 40))),
    *(probe("input", right, step, site="input") for step, right in ((1, 10), (2, 10))),
)


def test_decodable_is_net_of_the_best_control_at_each_step():
    assert mechanism.decodable_in_cot(cells(*PROBES)) == pytest.approx((0.6 + 0.4) / 2)


def test_without_a_control_there_is_no_number():
    without = [part for part in PROBES if not part["condition"].str.startswith("untrained").any()]
    with pytest.raises(MissingEvidence, match=r"untrained\|L3.resid_pre\|equals"):
        mechanism.decodable_in_cot(cells(*without))


def test_use_is_that_of_the_last_total():
    made = cells(
        effect("probe_use", "L3.resid_pre|equals", [1.0], [10.0], step=2),
        effect("probe_use", "L3.resid_pre|equals", [4.0], [10.0], step=3),
        effect("probe_use", "L3.resid_pre|operand", [2.0], [10.0], regime="direct", step=2),
    )
    assert mechanism.used_in_cot(made) == pytest.approx(0.4)
    assert mechanism.used_in_direct(made) == pytest.approx(0.2)
