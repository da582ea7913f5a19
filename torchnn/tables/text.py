"""Text tables, read by pyarrow; what it would misread or mumble about is found first and said in one sentence."""

import codecs
import csv
import io
import lzma
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from torchnn.tables.faults import TableError, check_names, check_width

# What pandas and R write for a missing value, and "?" of the UCI repository.
MISSING = (
    *("", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "Null", "null", "None", "none"),
    *("NaT", "<NA>", "?", ".", "-", "1.#QNAN", "-1.#IND"),
)
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DELIMITERS = (",", ";", "\t", "|")
BLOCK = 1 << 22  # bytes that pyarrow converts at a time, at least: a row has to fit


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
    """

    delimiter: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ()
    time_format: str | None = None
    as_text: tuple[str, ...] = ()


def read_text(path: Path, options: TextOptions, max_columns: int) -> tuple[pa.Table, bool, bytes]:
    """A text table, whether each row stands on a line of its own, and the bytes of the file.

    Raises:
        TableError: one sentence that names the line and the column.
    """
    content = decoded(path, unpacked(path), options.encoding)
    if not content.strip():
        raise TableError(f"{path} is empty: give a table with a header and rows.")
    nul = content.find(b"\0")
    if nul >= 0:
        raise TableError(f"{path}, line {_line(content, nul)} holds a NUL byte, so is no text: write the file again.")
    header = _header(content)
    delimiter = options.delimiter or sniffed(header)
    names = next(csv.reader(io.StringIO(header), delimiter=delimiter))
    check_width(len(names), path, max_columns)
    check_names(names, path)
    table = _parsed(path, content, names, delimiter, options, len(header))
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    return table, lines == table.num_rows + 1, content


def unpacked(path: Path) -> bytes:
    """The bytes of a file, decompressed if it is compressed."""
    openers: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b": lambda packed: _arrow_unpacked(packed, "gzip"),
        b"BZh": lambda packed: _arrow_unpacked(packed, "bz2"),
        b"\x28\xb5\x2f\xfd": lambda packed: _arrow_unpacked(packed, "zstd"),
        b"\x04\x22\x4d\x18": lambda packed: _arrow_unpacked(packed, "lz4"),
        b"\xfd7zXZ": lzma.decompress,
    }
    if path.suffix.lower() in (".br", ".brotli"):
        openers[b""] = lambda packed: _arrow_unpacked(packed, "brotli")
    try:
        packed = path.read_bytes()
        for magic, unpack in openers.items():
            if packed and packed.startswith(magic):
                return unpack(packed)
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or "its compressed contents are broken"
        raise TableError(f"{path}: {reason}: give a file that can be read.") from error
    return packed


def _arrow_unpacked(packed: bytes, codec: str) -> bytes:
    unpacked: bytes = pa.CompressedInputStream(pa.BufferReader(packed), codec).read()
    return unpacked


def decoded(path: Path, content: bytes, encoding: str) -> bytes:
    """The contents in UTF-8 without a byte-order mark.

    Raises:
        TableError: bytes that the encoding does not have, with their line.
    """
    try:
        codec = codecs.lookup(encoding).name
    except LookupError as error:
        raise TableError(
            f"--data.encoding {encoding} is unknown: give one such as utf-8, latin-1 or utf-16."
        ) from error
    if codec == "utf-8":
        for mark, name in MARKS.items():
            if content.startswith(mark):
                raise TableError(f"{path} is encoded as {name}: give --data.encoding {name}, or save it as UTF-8.")
    try:
        if codec != "utf-8":
            return content.decode(encoding).removeprefix("\ufeff").encode()
        check = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(content), BLOCK):
            position = start
            check.decode(content[start : start + BLOCK])
        check.decode(b"", final=True)
    except UnicodeDecodeError as error:
        at = error.start + (position if codec == "utf-8" else 0)
        raise TableError(
            f"{path}, line {_line(content, at)}: byte 0x{error.object[error.start]:02x} is no {codec}: "
            "save the file as UTF-8, or give its --data.encoding, such as latin-1."
        ) from error
    return content.removeprefix(codecs.BOM_UTF8)


def _line(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def _header(content: bytes) -> str:
    """The first line that is not blank."""
    start = len(content) - len(content.lstrip(b"\r\n"))
    ends = [end for end in (content.find(b"\n", start), content.find(b"\r", start)) if end >= 0]
    return content[start : min(ends, default=len(content))].decode()


def sniffed(header: str) -> str:
    r"""The delimiter of a header: the most frequent candidate outside quotes.

    >>> sniffed("a;b;c"), sniffed("only")
    (';', ',')
    """
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=unquoted.count)


def _parsed(
    path: Path, content: bytes, names: list[str], delimiter: str, options: TextOptions, header_bytes: int
) -> pa.Table:
    parsers = [options.time_format] if options.time_format else []
    settings = {
        "parse_options": pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in content),
        "convert_options": pacsv.ConvertOptions(
            null_values=[*MISSING, *options.missing],
            strings_can_be_null=True,
            decimal_point=options.decimal,
            timestamp_parsers=[*parsers, pacsv.ISO8601],
            column_types={name: pa.string() for name in options.as_text if name in names},
        ),
    }
    block = max(BLOCK, 16 * header_bytes)
    failure: Exception
    for threads in (True, False):  # only without threads does pyarrow tell the line
        try:
            return pacsv.read_csv(
                pa.BufferReader(content),
                read_options=pacsv.ReadOptions(block_size=block, use_threads=threads),
                **settings,
            )
        except (pa.ArrowException, ValueError) as error:
            failure = error
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", str(failure))
    if ragged:
        line, expected, found = ragged.groups()
        raise TableError(
            f"{path}, row {int(line) - 2} (line {line}) has {found} columns where the header has {expected}: "
            "correct it, put values that hold the delimiter in quotes, or give --data.delimiter."
        )
    raise TableError(f"{path} cannot be read as text ({str(failure).splitlines()[0]}): correct it.")
