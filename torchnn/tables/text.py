"""Read text tables: decompress, decode and parse them. What pyarrow would misread is found first."""

import codecs
import csv
import io
import lzma
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from torchnn.tables.errors import TableError, cannot_read, check_names, check_width, first_line, quote

# What pandas and R write for a missing value, and "?" of the UCI repository.
MISSING = (
    *("", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "Null", "null", "None", "none"),
    *("NaT", "<NA>", "?", ".", "-", "1.#QNAN", "-1.#IND"),
)
CLASSES_TOO = ("None", "none", ".", "-")  # missing in a column, but a class in a target, such as + and −
MISSING_IN_TARGET = tuple(word for word in MISSING if word not in CLASSES_TOO)
DELIMITERS = (",", ";", "\t", "|")
LONGEST_BLOCK = 2**31 - 1
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
BLOCK_BYTES = 1 << 22  # bytes that are decoded or parsed at a time


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How text becomes columns.

    Attributes:
        delimiter: the character between values; None finds it in the header.
        decimal: the decimal mark.
        encoding: encoding of the file.
        missing: additional words that stand for a missing value.
        time_format: how dates are written, as in strptime; None for ISO 8601.
        as_text: columns that stay text whatever they look like.
        target: the column in which only the words of `MISSING_IN_TARGET` are missing.
        ids: the column in which no word is missing.
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
    """Read a text table.

    Names lose their outer blanks, and line breaks in them become blanks.

    Returns:
        The table, whether each row is on a line of its own, and the text in UTF-8.

    Raises:
        TableError: the file cannot be read as a table; the message names the line and the column.
    """
    packed = decompress(path)
    if packed.startswith((b"PAR1", b"ARROW1")):
        raise TableError(f"{path} is a compressed Parquet or Arrow file: decompress it first.")
    content = to_utf8(path, packed, options.encoding)
    if not re.search(rb"\S", content):
        raise TableError(f"{path} is empty: use a table with a header and rows.")
    delimiter = options.delimiter or detect_delimiter(_first_nonblank_line(content))
    written, end = _read_header(path, content, delimiter)
    check_width(len(written), path, max_columns)
    names = [" ".join(name.split()) for name in written]
    check_names(names, path)
    if not re.compile(rb"[^\r\n]").search(content, end):
        raise TableError(f"{path} has a header but no rows: use a table with data.")
    parser = _Parser(path=path, content=content, written=written, names=names, delimiter=delimiter, options=options)
    table = parser.parse()
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    return table, lines == table.num_rows + 1, content


def decompress(path: Path) -> bytes:
    """The bytes of a file, decompressed if it is compressed.

    Raises:
        TableError: the file cannot be read, or its compressed data are damaged or truncated.
    """
    decompressors: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b": lambda packed: _arrow_decompress(packed, "gzip"),
        b"BZh": lambda packed: _arrow_decompress(packed, "bz2"),
        b"\x28\xb5\x2f\xfd": lambda packed: _arrow_decompress(packed, "zstd"),
        b"\x04\x22\x4d\x18": lambda packed: _arrow_decompress(packed, "lz4"),
        b"\xfd7zXZ": lzma.decompress,
    }
    if path.suffix.lower() in (".br", ".brotli"):
        decompressors[b""] = lambda packed: _arrow_decompress(packed, "brotli")
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        for magic, unpack in decompressors.items():
            if packed and packed.startswith(magic):
                return unpack(packed)
    except (OSError, EOFError, MemoryError, lzma.LZMAError, pa.ArrowException) as error:
        raise TableError(
            f"{path} is a compressed file that is truncated or damaged ({first_line(error)}): copy or compress it "
            "again."
        ) from error
    return packed


def _arrow_decompress(packed: bytes, codec: str) -> bytes:
    unpacked: bytes = pa.CompressedInputStream(pa.BufferReader(packed), codec).read()
    return unpacked


def check_encoding(encoding: str) -> None:
    """Raise ValueError unless text can be decoded with this encoding."""
    try:
        b"  ".decode(encoding)  # two bytes, because some codecs accept anything if there are none
    except (LookupError, UnicodeError, ValueError) as error:
        raise ValueError(f"encoding is {encoding!r}: use a text encoding such as utf-8, latin-1 or utf-16.") from error


def to_utf8(path: Path, content: bytes, encoding: str) -> bytes:
    """The contents of a text file in UTF-8 without a byte-order mark.

    Raises:
        TableError: the bytes are not in this encoding (the message names their line), or a byte is NUL.
    """
    codec = codecs.lookup(encoding).name
    if codec == "utf-8":
        _check_utf8(path, content)
        text = content.removeprefix(codecs.BOM_UTF8)
    else:
        try:
            text = content.decode(encoding).removeprefix("\ufeff").encode()
        except UnicodeDecodeError as error:
            raise _wrong_encoding(path, content, error.start, codec) from error
        except UnicodeError as error:  # surrogates, which UTF-8 cannot hold
            raise TableError(
                f"{path} is not encoded as {codec}: set --data.encoding to the encoding of the file."
            ) from error
    nul = text.find(b"\0")
    if nul >= 0:
        raise TableError(
            f"{path}, line {_line_of_byte(text, nul)} contains a NUL byte, which text files cannot hold: write the "
            "file again."
        )
    return text


def _check_utf8(path: Path, content: bytes) -> None:
    for mark, name in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            raise TableError(f"{path} is encoded as {name}: set --data.encoding {name}, or save the file as UTF-8.")
    for first, name in ((0, "utf-16-be"), (1, "utf-16-le")):
        start = content[:1000]
        if len(start) >= 4 and not any(start[first::2]) and all(start[1 - first :: 2]):
            raise TableError(
                f"{path} seems to be encoded as {name}: set --data.encoding {name}, or save the file as UTF-8."
            )
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    try:
        for position in range(0, len(content), BLOCK_BYTES):
            pending = len(decoder.getstate()[0])
            decoder.decode(content[position : position + BLOCK_BYTES])
        pending, position = len(decoder.getstate()[0]), len(content)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, content, position - pending + error.start, "utf-8") from error


def _wrong_encoding(path: Path, content: bytes, position: int, codec: str) -> TableError:
    return TableError(
        f"{path}, line {_line_of_byte(content, position)}: byte 0x{content[position]:02x} is not valid {codec}: save "
        "the file as UTF-8, or set --data.encoding to its encoding, such as latin-1."
    )


def _line_of_byte(content: bytes, position: int) -> int:
    """The line of a byte, counted from 1."""
    return content.count(b"\n", 0, position) + 1


def _first_nonblank_line(content: bytes) -> str:
    line = re.search(rb"[^\r\n]+", content)
    return line[0].decode() if line else ""


def detect_delimiter(header: str) -> str:
    r"""The delimiter of a header: the most frequent candidate outside quotes.

    >>> detect_delimiter("a;b;c"), detect_delimiter("only")
    (';', ',')
    """
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=unquoted.count)


def _lines(content: bytes) -> Iterator[str]:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")


def _read_header(path: Path, content: bytes, delimiter: str) -> tuple[list[str], int]:
    """The names as they are written, and the number of bytes of the header and of the blank lines before it."""
    num_bytes = 0

    def count_bytes() -> Iterator[str]:
        nonlocal num_bytes
        for line in _lines(content):
            num_bytes += len(line.encode())
            yield line

    try:
        names = next(filter(None, csv.reader(count_bytes(), delimiter=delimiter, strict=True)), [])
    except csv.Error as error:
        raise TableError(
            f"{path}, line 1: the header cannot be parsed ({first_line(error)}): fix it, and close every quotation "
            "mark."
        ) from error
    return names, num_bytes


@dataclass(frozen=True, kw_only=True)
class _Parser:
    """Parses one text file with pyarrow and explains what pyarrow refuses.

    Attributes:
        path: the file, for messages.
        content: the text in UTF-8.
        written: the column names as they are in the file.
        names: the column names without outer blanks.
        delimiter: the character between values.
        options: how text becomes columns.
    """

    path: Path
    content: bytes
    written: list[str]
    names: list[str]
    delimiter: str
    options: TextOptions

    def parse(self) -> pa.Table:
        """The table; target and ids are parsed again if they have a word that means missing in other columns."""
        further = self.options.missing
        table = self._parse_columns((*MISSING, *further)).rename_columns(self.names)
        if self.content.count(b'"') % 2:
            self._check_last_value(table)
        for name, missing in ((self.options.target, (*MISSING_IN_TARGET, *further)), (self.options.ids, ())):
            if name in self.names and table[name].null_count:
                position = self.names.index(name)
                parsed_again = self._parse_columns(missing, [self.written[position]])
                table = table.set_column(position, name, parsed_again.column(0))
        return table

    def _parse_columns(self, missing: tuple[str, ...], only: list[str] | None = None) -> pa.Table:
        failure: Exception
        block = max(BLOCK_BYTES, 16 * len(",".join(self.written)))
        # pyarrow names the row of a failure only without threads, and accepts a value as long as the file only in a
        # single block.
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
        raise self._explain(str(failure)) from failure

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
        """Refuse a quotation mark that is never closed: pyarrow reads the rest of the file as its value."""
        value = table.column(-1)[-1].as_py()
        if isinstance(value, str) and re.search(r"[\r\n]", value):
            raise TableError(
                f"{self.path}, row {table.num_rows - 1} (counted from 0), column {quote(self.names[-1])}: the value "
                "runs to the end of the file: close its quotation mark."
            )

    def _explain(self, failure: str) -> TableError:
        """The error for a message of pyarrow."""
        ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", failure)
        if not ragged:
            return TableError(f"{self.path} cannot be parsed as a text table ({first_line(failure)}): fix the file.")
        row, expected, found = int(ragged[1]) - 2, int(ragged[2]), int(ragged[3])
        unclosed = "close the quotation mark that is left open, " if self.content.count(b'"') % 2 else ""
        return TableError(
            f"{self.path}, row {row} ({self._line_of_row(row, found)}) has {found} column{'s' * (found != 1)}, but "
            f"the header has {expected}: fix this row, {unclosed}put values that contain the delimiter in quotes, "
            "or set --data.delimiter."
        )

    def _line_of_row(self, row: int, num_columns: int) -> str:
        """The line of a ragged row, if Python's own reader finds the same row."""
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
