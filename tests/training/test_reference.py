"""The reference runs as data: matched pairs, and a missing checkpoint is told with what trains it."""

import pytest

from cotinterp.training.spec import reference_directories, reference_specs


def test_missing_reference_checkpoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="digit-sum-direct.*--from-scratch"):
        reference_directories(tmp_path)


def test_reference_pairs_differ_in_the_regime_alone():
    by_task = {}
    for spec in reference_specs():
        by_task.setdefault(spec.task, []).append(spec)
    for direct, cot in by_task.values():
        assert (direct.regime, cot.regime) == ("direct", "cot")
        assert direct.model_copy(update={"regime": "cot"}) == cot
