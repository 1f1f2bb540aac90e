"""Scans of untrained models: what is counted, and that the scans are not blind."""

import numpy as np
import pytest

from cotinterp.calibration.untrained import SCANS, FalsePositives, Scanned, false_positives
from cotinterp.results import wilson


@pytest.mark.parametrize(("scan", "least"), [("heads", 2), ("patching", 1), ("probes", 1)])
def test_a_scan_that_is_silent_on_untrained_models_speaks_on_a_reader(scan, least, models):
    reader = next(model for model in models if model.name == "reader (cot)")
    counts = SCANS[scan](reader, 0.05)
    assert counts.flagged >= least
    assert counts.cells > counts.flagged


def test_one_untrained_model_is_scanned_in_every_way():
    result = false_positives(1)
    assert [scan.scan for scan in result.scans] == list(SCANS)
    assert all(scan.cells >= 8 and scan.flagged <= scan.cells for scan in result.scans)


def test_the_share_is_that_of_models_with_any_flag():
    flagged, ungated = [2] + [0] * 19, [1] * 3 + [0] * 17
    scans = tuple(
        Scanned("heads", "z6", seed, 8, flagged=flagged[seed], ungated=ungated[seed], uncorrected=1)
        for seed in range(20)
    )
    table = FalsePositives(scans).frame().set_index("correction")
    assert table["models_flagged"].to_dict() == {"as reported": 1, "corrected, no gate": 3, "not corrected": 20}
    assert table.loc["as reported", ["share", "ci_low", "ci_high"]].tolist() == [0.05, *wilson(1, 20)]
    assert np.isclose(table["level"], 0.05).all()


def test_unknown_scans_are_named():
    with pytest.raises(ValueError, match=r"unknown scans \['tails'\]"):
        false_positives(1, scans=["tails"])
