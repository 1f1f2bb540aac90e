"""The models whose mechanism is known, made once."""

import pytest


@pytest.fixture(scope="session")
def models():
    """All ground truths."""
    from cotinterp.calibration.ground_truth import ground_truths

    return ground_truths()
