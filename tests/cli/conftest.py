"""Every command runs in an empty folder and saves empty pictures, which would take most of the time of a short run."""

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.helpers import SHORT
from torchnn.cli import main

SAVE_PICTURE = "matplotlib.figure.Figure.savefig"


class FinishedRun(NamedTuple):
    """A folder in which commands ran, and what they printed."""

    folder: Path
    printed: str


def train(folder: Path, *words: str, pictures: bool = False) -> FinishedRun:
    """Run `torchnn fit` in a folder."""
    printed = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(contextlib.redirect_stdout(printed))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        if not pictures:
            stack.enter_context(pytest.MonkeyPatch.context()).setattr(SAVE_PICTURE, save_nothing)
        main(["fit", *words])
    return FinishedRun(folder, printed.getvalue())


def save_nothing(figure: Any, file: Any, **options: Any) -> None:
    """Stands in for `Figure.savefig`."""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SAVE_PICTURE, save_nothing)


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """`torchnn fit` without arguments and with its pictures. Tests do not change its folder."""
    return train(tmp_path_factory.mktemp("main_job"), pictures=True)


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run of two epochs. Tests do not change its folder."""
    return train(tmp_path_factory.mktemp("short_run"), *SHORT)


@pytest.fixture
def copy_of_short_run(short_run: FinishedRun, tmp_path: Path, _in_an_empty_folder: None) -> FinishedRun:
    """The same run in the working folder of the test."""
    shutil.copytree(short_run.folder, tmp_path, dirs_exist_ok=True)
    return FinishedRun(tmp_path, short_run.printed)
