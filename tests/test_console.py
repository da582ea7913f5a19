"""What the console says: one sentence for each mistake, with what to change."""

import json
from pathlib import Path

import pytest

from torchnn.console import MissingPackageError, fail, is_first_process, name_of_process, need


def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(MissingPackageError) as caught, need("export", "torchnn export"):
        import a_package_that_nobody_has.inside  # type: ignore[import-not-found] # noqa: F401
    assert str(caught.value) == (
        "torchnn export needs a_package_that_nobody_has, which is not installed: pip install 'torchnn[export]'."
    )
    assert isinstance(caught.value, ImportError)


def test_a_missing_package_is_named_as_pip_names_it() -> None:
    with pytest.raises(MissingPackageError, match="needs scikit-learn, which"), need("train", "torchnn fit"):
        raise ModuleNotFoundError("No module named 'sklearn.base'", name="sklearn.base")


@pytest.mark.parametrize("error", [ImportError("libx.so"), ModuleNotFoundError("gone", name="torchnn.gone")])
def test_an_import_that_fails_for_another_reason_keeps_its_traceback(error: ImportError) -> None:
    with pytest.raises(type(error), match=str(error)) as caught, need("train", "torchnn fit"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("environment", "name", "is_first"),
    [
        ({}, "", True),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, "", True),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}, "rank 0", True),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, "rank 3", False),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "rank 1", False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "1"}, "", True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, "rank 0", True),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, "rank 1", False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1", "WORLD_SIZE": "2"}, "process 0 of host 1", False),
    ],
)
def test_one_of_several_processes_is_named_by_its_launcher(
    environment: dict[str, str], name: str, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert name_of_process() == name
    assert is_first_process() == is_first


def test_a_mistake_of_a_rank_is_printed_and_kept_for_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error"))):
        monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as stop:
        fail("this is  wrong.")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "torchnn: rank 1: this is wrong.\n"
    assert json.loads((tmp_path / "error").read_text())["message"] == "rank 1: this is wrong."
