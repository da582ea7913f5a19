"""Predictions are refused, and not merged in part, if the processes do not see each other's files."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import torch

from torchnn.runs.predictions import PredictionError, PredictionFile, Spill

ROWS = 9


class Host:
    """The messages of two processes, as the first receives them: the other one has predicted `others` rows."""

    def __init__(self, others: int) -> None:
        self.others = others

    def broadcast(self, value: Any) -> Any:
        return value

    def barrier(self, name: str) -> None:
        pass

    def reduce(self, rows: torch.Tensor, reduce_op: str) -> torch.Tensor:
        return rows + self.others


def first_process(path: Path, monkeypatch: pytest.MonkeyPatch, written: int | None, others: int) -> PredictionFile:
    """The first process has predicted rows 0 to 4; the file of the other, if there is one, has the next rows."""
    file = PredictionFile(path)
    trainer: Any = SimpleNamespace(strategy=Host(others), global_rank=0, world_size=2, is_global_zero=True)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    plain = Spill.__init__
    spilled: list[Spill] = []

    def both(self: Spill, own: Path) -> None:
        plain(self, own)
        if written is not None:
            other = object.__new__(Spill)
            plain(other, own.with_name(own.name.replace(".0.arrow", ".1.arrow")))
            spilled.append(other)

    monkeypatch.setattr(Spill, "__init__", both)
    file.on_predict_start(trainer, module)
    assert file.own is not None
    file.own.add(pa.table({"": range(5), "row": range(5)}))
    for other in spilled:
        other.add(pa.table({"": range(5, 5 + (written or 0)), "row": range(5, 5 + (written or 0))}))
        other.close()
    file.on_predict_epoch_end(trainer, module)
    return file


def test_all_rows_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".p.csv.1.arrow").write_bytes(b"of an earlier run")
    (tmp_path / ".p.csv.0123abcd.1.arrow").write_bytes(b"of an earlier run")
    first_process(tmp_path / "p.csv", monkeypatch, written=4, others=4)
    assert pacsv.read_csv(tmp_path / "p.csv")["row"].to_pylist() == list(range(ROWS))


@pytest.mark.parametrize("written", [0, 3])
def test_missing_rows_are_counted_and_nothing_is_written(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PredictionError, match=f"9 rows were predicted, but the first process finds {5 + written} of"):
        first_process(tmp_path / "p.csv", monkeypatch, written=written, others=4)
    assert not (tmp_path / "p.csv").exists()


def test_a_folder_that_is_not_shared_is_noticed_before_anything_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".p.csv.1.arrow").write_bytes(b"of an earlier run")
    with pytest.raises(PredictionError, match="does not see the files of 1 of the 2 processes"):
        first_process(tmp_path / "p.csv", monkeypatch, written=None, others=4)
