"""Every test starts from the same seed; settings that torch's own test utilities change are restored."""

import importlib.util
import random

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    if importlib.util.find_spec("jsonargparse"):
        # Lightning's command line calls jsonargparse by its old argument names.
        category = "jsonargparse._deprecated.JsonargparseDeprecationWarning"
        config.addinivalue_line("filterwarnings", f"ignore::{category}")


@pytest.fixture(scope="session", autouse=True)
def _backend_flags_can_be_set() -> None:
    """torch's test utilities forbid setting backend flags, which Lightning's Trainer does in every run."""
    torch.backends.disable_global_flags.__globals__["__allow_nonbracketed_mutation_flag"] = True


@pytest.fixture(scope="session", autouse=True)
def _seed_only_devices_that_exist() -> None:
    """`torch.manual_seed` records a stack trace for each kind of device that is missing, thousands of times here."""
    for device in (torch.cuda, torch.xpu, torch.mtia):
        if not device.is_available():
            vars(device)["manual_seed_all"] = lambda seed: None


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch sees none"))
