"""Import torchmetrics without transformers, which torchmetrics imports if it is installed and torchnn does not need."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SLOW = "transformers"


class Deferred:
    """A name of a package that is imported when the name is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(getattr(importlib.import_module(SLOW), self._name), attribute)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(SLOW), self._name)(*args, **kwargs)


@contextmanager
def without_transformers() -> Iterator[None]:
    """Let the imports of the body see a stand-in for transformers, which imports it only when a name is used.

    torchmetrics decides from the metadata of transformers what it can offer, so all its metrics keep working.
    """
    if SLOW in sys.modules or (spec := importlib.util.find_spec(SLOW)) is None:
        yield
        return
    stand_in = ModuleType(SLOW)
    stand_in.__spec__ = spec

    def deferred(name: str) -> Deferred:
        if name.startswith("__"):
            raise AttributeError(name)
        return Deferred(name)

    stand_in.__getattr__ = deferred  # type: ignore[method-assign]
    sys.modules[SLOW] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(SLOW) is stand_in:
            del sys.modules[SLOW]
