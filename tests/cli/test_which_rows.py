"""Rows that trained a model never judge it, however its table is named; and a command says which rows it takes."""

import shutil
from pathlib import Path

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch

from tests.cli.conftest import FinishedRun, train
from tests.cli.helpers import SHORT, printed_metrics, refused, rows_of
from tests.tables.helpers import good, lines, text
from torchnn.cli import main
from torchnn.runs.checkpoints import find_checkpoint

GOOD = text(lines(good, rows=120))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run on t.csv, which the tests copy."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "t.csv").write_text(GOOD)
    return train(folder, *SHORT, "--data.path", "t.csv", "--data.target", "y")


@pytest.fixture
def trained(run: FinishedRun, tmp_path: Path, _in_an_empty_folder: None) -> dict[str, float]:
    """The metrics of the held-out rows of t.csv; the run is in the working folder."""
    shutil.copytree(run.folder, tmp_path, dirs_exist_ok=True)
    return printed_metrics(run.printed)


def test_training_with_all_rows_held_out_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text(GOOD)
    sentence = refused(["fit", "--data.path", "t.csv", "--data.target", "y", "--data.part", "all"], capsys)
    assert "--data.part all would make fit test on training rows: use it only with torchnn test or predict." in sentence


def test_the_table_of_the_training_is_known_by_any_of_its_names(
    trained: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("t.csv", "./t.csv", str(tmp_path / "t.csv")):
        main(["test", "--data.path", name])
        assert printed_metrics(capsys.readouterr().out) == trained


def test_a_copy_of_the_table_of_the_training_is_not_a_test(
    trained: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("t.csv", "copy.csv")
    with pytest.raises(SystemExit) as stop:
        main(["test", "--data.path", "copy.csv"])
    assert stop.value.code == 2
    assert "copy.csv is the table that the checkpoint was trained on: give --data.part" in capsys.readouterr().err
    main(["test", "--data.path", "copy.csv", "--data.part", "held_out"])
    assert printed_metrics(capsys.readouterr().out) == trained
    main(["test", "--data.path", "copy.csv", "--data.part", "all"])
    main(["predict", "--data.path", "copy.csv", "--output", "out.csv"])
    assert len(rows_of(Path("out.csv"))) == 120


def test_predict_says_that_it_takes_the_held_out_rows_alone(
    trained: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "torchnn: predict uses only the 18 held-out rows of 120: set --data.part all to use all rows.\n"
    for number, (words, said) in enumerate(
        [([], True), (["--data.part", "held_out"], False), (["--data.part", "all"], False)]
    ):
        main(["predict", "--output", f"{number}.csv", *words])
        assert (sentence in capsys.readouterr().err) == said
    assert [len(rows_of(Path(f"{number}.csv"))) for number in range(3)] == [18, 18, 120]


@pytest.mark.parametrize("stream", ["true", "false"])
def test_another_table_is_validated_as_a_whole(
    stream: str, trained: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pacsv.read_csv("t.csv").slice(0, 60), "new.parquet")
    main(["validate", "--data.path", "new.parquet", "--data.stream", stream])
    validated = printed_metrics(capsys.readouterr().out)
    main(["test", "--data.path", "new.parquet"])
    assert printed_metrics(capsys.readouterr().out) == pytest.approx(validated, abs=1e-4)


@pytest.mark.parametrize("options", [7, {"weird": 1}, {"batch_size": "lots"}, {"path": 7}])
def test_a_checkpoint_that_does_not_describe_its_table_is_refused(
    options: object, trained: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(find_checkpoint("last", Path()), weights_only=True)
    given = {**checkpoint["datamodule_hyper_parameters"], **options} if isinstance(options, dict) else options
    torch.save({**checkpoint, "datamodule_hyper_parameters": given}, "bad.ckpt")
    for words in (["test"], ["predict", "--output", "o.csv"], ["fit"], ["export", "m.onnx"], ["explain", "--row", "1"]):
        sentence = refused([*words, "--ckpt_path", "bad.ckpt"], capsys)
        assert "checkpoint bad.ckpt does not describe the table that it was trained on: " in sentence
    assert not Path("m.onnx").exists()


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("1", "new.{}: all {} rows belong to class '1', so AUROC is undefined: use rows of both"),
        ("2", "target 'y' is '2', but the classes of the model are '0', '1': fix the value"),
    ],
)
@pytest.mark.parametrize(
    ("command", "rows", "suffix"),
    [("validate", 1, "csv"), ("test", 9, "csv"), ("validate", 9, "parquet"), ("test", 9, "parquet")],
)
def test_rows_that_cannot_judge_are_refused_before_there_is_a_run_folder(
    command: str,
    target: str,
    sentence: str,
    rows: int,
    suffix: str,
    trained: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There is no AUROC of one class, which torchmetrics gives as 0."""
    Path("new.csv").write_text(text(lines(lambda row: f"{row},red,{target}", rows=rows)))
    pq.write_table(pacsv.read_csv("new.csv"), "new.parquet")
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main([command, "--data.path", f"new.{suffix}", "--data.stream", str(suffix == "parquet").lower()])
    assert stop.value.code == 2
    streams = capsys.readouterr()
    assert sentence.format(suffix, rows) in streams.err
    assert (streams.err.count("\n"), streams.out) == (2, "")  # the other line names the checkpoint
    assert sorted(Path().rglob("*")) == before


def test_a_part_of_a_test_that_is_of_one_class_is_refused(
    trained: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("new.csv").write_text(text(lines(lambda row: f"{row % 7},red,{row // 4096}", rows=4100)))
    with pytest.raises(SystemExit) as stop, pytest.warns(UserWarning, match="No positive samples"):
        main(["test", "--data.path", "new.csv", "--trainer.limit_test_batches", "0.5"])
    assert stop.value.code == 2
    assert "the test: all 4,096 rows belong to class '0', so AUROC" in capsys.readouterr().err
