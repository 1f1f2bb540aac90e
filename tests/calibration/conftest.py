"""The models whose mechanism is known, made once."""

import pytest


@pytest.fixture(scope="session")
def models():
    """All ground truths."""
    from cotinterp.calibration.dynamics_questions import planted_trainings
    from cotinterp.calibration.ground_truth import ground_truths
    from cotinterp.calibration.search_questions import scripted

    return (*ground_truths(), scripted(), *planted_trainings())
