"""fit, test and predict on a streamed table; predictions are written while they are computed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streaming.helpers import mixed, write
from torchnn.cli import main
from torchnn.runs import predictions
from torchnn.runs.predictions import PredictionFile, Spill, merged, read_spill

FIT = ["--data.target", "y", "--data.batch_size", "64", "--trainer.max_epochs", "1", "--data.weight_column", "weight"]


def test_fit_test_and_predict_give_the_same_results_for_a_stream_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "t.parquet", mixed(600), 150)
    main(["fit", "--data.path", path, "--data.stream", "true", "--data.id_column", "id", *FIT])
    assert "auroc" in capsys.readouterr().out
    main(["test"])
    new = mixed(300, 5)
    write(tmp_path / "new.parquet", new, 100)
    pacsv.write_csv(new, tmp_path / "new.csv")
    for name in ("new.parquet", "new.csv"):
        for stream in ["true", "false"] if name == "new.parquet" else ["auto"]:
            words = f"predict --data.path {name} --data.stream {stream} --output {name}.{stream}.csv"
            main(words.split())
    expected = pacsv.read_csv("new.parquet.false.csv")
    assert expected.column_names == ["id", "probability", "label"]
    assert expected["id"].to_pylist() == new["id"].to_pylist()
    for other in ("new.parquet.true.csv", "new.csv.auto.csv"):
        assert pacsv.read_csv(other).equals(expected)
    main(["predict", "--output", "held_out.parquet"])
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_two_processes_train_on_a_stream_and_predict_the_same_as_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "t.parquet", mixed(1501), 300)
    two = "--trainer.accelerator cpu --trainer.devices 2 --trainer.strategy ddp"
    fit = ["fit", "--data.path", path, "--data.stream", "true", "--data.id_column", "id", *FIT]
    new = write(tmp_path / "new.parquet", mixed(1501, 5), 200)  # read in memory by two processes, streamed by one
    for words in (fit, ["predict", "--output", "two.csv"], ["predict", "--data.path", new, "--output", "all.csv"]):
        done = subprocess.run(
            [sys.executable, "-m", "torchnn", *words, *two.split()], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    main(["predict", "--output", "one.csv"])
    main(["predict", "--data.path", new, "--data.stream", "true", "--output", "all_by_one.csv"])
    for two_wrote, one_wrote in (("two.csv", "one.csv"), ("all.csv", "all_by_one.csv")):
        ours, expected = pacsv.read_csv(two_wrote), pacsv.read_csv(one_wrote)
        assert ours["id"].equals(expected["id"])
        np.testing.assert_allclose(ours["probability"].to_numpy(), expected["probability"].to_numpy(), rtol=1e-5)
    assert ours.num_rows == 1501
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_the_predictions_of_several_ranks_are_merged_in_order(rows: list[tuple[int, bool]]) -> None:
    """Each row belongs to a random rank, and starts a new table there or continues the last one."""
    parts: list[list[list[int]]] = [[] for _ in range(4)]
    for row, (rank, begins) in enumerate(rows):
        if begins or not parts[rank]:
            parts[rank].append([])
        parts[rank][-1].append(row)
    tables = merged([iter([pa.table({"": table}) for table in part]) for part in parts])
    assert [row for table in tables for row in table[""].to_pylist()] == list(range(len(rows)))


def test_predictions_are_buffered_and_written_in_larger_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "ROWS_AT_A_TIME", 10)
    spill = Spill(tmp_path / "s.arrow")
    for start in range(0, 24, 4):
        spill.add(pa.table({"": range(start, start + 4)}))
        assert sum(map(len, spill.waiting)) < 10
    spill.close()
    assert [len(table) for table in read_spill(spill.path)] == [12, 12]
    spill.remove()
    assert not list(tmp_path.iterdir())


def test_a_prediction_that_fails_leaves_no_file(tmp_path: Path) -> None:
    file: Any = PredictionFile(tmp_path / "p.csv")
    file.own = Spill(tmp_path / ".p.csv.0.arrow")
    file.own.add(pa.table({"": range(70_000)}))
    file.on_exception(None, None, KeyboardInterrupt())
    assert not list(tmp_path.iterdir())
