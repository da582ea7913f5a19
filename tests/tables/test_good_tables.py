"""Tables as real files have them must work: text formats, kinds, labels, roles, and columns that are dropped."""

import bz2
import datetime
import decimal
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import feather

from tests.tables.helpers import ROWS, good, lines, read, refusal, text, with_column, with_target, write
from torchnn.data.module import TabularDataModule
from torchnn.tables import TableError
from torchnn.tables.prepare import count_unseen_categories, encode_table
from torchnn.tables.raw import raw_table
from torchnn.tables.schema import TIME_PARTS, Column, Schema, schema_of_numbers

GOOD = text(lines(good))


def same(data: TabularDataModule, other: TabularDataModule) -> None:
    assert data.schema == other.schema
    assert torch.equal(data.table.features.nan_to_num(-7), other.table.features.nan_to_num(-7))
    assert torch.equal(data.table.target, other.table.target)


@pytest.fixture
def expected(tmp_path: Path) -> TabularDataModule:
    return read(write(tmp_path / "expected.csv", GOOD))


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (GOOD.encode("utf-8-sig"), {}),
        (GOOD.encode("utf-16"), {"encoding": "utf-16"}),
        (GOOD.encode("latin-1"), {"encoding": "latin-1"}),
        (GOOD.replace("\n", "\r\n"), {}),
        (GOOD.replace("\n", "\r"), {}),
        (GOOD.rstrip("\n"), {}),
        (GOOD + "\n\n", {}),
        ("\n" + GOOD.replace("\n", "\n\n"), {}),
        (GOOD.replace("x,c,y", " x , c,y "), {}),
        (GOOD.replace(",", ", "), {}),
        (GOOD.replace(",", ";"), {}),
        (GOOD.replace(",", "\t"), {}),
        (GOOD.replace(",", "|"), {}),
        (GOOD.replace(",", ":"), {"delimiter": ":"}),
        (GOOD.replace(",", "\t"), {"delimiter": "\\t"}),
        (GOOD.replace(",", ";").replace(".", ","), {"decimal": ","}),
        (GOOD.replace(",red", ',"red"').replace("x,", '"x",'), {}),
        (gzip.compress(GOOD.encode()), {}),
        (bz2.compress(GOOD[:99].encode()) + bz2.compress(GOOD[99:].encode()), {}),
        (lzma.compress(GOOD.encode()), {}),
    ],
)
def test_every_text_format_gives_the_same_numbers(
    content: str | bytes, options: dict[str, Any], tmp_path: Path, expected: TabularDataModule
) -> None:
    same(read(write(tmp_path / "t.csv", content), **options), expected)


def test_folders_globs_and_lists_are_read_as_one_table_in_any_order_of_columns(tmp_path: Path) -> None:
    (tmp_path / "d/deeper").mkdir(parents=True)
    write(tmp_path / "d/1.csv", text(lines(good)[:20]))
    turned = [",".join(reversed(line.split(","))) for line in lines(good)]
    write(tmp_path / "d/deeper/2.tsv", text([turned[0], *turned[20:]]).replace(",", "\t"))
    write(tmp_path / "d/.hidden.csv", "\0")
    whole = read(write(tmp_path / "whole.csv", GOOD))
    same(read(tmp_path / "d"), whole)
    same(read([str(tmp_path / "d/1.csv"), str(tmp_path / "d/*/*.tsv")]), whole)
    same(read(str(tmp_path / "d/**/[0-9].*sv")), whole)


def test_a_column_is_a_category_if_any_file_has_words_in_it(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", with_column(lambda row: f"0{row % 5}"))
    write(tmp_path / "2.csv", with_column(lambda row: "ABCDE"[row % 5]))
    write(tmp_path / "3.csv", with_column(lambda row: ""))
    assert read(tmp_path).schema.columns[1].values == ("00", "01", "02", "03", "04", "A", "B", "C", "D", "E")


NUMBERS = [float(row % 7) for row in range(ROWS)]
DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(days=7 * row) for row in range(ROWS)]
OF_TYPES = [
    *[
        (kind, [int(n) for n in NUMBERS], NUMBERS)
        for kind in (pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64())
    ],
    (pa.float16(), np.array(NUMBERS, dtype=np.float16), NUMBERS),
    (pa.float32(), NUMBERS, NUMBERS),
    (pa.decimal128(9, 2), [decimal.Decimal(n) / 4 for n in NUMBERS], [n / 4 for n in NUMBERS]),
    (pa.duration("s"), [datetime.timedelta(seconds=n) for n in NUMBERS], NUMBERS),
    (pa.duration("ns"), [datetime.timedelta(seconds=n) for n in NUMBERS], NUMBERS),
    (pa.bool_(), [n > 3 for n in NUMBERS], [float(n > 3) for n in NUMBERS]),
    (pa.dictionary(pa.int8(), pa.int64()), pa.array([int(n) for n in NUMBERS]).dictionary_encode(), NUMBERS),
]


@pytest.mark.parametrize(("kind", "values", "numbers"), OF_TYPES, ids=[str(kind) for kind, _, _ in OF_TYPES])
def test_every_type_of_number_is_read_as_its_value(
    kind: Any, values: Any, numbers: list[float], tmp_path: Path
) -> None:
    array = values if isinstance(values, pa.Array) else pa.array(values, kind)
    feather.write_feather(pa.table({"c": array, "y": [0, 1] * (ROWS // 2)}), tmp_path / "t.feather")
    assert read(tmp_path / "t.feather").table.features[:, 0].tolist() == numbers


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_every_type_of_text_keeps_unusual_words(kind: Any) -> None:
    odd = ["a\0b", '"quoted"', "ünï çødé", "x" * 5000, "two\nlines"]
    array = pa.array(odd * 8)
    array = array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)
    data = read(pa.table({"c": array, "y": [0, 1] * 20}))
    assert data.schema.columns[0].values == tuple(sorted(odd))
    assert data.table.features[:, 0].tolist()[:5] == [sorted(odd).index(word) + 1 for word in odd]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(DAYS, pa.date32()),
        pa.array(DAYS, pa.date64()),
        pa.array(DAYS).cast(pa.timestamp("s")),
        pa.array(DAYS).cast(pa.timestamp("ns")),
        pa.array(DAYS).cast(pa.timestamp("us", "UTC")),
        pa.array([f"{day} 00:00:00+00:00" for day in DAYS]),
        pa.array([f" {day.isoformat()}" for day in DAYS]),
    ],
    ids=lambda array: str(array.type),
)
def test_every_type_of_time_is_encoded_as_days_and_cycles(array: pa.Array) -> None:
    data = read(pa.table({"c": array, "y": [0, 1] * (ROWS // 2)}), types={"c": "time"})
    slots = [f"c {part}" for part in TIME_PARTS if "hour" not in part and "weekday" not in part]  # all are Wednesdays
    assert list(data.table.columns) == slots
    days = [(day - datetime.date(2000, 1, 1)).days for day in DAYS]
    assert data.table.features[:, 0].tolist() == days
    season = [2 * np.pi * ((day - datetime.date(1970, 1, 1)).days % 365.2425) / 365.2425 for day in DAYS]
    np.testing.assert_allclose(data.table.features[:, 1], np.sin(season), atol=1e-6)


def test_times_with_a_zone_become_utc_and_times_of_day_are_cycles(tmp_path: Path) -> None:
    paris = read(write(tmp_path / "t.csv", with_column(lambda row: f"2020-01-{row % 28 + 1:02} 01:30:00+01:00")))
    utc = read(write(tmp_path / "t.csv", with_column(lambda row: f"2020-01-{row % 28 + 1:02} 00:30:00Z")))
    same(paris, utc)
    clock = read(write(tmp_path / "t.csv", with_column(lambda row: f"{row % 24:02}:30:00")), include=["c"])
    assert clock.table.columns == ("c days", "c hour sin", "c hour cos")
    turn = 2 * np.pi * (np.arange(ROWS) % 24 + 0.5) / 24
    np.testing.assert_allclose(clock.table.features[:, 1:], np.stack([np.sin(turn), np.cos(turn)], 1), atol=1e-6)


def test_dates_in_another_format_are_read_with_time_format_and_noted_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "t.csv", with_column(lambda row: f"{row % 9 + 1:02}/01/2020"))
    assert read(path).schema.columns[1].kind == "category"
    assert (
        "column 'c' looks like dates, but is used as a category: to read the dates, set --data.time_format, such as"
        in capsys.readouterr().err
    )
    assert read(path, time_format="%d/%m/%Y").schema.columns[1].kind == "time"


@pytest.mark.parametrize("words", ["yes no", "t f", "1 0", "true false", "Y N", "TRUE FALSE"])
def test_words_are_read_as_booleans_with_types(words: str, tmp_path: Path) -> None:
    yes, no = words.split()
    path = write(tmp_path / "t.csv", with_column(lambda row: "" if row % 8 == 5 else [no, yes][row % 4 == 0]))
    data = read(path, types={"c": "boolean"})
    assert data.schema.columns[1] == Column(name="c", kind="boolean", missing=True)
    assert data.table.features[:6, 1].nan_to_num(-1).tolist() == [1, 0, 0, 0, 1, -1]


def test_codes_keep_their_leading_zeros_with_types(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", with_column(lambda row: f"0{row % 3}"))
    assert read(path, types={"c": "category"}).schema.columns[1].values == ("00", "01", "02")


@pytest.mark.parametrize("word", ["", "NA", "N/A", "nan", "NULL", "None", "?", ".", "-", " NA ", "gone"])
@pytest.mark.parametrize(
    "value", [lambda row: row * 1.5, lambda row: "abc"[row % 3], lambda row: f"2020-01-{row % 28 + 1:02}"]
)
def test_every_word_for_missing_gives_the_same_table(word: str, value: Callable[[int], Any], tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", with_column(lambda row: word if row % 5 == 1 else value(row)))
    blank = write(tmp_path / "blank.csv", with_column(lambda row: "" if row % 5 == 1 else value(row)))
    same(read(path, missing=["gone"]), read(blank, missing=["gone"]))


def test_types_that_a_network_cannot_use_are_dropped_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"b": [b"x"] * 40, "l": [[1]] * 40, "s": [{"a": 1}] * 40, "n": [None] * 40}
    data = read(pa.table({"x": NUMBERS, **odd, "y": [0, 1] * 20}))
    assert data.table.columns == ("x",)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "torchnn: column 'b' is dropped because a network cannot use binary values; to use it, convert it to numbers "
        "or words."
    )
    assert said[3] == (
        "torchnn: column 'n' is dropped because it has no value in any row; to keep it, set --data.keep \"['n']\"."
    )
    assert "no column of numbers, words, booleans or times" in refusal(pa.table({"l": [[1]] * 40, "y": [0, 1] * 20}))


def test_columns_that_look_useless_are_dropped_with_a_note_and_can_be_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = "key,user_id,name,k,empty,x,y"
    rows = lines(lambda row: f"{(row * 37) % 100},{row * row},person {row},7,,{row % 13},{row % 2}", head, 100)
    path = write(tmp_path / "t.csv", text(rows))
    assert [column.name for column in read(path).schema.columns] == ["x"]
    keep = "to keep it, set --data.keep \"['{}']\"."
    reasons = {
        "key": "holds whole numbers that never repeat and looks like an id",
        "user_id": "holds whole numbers that never repeat and looks like an id",
        "name": "has a different value in nearly all rows and looks like an id or free text",
        "k": "has the same value in all rows",
        "empty": "has no value in any row",
    }
    expected = [
        f"torchnn: column '{name}' is dropped because it {reason}; {keep.format(name)}"
        for name, reason in reasons.items()
    ]
    assert capsys.readouterr().err.splitlines()[:-1] == expected
    kept = read(path, keep=["user_id", "name", "k", "empty", "key"])
    assert [column.name for column in kept.schema.columns] == head.split(",")[:-1]


@pytest.mark.parametrize(
    ("labels", "classes", "positive"),
    [
        (("0", "1"), ("0", "1"), None),
        (("0.0", "1.0"), ("0", "1"), None),
        (("1", "2"), ("1", "2"), None),
        (("-1", "1"), ("-1", "1"), None),
        (("10", "9"), ("9", "10"), None),
        (("no", "yes"), ("no", "yes"), None),
        (("N", "Y"), ("N", "Y"), None),
        (("FALSE", "TRUE"), ("false", "true"), None),
        (("-", "+"), ("-", "+"), None),
        (("-", "+"), ("+", "-"), "-"),
        (("none", "some"), ("none", "some"), None),
        (("good", "bad"), ("good", "bad"), "bad"),
        (("good", "bad"), ("good", "bad"), "BAD"),
        (("1", "0"), ("1", "0"), "0.0"),
        (("0.5", "1.5"), ("0.5", "1.5"), None),
    ],
)
def test_any_two_labels_are_classes(labels: Any, classes: Any, positive: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", with_target(lambda row: labels[row % 2]))
    data = read(path, positive=positive)
    assert data.table.classes == classes
    first = {"false": "FALSE"}.get(classes[1], labels.index(classes[1]) if classes[1] in labels else 1)
    assert data.table.target.tolist() == [float(row % 2 == first) for row in range(ROWS)]


def test_probabilities_are_soft_labels(tmp_path: Path) -> None:
    data = read(write(tmp_path / "t.csv", with_target(lambda row: row % 11 / 10)))
    torch.testing.assert_close(data.table.target, torch.arange(ROWS) % 11 / 10)
    assert data.table.classes == ("0", "1")


def test_ids_keep_their_zeros_and_weights_get_mean_one(tmp_path: Path) -> None:
    rows = lines(lambda row: f"00{row},{row % 3 + 1},{good(row)}", "id,w,x,c,y")
    data = read(write(tmp_path / "t.csv", text(rows)), id_column="id", weight_column="w")
    assert data.table.ids.to_pylist()[:3] == ["000", "001", "002"]
    assert data.table.columns == ("x", "c")
    assert data.table.weight is not None
    assert float(data.table.weight[data.rows["train"]].mean()) == pytest.approx(1)
    torch.testing.assert_close(data.table.weight[1] / data.table.weight[0], torch.tensor(2.0))


def test_columns_are_chosen_by_names_and_patterns(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", text(lines(lambda row: f"{row % 3},{row % 5},{row % 7},{row % 2}", "x_1,x_2,z[1],y"))
    )
    assert read(path, include=["x_*"]).table.columns == ("x_1", "x_2")
    assert read(path, exclude=["x_1"]).table.columns == ("x_2", "z[1]")
    assert read(path, include=["z[1]", "x_2"], exclude=["x*"]).table.columns == ("z[1]",)


def test_the_index_of_a_dataframe_is_not_a_column() -> None:
    frame = pd.DataFrame({"x": NUMBERS, "c": list("ab") * 20, "y": [0, 1, 1, 0] * 10})
    data = read(frame[frame.x > 0])
    assert data.table.columns == ("x", "c")
    same(read({name: frame[name].tolist() for name in frame}), read(pa.Table.from_pandas(frame)))
    for wrong in ({"x": [1, 2], "y": [1]}, 3, {"x": [[1], "a"]}):
        with pytest.raises(TableError, match="this is not a table"):
            raw_table(wrong)


def test_a_trained_schema_reads_new_rows_and_refuses_others(tmp_path: Path) -> None:
    trained = read(write(tmp_path / "t.csv", GOOD)).schema
    new = raw_table({"c": ["red", "pink", None], "other": [1, 2, 3], "x": [1, 2, 3]})
    table = encode_table(new, trained)
    assert table.features.nan_to_num(-1).tolist() == [[1, 3], [2, 0], [3, -1]]
    assert count_unseen_categories(table, trained) == {"c": 1}
    for wrong, sentence in [
        ({"x": [1.0]}, "the table does not have the column 'c' that the model was trained on: did you mean"),
        ({"C": ["a"], "z": [1]}, "the table does not have the columns 'x', 'c' that the model was trained on"),
        ({"x": ["a"], "c": ["red"]}, "row 0 (counted from 0), column 'x': 'a' is not a number: fix it."),
        (
            {"x": DAYS[:1], "c": ["red"]},
            "the table, column 'x' holds date32[day], which cannot be read as a number: convert",
        ),
        (
            {"x": [[1]], "c": ["red"]},
            "the table, column 'x' holds list<item: int64>, which cannot be read as a number: convert",
        ),
        ({"x": [float("inf")], "c": ["red"]}, "row 0 (counted from 0), column 'x': inf is not a finite number"),
    ]:
        with pytest.raises(TableError) as caught:
            encode_table(raw_table(wrong), trained)
        assert sentence.removesuffix("did you mean") in str(caught.value)
    with pytest.raises(TableError, match="target 'y' is '2', but the classes of the model are '0', '1': fix"):
        encode_table(raw_table({"x": [1], "c": ["red"], "y": [2]}), trained, with_target=True)
    assert encode_table(raw_table({"x": [None], "c": [None]}), trained).features.isnan().all()


@pytest.mark.parametrize(
    "change",
    [
        {"columns": 3},
        {"columns": [{}]},
        {"columns": [{"name": "x", "kind": "image", "values": [], "missing": False, "parts": []}]},
        {"columns": [{"name": "x", "kind": "time", "values": [], "missing": False, "parts": ["week"]}]},
        {"columns": [{"name": "x", "kind": "category", "values": [1], "missing": False, "parts": []}]},
        {"columns": [{"name": "x", "kind": "number", "values": [], "missing": False, "parts": []}] * 2},
        {"classes": ["a"]},
        {"classes": None},
        {"missing": 5},
    ],
)
def test_a_corrupted_schema_is_refused(change: dict[str, Any]) -> None:
    plain = schema_of_numbers(["x"], "y", ("no", "yes")).as_plain()
    with pytest.raises(TableError, match="a damaged description of the columns"):
        Schema.from_plain(plain | change)
    with pytest.raises(TableError, match="a damaged description of the columns"):
        Schema.from_plain({name: value for name, value in plain.items() if name not in change})


def test_a_parquet_file_whose_pages_are_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"x": np.random.default_rng(0).normal(size=999), "y": [0, 1, 1] * 333}), path, write_page_checksum=True
    )
    content = bytearray(path.read_bytes())
    content[300:310] = bytes(10)
    assert "is a corrupt Parquet file" in refusal(write(path, bytes(content)))
