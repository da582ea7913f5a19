"""A table gives the same numbers as text, as Parquet and in memory, whatever the types of its columns."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch

from tests.tables.helpers import ROWS, read
from torchnn.data.module import TabularDataModule
from torchnn.tables import TableError

TARGET = [row * 7 % 10 // 5 for row in range(ROWS)]
LONG_AGO = datetime.date(1900, 1, 1)


def assert_same(data: TabularDataModule, other: TabularDataModule) -> None:
    assert data.schema == other.schema
    parts = [[next(iter(d.source.loader("all", ROWS))) for d in (data, other)]]
    for one, two in parts:
        assert torch.equal(one.features.nan_to_num(-7), two.features.nan_to_num(-7))
        assert torch.equal(one.target, two.target)


def in_every_format(table: pa.Table, folder: Path) -> list[tuple[Any, dict[str, Any]]]:
    """The table as text, as Parquet (in memory and streamed) and as a dataframe, each with options to read it."""
    pacsv.write_csv(table, folder / "t.csv")
    pq.write_table(table, folder / "t.parquet", row_group_size=11)
    parquet = folder / "t.parquet"
    return [(folder / "t.csv", {}), (parquet, {}), (parquet, {"stream": True}), (table.to_pandas(), {})]


@pytest.mark.parametrize(
    ("column", "missing"),
    [
        (pa.array([-999 if row % 5 == 0 else row % 7 for row in range(ROWS)]), "-999"),
        (pa.array([-99.9 if row % 5 == 0 else row % 7 + 0.5 for row in range(ROWS)], pa.float32()), "-99.9"),
        (
            pa.array([LONG_AGO if row % 5 == 0 else datetime.date(2020, 1, row % 7 + 1) for row in range(ROWS)]),
            "1900-01-01",
        ),
    ],
    ids=["integers", "float32", "dates"],
)
def test_a_word_for_missing_also_applies_to_columns_with_types(column: Any, missing: str, tmp_path: Path) -> None:
    table = pa.table({"x": column, "y": TARGET})
    first, *others = in_every_format(table, tmp_path)
    expected = read(first[0], missing=[missing], **first[1])
    assert expected.schema.columns[0].missing
    assert expected.table.features[:, 0].isnan().tolist() == [row % 5 == 0 for row in range(ROWS)]
    for path, options in others:
        data = read(path, missing=[missing], **options)
        assert data.schema.columns[0].missing
        one, two = (next(iter(d.source.loader("all", ROWS))).features for d in (expected, data))
        assert torch.equal(one[:, 0].isnan(), two[:, 0].isnan())
    known = read(table.to_pandas(), part="all", schema=expected.plain_schema)
    torch.testing.assert_close(known.table.features, expected.table.features, equal_nan=True, rtol=1e-6, atol=0)


def test_a_category_of_numbers_does_not_depend_on_a_zero_fraction(tmp_path: Path) -> None:
    """Pandas writes 3.0 for 3 in a column where one value is missing."""
    table = pa.table({"zip": [row % 6 + 1 for row in range(ROWS)], "y": TARGET})
    trained = [read(path, types={"zip": "category"}, **options) for path, options in in_every_format(table, tmp_path)]
    for data in trained:
        assert data.schema.columns[0].values == ("1", "2", "3", "4", "5", "6")
    frame = table.to_pandas().astype({"zip": float})
    frame.loc[0, "zip"] = np.nan
    frame.to_csv(tmp_path / "floats.csv", index=False)
    assert "2.0" in (tmp_path / "floats.csv").read_text()
    for new in (frame, tmp_path / "floats.csv", frame.astype({"zip": pd.Int64Dtype()})):
        known = read(new, part="all", schema=trained[0].plain_schema)
        assert known.table.features[0].isnan()
        assert torch.equal(known.table.features[1:], trained[0].table.features[1:])


def test_groups_stay_together_if_one_file_writes_them_with_a_zero_fraction(tmp_path: Path) -> None:
    groups = [row // 2 for row in range(200)]
    target = [row % 2 for row in range(200)]
    for name, kind in (("1.parquet", pa.int64()), ("2.parquet", pa.float64())):
        x = np.arange(200) % 7 + 0.5
        pq.write_table(pa.table({"x": x, "g": pa.array(groups, kind), "y": target}), tmp_path / name)
    for stream in (True, False):
        data = read(tmp_path, split="group", split_column="g", stream=stream)
        part_of: dict[int, str] = {}
        for part in ("train", "val", "test"):
            for batch in data.source.loader(part, 4096):
                for row in batch.row.tolist():
                    assert part_of.setdefault(groups[row % 200], part) == part


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_column_can_be_the_time_of_a_split(stream: bool, tmp_path: Path) -> None:
    days = [str(datetime.date(2020, 1, 1) + datetime.timedelta(days=7 * row % 40)) for row in range(ROWS)]
    table = pa.table({"x": np.arange(ROWS) % 7 + 0.5, "day": days, "y": TARGET})
    pq.write_table(table, tmp_path / "t.parquet")
    data = read(
        tmp_path / "t.parquet", split="time", split_column="day", types={"day": "time"}, stream=stream,
        val_fraction=0.25, test_fraction=0.25,
    )  # fmt: skip
    rows = {part: [row for b in data.source.loader(part, 99) for row in b.row.tolist()] for part in ("train", "test")}
    assert max(days[row] for row in rows["train"]) < min(days[row] for row in rows["test"])


def test_an_id_is_never_missing(tmp_path: Path) -> None:
    words = ["NA", "None", "?", "", "-999", "007", *(f"k{row}" for row in range(ROWS - 6))]
    lines = [f"{word},{row % 7 + 0.5},{TARGET[row]}" for row, word in enumerate(words)]
    (tmp_path / "t.csv").write_text("\n".join(["id,x,y", *lines]))
    data = read(tmp_path / "t.csv", id_column="id", missing=["-999"])
    assert data.table.ids.to_pylist() == words


@pytest.mark.parametrize("first", [2**60, 20190101000000000])
def test_ids_that_float64_cannot_distinguish_are_dropped(
    first: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = range(200)
    table = pa.table(
        {"x": [row % 7 + 0.5 for row in rows], "n": [first + row for row in rows], "y": [row % 2 for row in rows]}
    )
    for path, options in in_every_format(table, tmp_path):
        assert [column.name for column in read(path, **options).schema.columns] == ["x"]
        assert (
            "column 'n' is dropped because it holds whole numbers that never repeat and looks like an id"
            in capsys.readouterr().err
        )
    repeated = table.set_column(1, "n", pa.array([first + row % 9 * 10**12 for row in rows]))
    assert [column.name for column in read(repeated).schema.columns] == ["x", "n"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_third_class_in_a_test_is_refused(stream: bool, tmp_path: Path) -> None:
    table = pa.table(
        {"x": [row % 7 + 0.5 for row in range(ROWS)], "y": [("no", "yes")[row % 2] for row in range(ROWS)]}
    )
    trained = read(table)
    pq.write_table(
        table.set_column(1, "y", pa.array(["no", "yes", "maybe", "no"] * (ROWS // 4))), tmp_path / "t.parquet"
    )
    data = read(tmp_path / "t.parquet", part="all", schema=trained.plain_schema, stream=stream)
    with pytest.raises(
        TableError, match=r"row 2 .*target 'y' is 'maybe', but the classes of the model are 'no', 'yes'"
    ):
        list(data.test_dataloader())


MORNINGS = pa.array([datetime.datetime(2020, 1, row % 28 + 1, row % 24, row) for row in range(ROWS)])


def with_times(path: Path, zoned: bool) -> Path:
    """A Parquet file of UTC times, with or without a zone in the type."""
    times = MORNINGS.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC" if zoned else None))
    pq.write_table(pa.table({"t": times, "y": TARGET}), path)
    return path


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("zoned", [False, True])
def test_a_model_trained_on_times_without_a_zone_refuses_times_with_one_and_vice_versa(
    stream: bool, zoned: bool, tmp_path: Path
) -> None:
    """Local times that are silently read as UTC would change their hour."""
    trained = read(with_times(tmp_path / "t.parquet", zoned), stream=stream)
    assert trained.schema.columns[0].zoned is zoned
    known: dict[str, Any] = {"part": "all", "schema": trained.plain_schema}
    read(with_times(tmp_path / "same.parquet", zoned), stream=stream, **known)
    other = with_times(tmp_path / "other.parquet", not zoned)
    words = pa.table({"t": [f"2020-01-31 12:00{'' if zoned else 'Z'}", None], "y": [0, 1]})
    has, had = ("without", "with") if zoned else ("with", "without")
    sentence = f"column 't' holds times {has} a zone, but the model was trained on times {had} a zone: write them as"
    with pytest.raises(TableError, match=sentence):
        read(other, stream=stream, **known)
    with pytest.raises(TableError, match=sentence):
        read(words, **known)
    pq.write_table(words, tmp_path / "words.parquet")
    with pytest.raises(TableError, match=sentence):
        list(read(tmp_path / "words.parquet", stream=stream, **known).predict_dataloader())
    for column in known["schema"]["columns"]:
        del column["zoned"]  # as in a checkpoint from before
    assert len(read(other, stream=stream, **known).predict_dataloader()) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_times_with_a_zone_in_one_file_and_without_in_another_are_refused(stream: bool, tmp_path: Path) -> None:
    files = [str(with_times(tmp_path / f"{zoned}.parquet", zoned)) for zoned in (False, True)]
    with pytest.raises(TableError, match="column 't' holds ") as caught:
        read(files, stream=stream)
    assert "True.parquet" in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
def test_a_column_with_more_missing_values_than_in_training_is_noted(
    stream: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing values are replaced by the mean, and the predictions do not show it."""
    x = [row % 7 + 0.5 for row in range(ROWS)]
    holes = [None if row % 3 == 0 else row % 5 + 0.5 for row in range(ROWS)]
    words = [("a", "b")[row % 2] for row in range(ROWS)]
    trained = read(pa.table({"x": x, "z": holes, "c": words, "y": TARGET}))
    new = {"x": [None, *x[1:]], "z": pa.nulls(ROWS, pa.float64()), "c": [*words[:-2], None, None]}
    cases = [
        (new, ["'x' has no value in 1 of 40 rows, but", "'z' has no value in any of 40", "'c' has no value in 2 of 40"])
    ]
    cases += [({"x": x, "z": holes, "c": words}, []), ({"x": [0.5], "z": pa.nulls(1, pa.float64()), "c": ["a"]}, [])]
    for table, sentences in cases:
        pq.write_table(pa.table(table), tmp_path / "t.parquet")
        capsys.readouterr()
        read(tmp_path / "t.parquet", part="all", schema=trained.plain_schema, stream=stream)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == len(sentences)
        assert all(f"column {sentence}" in line for sentence, line in zip(sentences, said, strict=True))
