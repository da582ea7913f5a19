"""Text tables, read by pyarrow; what it would misread or mumble about is found first and said in one sentence."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from torchnn.tables.content import BLOCK, decoded, unpacked
from torchnn.tables.faults import TableError, check_names, check_width, first_line, short

# What pandas and R write for a missing value, and "?" of the UCI repository.
MISSING = (
    *("", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "Null", "null", "None", "none"),
    *("NaT", "<NA>", "?", ".", "-", "1.#QNAN", "-1.#IND"),
)
CLASSES_TOO = ("None", "none", ".", "-")  # missing in a column, but a class in a target, such as + and −
MISSING_CLASS = tuple(word for word in MISSING if word not in CLASSES_TOO)
DELIMITERS = (",", ";", "\t", "|")
LONGEST_BLOCK = 2**31 - 1


@dataclass(frozen=True)
class TextOptions:
    """How text becomes columns.

    Attributes:
        delimiter: between values; None looks at the header.
        decimal: the decimal mark.
        encoding: of the file.
        missing: further words that stand for a missing value.
        time_format: how dates are written, as in strptime; None for ISO 8601.
        as_text: columns that stay text whatever they look like.
        target: the column whose missing values are only those of `MISSING_CLASS`.
        ids: the column none of whose words is missing.
    """

    delimiter: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ()
    time_format: str | None = None
    as_text: tuple[str, ...] = ()
    target: str = ""
    ids: str = ""


def read_text(path: Path, options: TextOptions, max_columns: int) -> tuple[pa.Table, bool, bytes]:
    """A text table, whether each row stands on a line of its own, and the text in UTF-8.

    Names lose their outer blanks, and line breaks in them become blanks.

    Raises:
        TableError: one sentence that names the line and the column.
    """
    packed = unpacked(path)
    if packed.startswith((b"PAR1", b"ARROW1")):
        raise TableError(f"{path} is a compressed Parquet or Arrow file: decompress it first.")
    content = decoded(path, packed, options.encoding)
    if not re.search(rb"\S", content):
        raise TableError(f"{path} is empty: give a table with a header and rows.")
    delimiter = options.delimiter or sniffed(_first_line(content))
    written, end = _header(path, content, delimiter)
    check_width(len(written), path, max_columns)
    names = [" ".join(name.split()) for name in written]
    check_names(names, path)
    if not re.compile(rb"[^\r\n]").search(content, end):
        raise TableError(f"{path} has no rows below its header: give a table with data.")
    reader = _Reader(path, content, written, names, delimiter, options)
    table = reader.read()
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    return table, lines == table.num_rows + 1, content


def _first_line(content: bytes) -> str:
    """The first line that is not blank."""
    line = re.search(rb"[^\r\n]+", content)
    return line[0].decode() if line else ""


def sniffed(header: str) -> str:
    r"""The delimiter of a header: the most frequent candidate outside quotes.

    >>> sniffed("a;b;c"), sniffed("only")
    (';', ',')
    """
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=unquoted.count)


def _lines(content: bytes) -> Iterator[str]:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")


def _header(path: Path, content: bytes, delimiter: str) -> tuple[list[str], int]:
    """The names as they are written, and how many bytes they and the blank lines before them take."""
    taken = 0

    def counted() -> Iterator[str]:
        nonlocal taken
        for line in _lines(content):
            taken += len(line.encode())
            yield line

    try:
        names = next(filter(None, csv.reader(counted(), delimiter=delimiter, strict=True)), [])
    except csv.Error as error:
        raise TableError(
            f"{path}, line 1: the header cannot be read ({first_line(error)}): correct it, closing each quotation mark."
        ) from error
    return names, taken


@dataclass(frozen=True)
class _Reader:
    path: Path
    content: bytes
    written: list[str]
    names: list[str]
    delimiter: str
    options: TextOptions

    def read(self) -> pa.Table:
        """The table, whose text runs over the end of the file in no value."""
        further = self.options.missing
        table = self._parsed((*MISSING, *further)).rename_columns(self.names)
        if self.content.count(b'"') % 2:
            self._check_last_value(table)
        for name, missing in ((self.options.target, (*MISSING_CLASS, *further)), (self.options.ids, ())):
            if name in self.names and table[name].null_count:
                position = self.names.index(name)
                read_again = self._parsed(missing, [self.written[position]])
                table = table.set_column(position, name, read_again.column(0))
        return table

    def _parsed(self, missing: tuple[str, ...], only: list[str] | None = None) -> pa.Table:
        failure: Exception
        block = max(BLOCK, 16 * len(",".join(self.written)))
        # Only without threads does pyarrow tell the row; only in one block can a value be as long as the file.
        for threads, block_size in ((True, block), (False, block), (False, LONGEST_BLOCK)):
            try:
                return pacsv.read_csv(
                    pa.BufferReader(self.content),
                    read_options=pacsv.ReadOptions(
                        block_size=min(block_size, max(len(self.content), block)), use_threads=threads
                    ),
                    **self._settings(missing, only),
                )
            except (pa.ArrowException, ValueError) as error:
                failure = error
                if not threads and "straddl" not in str(error):
                    break
        raise self._sentence(str(failure)) from failure

    def _settings(self, missing: tuple[str, ...], only: list[str] | None) -> dict[str, Any]:
        parsers = [self.options.time_format] if self.options.time_format else []
        text = dict.fromkeys(
            (w for w, name in zip(self.written, self.names, strict=True) if name in self.options.as_text), pa.string()
        )
        return {
            "parse_options": pacsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=b'"' in self.content),
            "convert_options": pacsv.ConvertOptions(
                null_values=list(missing),
                strings_can_be_null=True,
                decimal_point=self.options.decimal,
                timestamp_parsers=[*parsers, pacsv.ISO8601],
                column_types=text,
                include_columns=only,
            ),
        }

    def _check_last_value(self, table: pa.Table) -> None:
        """Refuse a quotation mark that is opened and never closed: pyarrow takes the rest of the file as its value."""
        value = table.column(-1)[-1].as_py()
        if isinstance(value, str) and re.search(r"[\r\n]", value):
            raise TableError(
                f"{self.path}, row {table.num_rows - 1} (counted from 0), column {short(self.names[-1])} runs to the "
                "end of the file: close its quotation mark."
            )

    def _sentence(self, failure: str) -> TableError:
        ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", failure)
        if not ragged:
            return TableError(f"{self.path} cannot be read as text ({first_line(failure)}): correct it.")
        row, expected, found = int(ragged[1]) - 2, int(ragged[2]), int(ragged[3])
        unclosed = "close a quotation mark that is left open, " if self.content.count(b'"') % 2 else ""
        return TableError(
            f"{self.path}, row {row} ({self._line_of_row(row, found)}) has {found} column{'s' * (found != 1)} where "
            f"the header has {expected}: correct it, {unclosed}put values that hold the delimiter in quotes, "
            "or give --data.delimiter."
        )

    def _line_of_row(self, row: int, num_columns: int) -> str:
        """The line of a ragged row; only where Python's own reader sees the same row."""
        reader = csv.reader(_lines(self.content), delimiter=self.delimiter)
        position, line = -1, 1  # the header is row -1
        try:
            for values in reader:
                if values and position == row:
                    return f"line {line}" if len(values) == num_columns else "counted from 0"
                position += bool(values)
                line = reader.line_num + 1
        except csv.Error:
            pass
        return "counted from 0"
