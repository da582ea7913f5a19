"""A streamed table gives the same columns, statistics, parts and errors as a table in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.streaming.helpers import mixed, module, write
from torchnn.data import source as source_module
from torchnn.tables import parquet
from torchnn.tables.errors import TableError
from torchnn.tables.split import order_statistics
from torchnn.training import BinaryClassifier, TabularDataModule

PARTS = ("train", "val", "test")


def rows(data: TabularDataModule, part: Any) -> torch.Tensor:
    """Numbers of the rows of a part, sorted."""
    found = [batch.row for batch in data.source.loader(part, 64)]
    return torch.cat(found).sort().values


def test_separate_files_give_the_same_schema_statistics_and_rows_as_in_memory(tmp_path: Path) -> None:
    tables = {name: mixed(300, seed) for seed, name in enumerate(PARTS)}
    train, val, test = (write(tmp_path / f"{name}.parquet", table, 70) for name, table in tables.items())
    options = {"val_path": val, "test_path": test, "id_column": "id", "weight_column": "weight", "positive": "yes"}
    stream, memory = (module(train, stream=which, **options) for which in (True, False))
    assert stream.schema == memory.schema
    assert stream.hparams["fingerprint"] == memory.hparams["fingerprint"]
    assert stream.source.num_rows == memory.source.num_rows
    assert stream.class_counts() == pytest.approx(memory.class_counts())
    for part in PARTS:
        assert torch.equal(rows(stream, part), rows(memory, part))
        for ours, theirs in zip(stream.source.loader(part, 64), memory.source.loader(part, 64), strict=True):  # type: ignore[arg-type]
            torch.testing.assert_close(ours.features, theirs.features, rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(ours.weight, theirs.weight)
            assert torch.equal(ours.target, theirs.target)
            assert ours.ids.to_pylist() == theirs.ids.to_pylist()
    models = [BinaryClassifier(data.num_features, schema=data.plain_schema) for data in (stream, memory)]
    for model, data in zip(models, (stream, memory), strict=True):
        model.preprocess.fit(data.training_features())
    for name in ("mean", "scale", "one_hot_used"):
        torch.testing.assert_close(*(getattr(model.preprocess, name) for model in models))


def test_a_split_by_time_gives_the_same_rows_as_in_memory(tmp_path: Path) -> None:
    table = mixed(500)
    table = table.set_column(
        table.column_names.index("day"),
        "day",
        table["day"].fill_null(pa.scalar(1_550_000_000_000_000, pa.timestamp("us"))),
    )
    path = write(tmp_path / "t.parquet", table)
    for column in ("day", "n"):
        stream, memory = (module(path, stream=which, split="time", split_column=column) for which in (True, False))
        for part in PARTS:
            assert torch.equal(rows(stream, part), rows(memory, part))


def test_a_split_by_group_keeps_groups_together(tmp_path: Path) -> None:
    table = mixed(800)
    data = module(write(tmp_path / "t.parquet", table), split="group", split_column="group")
    groups = table["group"].to_numpy()
    found = [set(groups[rows(data, part)].tolist()) for part in PARTS]
    assert sum(map(len, found)) == len(set().union(*found)) == 40


def test_a_random_split_meets_its_fractions_and_does_not_depend_on_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PIECE_ROWS", 128)
    path = write(tmp_path / "t.parquet", mixed(4000), 1000)
    small, again, other = module(path), module(path), module(path, seed=1)
    monkeypatch.setattr(parquet, "PIECE_ROWS", 512)
    large = module(path)
    for part in PARTS:
        assert torch.equal(rows(small, part), rows(large, part))
        assert torch.equal(rows(small, part), rows(again, part))
    assert not torch.equal(rows(small, "test"), rows(other, "test"))
    assert small.source.num_rows["val"] == pytest.approx(600, abs=80)
    assert small.source.num_rows["test"] == pytest.approx(600, abs=80)


def test_every_row_is_in_the_test_part_of_one_fold(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", mixed(300))
    folds = [module(path, folds=3, fold=fold) for fold in range(3)]
    assert torch.equal(torch.cat([rows(data, "test") for data in folds]).sort().values, torch.arange(300))
    for data in folds:
        assert torch.equal(torch.cat([rows(data, part) for part in PARTS]).sort().values, torch.arange(300))


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e100, 1e100)), st.data())
def test_order_statistics_equal_sorting(numbers: np.ndarray, data: st.DataObject) -> None:
    ranks = data.draw(st.lists(st.integers(0, len(numbers) - 1), min_size=1, max_size=3))
    found = order_statistics(lambda: np.array_split(numbers, 3), ranks)
    assert found == np.sort(numbers)[ranks].tolist()


def test_probabilities_numbers_and_booleans_give_the_same_target_as_in_memory(tmp_path: Path) -> None:
    x = np.arange(60.0) % 17
    for values, classes in ((x / 16, ("0", "1")), (x % 2 + 1.0, ("1", "2")), (x > 8, ("false", "true"))):
        path = write(tmp_path / "t.parquet", pa.table({"x": x + 0.5, "y": values}), 7)
        stream, memory = (module(path, stream=which) for which in (True, False))
        assert stream.schema.classes == memory.schema.classes == classes
        target = torch.cat([batch.target for batch in stream.source.loader("all", 64)])
        assert torch.equal(target, memory.table.target)


def changed(name: str, row: int, value: Any, num_rows: int = 400) -> pa.Table:
    """A table with one other value, in a late row group."""
    table = mixed(num_rows)
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("x", float("inf"), r"t\.parquet, row 333 \(counted from 0\), column 'x': inf is not a finite number"),
        ("y", None, r"t\.parquet, row 333 \(counted from 0\), target 'y' is missing \(1 of 400 rows have no target\)"),
        ("y", "perhaps", "target 'y' has 3 classes"),
        ("weight", -1.0, r"row 333 \(counted from 0\), weight 'weight' is -1.0"),
    ],
)
def test_an_error_in_a_late_row_group_is_found_before_training(
    tmp_path: Path, name: str, value: Any, sentence: str
) -> None:
    path = write(tmp_path / "t.parquet", changed(name, 333, value), 50)
    with pytest.raises(TableError, match=sentence):
        module(path, weight_column="weight")
    with pytest.raises(TableError, match=sentence):
        module(path, weight_column="weight", stream=False)


def test_a_target_above_1_is_refused_with_its_row(tmp_path: Path) -> None:
    y = np.linspace(0, 1, 60)
    y[41] = 1.5
    path = write(tmp_path / "t.parquet", pa.table({"x": np.arange(60.0) % 7, "y": y}), 7)
    with pytest.raises(TableError, match=r"row 41 \(counted from 0\), target 'y' is 1.5"):
        module(path)


def test_a_new_category_in_a_late_row_group_is_counted_and_encoded_as_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = module(write(tmp_path / "t.parquet", mixed(400)))
    path = write(tmp_path / "new.parquet", changed("word", 333, "novel"), 50)
    new = module(path, part="all", schema=trained.plain_schema)
    assert "column 'word' has values that did not occur in training, in 1 of 400 rows" in capsys.readouterr().err
    slot = new.schema.slots.index("word")
    features = torch.cat([batch.features for batch in new.predict_dataloader()])
    assert (features[:, slot] == 0).nonzero().flatten().tolist() == [333]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop_columns(["x"]), "does not have column 'x' of"),
        (lambda t: t.append_column("z", t["n"]), "has column 'z', which"),
        (
            lambda t: t.set_column(1, "x", t["id"]),
            r"column 'x' holds double in .*a\.parquet and string in .*b\.parquet",
        ),
    ],
)
def test_files_with_other_columns_are_refused(tmp_path: Path, change: Any, sentence: str) -> None:
    write(tmp_path / "a.parquet", mixed(100))
    write(tmp_path / "b.parquet", change(mixed(100)))
    with pytest.raises(TableError, match=sentence):
        module(str(tmp_path))


def test_a_file_may_have_another_order_of_columns_and_a_column_without_values(tmp_path: Path) -> None:
    first, second = mixed(100), mixed(100, 1)
    write(tmp_path / "a.parquet", first.set_column(1, "x", pa.nulls(100)))
    write(tmp_path / "b.parquet", second.select(second.column_names[::-1]))
    data = module(str(tmp_path))
    x = torch.cat([b.features[:, data.schema.slots.index("x")] for b in data.source.loader("all", 64)])
    assert x[:100].isnan().all()
    assert np.array_equal(x[100:], second["x"].to_numpy().astype(np.float32), equal_nan=True)


def test_a_file_that_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    csv = tmp_path / "t.csv"
    csv.write_text("x,y\n1,0\n2,1\n")
    with pytest.raises(
        TableError, match=r"t\.csv is not a Parquet file, and only Parquet can be streamed: convert it with python -c"
    ):
        module(str(csv))
    write(tmp_path / "none.parquet", mixed(10).slice(0, 0), [0])
    with pytest.raises(TableError, match=r"none\.parquet has no rows"):
        module(str(tmp_path / "none.parquet"))
    whole = Path(write(tmp_path / "cut.parquet", mixed(500)))
    whole.write_bytes(whole.read_bytes()[:-3000])
    with pytest.raises(TableError, match=r"cut\.parquet is a corrupt Parquet file"):
        module(str(whole))
    damaged = Path(write(tmp_path / "damaged.parquet", mixed(500)))
    content = bytearray(damaged.read_bytes())
    content[200:4000] = bytes(3800)
    damaged.write_bytes(content)
    with pytest.raises(TableError, match=r"damaged\.parquet is a corrupt Parquet file"):
        module(str(damaged))
    constant = write(tmp_path / "constant.parquet", pa.table({"x": np.arange(9.0), "y": np.zeros(9)}), 4)
    with pytest.raises(TableError, match="target 'y' is '0' in all 9 rows"):
        module(constant)


def test_auto_streams_a_large_table_and_suggests_parquet_for_a_large_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "t.parquet", mixed(400), [300, 100])
    assert isinstance(module(path, stream="auto").source, source_module.TableSource)
    monkeypatch.setattr(source_module, "MOST_BYTES_IN_MEMORY", 400 * 9 * 4)
    assert isinstance(module(path, stream="auto").source, source_module.StreamSource)
    assert "larger than the shuffle buffer" not in capsys.readouterr().err
    module(path, shuffle_rows=100)
    assert "a row group of 300 rows is larger than the shuffle buffer of 100" in capsys.readouterr().err
    monkeypatch.setattr(source_module, "MOST_BYTES_OF_TEXT", 10)
    csv = tmp_path / "t.csv"
    csv.write_text("x,y\n" + "1.5,0\n2.5,1\n" * 20)
    module(str(csv), stream="auto")
    assert (
        "is read into memory as a whole; a Parquet file of this size would be streamed: convert it with python -c"
        in capsys.readouterr().err
    )


def test_a_part_of_one_class_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", pa.table({"x": np.arange(40.0) % 7, "y": np.arange(40) == 3}), 10)
    with pytest.raises(ValueError, match="leave a part without rows of both classes"):
        module(path)
    with pytest.raises(
        TableError, match=r"--data.val_path has rows of one class only: use files with rows of both classes"
    ):
        module(write(tmp_path / "a.parquet", mixed(50)), val_path=write(tmp_path / "b.parquet", _yes(mixed(50))))


def _yes(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("y"), "y", pa.array(["yes"] * len(table)))


def test_an_id_with_too_many_values_to_count_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchnn.tables.stream.MOST_WORDS", 50)
    data = module(write(tmp_path / "t.parquet", mixed(400)), max_categories=40)
    assert "id" not in data.schema.slots
