"""At which layer each total appears where the answer is predicted, by hand."""

import pytest

from cotinterp.claims.cells import EvidenceIndex, measured_cells
from cotinterp.claims.teaching import layers_a_step, totals_at_answer, used_at_answer
from cotinterp.studies.evidence import ProbeCondition
from tests.claims.worlds import evidence, rows

SITES = ("L0.resid_pre", "L1.resid_pre", "L2.resid_pre", "L2.resid_post")
OWN = {"regime": "direct", "variant": "internalize", "n_layers": 3}


def made(nets, used=()):
    """By step, the probe accuracy at each site; all controls name one problem in five."""
    found = [rows("exact", 9, 10, condition="asked", **OWN)]
    for step, by_site in nets.items():
        token = ProbeCondition(model="input", site="input", place="prompt_end")
        found.append(rows("probe", 20, 100, step=step, condition=token, **OWN))
        for site, right in zip(SITES, by_site, strict=True):
            at = {name: ProbeCondition(model=name, site=site, place="prompt_end") for name in ("trained", "untrained")}
            found.append(rows("probe", right, 100, step=step, condition=at["trained"], **OWN))
            found.append(rows("probe_control", 20, 100, step=step, condition=at["trained"], **OWN))
            found.append(rows("probe", 20, 100, step=step, condition=at["untrained"], **OWN))
    for step, by_site in used:
        for site, moved in zip(SITES[1:], by_site, strict=True):
            at = ProbeCondition(site=site, place="prompt_end")
            found.append(rows("probe_use", moved, 100, step=step, condition=at, **OWN))
    return measured_cells(EvidenceIndex(evidence(found)), "toy", 0)


def test_a_total_a_layer_is_one_layer_a_step_and_the_answer_is_left_out():
    cells = made({1: (20, 90, 90, 90), 2: (20, 20, 80, 80), 3: (20, 90, 90, 90)})
    assert layers_a_step(cells, "internalize") == pytest.approx(1.0)
    assert totals_at_answer(cells, "internalize") == pytest.approx((0.7 + 0.6) / 2)


def test_half_there_counts_half_a_layer_and_what_fades_stays_counted():
    cells = made({1: (20, 90, 20, 20), 2: (20, 55, 90, 90), 3: (20, 20, 20, 90)})
    assert layers_a_step(cells, "internalize") == pytest.approx(0.5)


def test_what_never_appears_has_no_order():
    cells = made({1: (20, 20, 20, 20), 2: (20, 15, 20, 20), 3: (20, 20, 20, 90)})
    assert layers_a_step(cells, "internalize") == pytest.approx(0.0)


def test_each_total_is_used_at_its_own_layer_and_what_leaves_the_last_is_not_asked():
    nets = {step: (20, 90, 90, 90) for step in (1, 2, 3)}
    cells = made(nets, [(1, (60, 10, 99)), (2, (0, 40, 99)), (3, (80, 80, 99))])
    assert used_at_answer(cells, "internalize") == pytest.approx((0.6 + 0.4) / 2)
