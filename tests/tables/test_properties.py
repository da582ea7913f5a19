"""Properties of any table: dozens of generated tables in the quick tests, thousands in the slow ones."""

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pyarrow import feather

from tests.tables.helpers import good, lines, one_sentence, read, text, write
from torchnn.model.preprocess import Preprocess
from torchnn.tables import TableError
from torchnn.tables.prepare import encode_table, prepare
from torchnn.tables.raw import RawTable, raw_table
from torchnn.tables.roles import Roles
from torchnn.tables.schema import Column, Schema
from torchnn.tables.split import Splitting
from torchnn.tables.text import MISSING

GOOD = text(lines(good)).encode()
CHECKS = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


def run(holds: Callable[..., None], examples: int, *strategies: Any, **options: Any) -> None:
    decorate: Any = settings(max_examples=examples, **CHECKS, **options)  # type: ignore[arg-type]
    over: Any = given(*strategies)
    decorate(over(holds))()


def for_all(quick: int, slow: int, *strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """A property as a quick test and as a slow one with more examples."""

    def decorate(holds: Callable[..., None]) -> Any:
        def check(examples: int) -> None:
            run(holds, examples, *strategies)

        counts = [pytest.param(quick, id="quick"), pytest.param(slow, id="many", marks=pytest.mark.slow)]
        return pytest.mark.parametrize("examples", counts)(check)

    return decorate


# What is inserted into a good table to break it.
INSERTED = st.sampled_from(
    [
        *(
            b"\0",
            b'"',
            b",",
            b"\n",
            b"\r",
            b"\r\n",
            b";",
            b"\t",
            b"\xff",
            b"\xc3",
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"inf",
        ),
        *(b"1e400", b"1,5", b"1 000", b"nan", b"NA", b"'", b"\\", b"2020-13-01", b"10:61", b"9" * 400, b"x" * 70_000),
        *(b"PAR1", b"ARROW1", b"\x1f\x8b", b"PK\x03\x04", "−½".encode(), b"y", b"\n\n", b'","', b"true", b"-"),
    ]
)
CHANGES = st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 6), INSERTED), min_size=1, max_size=4)


def damaged(changes: list[tuple[int, int, bytes]]) -> bytes:
    content = GOOD
    for start, removed, put in changes:
        content = content[:start] + put + content[start + removed :]
    return content


def or_error(make: Callable[[], Any]) -> Any:
    """The result, or the ValueError that refuses it; any other error is raised."""
    try:
        return make()
    except ValueError as error:
        return error


def check_read_or_refused(content: bytes, name: str = "t.csv", **options: Any) -> None:
    """The result is a table of finite or missing numbers, or one sentence that names the file or a flag."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / name, content)
        data = or_error(lambda: read(path, **options))
        if isinstance(data, ValueError):
            assert type(data) in (TableError, ValueError), repr(data)
            sentence = one_sentence(str(data))
            assert name in sentence or "fraction" in sentence, sentence
            assert len(sentence) < 1000
        else:
            assert not data.table.features.isinf().any()
            assert set(data.table.target.tolist()) <= {0.0, 1.0}
            assert all(len(part) for part in data.rows.values())


@for_all(120, 4000, st.binary(max_size=200) | CHANGES.map(damaged))
def test_any_bytes_are_read_or_refused_in_one_sentence(content: bytes) -> None:
    check_read_or_refused(content)


@for_all(
    40, 1000, CHANGES.map(damaged), st.sampled_from(["utf-16", "latin-1", "cp1252", "utf-7"]), st.sampled_from(".,")
)
def test_any_bytes_are_read_or_refused_with_other_text_options(content: bytes, encoding: str, decimal: str) -> None:
    check_read_or_refused(content, encoding=encoding, decimal=decimal, delimiter=";")


PACKED = {
    "t.csv.gz": gzip.compress(GOOD, mtime=0),
    "t.parquet": (
        lambda s: (pq.write_table(pacsv.read_csv(io.BytesIO(GOOD)), s, write_page_checksum=True), s.getvalue())[1]
    )(io.BytesIO()),
    "t.arrow": (lambda s: (feather.write_feather(pacsv.read_csv(io.BytesIO(GOOD)), s), s.getvalue())[1])(io.BytesIO()),
}


@for_all(60, 2000, st.sampled_from(sorted(PACKED)), st.floats(0, 1), st.binary(max_size=8), st.booleans())
def test_a_damaged_binary_file_is_read_or_refused_in_one_sentence(name: str, at: float, put: bytes, cut: bool) -> None:
    content = PACKED[name]
    start = int(at * len(content))
    check_read_or_refused(content[:start] + put + (b"" if cut else content[start + len(put) :]), name)


@st.composite
def tables(draw: Any) -> pa.Table:
    """A table of numbers, categories, booleans and times with missing values, long enough to be split."""
    rows = draw(st.integers(24, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def holes() -> Any:
        return random.random(rows) < draw(st.sampled_from([0, 0.2]))

    words = draw(st.lists(st.text("abcxyz äß,;'", min_size=1, max_size=6), min_size=2, max_size=5))
    words = [f"w{word.strip()}" for word in words]
    kinds: dict[str, Callable[[], pa.Array]] = {
        "whole": lambda: pa.array(random.integers(-9, 9, rows), mask=holes()),
        "real": lambda: pa.array(random.normal(size=rows).round(draw(st.integers(1, 12))), mask=holes()),
        "large": lambda: pa.array(1e9 + random.normal(size=rows).round(4), mask=holes()),
        "word": lambda: pa.array(random.choice(words, rows), pa.string(), mask=holes()),
        "truth": lambda: pa.array(random.random(rows) < 0.5, mask=holes()),
        "day": lambda: pa.array(random.integers(0, 20_000, rows).astype("datetime64[D]"), mask=holes()),
        "time": lambda: pa.array(random.integers(0, 2**31, rows).astype("datetime64[s]"), mask=holes()),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=4))
    columns = {f"{kind}{number}": kinds[kind]() for number, kind in enumerate(chosen)}
    target = np.arange(rows) % draw(st.integers(2, 3)) == 0
    return pa.table({**columns, "y": pa.array(random.permutation(target).astype(int))})


def prepared(table: pa.Table) -> Any:
    done = or_error(lambda: prepare(raw_table(table), Roles(target="y"), Splitting(), lambda _: None))
    if isinstance(done, TableError):
        assert "no column left" in str(done)
    assume(not isinstance(done, TableError))
    return done


def as_text(table: pa.Table, delimiter: str) -> bytes:
    sink = io.BytesIO()
    pacsv.write_csv(table, sink, pacsv.WriteOptions(delimiter=delimiter, quoting_style="needed"))
    return sink.getvalue()


@for_all(30, 1500, tables())
def test_every_form_of_a_table_gives_the_same_numbers(table: pa.Table) -> None:
    expected = prepared(table)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "t.csv", as_text(table, ","))
        write(folder / "t.tsv", as_text(table, "\t"))
        write(folder / "t.csv.gz", gzip.compress(as_text(table, ";")))
        pq.write_table(table, folder / "t.parquet")
        feather.write_feather(table, folder / "t.feather")
        for path in folder.iterdir():
            data = read(path)
            assert data.schema == expected.schema, path.suffix
            assert torch.equal(data.table.features.nan_to_num(-1e30), expected.table.features.nan_to_num(-1e30))
            assert torch.equal(data.table.target, expected.table.target)


@for_all(40, 2000, tables(), st.integers(0, 2**32 - 1))
def test_the_encoding_of_a_row_does_not_depend_on_other_rows(table: pa.Table, seed: int) -> None:
    done = prepared(table)
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(table.num_rows)[: 1 + seed % table.num_rows])
    part = encode_table(raw_table(table.take(pa.array(rows.numpy()))), done.schema)
    assert torch.equal(part.features.nan_to_num(-1e30), done.table.features[rows].nan_to_num(-1e30))


@for_all(40, 1500, tables())
def test_a_schema_survives_a_checkpoint(table: pa.Table) -> None:
    schema = prepared(table).schema
    assert Schema.from_plain(schema.as_plain()) == schema
    assert Schema.from_plain(json.loads(json.dumps(schema.as_plain()))) == schema


JUNK = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.just({"a": 1})


SCHEMA = Schema(
    columns=(
        Column(name="x", kind="number", missing=True),
        Column(name="b", kind="boolean"),
        Column(name="c", kind="category", values=("blue", "red")),
        Column(name="t", kind="time", parts=("days", "hour sin", "hour cos"), zoned=True),
    ),
    target="y",
    missing=("-999",),
)


@for_all(100, 3000, st.data())
def test_a_corrupted_schema_is_refused_or_still_a_schema(data: Any) -> None:
    plain = SCHEMA.as_plain()
    place = data.draw(st.sampled_from([plain, *plain["columns"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JUNK)
    try:
        schema = Schema.from_plain(plain)
    except TableError as error:
        one_sentence(str(error))
    else:
        assert Schema.from_plain(schema.as_plain()) == schema


def with_other_values(column: pa.ChunkedArray, rows: list[int]) -> pa.Array:
    """The column with other values in some rows: missing ones, and ones that occur nowhere else."""
    kind, values = column.type, column.to_pylist()
    other = {"int64": 12_345, "double": -1e12, "string": "unheard of", "bool": None}
    for number, row in enumerate(rows):
        values[row] = None if number % 2 else other.get(str(kind))
    return pa.array(values, kind)


@for_all(40, 1500, tables())
def test_nothing_is_learned_from_validation_and_test_rows(table: pa.Table) -> None:
    done = prepared(table)
    held_out = torch.cat([done.rows["val"], done.rows["test"]]).tolist()
    names = [name for name in table.column_names if name != "y"]
    changed = pa.table({**{name: with_other_values(table[name], held_out) for name in names}, "y": table["y"]})
    again = prepared(changed)
    assert again.schema == done.schema
    ours, theirs = (Preprocess(len(done.schema.slots), done.schema, scaling="robust") for _ in range(2))
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.copy_(b)
    ours.fit(done.table.features[done.rows["train"]])
    theirs.fit(again.table.features[again.rows["train"]])
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


@for_all(30, 1000, tables(), st.sampled_from([word for word in MISSING if word != ""]))
def test_every_word_for_missing_gives_the_same_numbers(table: pa.Table, word: str) -> None:
    expected = prepared(table)
    written = as_text(table, ",").decode().splitlines()
    filled = [",".join(value or word for value in line.split(",")) for line in written]
    assume(all(line.count(",") == written[0].count(",") for line in written))
    with tempfile.TemporaryDirectory() as folder:
        data = read(write(Path(folder) / "t.csv", text(filled)))
    assert data.schema == expected.schema
    assert torch.equal(data.table.features.nan_to_num(-1e30), expected.table.features.nan_to_num(-1e30))


@for_all(40, 1500, st.integers(2, 5), st.integers(20, 90), st.integers(0, 99), st.booleans())
def test_folds_partition_the_rows(folds: int, rows: int, seed: int, grouped: bool) -> None:
    random = np.random.default_rng(seed)
    table = pa.table(
        {"x": random.normal(size=rows), "g": random.integers(0, 30, rows), "y": random.permutation(rows) % 2}
    )
    held_out = []
    for fold in range(folds):
        splitting = Splitting(
            by="group" if grouped else "random",
            column="g" if grouped else "",
            val_fraction=0.3,
            folds=folds,
            fold=fold,
            seed=seed,
        )
        done: Any = or_error(partial(prepare, RawTable(data=table), Roles(target="y"), splitting, lambda _: None))
        if isinstance(done, ValueError):
            assert "leave a part without rows of both classes" in str(done)
        assume(not isinstance(done, ValueError))
        assert torch.equal(torch.cat(list(done.rows.values())).sort().values, torch.arange(rows))
        held_out.append(done.rows["test"])
        groups = [set(table["g"].take(pa.array(part.numpy())).to_pylist()) for part in done.rows.values()]
        if grouped:
            assert sum(map(len, groups)) == len(set.union(*groups)), "a group is in two parts"
            assert "g" not in done.table.columns
        else:
            ones = done.table.target[done.rows["test"]].sum()
            assert abs(ones - len(done.rows["test"]) / 2) <= 1
    assert torch.equal(torch.cat(held_out).sort().values, torch.arange(rows))


def test_a_property_that_does_not_hold_fails() -> None:
    """Negative control: a check that never fails would pass any reader."""

    def refuses(holds: Callable[..., None], *strategies: Any) -> bool:
        try:
            run(holds, 20, *strategies, phases=[Phase.generate])  # without shrinking the example
        except AssertionError:
            return True
        return False

    def reader_of_first_rows(table: pa.Table) -> None:
        encoded = encode_table(raw_table(table), prepared(table).schema).features
        assert torch.equal(encoded.nan_to_num(), encoded[: len(encoded) - 1].nan_to_num())

    assert refuses(reader_of_first_rows, tables())
    with pytest.raises(AssertionError):
        one_sentence("two\nlines.")
