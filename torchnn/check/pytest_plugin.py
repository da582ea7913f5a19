"""A fixture for test suites: `pytest_plugins = ["torchnn.check.pytest_plugin"]` in a `conftest.py`."""

from collections.abc import Callable

import pytest

from torchnn.check.report import Report
from torchnn.check.runner import assert_backward as _assert_backward


@pytest.fixture
def assert_backward(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """`torchnn.check.assert_backward`, with `quick=True` in every call if pytest runs with `--check-quick`."""
    is_quick = bool(request.config.getoption("--check-quick"))

    def check(fn: object, *args: object, **options: object) -> Report:
        if is_quick:
            options["quick"] = True
        return _assert_backward(fn, *args, **options)

    return check


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("torchnn")
    group.addoption(
        "--check-quick",
        action="store_true",
        help="check backwards without torch.compile, export, ONNX and two processes",
    )
