"""The made-up tables of the report's tests."""

from tests.report.conftest import inputs as inputs
