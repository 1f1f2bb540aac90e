"""The rule on made-up numbers: what is called used, what is not, and what cannot be told."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cotinterp.mechanism.contrast import Address
from cotinterp.mechanism.probing.use import DECLARED, DIRECTIONS, ProbeUse, UseCell, UseRule, UseTest
from cotinterp.mechanism.sites import Site

N, DRAWS = 40, 40
SPREAD = np.linspace(-0.2, 0.2, N)


def trial(direction, effect, *, random=0.1, full=1.0, gap=10.0, spread=SPREAD, written=0.5, intervention="interchange"):
    """Every pair has the same gap; `effect` and `full` are means over pairs, `random` the largest of the draws."""
    draws = np.linspace(-random, random, DRAWS)
    sign = 1.0 if direction == "denoise" else -1.0
    return UseTest(
        direction=direction,
        intervention=intervention,
        gap=np.full(N, sign * gap),
        change=sign * gap * (effect + spread),
        full=np.full(N, sign * gap * full),
        random=sign * gap * np.repeat(draws[:, None], N, axis=1),
        before_iia=np.zeros(N, dtype=bool),
        iia=np.arange(N) < 30,
        full_iia=np.ones(N, dtype=bool),
        random_iia=np.zeros((DRAWS, N), dtype=bool),
        written=np.full(N, written),
    )


def cell(*tests, reads_differ=1.0, layer=1):
    site, address = Site("resid_pre", layer), Address("equals", 2, "=")
    return UseCell(
        site=site, address=address, target="s_2", rank=3, pair="made up", tests=tests, reads_differ=reads_differ
    )


def result(denoise, noise, **options):
    at = options.pop("reads_differ", 1.0)
    trials = [
        trial(direction, effect, **options) for direction, effect in zip(DIRECTIONS, (denoise, noise), strict=True)
    ]
    return ProbeUse((cell(*trials, reads_differ=at),), DECLARED, {"task": "z6"})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (result(0.8, 0.8), "used"),
        (result(0.8, 0.0), "used"),
        (result(0.0, 0.8), "used"),
        (result(0.0, 0.0), "not shown to be used"),
        (result(-0.8, -0.8), "not shown to be used"),
        (result(0.8, 0.8, random=0.9), "not shown to be used"),
        (result(0.06, 0.06, random=0.01), "not shown to be used"),
        (result(0.11, 0.0, random=0.01), "inconclusive"),
        (result(0.8, 0.8, full=0.1), "inconclusive"),
        (result(0.8, 0.8, full=0.75), "used"),
        (result(0.8, 0.8, gap=0.0), "inconclusive"),
        (result(0.0, 0.0, reads_differ=0.3), "inconclusive"),
        (result(0.0, 0.0, reads_differ=float("nan")), "not shown to be used"),
        (result(0.0, 0.0, written=0.001), "inconclusive"),
    ],
)
def test_the_rule(found, expected):
    assert [answer for answer, _ in found.answers] == [expected], found.answers


def test_reasons_name_what_was_missing():
    reasons = {
        "tell the two runs apart": result(0.8, 0.8, gap=0.0),
        "do more than the whole activation": result(0.8, 0.8, full=0.1),
        "do not differ along the directions": result(0.0, 0.0, written=0.001),
        "different things in 30% of the pairs": result(0.0, 0.0, reads_differ=0.3),
        "the interval holds 0.1": result(0.11, 0.0, random=0.01),
        r"denoise 0.80 [0.76, 0.84] (random at most 0.10, p 0.024, whole 1.00)": result(0.8, 0.0),
    }
    for words, found in reasons.items():
        assert words in found.answers[0][1]


def test_the_table_by_hand():
    row = result(0.5, 0.25).frame().iloc[0]
    assert row["task"] == "z6"
    assert (row["direction"], row["intervention"], row["role"], row["step"]) == ("denoise", "interchange", "equals", 2)
    assert (row["effect"], row["full_effect"], row["excess"]) == pytest.approx((0.5, 1.0, -0.5))
    # Standard deviation 0.1184 over 40 pairs: 1.96 standard errors are 0.037.
    assert row["ci_low"] == pytest.approx(0.463, abs=0.006)
    assert row["ci_high"] == pytest.approx(0.537, abs=0.006)
    assert row["random_max"] == pytest.approx(0.1)
    assert (row["random_low"], row["random_high"]) == pytest.approx((-0.095, 0.095))
    assert row["random_effect"] == pytest.approx(0.0, abs=1e-12)
    assert row["p"] == pytest.approx(1 / 41)
    assert (row["iia"], row["full_iia"], row["random_iia"], row["before_iia"]) == (0.75, 1.0, 0.0, 0.0)
    assert (row["n"], row["n_random"], row["written"]) == (40, 40, 0.5)


def test_p_values_are_those_of_the_whole_scan():
    """An effect of 0.5 beats draws that reach 0.1, also beside a cell whose draws reach 0.6."""
    quiet = result(0.5, 0.5)
    wild = ProbeUse((cell(*(trial(d, 0.5, random=0.6) for d in DIRECTIONS), layer=2),), DECLARED, {"task": "z6"})
    assert quiet.answers[0][0] == "used"
    scan = ProbeUse.joined([quiet, wild])
    assert [answer for answer, _ in scan.answers] == ["used", "not shown to be used"]
    p = scan.frame()["p"].to_numpy()
    # Of the wild cell's draws, evenly spread to 0.6, four are above 0.5; each counts for the whole scan.
    assert p == pytest.approx([1 / 41, 1 / 41, 5 / 41, 5 / 41])
    assert scan.frame()["layer"].tolist() == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="only results of one rule"):
        ProbeUse.joined([quiet, replace(wild, rule=UseRule(alpha=0.1))])


def test_removals_are_a_family_of_their_own():
    """A removal that random subspaces can do as well takes nothing from the interchange."""
    removals = [trial(d, 0.1, random=0.9, intervention="removal") for d in DIRECTIONS]
    interchanges = [trial(d, 0.8) for d in DIRECTIONS]
    found = ProbeUse((cell(*interchanges, *removals),), DECLARED, {})
    assert found.answers[0][0] == "used"
    assert found.frame()["p"].to_numpy()[:2] == pytest.approx(1 / 41)
    assert found.frame()["p"].to_numpy()[2:] == pytest.approx((1 + 18) / 41)


def test_a_model_that_does_not_tell_the_runs_apart_has_no_effects():
    found = result(0.8, 0.8, gap=0.0).frame()
    assert found["n"].tolist() == [0, 0]
    assert found[["effect", "ci_low", "p", "random_effect", "full_effect"]].isna().all(axis=None)


def test_pairs_left_out():
    one = trial("noise", 0.5)
    kept = one.select(np.arange(N) < 10)
    assert kept.random.shape == (DRAWS, 10)
    assert kept.change.tolist() == one.change[:10].tolist()
    assert (kept.direction, kept.intervention) == ("noise", "interchange")


def test_the_figure_has_the_controls_beside_the_effect(tmp_path):
    found = result(0.5, 0.25)
    traces = {trace.name: trace for trace in found.figure().data}
    assert list(traces["probe's subspace"].y) == pytest.approx([0.5, 0.25])
    assert list(traces["whole activation"].y) == pytest.approx([1.0, 1.0])
    assert set(traces) == {"probe's subspace", "whole activation", "random subspaces"}
    assert {trace.mode for trace in traces.values()} == {"markers"}
    table, _ = found.save(tmp_path, "use")
    assert pd.read_csv(table)["answer"].tolist() == ["used", "used"]


def test_too_few_random_subspaces_for_the_level():
    with pytest.raises(ValueError, match="draw at least 19"):
        DECLARED.check(18)
    DECLARED.check(19)
    with pytest.raises(ValueError, match="draw at least 99"):
        UseRule(alpha=0.01).check(40)
