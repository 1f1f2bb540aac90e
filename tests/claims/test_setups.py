"""The table of setups: what each number is, which have none, and which seeds had not converged."""

import pytest

from cotinterp.claims.setups import setup_table
from cotinterp.studies.evidence import ProbeCondition
from tests.claims.worlds import evidence, rows

RUN = {"task": "toy", "n_layers": 2, "run_seed": 0}


def of(variant, asked, trace, seed=0, regime="direct"):
    """Of a hundred problems of three operands so many right at once, and with the trace; all of two operands."""
    way = {"regime": regime, "variant": variant, "seed": seed, "n_layers": 2}
    shares = {"asked": asked, "trace": trace}
    return [rows("exact", right, 100, k=3, condition=name, **way) for name, right in shares.items()] + [
        rows("exact", 100, 100, k=2, condition=name, **way) for name in shares
    ]


def world(unconverged=""):
    parts = [
        *of("", 40, 0), *of("", 50, 0, seed=1),
        *of("naive", 5, 90), *of("naive", 5, 90, seed=1),
        *of("mixed-50", 80, 95, regime="direct-mode"), *of("mixed-50", 70, 85, seed=1, regime="direct-mode"),
        *of("mixed-50-control", 60, 0, regime="direct-mode"), *of("mixed-50-control", 50, 0, 1, regime="direct-mode"),
        *of("sequential", 70, 10),
    ]  # fmt: skip
    way = {"k": 3, "step": 1, "n_layers": 2, "regime": "direct-mode", "variant": "mixed-50"}
    at = {
        site: ProbeCondition(model="trained", site=site, place="operand") for site in ("L1.resid_pre", "L1.resid_post")
    }
    controls = {
        ProbeCondition(model="untrained", site="L1.resid_pre", place="operand"): 30,
        ProbeCondition(model="input", site="input", place="operand"): 20,
    }
    parts.append(rows("probe", 90, 100, condition=str(at["L1.resid_pre"]), **way))
    parts.append(rows("probe_control", 25, 100, condition=str(at["L1.resid_pre"]), **way))
    parts += [rows("probe", n, 100, condition=str(where), **way) for where, n in controls.items()]
    parts.append(rows("leakage", 3, 100, condition="", **way | {"step": -1}))
    parts.append(rows("edit", 60, 100, condition="substitute_total:follows", **way | {"step": -1}))
    listed = {(part["regime"].iloc[0], part["variant"].iloc[0], int(part["run_seed"].iloc[0])) for part in parts}
    runs = [
        RUN | {"regime": regime, "variant": variant, "run_seed": seed, "draw": seed}
        | {"status": "unconverged" if variant == unconverged and seed == 1 else "finished"}
        for regime, variant, seed in sorted(listed)
    ]  # fmt: skip
    return evidence(parts, runs)


@pytest.fixture(scope="module")
def table():
    return setup_table(world(unconverged="mixed-50-control"), "toy").set_index(["setup", "measure"])


def test_each_number_is_what_was_counted(table):
    expected = {
        ("mixed-50", "at once"): 0.75,
        ("mixed-50", "trace"): 0.90,
        ("mixed-50", "gain"): 0.30,
        ("mixed-50", "content"): 0.20,
        ("mixed-50", "forgotten"): 0.0,
        ("sequential", "forgotten"): 0.8,
        ("sequential", "gain"): 0.3,
        ("mixed-50", "leakage"): 0.03,
        ("mixed-50", "follows"): 0.6,
        ("mixed-50", "totals L0"): 0.6,
    }
    assert {key: pytest.approx(table.loc[key, "value"]) for key in expected} == expected


def test_the_best_at_once_is_of_all_setups_and_of_seeds_that_have_them_all(table):
    row = table.loc[("mixed-50", "over all")]
    assert row["value"] == pytest.approx(0.95 - 0.80)
    assert row["n"] == 1


def test_nothing_is_said_where_nothing_was_measured_or_meant(table):
    assert ("mixed-50", "totals L1") not in table.index
    assert ("direct", "gain") not in table.index
    assert not {("direct", "forgotten"), ("mixed-50-control", "over all")} & set(table.index)


def test_seeds_that_had_not_converged_are_named_where_they_are_read(table):
    assert table.loc[("mixed-50", "content"), "unconverged"] == "1"
    assert table.loc[("mixed-50", "gain"), "unconverged"] == ""


def test_shares_and_differences_are_cut_where_they_cannot_be(table):
    assert table.loc[("mixed-50", "trace"), "ci_high"] == 1
    assert table.loc[("mixed-50", "gain"), "ci_low"] >= -1
    assert table.loc[("mixed-50", "content"), "ci_low"] < 0 < table.loc[("mixed-50", "content"), "ci_high"]
