"""Every bad table is refused in one sentence that names file, row and column, and says what to change."""

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from tests.tables.helpers import ROWS, by_sentence, good, lines, read, refusal, text, with_column, with_target, write
from torchnn.tables.text import read_text

GOOD = text(lines(good))
HEAD, *BODY = lines(good)
CUT = text([HEAD, *BODY[:9], "1.0,red", *BODY[9:]])
ARROW = pa.table({"x": [float(row) for row in range(ROWS)], "y": [row % 2 for row in range(ROWS)]})


def as_bytes(table: pa.Table, write_table: Any) -> bytes:
    sink = io.BytesIO()
    write_table(table, sink)
    return sink.getvalue()


PARQUET, FEATHER = as_bytes(ARROW, pq.write_table), as_bytes(ARROW, feather.write_feather)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "{} is empty: use a table with a header and rows."),
        (b"\n \n\r\n", "{} is empty: use a table with a header and rows."),
        ("x,c,y\n", "{} has a header but no rows: use a table with data."),
        ("x,c,y", "{} has a header but no rows: use a table with data."),
        ("x,c,y\n\n\n", "{} has a header but no rows"),
        (CUT, "{}, row 9 (line 11) has 2 columns, but the header has 3: fix this row, put values"),
        (CUT.replace("1.0,red", "1.0,red,1,9"), "{}, row 9 (line 11) has 4 columns, but the header has 3"),
        (CUT.replace(BODY[3], f"\n\n{BODY[3]}"), "{}, row 9 (line 13) has 2 columns"),
        (CUT.replace("\n", "\r\n"), "{}, row 9 (line 11) has 2 columns"),
        (CUT.replace("\n", "\r"), "{}, row 9 (line 11) has 2 columns"),
        (CUT.replace("red", '"re\nd"', 1), "{}, row 9 (line 12) has 2 columns"),
        (
            GOOD.replace(BODY[9], f'"{BODY[9]}'),
            "{}, row 9 (line 11) has 1 column, but the header has 3: fix this row, ",
        ),
        (
            GOOD.replace(BODY[9], BODY[9][:-1] + '"' + BODY[9][-1]),
            "row 9 (counted from 0), column 'y': the value runs to the end",
        ),
        ('"' + GOOD, "{}, line 1: the header cannot be parsed (unexpected end of data): fix it, and close every"),
        (
            GOOD.replace("red", "caf\xe9").encode("latin-1"),
            "{}, line 2: byte 0xe9 is not valid utf-8: save the file as UTF-8",
        ),
        (GOOD.encode()[:-1] + b"\xc3", "{}, line 41: byte 0xc3 is not valid utf-8"),
        (GOOD.encode("utf-16"), "{} is encoded as utf-16: set --data.encoding utf-16, or save the file as UTF-8."),
        (GOOD.encode("utf-32"), "{} is encoded as utf-32: set --data.encoding utf-32"),
        (GOOD.encode("utf-16-le"), "{} seems to be encoded as utf-16-le: set --data.encoding utf-16-le"),
        (GOOD.encode("utf-16-be"), "{} seems to be encoded as utf-16-be: set --data.encoding utf-16-be"),
        (
            GOOD.replace("blue", "bl\0ue", 1),
            "{}, line 3 contains a NUL byte, which text files cannot hold: write the file again.",
        ),
        (GOOD.replace("x,c,y", "c,c,y"), "{}, columns 1 and 2 are both named 'c': rename one of them."),
        (GOOD.replace("x,c,y", "x, x ,y"), "{}, columns 1 and 2 are both named 'x': rename one of them."),
        (GOOD.replace("x,c,y", ",c,y"), "{}, column 1 has a blank name: give every column a name; if pandas wrote"),
        (GOOD.replace("\n", ",\n"), "{}, column 4 has a blank name: give every column a name."),
        (
            ",".join(f"c{i}" for i in range(100_000)),
            "{} has 100,000 columns, more than --data.max_columns 10,000: raise this limit",
        ),
        (PARQUET, None),  # the content decides, not the name
        (PARQUET[:-9], "{} is a corrupt Parquet file (Parquet magic bytes not found in footer"),
        (PARQUET[: len(PARQUET) // 2], "{} is a corrupt Parquet file"),
        (PARQUET[:4], "{} is a corrupt Parquet file"),
        (FEATHER, None),
        (FEATHER[:-20], "{} is a corrupt Arrow file (Not an Arrow file): write it again."),
        (b"PK\x03\x04rest", "{} is a zip archive or an Excel file: unpack it, or save it as CSV."),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "{} is an Excel file: save it as CSV."),
        (b"FEA1rest", "{} is a Feather file of version 1: write it again as version 2."),
        (b"%PDF-1.7\n", "{} is a PDF: use a table."),
        (gzip.compress(PARQUET), "{} is a compressed Parquet or Arrow file: decompress it first."),
        ("y\n" + "0\n1\n" * 20, "{} has no column left to learn from: check --data.include and --data.exclude."),
        ("a,y\n" + "1,0\n1,1\n" * 20, "{} has no column left to learn from: use a table with columns that vary."),
    ],
    ids=by_sentence,
)
def test_a_file_that_is_not_a_table_is_refused(content: str | bytes, sentence: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", content)
    if sentence is None:
        assert read(path).num_features == 1
    else:
        assert sentence.format(path) in refusal(path)
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("kept", [6, 0.5, -5])
def test_a_truncated_compressed_file_is_refused(compress: Any, kept: float, tmp_path: Path) -> None:
    packed = compress(GOOD.encode())
    assert read(write(tmp_path / "whole.csv.gz", packed)).num_features == 2
    cut = packed[: int(kept * len(packed)) if isinstance(kept, float) else kept]
    path = write(tmp_path / "t.csv.gz", cut)
    assert refusal(path).startswith(f"{path} is a compressed file that is truncated or damaged (")


@pytest.mark.parametrize("codec", ["zstd", "lz4", "brotli"])
def test_other_compressions_are_read_and_refused_if_truncated(codec: str, tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(GOOD.encode())
    packed = sink.getvalue().to_pybytes()
    assert read(write(tmp_path / "t.csv.br", packed)).num_features == 2
    path = write(tmp_path / "cut.csv.br", packed[: len(packed) // 2])
    assert f"{path} is a compressed file that is truncated or damaged" in refusal(path)


@pytest.mark.parametrize(
    ("suffix", "sentence"),
    [
        (".parquet", "has the name of a .parquet file but is not one, or is corrupt: write it again."),
        (".feather", "has the name of a .feather file but is not one, or is corrupt: write it again."),
        (".json", "is a .json file, which is not supported: save it as CSV or Parquet."),
    ],
)
def test_text_with_the_suffix_of_another_format_is_refused(suffix: str, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"t{suffix}", GOOD)
    assert refusal(path) == f"{path} {sentence}"


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (lambda row: 1, "{}, target 'y' is '1' in all 40 rows: use a table with rows of both classes."),
        (
            lambda row: row % 3,
            "{}, target 'y' has 3 classes ('0', '1', '2'): use a column with two classes, or with numbers",
        ),
        (lambda row: ("No", "Yes", "yes ")[row % 3], "'Yes', 'yes'): write each class in the same way in all rows."),
        (
            lambda row: ("Yes", "yes ")[row % 2],
            "has the classes 'Yes', 'yes', which differ only in case: write them in",
        ),
        (
            lambda row: "" if row == 7 else row % 2,
            "{}, row 7 (line 9), target 'y' is missing (1 of 40 rows have no target)",
        ),
        (
            lambda row: "nan",
            "{}, row 0 (line 2), target 'y' is missing (40 of 40 rows have no target): remove these rows",
        ),
        (
            lambda row: row / 30,
            "{}, row 31 (line 33), target 'y' is 1.03333: use a target with two classes, or with probabilities",
        ),
        (
            lambda row: "inf" if row == 3 else row / 50,
            "{}, row 3 (line 5), target 'y' is inf: use a target with two classes",
        ),
        (lambda row: 0.5, "{}, target 'y' is '0.5' in all 40 rows"),
        (
            lambda row: f"2020-01-0{row % 2 + 1}",
            "{}, target 'y' holds date32[day]: use a column with two classes, or with probabilities",
        ),
    ],
    ids=by_sentence,
)
def test_a_bad_target_is_refused(target: Any, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", with_target(target))
    assert sentence.format(path) in refusal(path)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (
            lambda row: f'"{row},5"',
            "{}, row 0 (line 2), column 'c': '0,5' is not a number: write numbers as 1234.5, or set --data.decimal ,",
        ),
        (lambda row: f"{row} 000", "{}, row 0 (line 2), column 'c': '0 000' is not a number: write numbers as 1234.5"),
        (lambda row: f"{row}\u202f000", "row 0 (line 2), column 'c': '0\\u202f000' is not a number"),
        (lambda row: "1 000" if row == 5 else row * 1.5, "{}, row 5 (line 7), column 'c': '1 000' is not a number"),
        (lambda row: f"{row}%", "{}, row 0 (line 2), column 'c': '0%' is not a number: write numbers as 1234.5"),
        (lambda row: f"${row}.25", "{}, row 0 (line 2), column 'c': '$0.25' is not a number"),
        (
            lambda row: "error" if row == 9 else row * 1.5,
            "row 9 (line 11), column 'c': 'error' is not a number: fix it",
        ),
        (lambda row: "inf" if row == 9 else row * 1.5, "{}, row 9 (line 11), column 'c': inf (or a number beyond 1.8e"),
        (lambda row: "-Infinity" if row == 9 else row * 1.5, "{}, row 9 (line 11), column 'c': -inf (or a number"),
        (lambda row: "1e400" if row == 9 else row * 1.5, "{}, row 9 (line 11), column 'c': inf (or a number beyond"),
        (
            lambda row: "1e200" if row == 9 else row * 1.5,
            "column 'c': 1e+200 is not a finite number below 1e+100: fix it or leave it empty, or ",
        ),
        (
            lambda row: f"2020-01-{row % 28 + 1:02}{'Z' * (row == 9)}",
            "is not a time in the format of the other values: fix it",
        ),
        (
            lambda row: f"2020-01-{row % 28 + 1:02}" if row != 9 else "soon",
            "row 9 (line 11), column 'c': 'soon' is not a time",
        ),
        (lambda row: f"2020-02-{row % 30 + 1:02}", "row 29 (line 31), column 'c': '2020-02-30' is not a time"),
    ],
    ids=by_sentence,
)
def test_values_that_are_not_plain_numbers_or_times_are_refused(column: Any, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", with_column(column))
    assert sentence.format(path) in refusal(path)


@pytest.mark.parametrize(
    ("content", "flag", "options"),
    [
        (with_column(lambda row: "error" if row == 9 else row * 1.5), "missing \"['error']\"", {"missing": ["error"]}),
        (with_column(lambda row: f"{row}%"), "types.c category", {"types": {"c": "category"}, "keep": ["c"]}),
        (with_column(lambda row: f'"{row},5"'), "decimal ,", {"decimal": ","}),
        (
            with_column(lambda row: "soon" if row == 9 else f"2020-01-{row % 28 + 1:02}"),
            "missing",
            {"missing": ["soon"]},
        ),
        (with_column(lambda row: "inf" if row == 9 else row * 1.5), "exclude \"['c']\"", {"exclude": ["c"]}),
        (GOOD.encode("utf-16"), "encoding utf-16", {"encoding": "utf-16"}),
    ],
)
def test_a_suggested_flag_makes_the_table_readable(
    content: str | bytes, flag: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path = write(tmp_path / "t.csv", content)
    assert f"--data.{flag}" in refusal(path)
    assert read(path, **options).num_features >= 1


def test_too_many_categories_are_refused_and_can_be_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", text(lines(lambda row: f"c{row % 5000},{row % 2}", "c,y", 20_000)))
    sentence = refusal(path)
    assert f"{path}, column 'c' has 4,9" in sentence
    assert "more than --data.max_categories 1,000: raise this limit, or leave the column out with" in sentence
    assert sentence.endswith("--data.exclude \"['c']\".")
    assert len(read(path, max_categories=5000).schema.columns[0].values) > 4000


def test_wide_tables_can_be_allowed(tmp_path: Path) -> None:
    names = [f"x{i}" for i in range(60)]
    rows = lines(
        lambda row: ",".join(str(row * i % 7 + i % 2 * 0.5) for i in range(60)) + f",{row % 2}", ",".join([*names, "y"])
    )
    path = write(tmp_path / "t.csv", text(rows))
    assert "has 61 columns, more than --data.max_columns 50" in refusal(path, max_columns=50)
    assert read(path, max_columns=61).num_features > 50


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": "yy"}, "{} has no column 'yy' for --data.target: did you mean 'y'?"),
        ({"target": "Y"}, "{} has no column 'Y' for --data.target: did you mean 'y'?"),
        ({"target": "loss"}, "{} has no column 'loss' for --data.target: the columns are 'x', 'c', 'y'."),
        ({"target": ""}, "--data.target is missing: name the column of {} to predict, one of 'x', 'c', 'y'."),
        ({"positive": "2"}, "--data.positive 2 does not occur in target 'y' of {}: use one of '0', '1'."),
        ({"include": ["cc"]}, "--data.include 'cc' matches no column of {}: did you mean 'c'?"),
        ({"exclude": ["z*"]}, "--data.exclude 'z*' matches no column of {}: the columns are 'x', 'c', 'y'."),
        ({"keep": ["C "]}, "--data.keep 'C ' matches no column of {}: did you mean 'c'?"),
        ({"exclude": ["*"]}, "{} has no column left to learn from: check --data.include and --data.exclude."),
        ({"id_column": "id"}, "{} has no column 'id' for --data.id_column: the columns are"),
        ({"weight_column": "xx"}, "{} has no column 'xx' for --data.weight_column: did you mean 'x'?"),
        ({"weight_column": "c"}, "{}, row 0 (line 2), column 'c': 'red' is not a number: fix it."),
        ({"weight_column": "y"}, "--data.weight_column and --data.target are both 'y': use different columns."),
        ({"id_column": "y"}, "--data.id_column and --data.target are both 'y': use different columns."),
        ({"types": {"z": "number"}}, "--data.types has a column 'z', which {} does not have: the columns are"),
        ({"types": {"c": "text"}}, "--data.types.c is 'text': use one of number, boolean, category, time."),
        ({"types": {"c": "number"}}, "{}, row 0 (line 2), column 'c': 'red' is not a number: fix it."),
        ({"types": {"c": "boolean"}}, "{}, row 0 (line 2), column 'c': 'red' is neither true nor false: fix it"),
        ({"types": {"x": "boolean"}}, "{}, row 0 (line 2), column 'x': '0.5' is neither true nor false: fix it"),
        (
            {"types": {"c": "time"}},
            "{}, row 0 (line 2), column 'c': 'red' is not a time in the format of the other values: write all times as",
        ),
        (
            {"types": {"x": "time"}},
            "{}, column 'x' holds double, which cannot be read as a time: convert the column to a time.",
        ),
        ({"delimiter": ";"}, "its only column is 'x,c,y'; if this is several columns, set --data.delimiter."),
        (
            {"split": "time", "split_column": "c"},
            "{}, column 'c' cannot order the rows: set --data.split_column to a column of times or",
        ),
        ({"split": "group", "split_column": "g"}, "{} has no column 'g' for --data.split_column: the columns are"),
        ({"encoding": "klingon"}, "encoding is 'klingon': use a text encoding such as utf-8, latin-1 or utf-16."),
        ({"encoding": "rot13"}, "encoding is 'rot13': use a text encoding"),
        ({"encoding": "undefined"}, "encoding is 'undefined': use a text encoding"),
        ({"encoding": "utf-16-le"}, "{}"),
        ({"delimiter": "::"}, "delimiter is '::': use one character, such as ; or tab."),
        ({"delimiter": '"'}, "delimiter is '\"': use one character"),
        ({"decimal": "x"}, "decimal is 'x': use a point or a comma."),
    ],
    ids=by_sentence,
)
def test_a_wrong_option_is_refused_with_the_allowed_values(
    options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "t.csv", GOOD)
    assert sentence.format(path) in refusal(path, **options)


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (
            lambda row: -1 if row == 4 else 1,
            "{}, row 4 (line 6), weight 'c' is -1: it must be a number that is 0 or more.",
        ),
        (
            lambda row: "" if row == 4 else 1,
            "{}, row 4 (line 6), weight 'c' is missing: it must be a number that is 0 or more.",
        ),
        (lambda row: "inf" if row == 4 else 1, "{}, row 4 (line 6), column 'c': inf (or"),
        (lambda row: 0, "{}, weight 'c' is 0 in all rows: set a weight above 0 in some rows."),
        (lambda row: row * 7 % 10 // 5, "{}, weight 'c' is 0 in all training rows of one class: set a weight above 0"),
    ],
    ids=by_sentence,
)
def test_bad_weights_are_refused(weight: Any, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", with_column(weight))
    assert sentence.format(path) in refusal(path, weight_column="c")


def test_a_path_without_a_table_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path / "loans.csv", GOOD)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.md").touch()
    for wanted, sentence in [
        ("loans.tsv", "does not exist: did you mean loans.csv?"),
        ("other.csv", "other.csv does not exist: give the path of a table."),
        ("*.parquet", "*.parquet matches no file: change the pattern."),
        ("empty", "empty is a folder without tables: use a file, or a folder with files that end in .csv, .tsv,"),
        ("x" * 300, "cannot be read (File name too long): check its name and permissions."),
    ]:
        assert sentence in refusal(tmp_path / wanted)
    assert refusal("") == refusal([]) == "no file is given: give the path of a table."
    assert refusal("/dev/null") == "/dev/null is a pipe or a device: write the table to a file first."
    path = tmp_path / "loans.csv"
    assert refusal([str(path), str(tmp_path / "empty/../loans.csv")]).endswith(
        "loans.csv is given twice: give each file once."
    )
    assert refusal(path, test_path=str(path)) == f"{path} is given twice: give each file once."


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated, because root may read every file."""
    path = write(tmp_path / "t.csv", GOOD)

    def deny(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    for method in ("open", "read_bytes", "is_dir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, deny)
            assert refusal(path).endswith("cannot be read (Permission denied): check its name and permissions.")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.csv", GOOD)

    def read_and_change(*args: Any) -> Any:
        result = read_text(*args)
        with path.open("a") as file:
            file.write(BODY[0])
        return result

    monkeypatch.setattr("torchnn.tables.files.read_text", read_and_change)
    assert refusal(path) == f"{path} changed while it was being read: wait until it is complete, then start again."


def test_files_with_different_columns_are_refused_by_name(tmp_path: Path) -> None:
    first = write(tmp_path / "1.csv", GOOD)
    second = tmp_path / "2.csv"
    write(second, text(lines(lambda row: f"{row},{row % 2}", "x,y")))
    assert refusal(tmp_path) == f"{second} does not have column 'c' of {first}: use files with the same columns."
    write(second, text(lines(lambda row: good(row) + ",1,2", "x,c,y,z,w")))
    assert refusal(tmp_path) == (
        f"{second} has columns 'z', 'w', which {first} does not have: use files with the same columns."
    )
    write(second, text(lines(lambda row: f"{row if row != 9 else '?!'},red,{row % 2}")))
    assert f"{second}, row 9 (line 11), column 'x': '?!' is not a number" in refusal(tmp_path)
    write(second, GOOD.replace(BODY[9], "1,red,"))
    assert f"{second}, row 9 (line 11), target 'y' is missing (1 of 80 rows have no target)" in refusal(tmp_path)
    second.unlink()
    third = tmp_path / "3.parquet"
    pq.write_table(pa.table({"x": ["a"] * 9, "c": ["b"] * 9, "y": [1] * 9}), third)
    assert refusal(tmp_path) == (
        f"column 'x' holds double in {first} and string in {third}: convert it to the same type in all files."
    )


def test_errors_of_file_and_target_come_before_notes_on_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    constant = text(lines(lambda row: f"1,{row},{row % 3}", "k,x,y"))
    assert "3 classes" in refusal(write(tmp_path / "t.csv", constant))
    assert "NUL" in refusal(write(tmp_path / "t.csv", constant.replace("1,5,", "1\0,5,")), target="z")
    assert capsys.readouterr().err == ""


def test_an_unusual_column_name_keeps_the_sentence_on_one_line_and_the_flag_usable(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a\nb": ["x", "y"] * 20, "y": [0, 1] * 20}), tmp_path / "t.parquet")
    assert "column 'a\\nb': 'x' is not a number" in refusal(tmp_path / "t.parquet", types={"a\nb": "number"})
    path = write(tmp_path / "t.csv", with_column(lambda row: f"{row}%", head="x,the share,y"))
    assert "or set --data.types \"{'the share': category}\" to use the column as words." in refusal(path)
    path = write(tmp_path / "t.csv", with_column(lambda row: "9%" + "8" * 5000 if row == 3 else row + 0.5))
    assert len(refusal(path)) < 500
