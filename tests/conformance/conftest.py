"""How many of torch's samples the tests of this folder use."""

import pytest

from tests.conformance import catalogue


def pytest_configure(config: pytest.Config) -> None:
    catalogue.FEWER_SAMPLES = "not slow" in config.option.markexpr
