"""Reference models that are asked, loaded once."""

import pytest

from cotinterp.explore.session import Explorer

DIRECT, COT, S3 = range(3)


@pytest.fixture(scope="session")
def explorer() -> Explorer:
    """Direct and cot on digit sums, and cot on s3."""
    return Explorer.load("digit-sum-direct-L4-s0-93146b24", "digit-sum-cot-L4-s0-3be51c67", "s3-cot-L4-s0-42df236d")
