"""Every regime has a look of its own."""

from cotinterp.report.palette import REGIMES, regime_mark

from cotinterp.transcripts.regimes import regime_names


def test_regimes_differ_in_color_and_in_marker() -> None:
    marks = [regime_mark(name) for name in regime_names()]
    assert set(REGIMES) == set(regime_names())
    assert len({mark.color for mark in marks}) == len({mark.symbol for mark in marks}) == len(marks)


def test_a_regime_of_a_user_is_drawn_apart_from_all_of_them() -> None:
    assert regime_mark("mine") not in REGIMES.values()
